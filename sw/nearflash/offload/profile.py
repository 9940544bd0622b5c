"""Where a network's cycles go on a device, operator by operator."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from ..contract.errors import ModelError
from ..contract.tensor import ALIGN, DESCRIPTOR_BYTES, Descriptor, Op, pack_program
from .bounds import bound_cycles, macs, moved_bytes
from .fabric import DeviceFabric
from .module import OffloadedModule

__all__ = ["Measured", "profile"]


@dataclass(frozen=True)
class Measured:
    """An operator: ``name`` of its graph node, ``module`` it was called in, ``kind`` (CONV, ADD ...), the ``cycles`` it took
    and ``bound`` on them; every operand counted once in ``read_bytes`` and ``written_bytes``."""

    name: str
    module: str
    kind: str
    cycles: int
    bound: int
    macs: int
    read_bytes: int
    written_bytes: int


def profile(module: OffloadedModule, *inputs: torch.Tensor) -> list[Measured]:
    """Cycles of every operator for inputs of these shapes, [1, ...] each, in the order of execution.

    A program runs without saying when it is where. So each descriptor is run once and then twice in a row, in programs of
    its own behind those of ``module``; the second takes as much longer as it takes in the middle of a program. That is as
    precise as the back end's sense of time: a cycle or so simulated, a polling interval on a board.

    Raises:
        ModelError: a fabric that is no device, or a region without room for those programs (448 bytes).
        CommandError, DeviceTimeout: of the device.
    """
    fabric = module.fabric
    if not isinstance(fabric, DeviceFabric):
        raise ModelError("fabric", type(fabric).__name__, "must be a device: the integer model has no cycles")
    module(*inputs)  # loads the programs, and puts their weights where the descriptors look for them
    programs = module.compiled(*inputs).programs
    spare = max(p.end for p in programs)
    scratch = spare + 3 * DESCRIPTOR_BYTES
    if scratch + ALIGN > fabric.config.tensor.dram_bytes:
        raise ModelError("tensor.dram_bytes", fabric.config.tensor.dram_bytes, f"must be at least {scratch + ALIGN}")

    def run(d: Descriptor, times: int) -> int:
        header = Descriptor(Op.PROGRAM, x=scratch, y=scratch, input_bytes=ALIGN, output_bytes=ALIGN)
        fabric.load(spare, pack_program(header, [copy.copy(d) for _ in range(times)]))
        begun = fabric.device.backend.cycles
        fabric.run(spare, bytes(ALIGN))
        return fabric.device.backend.cycles - begun

    found = []
    for p in programs:
        for o, d in zip(p.operators, p.descriptors, strict=True):
            cycles = run(d, 2) - run(d, 1)
            found.append(Measured(o.name, o.module, Op(d["op"]).name, cycles, bound_cycles(d, fabric.config), macs(d),
                                  *moved_bytes(d, fabric.config)))
    return found
