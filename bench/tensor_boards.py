"""The tensor engine that `nearflash fit --sar base` chooses for a board of each part, its predicted tile and what its device
takes, beside the same tile in PyTorch on this machine.

``python -m bench tensor_boards`` (some minutes where no engine has been estimated before; ``--quick``: one board): fp32 on
all cores and the integer model, whose bytes are the fabric's.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from nearflash.cli.fit import sar_config
from nearflash.cli.fit_tensor import TILE, fit_sar
from nearflash.contract.boards import find_board
from nearflash.offload import offload
from nearflash.offload.calibrate import Calibration
from nearflash.sar.fabric import calibration_file
from nearflash.sar.network import WEIGHTS, load

from .report import Rows, show_rows
from .tensor_tile import scene

__all__ = ["measure"]

BOARDS = ("pynq-z2", "kv260", "zcu104")
NETWORK, REPEATS = "base", 5
COLUMNS = (("board", "board", ""), ("engine", "engine", ""), ("lut_count", "LUT", ",.0f"), ("lut_percent", "%", ".0f"),
           ("ff_count", "FF", ",.0f"), ("bram36_count", "BRAM36", "g"), ("uram_count", "URAM", "g"),
           ("dsp_count", "DSP", ",.0f"), ("engine_lut_count", "engine: LUT", ",.0f"), ("tile_cycles", "cycles", ",.0f"),
           ("tile_ms", "ms", ",.1f"), ("array_percent", "array busy %", ".0f"))


def measure(quick: bool) -> list[dict[str, Any]]:
    rows: Rows = []
    for name in BOARDS[:1] if quick else BOARDS:
        board = find_board(name)
        found = fit_sar(NETWORK, sar_config(board, NETWORK), board)
        t, total = found.config.tensor, found.total
        rows.append({
            "board": name, "engine": f"{t.rows} x {t.columns}{' packed' if t.packed else ''}, P {t.pixels}, lanes "
            f"{t.lanes}, depthwise {t.depthwise}, {t.input_bytes >> 10} + {t.weight_bytes >> 10} KiB",
            "lut_count": total.lut,
            "lut_percent": 100 * total.lut / board.part.lut, "ff_count": total.ff, "bram36_count": total.bram36,
            "uram_count": total.uram, "dsp_count": total.dsp, "engine_lut_count": found.engine.lut,
            "tile_cycles": found.cycles, "tile_ms": found.milliseconds,
            "array_percent": 100 * found.macs / (t.rows * t.columns) / found.cycles})
    show_rows(f"`{NETWORK}`, {TILE} x {TILE}: engines that fit 80 % of a board", COLUMNS, rows)
    network = load(NETWORK)
    inputs = torch.from_numpy(scene(TILE))[None, None], torch.tensor([1.0])
    scales = Calibration.read(calibration_file(WEIGHTS / f"{NETWORK}.npz"))
    integer = offload(network.net, "fabric-model", calibration=scales)
    times: Rows = []
    with torch.no_grad():
        for what, run in (("PyTorch, fp32", network.net), ("integer model, int8", integer)):
            run(*inputs)  # compiles, allocates
            best = min(_seconds(run, inputs) for _ in range(1 if quick else REPEATS))
            times.append({"where": what, "threads_count": torch.get_num_threads(), "tile_ms": 1e3 * best})
    show_rows("the same tile here, best of several", (("where", "", ""), ("threads_count", "threads", "d"),
                                                      ("tile_ms", "ms", ",.0f")), times)
    return rows + times


def _seconds(run: Any, inputs: tuple[torch.Tensor, ...]) -> float:
    begin = time.perf_counter()
    run(*inputs)
    return time.perf_counter() - begin
