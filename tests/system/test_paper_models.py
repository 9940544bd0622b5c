"""The five models of the RM-SSD evaluation, end to end in RTL on the paper's device: layer widths, lookups per table and
flash timing unscaled, only the tables are shortened. Every answer equals the integer model's, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from device_bench import assert_same_bits, open_device
from nearflash.compiler import compile_device, embedding_cycles
from nearflash.contract import DeviceConfig
from nearflash.data import synthetic_queries
from nearflash.models import build
from nearflash.quantize import CompiledModel, compile_model
from nearflash.reference.model import IntegerModel
from nearflash_sim.backend import build as build_device

ROWS = 2000
#: Queries answered, in commands of so many: about as many cycles for each model.
QUERIES = {"rmc1": (4, 2), "rmc2": (1, 1), "rmc3": (6, 2), "ncf": (60, 20), "wnd": (12, 4)}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Prepared:
    compiled: CompiledModel
    dense: np.ndarray | None
    bags: tuple


@pytest.fixture(scope="module", params=QUERIES)
def prepared(request) -> Prepared:
    """A zoo model compiled for preset paper, its device built, and queries for it."""
    model = build(request.param, rows=ROWS)
    spec = model.spec
    shapes = [(t.rows, t.lookups) for t in spec.tables]
    config = compile_device(spec, DeviceConfig.preset("paper"))
    calibration = synthetic_queries(shapes, spec.dense, 16, seed=1)
    compiled = compile_model(model, config, [(calibration.dense, calibration.bags)])
    asked = synthetic_queries(shapes, spec.dense, QUERIES[request.param][0], seed=2)
    build_device(config)
    return Prepared(compiled, asked.dense if spec.dense else None, asked.bags)


def test_every_answer_is_the_integer_models(prepared):
    """Submitted in several commands, with block I/O in between."""
    c = prepared.compiled
    name = c.meta["spec"]["name"]
    queries, batch = QUERIES[name]
    with open_device(c.config) as device:
        device.driver.timeout = 40_000_000
        device.load(c)
        free = c.config.lbas - 4
        content = np.random.default_rng(3).bytes(2 * c.config.lba_bytes)
        start, before = device.backend.cycles, device.counters()
        tickets = []
        for at in range(0, queries, batch):
            part = [(i[o[at] : o[at + batch] if at + batch < queries else None], o[at : at + batch] - o[at])
                    for i, o in prepared.bags]
            tickets.append(device.submit(None if prepared.dense is None else prepared.dense[at : at + batch], part))
        device.write(free, content)
        assert device.read(free, 2) == content
        got = np.concatenate([device.result(t) for t in tickets])
        cycles = device.backend.cycles - start
        counted = {k: v - before[k] for k, v in device.counters().items()}
    assert_same_bits(got, IntegerModel(c).logits(prepared.dense, prepared.bags)[1])
    assert len(np.unique(got)) == got.size, "a test without information"
    assert counted["lookups_count"] == sum(len(i) for i, _ in prepared.bags)
    assert counted["samples_count"] == queries
    ceiling = embedding_cycles(build(name, rows=4).spec, c.config) * queries
    assert cycles >= ceiling, "faster than the flash allows"
