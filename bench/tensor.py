"""The tensor engine's integer model against PyTorch and plain integers on many random shapes, and its tables' worst errors.

``python -m bench tensor``: 10,000 random shapes over all operators (``--quick``: 600), then, by exhaustion: the exponential
over all 4,096 logarithms, LayerNorm's reciprocal root over all 12.6 million mantissas (both parities of the exponent), the
normalisation of attention over all 2**15 sums of 16 bits, and the tables of GELU and tanh over all 255 codes for inputs and
outputs of -R to R with R from 2**-4 to 2**5. Then how long the compiler takes for a tile of `base`, in CPU time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nearflash.offload import Calibration, OffloadedModule, default_config
from nearflash.offload.ops import TABLES
from nearflash.offload.scales import table_codes
from nearflash.reference.tensor import EXP2, TensorModel, exponentials, reciprocal, reciprocal_root
from nearflash.sar.fabric import calibration_file
from nearflash.sar.network import WEIGHTS, load

from .report import console, progress

__all__ = ["measure"]

CHECKS = Path(__file__).parents[1] / "tests" / "reference"  # the random shapes, which the tests take fewer of
PIECE = 1 << 20


def _root_error() -> tuple[float, float]:
    """Least and greatest relative error of LayerNorm's reciprocal root."""
    low, high = 0.0, 0.0
    for start in range(1 << 22, 1 << 24, PIECE):
        m = np.arange(start, start + PIECE, dtype=np.int64)
        recip, k = reciprocal_root(m)
        assert not k.any()
        # a mantissa stands for everything up to the next one: its error is greatest at either end
        for v in (m, m + (1 - 2.0**-20)):
            error = recip * 2.0**-27 * np.sqrt(v) - 1
            low, high = min(low, float(error.min())), max(high, float(error.max()))
    return low, high


def _table_errors(tabled: Callable[[str, float, float], list[float]]) -> dict[str, float]:
    """Greatest error of each function's table, in steps of its output; ``tabled``: the exact codes."""
    worst = {}
    for op, function in TABLES.items():
        name = str(op).split(".")[1]
        scales = [2.0**k / 127 for k in range(-4, 6)]
        worst[name] = max(float(np.abs(table_codes(function, before, after)[1:] - tabled(name, before, after)).max())
                          for before in scales for after in scales)
    return worst


def _compile_seconds() -> tuple[float, int]:
    """CPU time of compiling `base` for 256 x 256 pixels, and its descriptors."""
    network = load("base")
    calibration = Calibration.read(calibration_file(WEIGHTS / "base.npz"))
    module = OffloadedModule(network.net, TensorModel(default_config()), "all", calibration)
    begin = time.process_time()
    order = module.compiled(torch.ones(1, 1, 256, 256), torch.ones(1)).order
    return time.process_time() - begin, sum(len(program.descriptors) for *_, program in order if program)


def measure(quick: bool) -> dict[str, Any]:
    sys.path.insert(0, str(CHECKS))
    from tensor_oracles import tabled  # pyright: ignore[reportMissingImports]
    from tensor_shapes import CHECKS as checks  # pyright: ignore[reportMissingImports]

    count = 600 if quick else 10_000
    with progress() as bar:
        task = bar.add_task("random shapes", total=count, note="")
        for n in range(count):
            name = list(checks)[n % len(checks)]
            checks[name](np.random.default_rng([77, n]))  # raises AssertionError for a shape that differs
            bar.update(task, completed=n + 1, note=name)
    u = np.arange(4096)
    exact = EXP2[0] * np.exp2(-u / 256)
    exponential = np.abs(exponentials(u) - exact)
    low, high = _root_error()
    total = np.arange(1 << 15, 1 << 16)
    r, length = reciprocal(total)
    sums = total * r * np.exp2(-(15.0 + length)) - 1
    tables = _table_errors(tabled)
    seconds, descriptors = _compile_seconds()
    result = {"shapes_count": count, "exponential_error_steps": float(exponential.max()), "root_error_low": low,
              "root_error_high": high, "probability_sum_error_low": float(sums.min()),
              "probability_sum_error_high": float(sums.max()),
              **{f"{name}_table_error_steps": v for name, v in tables.items()}, "compile_base_cpu_s": seconds}
    console.print(f"{count} random shapes of {len(checks)} operators: none differs")
    console.print(f"exponential: at most {exponential.max():.3f} of {EXP2[0]} steps off, all {len(u)} inputs")
    console.print(f"LayerNorm's 1 / sqrt: relative error {low:.2e} to {high:.2e}, all {3 << 22} mantissas")
    console.print(f"attention's 1 / sum: relative error {sums.min():.2e} to {sums.max():.2e}, all {len(total)} sums of 16 "
                  "bits")
    for name, v in tables.items():
        console.print(f"{name}: at most {v:.3f} of a step of the output off, all 255 inputs at 100 pairs of scales")
    console.print(f"base for 256 x 256 pixels: {descriptors} descriptors in {seconds:.1f} s of CPU time")
    return result
