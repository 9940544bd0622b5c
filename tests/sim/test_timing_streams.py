"""Streamed weights in the simulator of the device's time: cores, and the flash, share memory that gives a beat a cycle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, TableSpec, cores
from nearflash.contract.config import MlpConfig
from nearflash.contract.mlp import Node
from nearflash.contract.program import weight_word_beats
from nearflash_sim.small.device import small_config
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place

FEATURES, TABLES, DIM = 1024, 4, 8
COMMANDS = 6


@pytest.fixture(scope="module")
def config() -> DeviceConfig:
    """A decomposed layer: the features' core reads 128 bursts a sample, the vectors' four."""
    layer = Node("out", "fc", 256, ("dense", "emb"), kr=1, kc=8, kc_split=(8, 8), kr_split=(1, 1), decomposed=True,
                 weights="dram")
    graph = (Node("dense", "dense", FEATURES), Node("emb", "tables", TABLES * DIM, tables=tuple(range(TABLES))), layer)
    small = small_config("streams", 4, 1)
    return replace(small, mlp=MlpConfig(graph), lookup=replace(small.lookup, max_tables=TABLES))


@pytest.mark.parametrize("bag", [1, 20, 50])
def test_memory_gives_a_beat_a_cycle(config, bag):
    """Four samples in flight, whose vectors come while weights are read, so memory is never idle: each takes what it reads,
    but the first and the last. That is all weights of both cores, and of each lookup its block's state, a cycle to compare
    that, and the row."""
    tables = place(config, [TableSpec(200, DIM, headroom=6)] * TABLES)
    rows = np.random.default_rng(bag).integers(0, 200, (COMMANDS, TABLES, bag))
    batches = [Batch.of([(r, np.array([0])) for r in command], True, FEATURES) for command in rows]
    completed = Simulator(config, tables, 4).run(batches).completed
    weights = sum(c.steps * weight_word_beats(c, config.beat_bytes) for c in cores(config.mlp.graph))
    of_lookups = TABLES * bag * (2 + DIM * 4 // config.beat_bytes)
    each = np.diff(completed)[1:-1]
    assert each.tolist() == pytest.approx([weights + of_lookups] * len(each), rel=0.006)  # and a few lines of the map
