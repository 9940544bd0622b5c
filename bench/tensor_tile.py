"""A tile of `base` through the Verilated tensor engine, against the integer model, and where its cycles go.

``python -m bench tensor_tile`` (``--quick``: 64 x 64 pixels): the network whole, a command for every program, on an engine
of 128 multipliers and beats of 8 bytes (XC7Z020), alone on a memory of 30 cycles' latency. The whole tensor region
afterwards, and the despeckled image, must be the integer model's. Cycles are compared with the bound of docs/offload.md,
descriptor by descriptor: max(MACs / array, bytes read / beat, bytes written / beat), every operand counted once; and with
what `nearflash fit --sar` predicts. ``python -m bench.tensor_tile --plan F``: the engine of a plan.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nearflash.contract import DataError, DeviceConfig, TensorConfig
from nearflash.contract.tensor import Descriptor, Op
from nearflash.figures import save_figure
from nearflash.offload import Calibration, OffloadedModule
from nearflash.offload.bounds import bound_cycles, macs
from nearflash.offload.cycles import Timing, descriptor_cycles
from nearflash.offload.roofline import Work, draw_roofline
from nearflash.reference.tensor import TensorModel
from nearflash.sar.fabric import calibration_file
from nearflash.sar.network import WEIGHTS, load
from nearflash.sar.speckle import speckled

from .report import console, finish, progress, show_rows
from .tensor_engine import DRAM_LATENCY, FIELDS, EngineFabric

__all__ = ["CONFIG", "main", "measure", "plot", "read_rows"]

CONFIG = replace(DeviceConfig.preset("tiny"), name="tensor-tile", tensor=TensorConfig(
    rows=8, columns=16, pixels=64, lanes=8, depthwise=16, max_keys=256, dram_bytes=1 << 25))
MAX_CYCLES = 60_000_000
COLUMNS = (("operator", "operator", ""), ("descriptors_count", "n", ",d"), ("macs_count", "MACs", ",d"),
           ("cycles", "cycles", ",d"), ("predicted_cycles", "predicted", ",d"), ("bound_cycles", "bound", ",d"),
           ("share_percent", "% of bound", ".1f"),
           ("begin_cycles", "begin", ",d"), ("array_cycles", "array", ",d"),
           ("weights_wait_cycles", "no weights", ",d"), ("sums_wait_cycles", "no room", ",d"),
           ("other_cycles", "other", ",d"))


@dataclass
class Row:
    """What descriptors of a kind took: ``cycles`` = ``begin_cycles`` (read, checked, planned) + ``array_cycles`` + those in
    which a pixel waited for its weights or for room for its sums + ``other_cycles`` (no pixel there: input, drain, and
    operators without the array)."""

    operator: str
    descriptors_count: int = 0
    macs_count: int = 0
    cycles: int = 0
    predicted_cycles: int = 0
    bound_cycles: int = 0
    begin_cycles: int = 0
    array_cycles: int = 0
    weights_wait_cycles: int = 0
    sums_wait_cycles: int = 0
    other_cycles: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def share_percent(self) -> float:
        return 100 * self.bound_cycles / self.cycles

    def __iadd__(self, other: Row) -> Row:
        for f in fields(self):
            if f.name != "operator":
                setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))
        return self


def kind(d: Descriptor) -> str:
    if d["op"] != Op.CONV:
        return Op(d["op"]).name.lower()
    size = f"{d['kernel_h']}x{d['kernel_w']}"
    return f"{'linear' if size == '1x1' else f'conv {size}'}, {'of 64 or more' if d['in_channels'] >= 64 else 'of fewer'}"


def row(d: Descriptor, found: dict[str, int], config: DeviceConfig) -> Row:
    cycles, begin = found["end"] - found["begin"], found["start"] - found["begin"]
    array = found["steps"] + found["unfed"] + found["full"]
    beat = config.beat_bytes
    predicted = descriptor_cycles(d, Timing(config.tensor, beat, DRAM_LATENCY))
    return Row(kind(d), 1, macs(d), cycles, round(predicted), bound_cycles(d, config), begin, found["steps"], found["unfed"],
               found["full"], cycles - begin - array, found["reads"] * beat, found["writes"] * beat)


def scene(side: int) -> np.ndarray:
    """Amplitudes of fields, a road and targets under single-look speckle."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:side, :side] / side
    image = 0.25 + 0.2 * np.floor(4 * x) % 2 + 0.15 * np.sin(9 * y + 4 * x) ** 2
    image[np.abs(x - y - 0.2) < 0.03] = 0.05
    image[rng.random((side, side)) < 0.002] = 3
    return np.sqrt(speckled(image**2, 1.0, rng)).astype(np.float32)


def measure(quick: bool, config: DeviceConfig = CONFIG) -> list[dict[str, Any]]:
    """The tile on the tensor engine of ``config``. Raises :class:`RuntimeError` for a bit that differs."""
    side = 64 if quick else 256
    network = load("base")
    calibration = Calibration.read(calibration_file(WEIGHTS / "base.npz"))
    inputs = torch.from_numpy(scene(side))[None, None], torch.tensor([1.0])
    with progress() as bar:
        task = bar.add_task(f"{side} x {side}", total=None, note="building the engine")
        fabric = EngineFabric(config, MAX_CYCLES, lambda cycle, done: bar.update(
            task, completed=done, note=f"{cycle / 1e6:.1f} M cycles, descriptor {done}"))
        model = TensorModel(config)
        engine, reference = (OffloadedModule(network.net, f, "all", calibration) for f in (fabric, model))
        programs = [p for _, _, p in engine.compiled(*inputs).order if p]
        descriptors = [d for p in programs for d in p.descriptors]
        bar.update(task, total=len(descriptors), note="the integer model")
        want = reference(*inputs)
        begin = time.perf_counter()
        got = engine(*inputs)
        seconds = time.perf_counter() - begin
    fabric.close()
    wrong = int.from_bytes((fabric.memory ^ model.memory).tobytes(), "little").bit_count()
    if wrong or not torch.equal(got, want):
        raise RuntimeError(f"{wrong} bits of the tensor region differ from the integer model's")
    rows: dict[str, Row] = {}
    for d, found in zip(descriptors, np.concatenate(fabric.measured), strict=True):
        r = row(d, dict(zip(FIELDS, map(int, found), strict=True)), config)
        if r.operator not in rows:
            rows[r.operator] = Row(r.operator)
        rows[r.operator] += r
    ordered = sorted(rows.values(), key=lambda r: -r.cycles)
    total = Row("all")
    for r in ordered:
        total += r
    t = config.tensor
    shown = [{f.name: getattr(r, f.name) for f in fields(r)} | {"share_percent": r.share_percent}
             for r in [*ordered, total]]
    show_rows(f"`base`, {side} x {side}: {t.rows} x {t.columns} multipliers, {config.beat_bytes} bytes a beat", COLUMNS,
              shown)

    def percent(cycles: int) -> str:
        return f"{100 * cycles / total.cycles:.1f} %"

    softmax = sum(r.cycles - r.array_cycles for r in ordered if r.operator == "attention")
    norm = sum(r.cycles for r in ordered if r.operator == "layernorm")
    waits = sum(r.cycles - r.array_cycles - r.begin_cycles for r in ordered if r.operator.startswith(("conv", "linear")))
    console.print(f"0 differing bits of {8 * fabric.memory.size:,}. Of all cycles: softmax beside the array "
                  f"{percent(softmax)}, LayerNorm {percent(norm)}, convolutions' waits {percent(waits)}, between "
                  f"descriptors {percent(total.begin_cycles)}. Simulated at {total.cycles / seconds / 1e3:.0f} kHz")
    return [s | {"side_px": side, "simulated_cycles_per_s": total.cycles / seconds,
                 "macs_per_cycle": t.rows * t.columns, "beat_bytes": config.beat_bytes} for s in shown]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What ``--json`` wrote. Raises :class:`DataError` for a file without this bench's figures."""
    try:
        rows = json.loads(path.read_text())["tensor_tile"]
        for row in rows:
            work(row)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError("--figures", str(path), f"a file that `python -m bench tensor_tile --json` wrote "
                        f"({type(e).__name__}: {e})") from e
    return list(rows)


def work(row: dict[str, Any]) -> Work:
    return Work(row["operator"], row["macs_count"], row["read_bytes"], row["written_bytes"], row["cycles"],
                row["bound_cycles"])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The roofline of all but the last row, their sum, as a file."""
    figure = draw_roofline([work(row) for row in rows if row["operator"] != "all"], rows[0]["macs_per_cycle"],
                           rows[0]["beat_bytes"])
    save_figure(figure, path)
    console.print(f"written to {path}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.tensor_tile", description="a tile on the engine of a plan")
    parser.add_argument("--plan", type=Path, required=True, help="of `nearflash fit --sar base -o`")
    parser.add_argument("--quick", action="store_true", help="64 x 64 pixels")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    finish(args.json, {"tensor_tile": measure(args.quick, DeviceConfig.from_toml(args.plan))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
