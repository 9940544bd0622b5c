"""Wall time of an inference on the virtual board against the bare simulated device, dead devices by the hundred, and what
reading a hand-off file takes.

Both run in one process of an environment with pynq (:mod:`.pynq_environments`), turn by turn, the same queries on the same
device; of the turns' ratios the median counts. On the bare device registers and host memory are a function call away; on the
board everything goes through stock PYNQ, the processing system's model, its caches and the shell.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from nearflash.board.hwh import read_hwh

from .pynq_environments import run_python
from .report import Rows, console, show_rows

__all__ = ["measure"]

VERSION, BOARDS = "3.1.2", ("pynq-z2", "zcu104")
CHILD = Path(__file__).with_name("virtual_board_child.py")
SHIPPED = Path(__file__).parents[1] / "bitstreams"


def measure(quick: bool = False) -> dict[str, Any]:
    rows: Rows = []
    for board in BOARDS:
        console.print(f"virtual {board}, pynq {VERSION} ...")
        run = run_python(VERSION, str(CHILD), "5" if quick else "15", "50" if quick else "1000", board=f"{board}/bench",
                         seconds=3600)
        if run.returncode:
            raise RuntimeError(f"the run on {board} failed:\n{run.stderr[-2000:]}")
        rows.append({"board": board, **json.loads(run.stdout.splitlines()[-1])})
    show_rows("inference on the virtual board and on the bare simulated device, seconds of wall time", (
        ("board", "board", ""), ("queries", "queries", ",d"), ("bare_s", "bare", ".3f"), ("board_s", "board", ".3f"),
        ("ratio", "ratio", ".3f"), ("dead_devices_count", "dead devices", ",d"), ("hangs_count", "hangs", ",d"),
        ("recovered_count", "recovered", ",d")), rows, (
        "asked: a ratio of at most 1.2, no hang, all recovered",))
    return {"rows": rows, "hand_off": _hand_off()}


def _hand_off() -> Rows:
    """Size of every hand-off file that ships, and the CPU time that reading it takes, the least of five."""
    rows: Rows = []
    for path in sorted(SHIPPED.glob("*/*/*.hwh")):
        seconds = []
        for _ in range(5):
            began = time.process_time()
            read_hwh(path)
            seconds.append(time.process_time() - began)
        rows.append({"file": str(path.relative_to(SHIPPED)), "kilobytes": path.stat().st_size / 1e3, "read_s": min(seconds)})
    show_rows("hand-off files", (("file", "file", ""), ("kilobytes", "kB", ",.0f"), ("read_s", "CPU s", ".3f")), rows, (
        "asked: at most 200 kB, read in 0.2 s",))
    return rows
