"""Small models of every shape the compiler knows, with queries for them."""

from dataclasses import replace

import numpy as np
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.models import ModelSpec, RecModel, TableShape
from nearflash.quantize import QuantizeOptions, compile_model

SPECS = {
    "cat": ModelSpec("cat", (TableShape(40, 8, 6), TableShape(90, 12, 3, "mean", "fp16"),
                             TableShape(33, 4, 1, "sum", "int8")), 5, (16, 8), (20, 9, 1)),
    "dot": ModelSpec("dot", (TableShape(40, 8, 6), TableShape(90, 8, 3, "mean"), TableShape(33, 8, 2, "sum", "int8")),
                     5, (16, 8), (20, 2), "dot"),
    "neumf": ModelSpec("neumf", (TableShape(40, 8), TableShape(50, 8), TableShape(40, 8), TableShape(50, 8)),
                       0, (16, 8), (8, 1), "neumf"),
    "wide": ModelSpec("wide", (TableShape(40, 4),) * 6, 30, (), (17, 1)),
}


def queries(spec, batch, seed=0, weighted=False):
    """(dense, bags) of ragged bags, some empty."""
    rng = np.random.default_rng(seed)
    bags = []
    for t in spec.tables:
        lengths = rng.integers(0, t.lookups + 1, batch)
        bag = (rng.integers(0, t.rows, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        bags.append((*bag, rng.standard_normal(lengths.sum()).astype(np.float32)) if weighted else bag)
    return rng.standard_normal((batch, spec.dense)).astype(np.float32), bags


def calibration(spec):
    """The batches :func:`compiled` calibrates on."""
    return [queries(spec, 32, seed=100 + i) for i in range(4)]


def compiled(name, base=None, seed=0, method="max", **options):
    """(model, CompiledModel) of one of :data:`SPECS` on a tiny device."""
    spec = SPECS[name]
    base = base or DeviceConfig.preset("tiny")
    base = replace(base, lookup=replace(base.lookup, max_bag=256))
    model = RecModel(spec, seed=seed)
    config = compile_device(spec, base, PlanOptions(**options))
    return model, compile_model(model, config, calibration(spec), QuantizeOptions(method=method))
