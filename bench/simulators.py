"""Simulated cycles per wall second: one design in three simulators, and our own with its blocks gated and not.

The simulators' own speed: the lookup-only device of preset ``tiny``, out of reset and without traffic, with no test bench in
the way, in ours (Verilated, compiled harness, ungated), cocotb on Verilator, and Amaranth's. (A gated model of a device
without traffic passes it in one step.) Gating: devices that answer queries as `nearflash run` streams them. Both forms must
take the same cycles, or the bench fails.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from amaranth.sim import Simulator
from nearflash.cli.run import RunOptions, run_queries
from nearflash.contract import DeviceConfig
from nearflash_hw.device import Device
from nearflash_sim.backend import TOP, build
from nearflash_sim.cocotb_run import run_bench
from nearflash_sim.verilated import VerilatedDevice

from .report import Rows, console, progress, show_rows, silent

__all__ = ["measure"]

WINDOWS = 5
GATED = {  # what runs, and the queries of a measurement
    "default device (`make run`)": (RunOptions(queries=128, block_io=4), 32),
    "the same, four dies a channel": (RunOptions(queries=256, block_io=4, dies=4), 64),
    "RMC3, whose MLP is busy": (RunOptions(model="rmc3", queries=16, block_io=0), 8),
}


def verilated(config: DeviceConfig, cycles: int) -> float:
    """The fastest of ``WINDOWS`` windows of ``cycles``: whatever else the machine does only makes it slower."""
    with VerilatedDevice(build(config, gated=False)) as device:
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


def streaming(options: RunOptions, runs: int) -> dict[str, float]:
    """The fastest of ``runs`` runs of `nearflash run`: cycles per second, and the cycles it took."""
    found: list[dict[str, Any]] = []
    with silent():
        for _ in range(runs):
            found.append(run_queries(options))
            if found[-1]["mismatches"] or found[-1]["block_mismatches"]:
                raise RuntimeError(f"{options}: wrong answers")
    return {"cycles": found[0]["cycles"], "cycles_per_second": max(r["simulated_cycles_per_second"] for r in found)}


def gating(quick: bool, note: Callable[[str], None]) -> Rows:
    out: Rows = []
    for name, (options, queries) in GATED.items():
        row: dict[str, Any] = {"workload": name}
        note(f"{name}: speed")
        row["gated_cycles_per_second"] = streaming(options, 3)["cycles_per_second"]
        both = {}
        for gated in (True, False):
            note(f"{name}: {'gated' if gated else 'ungated'}, to compare")
            both[gated] = streaming(replace(options, queries=queries, gated=gated), 1 if quick else 2)
        if both[True]["cycles"] != both[False]["cycles"]:
            raise RuntimeError(f"{name}: {both[True]['cycles']} cycles gated, {both[False]['cycles']} ungated")
        row["cycles_count"] = both[True]["cycles"]
        row["ungated_cycles_per_second"] = both[False]["cycles_per_second"]
        row["speedup_ratio"] = row["gated_cycles_per_second"] / row["ungated_cycles_per_second"]
        out.append(row)
    return out


def measure(quick: bool = False) -> Rows:
    tiny = DeviceConfig.preset("tiny")
    jobs = [
        ("compiled harness", lambda: verilated(tiny, 100_000)),
        ("cocotb on Verilator", lambda: under_cocotb(tiny, 20_000)),
        ("Amaranth's simulator", lambda: amaranth(tiny, 200)),
    ]
    out: Rows = []
    with progress() as bar:
        task = bar.add_task("simulators", total=len(jobs), note="")
        for simulator, job in jobs:
            bar.update(task, note=simulator)
            out.append({"simulator": simulator, "cycles_per_second": job()})
            bar.advance(task)
    ours = out[0]["cycles_per_second"]
    for row in out:
        row["slower_than_ours_ratio"] = ours / row["cycles_per_second"]
    show_rows("Simulated cycles per wall second, tiny device without traffic", (
        ("simulator", "simulator", ""), ("cycles_per_second", "cycles/s", ",.0f"),
        ("slower_than_ours_ratio", "times slower", ",.1f")), out)
    gated = gating(quick, lambda text: console.print(f"[{text}]", style="dim"))
    show_rows("The compiled harness on devices at work, cycles per wall second", (
        ("workload", "workload", ""), ("gated_cycles_per_second", "gated", ",.0f"),
        ("ungated_cycles_per_second", "ungated", ",.0f"), ("speedup_ratio", "times faster", ",.1f"),
        ("cycles_count", "cycles compared", ",")), gated)
    return out + gated
