"""Embedding tables: row formats, layout on flash, and the descriptor TABLE_CREATE takes.

Row formats (bytes of one row of ``dim`` elements, little-endian)::

  FP32  dim x float32
  FP16  dim x float16
  INT8  dim x uint8, then float32 scale, then float32 bias: value = scale * q + bias (FBGEMM's row-wise layout)

On flash, row r lies in the table's page ``r // rows_per_page`` at byte ``(r % rows_per_page) * stride``, where stride is
the row's size rounded up to whole beats, so no row crosses a page and every column address is a beat. The table's
pages are numbered through its extents in order; consecutive pages were striped over channels and dies by the FTL. A page
holds fewer rows than fit where that spreads the table evenly over all dies: a small, hot table must not sit on one die.

Pooling works in a fixed-point window of ``acc_bits`` bits whose least significant bit weighs 2**lsb_exp
(:mod:`nearflash.reference.pooling` defines every bit).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from .config import FORMATS, MODES, DeviceConfig
from .errors import DataError

__all__ = ["DESCRIPTOR_WORDS", "Extent", "PoolMode", "RowFormat", "TableSpec", "magic_divide"]

DESCRIPTOR_WORDS = 80
EXTENT_WORD = 16  # descriptor word where the extents start
MAX_ROW_BITS = 31
MAGIC_BITS = 32


class RowFormat(enum.IntEnum):
    """Numbers of :data:`~nearflash.contract.config.FORMATS`."""

    FP32 = 0
    FP16 = 1
    INT8 = 2

    def row_bytes(self, dim: int) -> int:
        return {0: 4 * dim, 1: 2 * dim, 2: dim + 8}[int(self)]


class PoolMode(enum.IntEnum):
    """Numbers of :data:`~nearflash.contract.config.MODES`."""

    SUM = 0
    MEAN = 1


@dataclass(frozen=True)
class Extent:
    """``pages`` consecutive logical blocks from ``lba`` that hold the table's pages from ``first_page`` on."""

    first_page: int
    lba: int
    pages: int


def magic_divide(divisor: int) -> tuple[int, int]:
    """(magic, shift) such that ``(n * magic) >> shift == n // divisor`` for every 0 <= n < 2**31; magic < 2**32.

    Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
    """
    if divisor < 1:
        raise DataError("divisor", divisor, "must be at least 1")
    log = (divisor - 1).bit_length()
    shift = MAX_ROW_BITS + log
    magic = -(-(1 << shift) // divisor)
    assert magic < 1 << MAGIC_BITS
    return magic, shift


@dataclass(frozen=True)
class TableSpec:
    """A table as the device knows it. :meth:`validate` raises :class:`DataError`, and :class:`ConfigError` for a device
    without a lookup engine."""

    rows: int
    dim: int
    format: RowFormat = RowFormat.FP32
    mode: PoolMode = PoolMode.SUM
    lsb_exp: int = -30  #: weight of the window's least significant bit, 2**lsb_exp
    #: log2 of the largest bag: a bag holds at most 2**headroom lookups, an element (times its weight) must be below
    #: 2**(acc_bits - 1 - headroom) window units, so no order of additions overflows
    headroom: int = 12
    quant_mult: int = 0  #: fp32 -> activation: q = clamp(RNE(x * quant_mult * 2**-quant_shift))
    quant_shift: int = 0
    extents: tuple[Extent, ...] = ()
    page_rows: int = 0  #: rows in each page; 0: chosen so that the table spreads evenly over all dies

    def stride_beats(self, config: DeviceConfig) -> int:
        return -(-self.format.row_bytes(self.dim) // config.beat_bytes)

    def rows_per_page(self, config: DeviceConfig) -> int:
        """``page_rows``; if 0, what fits, or fewer so that the pages fill whole stripes over channels x dies."""
        if self.page_rows:
            return self.page_rows
        fit = config.page_beats // self.stride_beats(config)
        stripe = config.flash.channels * config.flash.channel_planes
        pages = -(-self.rows // fit)
        return -(-self.rows // (-(-pages // stripe) * stripe))

    def pages(self, config: DeviceConfig) -> int:
        return -(-self.rows // self.rows_per_page(config))

    def validate(self, config: DeviceConfig) -> None:
        config.require_lookup()
        lk = config.lookup
        if not 1 <= self.rows < 1 << MAX_ROW_BITS:
            raise DataError("table.rows", self.rows, "must be from 1 to 2**31 - 1")
        if self.dim < 1 or self.dim > lk.max_dim or self.dim % 4:
            raise DataError("table.dim", self.dim, f"must be a multiple of 4, at most lookup.max_dim ({lk.max_dim})")
        if self.format.row_bytes(self.dim) > config.flash.page_bytes:
            raise DataError("table.dim", self.dim, "a row must fit one flash page")
        if FORMATS[self.format] not in lk.formats:
            raise DataError("table.format", FORMATS[self.format],
                            f"must be one that the device was generated for: lookup.formats = {', '.join(lk.formats)}")
        if MODES[self.mode] not in lk.modes:
            raise DataError("table.mode", MODES[self.mode],
                            f"must be one that the device was generated for: lookup.modes = {', '.join(lk.modes)}")
        fit = config.page_beats // self.stride_beats(config)
        if not 0 <= self.page_rows <= fit:
            raise DataError("table.page_rows", self.page_rows, f"must be from 0 (chosen) to what fits a page ({fit})")
        if not -250 <= self.lsb_exp <= 127:
            raise DataError("table.lsb_exp", self.lsb_exp, "must be from -250 to 127")
        if not 0 <= self.headroom <= 16:
            raise DataError("table.headroom", self.headroom, "must be from 0 to 16")
        if not 0 <= self.quant_mult < 1 << 16:
            raise DataError("table.quant_mult", self.quant_mult, "must be from 0 to 65535")
        if not -128 <= self.quant_shift <= 127:
            raise DataError("table.quant_shift", self.quant_shift, "must be from -128 to 127")
        if not 1 <= len(self.extents) <= lk.max_extents:
            raise DataError("table.extents", len(self.extents), f"must be 1 to lookup.max_extents ({lk.max_extents})")
        page = 0
        for e in self.extents:
            if e.first_page != page or e.pages < 1:
                raise DataError("table.extents", e, f"must start at table page {page} and hold at least one page")
            if e.lba < 0 or e.lba + e.pages > config.lbas:
                raise DataError("table.extents", e, f"must lie within the device's {config.lbas} logical blocks")
            page += e.pages
        if page < self.pages(config):
            raise DataError("table.extents", page, f"must hold all of the table's {self.pages(config)} pages")

    def descriptor(self, config: DeviceConfig) -> bytes:
        """DESCRIPTOR_WORDS little-endian 32-bit words.

        0 rows, 1 dim, 2 format | mode << 8, 3 stride in beats, 4 rows per page, 5 magic, 6 shift (magic_divide of rows
        per page), 7 lsb_exp, 8 quant_mult, 9 quant_shift (signed), 10 number of extents,
        11 headroom, then from word 16 four words
        per extent: first page, lba, pages, 0.
        """
        w = np.zeros(DESCRIPTOR_WORDS, np.int64)
        magic, shift = magic_divide(self.rows_per_page(config))
        w[:12] = (self.rows, self.dim, int(self.format) | int(self.mode) << 8, self.stride_beats(config),
                  self.rows_per_page(config), magic, shift, self.lsb_exp, self.quant_mult, self.quant_shift,
                  len(self.extents), self.headroom)
        for i, e in enumerate(self.extents):
            w[EXTENT_WORD + 4 * i : EXTENT_WORD + 4 * i + 3] = (e.first_page, e.lba, e.pages)
        return (w & 0xFFFFFFFF).astype("<u4").tobytes()
