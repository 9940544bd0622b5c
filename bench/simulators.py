"""Simulated cycles per wall second of one design in three simulators: ours (Verilated, compiled harness), cocotb on
Verilator, and Amaranth's own.

The design is the lookup-only device of preset ``tiny``, out of reset and without traffic: the simulators' own speed, with no
test bench in the way. In our harness also the four-channel ``paper`` device, idle and while lookups stream.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nearflash.runtime as runtime
import numpy as np
from amaranth.sim import Simulator
from nearflash.contract import DeviceConfig, Opcode
from nearflash_hw.device import Device
from nearflash_sim.backend import TOP, build
from nearflash_sim.cocotb_run import run_bench
from nearflash_sim.verilated import VerilatedDevice

from .lookup import STREAMS, device_config, load
from .report import Rows, progress, show_rows

__all__ = ["measure"]

WINDOWS = 5


def verilated(config: DeviceConfig, cycles: int) -> float:
    """The fastest of ``WINDOWS`` windows of ``cycles``: whatever else the machine does only makes it slower."""
    with VerilatedDevice(build(config)) as device:
        device.step(1000)
        times = []
        for _ in range(WINDOWS):
            begin = time.perf_counter()
            device.step(cycles)
            times.append(time.perf_counter() - begin)
    return cycles / min(times)


def amaranth(config: DeviceConfig, cycles: int) -> float:
    sim = Simulator(Device(config))
    sim.add_clock(1e-6)
    spent = []

    async def pass_cycles(ctx):
        await ctx.tick()  # the first cycle compiles the design
        begin = time.perf_counter()
        await ctx.tick().repeat(cycles)
        spent.append(time.perf_counter() - begin)

    sim.add_testbench(pass_cycles)
    sim.run()
    return cycles / spent[0]


def under_cocotb(config: DeviceConfig, cycles: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rate"
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        sys.path.insert(0, str(Path(__file__).parent))  # the bench module is found by name
        try:
            run_bench(Device(config), TOP, "free_running", waves=False, sim="verilator",
                      env={"CYCLES": str(cycles), "OUT": str(out), "PYTHONPATH": path})
        finally:
            sys.path.pop(0)
        return float(out.read_text())


def streaming(config: DeviceConfig, commands: int) -> float:
    """Cycles per second while RMC1-shaped lookups keep the flash busy."""
    stream = next(s for s in STREAMS if s.name == "RMC1")
    rng = np.random.default_rng(0)
    with runtime.open("sim", config=config) as device:
        rows = load(device, stream, rng)
        bags = [(rng.integers(0, rows, stream.bag), np.zeros(1, np.int64)) for _ in range(stream.tables)]
        begin, first = time.perf_counter(), device.backend.cycles
        flying = [device._query(Opcode.LOOKUP, None, bags, None) for _ in range(config.host.infer_depth)]
        for _ in range(commands - len(flying)):
            device.result(flying.pop(0))
            flying.append(device._query(Opcode.LOOKUP, None, bags, None))
        for ticket in flying:
            device.result(ticket)
        return (device.backend.cycles - first) / (time.perf_counter() - begin)


def measure(quick: bool = False) -> Rows:
    tiny, paper = DeviceConfig.preset("tiny"), device_config(1)
    jobs = [
        ("compiled harness", "tiny, no traffic", lambda: verilated(tiny, 100_000)),
        ("cocotb on Verilator", "tiny, no traffic", lambda: under_cocotb(tiny, 20_000)),
        ("Amaranth's simulator", "tiny, no traffic", lambda: amaranth(tiny, 200)),
        ("compiled harness", "paper, 4 channels, no traffic", lambda: verilated(paper, 100_000)),
        ("compiled harness", "paper, 4 channels, lookups streaming", lambda: streaming(paper, 5 if quick else 8)),
    ]
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("simulators", total=len(jobs), note="")
        for simulator, design, job in jobs:
            bar.update(task, note=f"{simulator}: {design}")
            out.append({"simulator": simulator, "design": design, "cycles_per_second": job()})
            bar.advance(task)
    ours = out[0]["cycles_per_second"]
    for row in out[:3]:
        row["slower_than_ours_ratio"] = ours / row["cycles_per_second"]
    show_rows("Simulated cycles per wall second", (
        ("simulator", "simulator", ""), ("design", "design", ""), ("cycles_per_second", "cycles/s", ",.0f"),
        ("slower_than_ours_ratio", "times slower", ",.1f")), [{"slower_than_ours_ratio": None, **r} for r in out])
    return out
