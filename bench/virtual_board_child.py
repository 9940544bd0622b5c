"""Run by :mod:`bench.virtual_board` inside an environment with pynq: prints one line of JSON."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import sys
import time
from typing import Any

import nearflash
import numpy as np
import pynq
from nearflash.board.random_model import random_model, random_queries
from nearflash.contract import NearflashError
from nearflash.reference.model import IntegerModel

QUERIES, BATCH = 64, 8
DEAD_TIMEOUT = 3_000_000  # cycles: more than the silence after which the device says that a bus is dead
LONGEST = 60.0  # seconds of wall time after which a wait counts as a hang


def timed(device: Any, queries: Any) -> float:
    start = time.perf_counter()
    device.infer(*queries, batch=BATCH)
    return time.perf_counter() - start


def dead_devices(device: Any, compiled: Any, count: int) -> dict[str, int]:
    """Silence the memory's ports at a random moment; every wait must end, and a reset must bring the device back."""
    board = pynq.Device.active_device.board
    queries = random_queries(compiled, 2)
    want = IntegerModel(compiled).logits(*queries)[1].astype(np.float32).tobytes()
    tables = {t: (spec, None) for t, spec in device.tables.items()}  # stored data outlive a reset
    rng = random.Random(0)
    hangs = recovered = 0
    for _ in range(count):
        device.submit(*queries)
        device.backend.idle(rng.randrange(1, 30_000))
        ports = rng.choice(((board.device.host,), (board.device.dram,), (board.device.host, board.device.dram)))
        for port in ports:
            port.silence()
        start = time.monotonic()
        with contextlib.suppress(NearflashError):
            device.result(device.submit(*queries))
        hangs += time.monotonic() - start > LONGEST
        for port in ports:
            port.silence(False)
        device.subsystem_reset()
        device.create_tables(tables)
        device.load_program(compiled.image)
        recovered += device.infer(*queries).tobytes() == want
    return {"dead_devices_count": count, "hangs_count": hangs, "recovered_count": recovered}


def main(turns: int, dead: int) -> None:
    overlay = pynq.Overlay("movietweetings.bit")
    with nearflash.open("pynq", overlay=overlay, timeout=DEAD_TIMEOUT) as board:
        config = board.config
        compiled = random_model(config)
        queries = random_queries(compiled, QUERIES)
        with nearflash.open("sim", config=config, host_latency=60, dram_latency=60) as bare:
            for device in (bare, board):
                device.load(compiled)
                timed(device, queries)
            times = [(timed(bare, queries), timed(board, queries)) for _ in range(turns)]
        result = {"queries": QUERIES, "bare_s": statistics.median(a for a, _ in times),
                  "board_s": statistics.median(b for _, b in times), "ratio": statistics.median(b / a for a, b in times),
                  **dead_devices(board, compiled, dead)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
