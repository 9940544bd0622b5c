"""A cocotb bench that lets cycles pass and writes down how long that took; see :mod:`bench.simulators`."""

import os
import time
from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles
from nearflash_sim.bench.cocotb import start


@cocotb.test()
async def cycles_pass(dut):
    n = int(os.environ["CYCLES"])
    await start(dut)
    begin = time.perf_counter()
    await ClockCycles(dut.clk, n)
    Path(os.environ["OUT"]).write_text(str(n / (time.perf_counter() - begin)))
