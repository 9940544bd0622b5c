"""Recommendation queries, block I/O and despeckling tiles on one device: what the tiles cost the queries.

``python -m bench both_at_once``: a small device with flash of 2 us, a lookup engine, an MLP and 8 x 16 multipliers of tensor
engine answers the same queries twice, alone and while the engine runs tiles of the network ``tiny`` one after the other;
block writes and reads go on beside them both times. A query is a command of one sample, its latency the cycles from its
submission to the interrupt of its completion, with 1 and with 4 of them in flight. Flash this fast makes the queries short,
so that what they wait for in DRAM counts for much. Every answer, block and tile is compared with the reference.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.contract.tensor import TensorConfig
from nearflash.data import QueryBatch, synthetic_queries
from nearflash.models import ModelSpec, RecModel, TableShape
from nearflash.offload import Calibration, OffloadedModule
from nearflash.offload.fabric import DeviceFabric
from nearflash.offload.lower import Program
from nearflash.quantize import CompiledModel, compile_model
from nearflash.reference.model import IntegerModel
from nearflash.reference.tensor import TensorModel
from nearflash.runtime import Device
from nearflash.runtime.device import TensorTicket
from nearflash.sar.fabric import calibration_file
from nearflash.sar.network import WEIGHTS, load
from nearflash_sim.backend import SimBackend
from nearflash_sim.small.device import small_config

from .report import Rows, progress, show_rows
from .tensor_tile import scene

__all__ = ["measure"]

SIDE = 64  # of a tile, pixels
QUERIES, QUICK = 1000, 200
BLOCK_IO = 8  # queries from one write and one read to the next
FLIGHTS = (1, 4)
TABLES = (TableShape(400, 16, 12), TableShape(900, 8, 6, "mean", "fp16"), TableShape(300, 8, 4, "sum", "int8"))
SPEC = ModelSpec("both", TABLES, 8, (32, 16), (64, 32, 1))
COLUMNS = (("in_flight", "in flight", ",d"), ("queries", "queries", ",d"), ("p50_alone_cycles", "p50 alone", ",.0f"),
           ("p50_beside_cycles", "beside tiles", ",.0f"), ("p99_alone_cycles", "p99 alone", ",.0f"),
           ("p99_beside_cycles", "beside tiles", ",.0f"), ("p99_rise_share", "p99 rises", ".1%"),
           ("tiles", "tiles", ",d"), ("tile_alone_cycles", "cycles a tile alone", ",.0f"),
           ("tile_beside_cycles", "beside queries", ",.0f"))


def device_config() -> DeviceConfig:
    config = compile_device(SPEC, small_config("both"), PlanOptions())
    return replace(config, tensor=TensorConfig(rows=8, columns=16, depthwise=8, max_keys=256, dram_bytes=1 << 22))


@dataclass
class Tiles:
    """A tile's program, run again and again; ``taken``: cycles of each."""

    device: Device
    program: Program
    content: bytes
    want: bytes
    taken: list[int] = field(default_factory=list)
    _under_way: tuple[int, TensorTicket] | None = None

    def start(self) -> None:
        self._under_way = (self.device.backend.cycles,
                           self.device.submit_tensors(self.program.base, self.content, len(self.want)))

    def look(self, again: bool) -> bool:
        """Take a tile that is finished, and start the next; returns whether one was."""
        if self._under_way is None or self._under_way[1].command.completion is None:
            return False
        begun, ticket = self._under_way
        self.taken.append(self.device.backend.cycles - begun)
        self._under_way = None
        if self.device.tensors(ticket) != self.want:
            raise RuntimeError("a tile beside queries differs from the integer model's")
        if again:
            self.start()
        return True

    def finish(self) -> None:
        if self._under_way is not None:
            self.device.driver.wait(self._under_way[1].command)
            self.look(again=False)


def tile_program(device: Device) -> Tiles:
    """The network on the device, and what its one program takes and gives for a tile."""
    network = load("tiny")
    calibration = Calibration.read(calibration_file(WEIGHTS / "tiny.npz"))
    model = TensorModel(device.config)
    reference = OffloadedModule(network.net, model, "all", calibration)
    inputs = torch.from_numpy(scene(SIDE))[None, None], torch.tensor([1.0])
    (program,) = reference.compiled(*inputs).programs
    reference(*inputs)
    at = program.descriptors[0]["x"]
    content = model.memory[at : at + program.input_bytes].tobytes()
    want = model.run(program.base, content)
    fabric = DeviceFabric(device)
    fabric.load(program.base, program.image)
    return Tiles(device, program, content, want)


@dataclass
class Blocks:
    """A write and a read of random blocks that no table has, in turn; every read is compared."""

    device: Device
    rng: np.random.Generator
    kept: dict[int, bytes] = field(default_factory=dict)

    def step(self) -> None:
        config = self.device.config
        first = max(e.lba + e.pages for t in self.device.tables.values() for e in t.extents)
        lba = first + int(self.rng.integers(min(16, config.lbas - first)))
        self.kept[lba] = self.rng.bytes(config.lba_bytes)
        self.device.write(lba, self.kept[lba])
        lba = int(self.rng.choice(sorted(self.kept)))
        if self.device.read(lba) != self.kept[lba]:
            raise RuntimeError(f"block {lba} is not what was written")


def latencies(device: Device, queries: QueryBatch, want: np.ndarray, in_flight: int, tiles: Tiles | None, blocks: Blocks,
              said: Any) -> np.ndarray:
    """Cycles of each query."""
    flying: deque[tuple[int, int, Any]] = deque()
    out = np.zeros(len(queries))

    def collect() -> None:
        n, begun, ticket = flying.popleft()
        device.driver.wait(ticket.command)
        out[n] = device.backend.cycles - begun
        if device.result(ticket).tobytes() != want[n].tobytes():
            raise RuntimeError(f"query {n} differs from the reference")

    for n in range(len(queries)):
        if len(flying) == in_flight:
            collect()
        if tiles is not None:
            tiles.look(again=True)
        if n % BLOCK_IO == 0:
            while flying:  # whose ends would else be noticed late
                collect()
            blocks.step()
        q = queries[n : n + 1]
        flying.append((n, device.backend.cycles, device.submit(q.dense, q.bags)))
        said(n)
    while flying:
        collect()
    return out


def opened(config: DeviceConfig, compiled: CompiledModel) -> Device:
    device = Device(SimBackend(config))
    device.load(compiled, preload=True)
    return device


def measure(quick: bool) -> Rows:
    config = device_config()
    shapes = [(t.rows, t.lookups) for t in SPEC.tables]
    calibration = synthetic_queries(shapes, SPEC.dense, 128, seed=1)
    compiled = compile_model(RecModel(SPEC, seed=0), config, [(calibration.dense, calibration.bags)])
    queries = synthetic_queries(shapes, SPEC.dense, QUICK if quick else QUERIES, k=0.3, seed=0)
    want = IntegerModel(compiled).logits(queries.dense, queries.bags)[1].astype(np.float32)
    rows: Rows = []
    with progress() as bar:
        task = bar.add_task("both at once", total=2 * len(FLIGHTS) * len(queries), note="building the device")
        with opened(compiled.config, compiled) as device:
            tiles = tile_program(device)
            tiles.start()
            tiles.finish()
            alone_cycles, done = tiles.taken[0], 0
            for in_flight in FLIGHTS:
                taken = {}
                for what in ("alone", "beside"):
                    tiles.taken.clear()
                    if what == "beside":
                        tiles.start()

                    def said(n: int, what: str = what, in_flight: int = in_flight, done: int = done) -> None:
                        bar.update(task, completed=done + n, note=f"{in_flight} in flight, {what}")

                    taken[what] = latencies(device, queries, want, in_flight, tiles if what == "beside" else None,
                                            Blocks(device, np.random.default_rng(in_flight)), said)
                    done += len(queries)
                    tiles.finish()
                p = {f"p{q}_{what}_cycles": float(np.percentile(x, q)) for what, x in taken.items() for q in (50, 99)}
                rows.append({"in_flight": in_flight, "queries": len(queries), **p,
                             "p99_rise_share": p["p99_beside_cycles"] / p["p99_alone_cycles"] - 1,
                             "tiles": len(tiles.taken), "tile_alone_cycles": alone_cycles,
                             "tile_beside_cycles": float(np.mean(tiles.taken))})
    show_rows("queries beside tiles", COLUMNS, rows, ("every answer, block and tile is the reference's; asked: p99 rises by "
                                                      "10 % at most",))
    return rows
