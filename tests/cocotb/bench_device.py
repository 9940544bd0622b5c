"""Lookups and blocks of a device as its host sees them, all three buses at cocotbext-axi: LOOKUPs equal
torch.nn.EmbeddingBag bit for bit."""

import random

import cocotb
from device_checks import lookup_program, run_device
from tops import device, with_model
from verbs import PATTERNS

CONFIG = with_model()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS[::2], outputs=PATTERNS[:2])
async def store_and_look_up(dut, inputs, outputs):
    await run_device(dut, device(), CONFIG, inputs, outputs, lookup_program(CONFIG, random.Random(f"{inputs}{outputs}")))
