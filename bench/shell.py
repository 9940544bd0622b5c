"""The shells around the device: how busy a stream keeps a memory port, and what a shell takes of the board's part."""

from __future__ import annotations

from typing import Any

from nearflash.cli.fit import board_config
from nearflash.contract.boards import PYNQ_BOARDS, Board
from nearflash.contract.resources import Resources
from nearflash.contract.shell import board_config as taken_by
from nearflash_hw.synthesis.report import measure as synthesised

from .port import BYTES, busy_share, stream
from .report import Rows, console, show_rows

__all__ = ["measure"]

#: (board, bytes of the device's data bus): a port without width converter, and the converter of two and of four.
STREAMS = (("pynq-z2", 8), ("pynq-z2", 16), ("pynq-z2", 32), ("zcu104", 16), ("zcu104", 32))
LEAST = 0.9  # busy, asked


def streams() -> Rows:
    rows: Rows = []
    for board, beat_bytes in STREAMS:
        run = stream(board, beat_bytes)
        rows.append({"board": board, "beat_bytes": beat_bytes, "port_bits": 8 * run.own,
                     "longest_burst_beats": max(n for _, _, n in run.memory.reads + run.memory.writes),
                     "read_busy_share": busy_share(run.memory.r_busy), "write_busy_share": busy_share(run.memory.w_busy)})
        assert min(rows[-1]["read_busy_share"], rows[-1]["write_busy_share"]) >= LEAST, rows[-1]
    return rows


def cost(board: Board, beat_bytes: int) -> dict[str, Any]:
    """Of the shell, synthesised unit by unit. A small device is in it: only its bus matters here."""
    assert board.ps is not None
    clock = board.ps.clock_below(board.clock_mhz)
    config = taken_by(board_config(board, clock, preset="tiny", beat_bytes=beat_bytes), board)
    used = sum(synthesised(config, board.part.family, "shell", shell=board).units.values(), Resources())
    shares = used.shares(board.part)
    return {"board": board.name, "part": board.part.name, "beat_bytes": beat_bytes,
            **{f"{k}_count": getattr(used, k) for k in ("lut", "ff", "bram18", "dsp")},
            **{f"{k}_share": shares[k] for k in ("lut", "ff")}}


def measure(quick: bool = False) -> dict[str, Any]:
    busy = streams()
    show_rows("a stream at a memory port: share of the cycles in which a word moved", (
        ("board", "board", ""), ("beat_bytes", "device's bus, bytes", "d"), ("port_bits", "port, bits", "d"),
        ("longest_burst_beats", "longest burst", "d"), ("read_busy_share", "read", ".1%"),
        ("write_busy_share", "write", ".1%")), busy, (
        f"two readers and two writers of {BYTES} bytes at once; asked: {LEAST:.0%}",))
    costs: Rows = []
    for board in PYNQ_BOARDS:
        for beat_bytes in board.beats[:1] if quick else board.beats:
            console.print(f"synthesising the shell of {board.name}, {beat_bytes} bytes ...")
            costs.append(cost(board, beat_bytes))
    show_rows("what a shell takes, synthesised", (
        ("board", "board", ""), ("part", "part", ""), ("beat_bytes", "device's bus, bytes", "d"), ("lut_count", "LUT", ",d"),
        ("lut_share", "of the part", ".1%"), ("ff_count", "FF", ",d"), ("ff_share", "of the part", ".1%"),
        ("bram18_count", "RAMB18", "d"), ("dsp_count", "DSP", "d")), costs)
    return {"streams": busy, "costs": costs}
