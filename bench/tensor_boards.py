"""The tensor engine that `nearflash fit --sar base` chooses for a board of each part, what its device takes, and its tile:
predicted, on the Verilated engine, and in PyTorch on this machine.

``python -m bench tensor_boards``: a tile of 256 x 256 pixels (``--quick``: 64 x 64, one board), every bit of it the integer
model's (``bench tensor_tile``): some 40 million cycles in all, of engines that are generated, estimated and compiled where
they have not been before. PyTorch, in CPU time of one thread, which other load hardly changes: fp32 as it is and compiled,
int8 (:mod:`.torch_int8`), and the integer model, whose bytes are the fabric's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from nearflash.cli.fit import sar_config
from nearflash.cli.fit_tensor import fit_sar
from nearflash.compiler.tensor import TensorFit
from nearflash.contract.boards import find_board
from nearflash.offload import offload
from nearflash.offload.calibrate import Calibration
from nearflash.sar.fabric import calibration_file
from nearflash.sar.network import WEIGHTS, load

from . import tensor_tile
from .report import Rows, show_rows
from .torch_int8 import compiled_int8

__all__ = ["measure"]

BOARDS = ("pynq-z2", "kv260", "zcu104")
NETWORK, REPEATS = "base", 5
COLUMNS = (("board", "board", ""), ("engine", "engine", ""), ("lut_count", "LUT", ",.0f"), ("lut_percent", "%", ".0f"),
           ("ff_count", "FF", ",.0f"), ("bram36_count", "BRAM36", "g"), ("uram_count", "URAM", "g"),
           ("dsp_count", "DSP", ",.0f"), ("engine_lut_count", "engine: LUT", ",.0f"),
           ("predicted_cycles", "predicted", ",d"), ("cycles", "simulated", ",d"), ("error_percent", "%", "+.1f"),
           ("tile_ms", "ms", ",.1f"), ("array_percent", "array busy %", ".0f"))


def measure(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in BOARDS[:1] if quick else BOARDS:
        board = find_board(name)
        found = fit_sar(NETWORK, sar_config(board, NETWORK), board)
        rows.append(_row(found, tensor_tile.measure(quick, found.config)[-1]))
    side = rows[0]["side_px"]
    show_rows(f"`{NETWORK}`, {side} x {side}: engines that fit 80 % of a board", COLUMNS, rows)
    times = _pytorch(side, 1 if quick else REPEATS)
    show_rows("the same tile here, least of several", (("where", "", ""), ("cpu_ms", "CPU time of one thread, ms", ",.0f")),
              times)
    return rows + times


def _row(found: TensorFit, tile: dict[str, Any]) -> dict[str, Any]:
    """``tile``: the last row of ``bench tensor_tile`` on the engine of ``found``."""
    t, total, part = found.config.tensor, found.total, found.board.part
    return {
        "board": found.board.name, "engine": f"{t.rows} x {t.columns}{' packed' if t.packed else ''}, P {t.pixels}, lanes "
        f"{t.lanes}, depthwise {t.depthwise}, {t.input_bytes >> 10} + {t.weight_bytes >> 10} KiB",
        "lut_count": total.lut, "lut_percent": 100 * total.lut / part.lut, "ff_count": total.ff,
        "bram36_count": total.bram36, "uram_count": total.uram, "dsp_count": total.dsp, "engine_lut_count": found.engine.lut,
        "predicted_cycles": tile["predicted_cycles"], "cycles": tile["cycles"],
        "error_percent": 100 * (tile["predicted_cycles"] / tile["cycles"] - 1),
        "tile_ms": tile["cycles"] / found.config.clock_mhz / 1e3,
        "array_percent": 100 * tile["macs_count"] / (t.rows * t.columns) / tile["cycles"], "side_px": tile["side_px"]}


def _pytorch(side: int, repeats: int) -> Rows:
    network = load(NETWORK)
    inputs = torch.from_numpy(tensor_tile.scene(side))[None, None], torch.tensor([1.0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        int8, in_int8, layers = compiled_int8(network.net, inputs)
        scales = Calibration.read(calibration_file(WEIGHTS / f"{NETWORK}.npz"))
        runs: tuple[tuple[str, Callable[..., torch.Tensor]], ...] = (
            ("PyTorch, fp32", network.net), ("PyTorch, fp32, compiled", torch.compile(network.net)),
            (f"PyTorch, compiled, {in_int8} of {layers} convolutions and linear layers in int8", int8),
            ("integer model, int8", offload(network.net, "fabric-model", calibration=scales)))
        return [{"where": what, "cpu_ms": 1e3 * _seconds(run, inputs, repeats), "side_px": side} for what, run in runs]
    finally:
        torch.set_num_threads(threads)


def _seconds(run: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], repeats: int) -> float:
    """CPU time, the least of ``repeats``; the first run, which compiles and allocates, doesn't count."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            begin = time.process_time()
            run(*inputs)
            times.append(time.process_time() - begin)
    return min(times[1:])
