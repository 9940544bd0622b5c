"""Devices with an MLP, each compiled once for all tests of a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import BusConfig, DeviceConfig
from nearflash.models import ModelSpec, TableShape

from .device import small_config

__all__ = ["CASES", "Case", "configured"]


@dataclass(frozen=True)
class Case:
    """A model and how it is put on a device; ``mlp``: fields of MlpConfig set afterwards; ``flash``: channels, and dies of
    each; ``t_erase_ns`` and ``bus``: other than the preset's."""

    spec: ModelSpec
    plan: PlanOptions
    mlp: dict = field(default_factory=dict, hash=False)
    flash: tuple[int, int] = (2, 2)
    t_erase_ns: int | None = None
    bus: BusConfig = field(default_factory=BusConfig)


MIXED = (TableShape(40, 8, 6), TableShape(90, 12, 3, "mean", "fp16"), TableShape(33, 4, 2, "sum", "int8"))
EQUAL = (TableShape(40, 8, 6), TableShape(90, 8, 3, "mean", "fp16"), TableShape(33, 8, 2, "sum", "int8"))
USERS, ITEMS = TableShape(40, 12), TableShape(50, 12)

#: Widths that no kernel divides; 8- and 16-bit activations and weights; weights on chip, in DRAM and both; groups of 1 to 4
#: samples; decomposed and composed or not; one and two input buffers; a bus of fewer bits and shorter bursts; erases as long
#: as those of real dies.
CASES = {
    "cat": Case(ModelSpec("cat", MIXED, 5, (17, 9), (21, 7, 3)), PlanOptions(min_mlp_cycles=24)),
    "dot16": Case(ModelSpec("dot", EQUAL, 7, (11, 8), (13, 2), "dot"),
                  PlanOptions(weight_bits=16, act_bits=16, min_mlp_cycles=40, decomposition=False)),
    "neumf-dram": Case(ModelSpec("neumf", (USERS, ITEMS, USERS, ITEMS), 0, (19, 10), (9, 1), "neumf"),
                       PlanOptions(min_mlp_cycles=32, onchip_bytes=0, composition=False),
                       bus=BusConfig(address_bits=32, max_burst=16, id_bits=6)),
    "wide-groups": Case(ModelSpec("wide", (TableShape(40, 4, 2),) * 7, 30, (), (18, 5)),
                        PlanOptions(min_mlp_cycles=32, onchip_bytes=200), {"n_batch": 4}, (4, 1), t_erase_ns=2_000_000),
    "serial-groups": Case(ModelSpec("serial", MIXED, 6, (9,), (10, 1)),
                          PlanOptions(min_mlp_cycles=64, composition=False, decomposition=False),
                          {"n_batch": 2, "buffered": 1}, (1, 1)),
}


@cache
def configured(name: str) -> DeviceConfig:
    case = CASES[name]
    config = compile_device(case.spec, small_config(name, *case.flash), case.plan)
    mlp = replace(config.mlp, **case.mlp)
    if case.t_erase_ns is not None:
        config = replace(config, flash=replace(config.flash, t_erase_ns=case.t_erase_ns))
    return replace(config, mlp=mlp, bus=case.bus, lookup=replace(config.lookup, sample_slots=max(4, 2 * mlp.n_batch)))
