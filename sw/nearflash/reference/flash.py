"""Behavioural model of the NAND array: contents, rules and closed-form timing, no cycles.

>>> from nearflash.contract import DeviceConfig
>>> config = DeviceConfig.preset("tiny")
>>> nand = NandArray(config)
>>> nand.erase(0)
True
>>> nand.program(0, bytes(config.flash.page_bytes + config.flash.oob_bytes))
True
>>> nand.read(0, column=0, beats=1), nand.read(nand.ppn(page=1), column=0, beats=1)
(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00', b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff')

Rules: a block must be erased once before its first program, its pages are programmed in order from page 0, each once
per erase. A page that was not programmed since its block's erase reads as FFh, page and OOB area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..contract import DeviceConfig, onflash

__all__ = ["Block", "NandArray", "page_bus_cycles", "read_cycles"]


def page_bus_cycles(config: DeviceConfig, beats: int) -> int:
    """Cycles the channel bus moves ``beats``: the rate of the configuration, at most one beat per cycle."""
    return max(beats, config.bus_cycles(beats * config.beat_bytes))


def read_cycles(config: DeviceConfig, nbytes: int) -> int:
    """C_EV of RM-SSD (HPCA 2022) on an idle die and channel: command phase, tR, and the bus time of ``nbytes``.

    For the paper's parameters this is ceil((60 x nbytes / page + 140) x 20).
    """
    return config.t_command + config.t_read + page_bus_cycles(config, nbytes // config.beat_bytes)


@dataclass
class Block:
    """State of one block; pages at or after ``next_page`` are blank."""

    next_page: int = 0
    erased: bool = False
    erase_count: int = 0


class NandArray:
    """All dies of a device. Operations take a PPN, {block, page, die, channel} with the channel in the low bits; planes are
    numbered as dies."""

    def __init__(self, config: DeviceConfig):
        self.config = config
        f = config.flash
        self.blocks = [Block() for _ in range(f.blocks * f.dies * f.channels)]  # in DRAM order: block, die, channel
        self._raw: dict[int, bytes] = {}  # by PPN: page then OOB; bytes of an erased block stay, as in the device

    # -- addresses ------------------------------------------------------------------------------------------------
    def ppn(self, block: int = 0, page: int = 0, die: int = 0, channel: int = 0) -> int:
        f = self.config.flash
        return ((block * f.pages + page) * f.channel_planes + die) * f.channels + channel

    def address(self, ppn: int) -> tuple[int, int, int, int]:
        """(block, page, die, channel) of a PPN."""
        f = self.config.flash
        if not 0 <= ppn < f.total_pages:
            raise IndexError(f"ppn = {ppn}: must be from 0 to {f.total_pages - 1}")
        ppn, channel = divmod(ppn, f.channels)
        ppn, die = divmod(ppn, f.channel_planes)
        block, page = divmod(ppn, f.pages)
        return block, page, die, channel

    def block(self, ppn: int) -> Block:
        """State of the block that holds ``ppn``."""
        f = self.config.flash
        block, _, die, channel = self.address(ppn)
        return self.blocks[(block * f.channel_planes + die) * f.channels + channel]

    # -- operations -----------------------------------------------------------------------------------------------
    def read(self, ppn: int, column: int = 0, beats: int | None = None) -> bytes:
        """``beats`` beats from beat ``column`` of page plus OOB; the whole raw page by default."""
        c = self.config
        beats = c.raw_page_beats - column if beats is None else beats
        if column < 0 or beats < 1 or column + beats > c.raw_page_beats:
            raise IndexError(f"column = {column}, beats = {beats}: must lie within {c.raw_page_beats} beats")
        if self.address(ppn)[1] >= self.block(ppn).next_page:
            return b"\xff" * (beats * c.beat_bytes)
        return self._raw[ppn][column * c.beat_bytes : (column + beats) * c.beat_bytes]

    def program(self, ppn: int, raw: bytes) -> bool:
        """Program page plus OOB; False, with nothing written, when a rule is broken."""
        f = self.config.flash
        if len(raw) != f.page_bytes + f.oob_bytes:
            raise ValueError(f"{len(raw)} bytes: a raw page has {f.page_bytes + f.oob_bytes}")
        block = self.block(ppn)
        if not block.erased or self.address(ppn)[1] != block.next_page:
            return False
        self._raw[ppn] = bytes(raw)
        block.next_page += 1
        return True

    def erase(self, ppn: int) -> bool:
        """Erase the block that holds ``ppn``. Always True: the model has no media faults."""
        block = self.block(ppn)
        block.next_page, block.erased = 0, True
        block.erase_count += 1
        return True

    # -- the device's DRAM ----------------------------------------------------------------------------------------
    def dram(self) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of everything that is not zero in the device's DRAM (:mod:`nearflash.contract.onflash`)."""
        f, layout = self.config.flash, self.config.layout
        for ppn, raw in self._raw.items():
            yield layout.flash + ppn * f.page_bytes, raw[: f.page_bytes]
            yield layout.oob + ppn * f.oob_bytes, raw[f.page_bytes :]
        for i, b in enumerate(self.blocks):
            if b.erased:
                yield layout.block_state + i * 8, onflash.block_state(b.next_page, b.erased, b.erase_count)
