"""The gated model of a board's fabric against the ungated one, cycle by cycle, through resets in the middle of bursts."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from device_bench import TIMEOUT, Recorded, assert_one_device
from nearflash.board.random_model import random_model, random_queries
from nearflash.contract import Opcode
from nearflash.contract.boards import find_board
from nearflash.contract.shell import BLOCK_BYTES, INTC_REGISTERS, shell_registers
from nearflash.overlays import design_config
from nearflash.reference.model import IntegerModel
from nearflash.runtime import Device, HostAllocator
from nearflash_sim.backend import HOST_BASE
from nearflash_sim.board.board import build_fabric
from nearflash_sim.verilated import VerilatedDevice

BOARD = find_board("pynq-z2")
CONFIG = design_config("movietweetings", BOARD)  # whose gated fabric the virtual board's tests have compiled
AT = {r.name: BLOCK_BYTES + r.offset for r in INTC_REGISTERS}
AT |= {r.name: 2 * BLOCK_BYTES + r.offset for r in shell_registers(CONFIG)}
LIVES = 8
POLLS = 2000  # of the shell's status, until what is under way has ended


class Shelled(Recorded):
    """Registers at the processing system's window, the interrupt through its controller, reset through the shell. Both of
    the fabric's memory ports lead to one memory."""

    dram_base = 1 << 31

    def __init__(self, *, gated: bool):
        self.config, self.log, self._sizes = CONFIG, [], {}
        self.under_way = 0  # bits of the status, at a reset
        self.device = VerilatedDevice(build_fabric(CONFIG, BOARD, gated=gated))
        self.device.reset()
        self._allocator = HostAllocator(HOST_BASE, 1 << 24)
        self.mmio_write32(AT["MER"], 3)
        self.mmio_write32(AT["IER"], 1)

    def mmio_read32(self, offset: int) -> int:
        value = self.device.read_register(BOARD.ps.window + offset)
        self.note("read", offset, value)
        return value

    def mmio_write32(self, offset: int, value: int) -> None:
        self.device.write_register(BOARD.ps.window + offset, value)
        self.note("write", offset, value)

    def wait_irq(self, timeout: int) -> bool:
        self.mmio_write32(AT["IAR"], 1)  # the controller keeps one that is over
        return super().wait_irq(timeout)

    def note_memories(self) -> None:
        super().note_memories()
        self.note("dram", hashlib.sha256(self.dram_read(0, CONFIG.layout.end)).hexdigest())

    def reset(self) -> None:
        self.mmio_write32(AT["reset"], 1)
        status = self.mmio_read32(AT["status"])
        self.under_way |= status & 0b110
        for _ in range(POLLS):
            if status & 1:
                break
            status = self.mmio_read32(AT["status"])
        assert status == 1
        self.mmio_write32(AT["reset"], 0)


def traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """Inference and block I/O on memories of random timing, and a reset with all of it under way, life after life."""
    rng = np.random.default_rng(seed)
    model = random_model(CONFIG, seed=seed)
    reference, spec = IntegerModel(model), {t: (s, None) for t, s in enumerate(model.tables)}
    backend = Shelled(gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        device.load(model)
        for life in range(LIVES):
            backend.random_timing(rng, (0.0, 0.2)[life % 2], life + 1)
            queries = random_queries(model, 3, seed=life)
            ticket = device.submit(*queries)
            lba, page = device.config.lbas - 1 - life, rng.bytes(device.config.lba_bytes)
            device.write(lba, page)
            assert device.read(lba) == page
            assert device.result(ticket).tobytes() == reference.logits(*queries)[1].astype(np.float32).tobytes()
            backend.note("counters", tuple(device.counters().items()))
            backend.idle(int(rng.integers(1, 20_000)))
            device.submit(*queries)
            for opcode in (Opcode.WRITE, Opcode.READ):
                b = device.driver.buffer(rng.bytes(2 * device.config.lba_bytes))
                device._block_command(opcode, b, device.config.lbas - 60 + 2 * life, 2)
            backend.idle(int(rng.integers(1, 3000)))
            device.subsystem_reset()
            device.create_tables(spec)  # stored data outlive a reset; what is open, and the program, does not
            device.load_program(model.image)
            backend.snapshot()
    assert backend.under_way == 0b110  # a burst to each memory at some reset, else this shows little
    return backend.log


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [0, 1])
def test_gated_and_ungated_fabrics_are_one_through_resets(seed):
    assert_one_device(traffic, seed)
