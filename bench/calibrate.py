"""Fit the resource estimates to syntheses, and say how far off they are on configurations they weren't fitted to.

``python -m bench.calibrate --family xc7``: synthesises the units of random devices and MLP engines, and of the preset
`paper` with the narrow data bus of small boards and the small device of `make util` (some minutes of CPU each; a unit is
kept by its netlist, so what did not change is not synthesised again), fits, and prints the errors of leaving each
configuration out in turn, and those of the package's coefficients. ``--write`` puts the new ones there.

``--factors`` is for a change of some blocks: a unit's estimate is a sum over what its netlist holds, with coefficients that
all units share, times a factor of its kind. It keeps the package's coefficients, and the factors of kinds that no
configuration has, so that few configurations are enough and none need hold an MLP: ``--factors --devices 1 --engines 0``.
``--tensors`` adds tensor engines, the first of :data:`TENSORS`: ``--factors --devices 0 --engines 0 --tensors 2`` for a
change of those alone. ``--caches`` does so with row caches, of :data:`CACHES`, ``--channels`` with flash channels that have
a page window, planes or both, of :data:`CHANNELS`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nearflash.compiler.fit import PRIMITIVE
from nearflash.contract import (
    ConfigError,
    DeviceConfig,
    FlashConfig,
    HostConfig,
    LookupConfig,
    MlpConfig,
    Node,
    RowCacheConfig,
    TensorConfig,
)
from nearflash.contract.resources import Resources
from nearflash_hw.device import Device
from nearflash_hw.flash.channel import Channel
from nearflash_hw.lookup.row_cache import RowCache
from nearflash_hw.mlp import MlpEngine
from nearflash_hw.synthesis import estimate
from nearflash_hw.synthesis.estimate.features import features_of
from nearflash_hw.synthesis.estimate.model import FF_TERMS, LUT_TERMS, exact_part, ff_terms, kind_of, lut_terms
from nearflash_hw.synthesis.netlist import Unit, subtree, units
from nearflash_hw.synthesis.yosys import FAMILIES, synthesise, yosys_version
from nearflash_hw.tensor.engine import TensorEngine

from .report import Rows, console, finish, progress, show_rows
from .util import device as small_device

__all__ = ["main", "random_device", "random_engine"]

REPEATED = ("channel",)  # one is enough
ALONE = {"lookup.row_cache": RowCache, "channel0": Channel}  # units, by path
TENSOR_BASE = 0  # of the region: the netlists of `bench tensor_size`
#: Engines with all operators (beat_bytes, configuration): that of `bench tensor_size`, one of half its lanes, and wide ones.
TENSORS = {
    "xc7": ((8, TensorConfig(8, 16, True, 64, 8, 8, max_keys=256)), (8, TensorConfig(8, 16, True, 64, 4, 8, max_keys=256))),
    "xcup": ((16, TensorConfig(32, 32, True, 64, 16, 16)), (16, TensorConfig(16, 32, True, 64, 8, 32, max_keys=256)))}
#: Row caches by themselves: that of `bench locality`, and a small one.
CACHES = (replace(DeviceConfig.preset("paper", dies=4), row_cache=RowCacheConfig(8192)),
          replace(DeviceConfig.preset("tiny"), row_cache=RowCacheConfig(1024, 4, 64)))


def _channel(dies: int, planes: int, tags: int, window: int) -> DeviceConfig:
    base = DeviceConfig.preset("paper", dies=dies)
    config = replace(base, flash=replace(base.flash, planes=planes), lookup=replace(base.lookup, tags=tags))
    return config.with_page_window(window) if window else config


#: Channels by themselves: those of docs/timing.md and smaller ones.
CHANNELS = (_channel(4, 1, 1024, 256), _channel(2, 1, 256, 64), _channel(4, 2, 1024, 0), _channel(2, 4, 256, 0),
            _channel(4, 2, 1024, 256), _channel(2, 2, 256, 64))


def random_device(rng: random.Random) -> DeviceConfig:
    """A device without an MLP engine."""
    beat, pick = rng.choice([8, 16, 16, 32]), rng.choice
    return DeviceConfig(
        "grid", beat_bytes=beat,
        flash=FlashConfig(channels=pick([1, 2, 4, 4, 8]), dies=pick([1, 2, 4]), blocks=pick([64, 256]),
                          pages=pick([64, 256]), page_bytes=pick([4096, 4096, 16384]), t_ccs_ns=pick([0, 300])),
        host=HostConfig(queue_pairs=pick([2, 3, 3, 5]), queue_entries=pick([64, 256]), mdts_pages=pick([8, 32]),
                        block_reads=pick([8, 32]), read_slots=pick([4, 8]), page_slots=pick([2, 4, 8]),
                        infer_depth=pick([2, 4])),
        lookup=LookupConfig(max_tables=pick([8, 16, 32]), max_extents=pick([2, 4]), max_dim=pick([64, 1024]),
                            max_bag=pick([256, 4096]), tags=pick([64, 256, 1024]), sample_slots=pick([2, 4, 16]),
                            map_cache_lines=pick([64, 256]), lanes=beat // 4, accumulators=pick([256, 1024, 2048])))


def random_engine(rng: random.Random, primitive: str) -> DeviceConfig:
    """A device whose MLP engine is measured: random layers, kernels, scans, formats, weight places."""
    while True:
        pick, beat = rng.choice, rng.choice([8, 16, 16, 16, 32])
        streamed = rng.random() < 0.25
        act_bits = pick([8, 8, 8, 16])
        nodes = [Node("emb", "tables", pick([64, 128, 256]), tables=(0, 1))]
        inputs: tuple[str, ...] = ("emb",)
        if rng.random() < 0.7:
            nodes.insert(0, Node("dense", "dense", pick([13, 64, 256])))
            inputs = ("dense",)
            for i in range(rng.randint(1, 2)):
                nodes.append(_layer(rng, f"bot{i}", pick([16, 32, 64, 128]), inputs, streamed, False))
                inputs = (nodes[-1].name,)
            inputs = (*inputs, "emb")
        if rng.random() < 0.25 and len(inputs) == 2 and next(n.width for n in nodes if n.name == inputs[0]) % 16 == 0:
            features = sum(n.width for n in nodes if n.name in inputs) // 16
            nodes.append(Node("dot", "dot", features * (features - 1) // 2, inputs, dim=16))
            inputs = (inputs[0], "dot")
        for i in range(rng.randint(1, 2)):
            split = i == 0 and len(inputs) > 1
            nodes.append(_layer(rng, f"top{i}", pick([16, 64, 128, 256]), inputs, streamed, split))
            inputs = (nodes[-1].name,)
        nodes.append(_layer(rng, "top9", 1, inputs, False, False))
        n_batch = pick([1, 1, 1, 4]) if not streamed else pick([1, 4])
        try:
            base = DeviceConfig("grid", beat_bytes=beat, lookup=LookupConfig(lanes=beat // 4, sample_slots=8))
            return replace(base, mlp=MlpConfig(tuple(nodes), act_bits, n_batch, primitive=primitive))
        except ConfigError:
            continue


def _layer(rng: random.Random, name: str, width: int, inputs: tuple[str, ...], streamed: bool, split: bool) -> Node:
    most = 128 if rng.random() < 0.3 else 16  # multipliers
    while True:
        kr, kc = 1 << rng.randint(0, 4), 1 << rng.randint(0, 4)
        if kr * kc <= most and kr <= width:
            break
    dram = streamed and rng.random() < 0.5
    return Node(name, "fc", width, inputs, relu=True, kr=kr, kc=kc, scan=rng.choice(["row", "column"]),
                weights="dram" if dram else "onchip", weight_bits=rng.choice([8, 8, 8, 16]), decomposed=split)


@dataclass(frozen=True)
class _Sample:
    config: int
    path: str
    kind: str
    lut: list[float]
    ff: list[float]
    exact: Resources
    measured: Resources


def _configurations(family: str, devices: int, engines: int, tensors: int, caches: int, channels: int, seed: int
                    ) -> list[tuple[DeviceConfig, str]]:
    """What is synthesised, and of which only one room, or part of one: "mlp", "tensor", or a path of :data:`ALONE`."""
    rng = random.Random(seed)
    todo = [(random_device(rng), "") for _ in range(devices)]
    todo += [(random_engine(rng, PRIMITIVE[family]), "mlp") for _ in range(engines)]
    paper = DeviceConfig.preset("paper")  # 16 bytes and wider are likelier in the draw
    if devices:
        todo += [(replace(paper, beat_bytes=8, lookup=replace(paper.lookup, lanes=2)), ""), (small_device(), "")]
    todo += [(replace(paper, beat_bytes=beat, lookup=replace(paper.lookup, lanes=beat // 4), tensor=tensor,
                      mlp=replace(paper.mlp, primitive=PRIMITIVE[family])), "tensor")
             for beat, tensor in TENSORS[family][:tensors]]
    return todo + [(config, "lookup.row_cache") for config in CACHES[:caches]] + [
        (config, "channel0") for config in CHANNELS[:channels]]


def _units(config: DeviceConfig, engine: str) -> list[Unit]:
    if not engine:
        return units(Device(config))
    if engine in ALONE:
        return [Unit(engine, subtree(ALONE[engine](config), ""))]
    room = MlpEngine(config) if engine == "mlp" else TensorEngine(config, base=TENSOR_BASE)
    return [Unit(f"{engine}.{u.path}" if u.path else engine, u.rtlil) for u in units(room, room=True)]


def _samples(family: str, todo: list[tuple[DeviceConfig, str]], jobs: int) -> Iterator[list[_Sample]]:
    for number, (config, engine) in enumerate(todo):
        found = [u for u in _units(config, engine) if not u.path.startswith(REPEATED) or u.path == "channel0"]
        with ThreadPoolExecutor(max_workers=jobs) as pool:  # each runs a process
            yield list(pool.map(lambda u, number=number, config=config: _sample(number, config, u, family), found))


def _sample(number: int, config: DeviceConfig, unit: Unit, family: str) -> _Sample:
    features = features_of(unit.rtlil)
    exact = exact_part(features, family)
    return _Sample(number, unit.path, kind_of(unit.path, config), lut_terms(features, exact), ff_terms(features, exact),
                   exact, synthesise(unit.rtlil, family))


def _fit(samples: Sequence[_Sample], keep: dict[str, Any] | None = None) -> dict[str, Any]:
    """Coefficients and factors; with ``keep``, its coefficients, and its factors for kinds that ``samples`` lack."""
    lut, ff = (keep["lut"], keep["ff"]) if keep else _coefficients(samples)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
    for s in samples:
        t = sums[s.kind]
        for i, v in enumerate((s.measured.lut - s.exact.lut, np.dot(lut, s.lut), s.measured.ff, np.dot(ff, s.ff))):
            t[i] += float(v)
    factors = {k: {"lut": max(0.0, a / b) if b > 0 else 1.0, "ff": c / d if d > 0 else 1.0}
               for k, (a, b, c, d) in sums.items()}
    return {"lut": lut, "ff": ff, "factors": {**(keep["factors"] if keep else {}), **factors}}


def _coefficients(samples: Sequence[_Sample]) -> tuple[list[float], list[float]]:
    from scipy.optimize import nnls

    def solve(terms: list[list[float]], wanted: list[float], negative: tuple[int, ...] = ()) -> list[float]:
        x, y = np.array(terms), np.array(wanted)
        sign = np.where(np.isin(np.arange(x.shape[1]), negative), -1.0, 1.0)
        weight = 1 / np.maximum(y, 100)
        found, _ = nnls(x * sign * weight[:, None], y * weight)
        return [float(v) for v in found * sign]

    return (solve([s.lut for s in samples], [s.measured.lut - s.exact.lut for s in samples]),
            solve([s.ff for s in samples], [s.measured.ff for s in samples], negative=(FF_TERMS.index("dsp_operands"),)))


def _predict(fitted: dict[str, Any], s: _Sample) -> tuple[float, float]:
    f = fitted["factors"].get(s.kind, {"lut": 1.0, "ff": 1.0})
    return (f["lut"] * float(np.dot(fitted["lut"], s.lut)) + s.exact.lut,
            max(0.0, f["ff"] * float(np.dot(fitted["ff"], s.ff))))


def _errors(samples: Sequence[_Sample], shipped: dict[str, Any], factors: bool) -> Rows:
    """One row per configuration, predicted by a fit (of ``factors`` alone) to all the others and by ``shipped``."""
    rows: Rows = []
    for number in sorted({s.config for s in samples}):
        fitted = _fit([s for s in samples if s.config != number], shipped if factors else None)
        mine = [s for s in samples if s.config == number]
        measured = [sum(getattr(s.measured, k) for s in mine) for k in ("lut", "ff")]

        def error(coefficients: dict[str, Any], i: int, mine=mine, measured=measured) -> float:
            return sum(_predict(coefficients, s)[i] for s in mine) / measured[i] - 1

        rows.append({
            "configuration": number, "units_count": len(mine), "measured_lut_count": measured[0],
            "measured_ff_count": measured[1], "lut_error_share": error(fitted, 0), "ff_error_share": error(fitted, 1),
            "shipped_lut_error_share": error(shipped, 0), "shipped_ff_error_share": error(shipped, 1),
            "bram18_error_count": sum(s.exact.bram18 - s.measured.bram18 for s in mine),
            "uram_error_count": sum(s.exact.uram - s.measured.uram for s in mine),
            "dsp_error_count": sum(s.exact.dsp - s.measured.dsp for s in mine)})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.calibrate", description=str(__doc__).splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="xc7")
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--engines", type=int, default=32)
    parser.add_argument("--tensors", type=int, default=0, help="tensor engines, 2 at most")
    parser.add_argument("--caches", type=int, default=0, help="row caches, 2 at most")
    parser.add_argument("--channels", type=int, default=0, help="channels with a page window or planes, 6 at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--factors", action="store_true", help="fit the factors alone, keep the coefficients")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="syntheses at a time")
    parser.add_argument("--write", action="store_true", help="keep the coefficients in the package")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    todo = _configurations(args.family, args.devices, args.engines, args.tensors, args.caches, args.channels,
                           args.seed)
    samples: list[_Sample] = []
    with progress() as bar:
        task = bar.add_task("synthesising", total=len(todo), note="")
        for some in _samples(args.family, todo, args.jobs):
            samples += some
            bar.advance(task)
    file = Path(estimate.__file__).parent / f"{args.family}.json"
    shipped = json.loads(file.read_text())
    rows = _errors(samples, shipped, args.factors)
    show_rows(f"estimates for {args.family} against Yosys {yosys_version()}, each configuration left out of the fit", (
        ("configuration", "no", "d"), ("units_count", "units", "d"), ("measured_lut_count", "LUT", ",.0f"),
        ("lut_error_share", "error", "+.1%"), ("shipped_lut_error_share", "shipped", "+.1%"),
        ("measured_ff_count", "FF", ",.0f"), ("ff_error_share", "error", "+.1%"),
        ("shipped_ff_error_share", "shipped", "+.1%"),
        ("bram18_error_count", "RAMB18", "+.0f"), ("uram_error_count", "URAM", "+.0f"), ("dsp_error_count", "DSP", "+.0f")),
        rows)
    for name in ("lut", "ff", "shipped_lut", "shipped_ff"):
        off = np.abs([r[f"{name}_error_share"] for r in rows])
        console.print(f"{name.replace('_', ' ')}: mean error {off.mean():.1%}, largest {off.max():.1%}")
    wrong = [f"{s.path} of {s.config}: RAMB18 {s.exact.bram18:g} for {s.measured.bram18:g}, URAM {s.exact.uram:g} for "
             f"{s.measured.uram:g}, DSP {s.exact.dsp:g} for {s.measured.dsp:g}" for s in samples
             if (s.exact.bram18, s.exact.uram, s.exact.dsp) != (s.measured.bram18, s.measured.uram, s.measured.dsp)]
    for line in wrong:
        console.print(f"[yellow]{line}[/yellow]")
    finish(args.json, {"calibration": rows})
    if args.write:
        fitted = _fit(samples, shipped if args.factors else None)
        file.write_text(json.dumps({"tool": f"yosys {yosys_version()}", "lut_terms": LUT_TERMS, "ff_terms": FF_TERMS,
                                    **fitted}, indent=1) + "\n")
        console.print(f"written to {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
