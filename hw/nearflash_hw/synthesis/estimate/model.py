"""Resources of a unit from its RTLIL, without synthesising it.

Block RAM and UltraRAM follow from the memories (:mod:`.memory`), DSP slices from the multipliers; look-up tables and flip-
flops are sums over what the unit holds (:mod:`.features`) with coefficients for each family, times a factor for each kind of
unit. Coefficients and factors are least-squares fits to syntheses (``python -m bench.calibrate``), kept in ``<family>.json``
with the tool's version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

from nearflash.contract import DeviceConfig
from nearflash.contract.resources import Resources

from ..netlist import Unit
from .features import LOGIC, Features, features_of
from .memory import map_memory

__all__ = ["FF_TERMS", "LUT_TERMS", "estimate_features", "estimate_unit", "estimate_units", "exact_part", "ff_terms",
           "kind_of", "lut_terms"]

LUT_TERMS = (*LOGIC, "memory_mux", "unit")
FF_TERMS = ("ff", "memory_ff", "dsp_operands", "slice_ff")
#: Multiplier operands, signed, that a slice takes: DSP48E1 and DSP48E2. What is wider is split in pieces of one bit less.
DSP_OPERANDS = {"xc7": (25, 18), "xcup": (27, 18)}


def kind_of(path: str, config: DeviceConfig | None = None) -> str:
    """A unit's path without numbers and node names: what shares a factor. A channel of ``config`` that has planes or a page
    window is of a kind of its own."""
    last = re.sub(r"\$\d+$", "", path.split(".")[-1])
    room = path.split(".")[0] + "." if "." in path else ""
    kind = room + re.sub(r"\d+$", "", last.split("_")[0] if room == "mlp." and not last.endswith("_input") else last)
    if kind == "channel" and config is not None:
        kind += "+planes" * (config.flash.planes > 1) + "+window" * (config.lookup.page_window > 0)
    return kind


def exact_part(features: Features, family: str) -> Resources:
    """Memories and DSP slices; of LUTs and flip-flops, those of the memories, and the LUTs of products without slices."""
    total = sum((map_memory(m, family) for m in features.memories), Resources())
    slices = sum(_slices(a, b, signed, family) for a, b, signed in features.multipliers)
    return total + Resources(lut=features.chain_bits, dsp=features.slices + slices)


def _slices(a: int, b: int, signed: bool, family: str) -> int:
    wide, narrow = sorted((a + (not signed), b + (not signed)), reverse=True)
    most_wide, most_narrow = DSP_OPERANDS[family]
    return _pieces(wide, most_wide) * _pieces(narrow, most_narrow)


def _pieces(bits: int, most: int) -> int:
    return 1 if bits <= most else ceil(bits / (most - 1))


def lut_terms(features: Features, exact: Resources) -> list[float]:
    """Values of :data:`LUT_TERMS`, whose weighted sum is the LUTs beside those of memories."""
    deep = sum(m.width * (ceil(m.depth / 64) - 1) for m in features.memories if m.depth <= 512) if exact.lutram else 0
    return [*(float(features.bits[k]) for k in LOGIC), float(deep), 1.0]


def ff_terms(features: Features, exact: Resources) -> list[float]:
    """Values of :data:`FF_TERMS`: registers of the design, those behind distributed memories, operands of multipliers (whose
    registers DSP slices may hold), and registers of pipelines that are made for slices."""
    return [float(features.bits["ff"]), exact.ff, float(features.operand_bits), float(features.bits["slice_ff"])]


@lru_cache
def _coefficients(family: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / f"{family}.json").read_text())


@lru_cache(maxsize=4096)
def estimate_unit(kind: str, rtlil: str, family: str) -> Resources:
    """Resources of one unit of ``kind`` (:func:`kind_of`)."""
    return estimate_features(kind, features_of(rtlil), family)


def estimate_features(kind: str, features: Features, family: str) -> Resources:
    """Resources of one unit of ``kind`` from what it holds."""
    fitted = _coefficients(family)
    exact = exact_part(features, family)
    factor = fitted["factors"].get(kind, {"lut": 1.0, "ff": 1.0})
    lut = factor["lut"] * sum(c * v for c, v in zip(fitted["lut"], lut_terms(features, exact), strict=True))
    ff = factor["ff"] * sum(c * v for c, v in zip(fitted["ff"], ff_terms(features, exact), strict=True))
    return Resources(round(lut + exact.lut), exact.lutram, max(0, round(ff)), exact.bram18, exact.uram, exact.dsp)


def estimate_units(found: Iterable[Unit], family: str) -> dict[str, Resources]:
    """Resources by unit's path."""
    return {u.path: estimate_unit(kind_of(u.path), u.rtlil, family) for u in found}
