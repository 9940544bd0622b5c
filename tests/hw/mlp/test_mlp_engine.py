import random
import struct
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import ConfigError, DeviceConfig, MlpConfig, Node, cores
from nearflash.contract.program import (
    DENSE_QUANT,
    EPILOGUE,
    INTERACTION,
    LOGIT_FORMAT,
    dram_weight_address,
    expected_records,
    record,
    scale_entry,
    weight_word_beats,
)
from nearflash.reference.fp32 import quantize_fp32
from nearflash.reference.mlp import FcParams, MlpParams, ScaleParams, run_graph
from nearflash_hw.engine import products
from nearflash_hw.mlp import MlpEngine
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.models import MemoryModel
from nearflash_sim.models.dsp48 import Dsp48

sys.path.insert(0, str(Path(__file__).parent))
from mlp_model import as_beats, split_groups, weight_image


def fc(name, width, inputs, **kw):
    kw = {"kr": 2, "kc": 4, "relu": True, **kw}
    return Node(name, "fc", width, tuple(inputs.split()), **kw)


def dense(width):
    return Node("dense", "dense", width)


def tables(name, ids, width):
    return Node(name, "tables", width, tables=tuple(ids))


#: name -> (graph, dimension of each table)
GRAPHS = {
    "bottom_cat_top": ((dense(6), fc("b0", 8, "dense", scan="column"), fc("b1", 5, "b0"), tables("emb", (0, 1), 12),
                        fc("t0", 9, "b1 emb", scan="column"), fc("t1", 2, "t0", kr=1)), (4, 8)),
    "decomposed": ((dense(6), fc("b0", 8, "dense"), tables("emb", (0, 1), 12),
                    fc("t0", 9, "b0 emb", decomposed=True, kc_split=(2, 4), kr_split=(2, 4), scan="column"),
                    fc("t1", 1, "t0", relu=False)), (4, 8)),
    "decomposed_row": ((dense(3), tables("emb", (0,), 8), fc("t0", 10, "dense emb", decomposed=True, kr_split=(4, 1)),
                        fc("t1", 3, "t0", scan="column")), (8,)),
    "dot": ((dense(5), fc("b0", 4, "dense", scan="column"), tables("emb", (0, 1, 2), 12),
             Node("dot", "dot", 6, ("b0", "emb"), dim=4), fc("t0", 7, "b0 dot", kc=2), fc("t1", 1, "t0", scan="column")),
            (4, 4, 4)),
    "ncf": ((tables("gmf_user", (0,), 8), tables("gmf_item", (1,), 8), tables("mlp_emb", (2, 3), 12),
             Node("gmf", "mul", 8, ("gmf_user", "gmf_item")), fc("m0", 6, "mlp_emb", kr=4), fc("m1", 4, "m0", scan="column"),
             fc("out", 1, "m1 gmf", relu=False, kc=8)), (8, 8, 4, 8)),
    "wide_deep": ((dense(7), tables("emb", (0, 1), 8), fc("d0", 8, "dense emb", weights="dram", kr=4, kc=8),
                   fc("d1", 4, "d0", weights="dram", weight_bits=16, scan="column"), fc("out", 2, "d1 dense")), (4, 4)),
    "interleaved_tables": ((tables("even", (0, 2), 8), tables("odd", (1,), 4), fc("o", 2, "odd even", kr=1, kc=1)),
                           (4, 4, 4)),
}


def configure(name, n_batch=1, act_bits=8, beat_bytes=16, buffered=2, **form):
    tiny = DeviceConfig.preset("tiny")
    graph, dims = GRAPHS[name]
    lookup = replace(tiny.lookup, lanes=beat_bytes // 4, sample_slots=4)
    return replace(tiny, beat_bytes=beat_bytes, lookup=lookup,
                   mlp=MlpConfig(graph, act_bits=act_bits, n_batch=n_batch, buffered=buffered, **form)), dims


def random_params(rng, config):
    """Parameters that spread the activations over their range, with some saturation."""
    width = {n.name: n.width for n in config.mlp.graph}
    act = config.mlp.act_bits
    fcs, scales = {}, {}
    for n in config.mlp.graph:
        if n.kind == "fc":
            c = sum(width[i] for i in n.inputs)
            hi = 2 ** (n.weight_bits - 1)
            w = rng.integers(-hi, hi, (n.width, c))
            shift = n.weight_bits + 14 + (1 if n is not config.mlp.graph[-1] else -8)
            fcs[n.name] = FcParams(w, rng.integers(-hi * 2**act, hi * 2**act, n.width),
                                   rng.integers(1 << 15, 1 << 16, n.width), rng.integers(shift, shift + 3, n.width))
        elif n.kind in ("dot", "mul"):
            scales[n.name] = ScaleParams(int(rng.integers(1 << 15, 1 << 16)), act + 14)
    return MlpParams(fcs, scales, -11)


def program(config, params, dense_quant):
    """(records of the parameter port, DRAM contents)."""
    graph, out, dram = config.mlp.graph, [], []
    for c in cores(graph):
        node = next(n for n in graph if n.name == c.node)
        width = {n.name: n.width for n in graph}
        at = 0
        if node.decomposed:
            at = sum(width[i] for i in node.inputs[: node.inputs.index(c.inputs[0])])
        image = weight_image(c, params.fc[node.name].weight[:, at : at + c.columns], config.beat_bytes)
        if c.weights == "dram":
            dram.append((dram_weight_address(config, c), image))
        else:
            out.append(record(c.index, image))
    for i, n in enumerate(graph):
        if n.kind == "fc":
            p = params.fc[n.name]
            out.append(record(EPILOGUE + i, b"".join(scale_entry(int(b), int(m), int(s)) for b, m, s in
                                                     zip(p.bias, p.mult, p.shift, strict=True))))
        elif n.kind in ("dot", "mul"):
            p = params.scale[n.name]
            out.append(record(INTERACTION + i, scale_entry(0, p.mult, p.shift)))
        elif n.kind == "dense":
            out.append(record(DENSE_QUANT, struct.pack("<Ii8x", *dense_quant)))
    out.append(record(LOGIT_FORMAT, struct.pack("<i12x", params.logit_exponent)))
    sizes = {struct.unpack_from("<II", r)[0]: struct.unpack_from("<II", r)[1] for r in out}
    assert sizes == expected_records(config)
    random.Random(0).shuffle(out)
    return out, dram


def parameter_beats(records, beat_bytes):
    beats = []
    for r in records:
        words = as_beats(r[16:], beat_bytes)
        target = struct.unpack_from("<I", r)[0]
        beats += [{"data": w, "target": target, "first": int(i == 0), "last": int(i == len(words) - 1)}
                  for i, w in enumerate(words)]
    return beats


def bits_of(x):
    return np.asarray(x, np.float32).view(np.uint32)


def run(config, dims, *, samples=6, stall=0.0, seed=0, sizes=None, reload=False, bad=(), serial=False,
        unread=()):
    """``unread``: (byte address, group): the read of that address for that group answers an error."""
    rng, nprng = random.Random(seed), np.random.default_rng(seed)
    graph, mlp = config.mlp.graph, config.mlp
    dut = reused(MlpEngine, config)
    params = random_params(nprng, config)
    dense_node = next((n for n in graph if n.kind == "dense"), None)
    dense_quant = (40000, 9) if mlp.act_bits == 8 else (40000, 1)
    scale = [(int(nprng.integers(20000, 65535)), 9 + int(nprng.integers(0, 2)) - (mlp.act_bits - 8)) for _ in dims]
    dense_x = nprng.normal(size=(samples, dense_node.width)).astype(np.float32) if dense_node else None
    pooled_x = [nprng.normal(size=(samples, d)).astype(np.float32) for d in dims]
    for s in bad:
        for p in pooled_x:
            p[s] = np.nan
    dense_q = quantize_fp32(dense_x, *dense_quant, mlp.act_bits) if dense_node else None
    pooled_q = [quantize_fp32(p, *q, mlp.act_bits) for p, q in zip(pooled_x, scale, strict=True)]
    ints, logits = run_graph(graph, mlp.act_bits, params, dense_q, pooled_q)
    assert len(np.unique(ints)) > 1, "a test without information"

    sizes = sizes or split_groups(rng, samples, mlp.n_batch)
    dense_items, pooled_items, expected, at = [], [], [], 0
    for size in sizes:
        for n in range(size):
            sample = {"n": n, "nb": size - 1, "last": 0, "lookup": 0, "tables": len(dims)}
            if dense_node:
                v = bits_of(dense_x[at + n])
                dense_items += [{"value": int(b), "last": int(i == len(v) - 1), "sample": sample} for i, b in enumerate(v)]
            for t, d in enumerate(dims):
                v = bits_of(pooled_x[t][at + n])
                pooled_items += [{"value": int(b), "table": t, "last_of_table": int(i == d - 1), "bad": int(at + n in bad),
                                  "last_of_sample": int(i == d - 1 and t == len(dims) - 1), "sample": sample}
                                 for i, b in enumerate(v)]
        expected.append({(n, o): (int(bits_of(logits)[at + n, o]), size - 1)
                         for n in range(size) for o in range(logits.shape[1])})
        at += size

    records, dram = program(config, params, dense_quant)
    reads = Counter()

    def fail(address):
        reads[address] += 1  # once per group
        return (address, reads[address] - 1) in unread

    memory = MemoryModel(config.beat_bytes, latency=8, stall=stall, seed=seed, fail=fail)
    for address, image in dram:
        memory.write(address, image)
    old = program(config, random_params(np.random.default_rng(99), config), (1, 0))[0] if reload else []
    loader = StreamSource(dut.parameter, parameter_beats([*old, *records], config.beat_bytes), stall, seed=1)
    d_src, p_src = StreamSource(dut.dense, [], stall, seed=2), StreamSource(dut.pooled, [], stall, seed=3)
    sink = StreamSink(dut.logit, stall, seed=4)
    trace = {"busy": [], "steps": 0, "first_step": None, "last_step": 0}

    async def start(ctx):
        for t, (mult, shift) in enumerate(scale):
            ctx.set(dut.table.table, t)
            ctx.set(dut.table.quant_mult, mult)
            ctx.set(dut.table.quant_shift, shift)
            ctx.set(dut.table_valid, 1)
            await ctx.tick()
        ctx.set(dut.table_valid, 0)
        while not loader.drained:
            await ctx.tick()
        for _ in range(5):
            await ctx.tick()
        if not serial:
            d_src.items += dense_items
            p_src.items += pooled_items
        cycle = 0
        while True:
            if serial and d_src.drained and p_src.drained:  # as from one query stream: dense, pooled, dense, ...
                if len(d_src.items) * sum(dims) <= len(p_src.items) * dense_node.width:
                    d_src.items += dense_items[len(d_src.items) : len(d_src.items) + dense_node.width]
                else:
                    p_src.items += pooled_items[len(p_src.items) : len(p_src.items) + sum(dims)]
            _, _, busy, step = await ctx.tick().sample(dut.busy, dut.mac_step)
            cycle += 1
            trace["busy"].append(busy)
            trace["steps"] += step
            if step:
                trace["first_step"] = trace["first_step"] or cycle
                trace["last_step"] = cycle

    total = sum(map(len, expected))
    actors = [loader, d_src, p_src, sink, start, memory.read_port(dut.mem_read)]
    simulate(dut, actors, until=lambda: len(sink.items) >= total, max_cycles=20_000, settle=60)
    assert loader.drained
    assert d_src.drained
    assert p_src.drained
    assert memory.pending == 0
    assert len(sink.items) == total
    at = 0
    for k, group in enumerate(expected):
        failed = any(i["error"] for i in sink.items[at : at + len(group)])
        assert failed == any(g == k for _, g in unread), f"group {k}"
        got = {(i["n"], i["o"]): (i["value"], i["nb"]) for i in sink.items[at : at + len(group)]}
        assert got == group
        at += len(group)
    assert not trace["busy"][-1]
    assert any(trace["busy"])
    return trace, sink


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("n_batch", [1, 2, 4])
def test_engine_matches_reference(name, n_batch):
    config, dims = configure(name, n_batch)
    run(config, dims, samples=9, seed=n_batch)


@pytest.mark.parametrize("name", GRAPHS)
def test_engine_under_random_stalls(name):
    config, dims = configure(name, 2)
    run(config, dims, samples=7, stall=0.4, seed=11)


@pytest.mark.parametrize("name", ["bottom_cat_top", "decomposed_row", "dot", "wide_deep"])
@pytest.mark.parametrize("buffered", [1, 2])
def test_no_deadlock_when_dense_and_pooled_come_one_after_the_other(name, buffered):
    config, dims = configure(name, 4, buffered=buffered)
    run(config, dims, samples=10, seed=12, serial=True)


@pytest.mark.parametrize("name", ["decomposed", "dot", "ncf", "wide_deep"])
@pytest.mark.parametrize(("act_bits", "beat_bytes", "buffered"), [(16, 16, 2), (8, 8, 1), (16, 32, 1), (8, 32, 2)])
def test_engine_widths(name, act_bits, beat_bytes, buffered):
    config, dims = configure(name, 2, act_bits, beat_bytes, buffered)
    run(config, dims, samples=5, stall=0.1, seed=beat_bytes)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_engine_with_fewer_lanes(stall):
    """A column scan that sends its outputs through one requantiser instead of as many as its kernel has rows."""
    config, dims = configure("bottom_cat_top", 2)
    graph = list(config.mlp.graph)
    at = next(i for i, n in enumerate(graph) if n.kind == "fc" and n.kr > 1 and n is not graph[-1])
    graph[at] = replace(graph[at], scan="column", lanes=1)
    run(replace(config, mlp=replace(config.mlp, graph=tuple(graph))), dims, samples=5, stall=stall, seed=3)


@pytest.mark.parametrize("name", ["bottom_cat_top", "decomposed_row", "dot", "ncf"])
@pytest.mark.parametrize(("packed", "primitive"), [(True, "inferred"), (True, "dsp48e1"), (False, "dsp48e2")])
def test_engine_forms(name, packed, primitive, monkeypatch):
    """Multiplier arrays of every form: the same logits in the same cycles."""
    monkeypatch.setattr(products, "Instance", Dsp48)
    cycles = []
    for form in ({}, {"packed": packed, "primitive": primitive}):
        config, dims = configure(name, 2, **form)
        cycles.append(run(config, dims, samples=5, seed=6)[1].cycles)
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_weights_that_cannot_be_read_fail_their_group_alone(stall):
    """The first, a middle and the last beat of either streamed core, for one group each, and both cores for one."""
    config, dims = configure("wide_deep", 2)
    first, second = ((dram_weight_address(config, c), c.steps * weight_word_beats(c, 16) * 16)
                     for c in cores(config.mlp.graph) if c.weights == "dram")
    unread = {(first[0], 1), (first[0] + first[1] // 32 * 16, 3), (first[0] + first[1] - 16, 4), (second[0], 6),
              (second[0] + second[1] - 16, 7), (first[0], 9), (second[0] + 16, 9)}
    run(config, dims, samples=22, sizes=[2] * 11, stall=stall, seed=21, unread=unread)


def test_bad_samples_do_not_disturb_others():
    config, dims = configure("decomposed", 2)
    run(config, dims, samples=5, seed=4, bad=(1, 4))


def test_parameters_can_be_loaded_again():
    config, dims = configure("dot", 1)
    run(config, dims, samples=3, seed=4, reload=True)


def mlp_only(*layers, dense_width, scans, **kw):
    nodes, previous = [dense(dense_width)], "dense"
    for k, (width, scan) in enumerate(zip(layers, scans, strict=True)):
        nodes.append(fc(f"l{k}", width, previous, scan=scan, **kw))
        previous = f"l{k}"
    return tuple(nodes)


def test_composition_overlaps_layers():
    """Row scan then column scan (inter-layer composition, paper): the second layer runs as the first finishes outputs;
    row scan then row scan waits for the last output."""
    cycles = {}
    for second in ("row", "column"):
        graph = mlp_only(32, 32, dense_width=32, scans=("row", second), kr=2, kc=2)
        config = replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph))
        trace, _ = run(config, (), samples=1, seed=1)
        cycles[second] = trace["last_step"] - trace["first_step"] + 1
    steps = 16 * 16
    assert cycles["row"] >= 2 * steps
    assert cycles["column"] < 1.3 * steps


def test_groups_are_pipelined():
    """Layers work on different groups at once: the time per group is one layer's, not the sum."""
    graph = mlp_only(16, 16, 16, dense_width=16, scans=("row", "row", "row"), kr=2, kc=2)
    config = replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph))
    trace, sink = run(config, (), samples=6, seed=1)
    period = (sink.cycles[-1] - sink.cycles[15]) / 5
    assert period < 64 * 1.1
    assert trace["steps"] > 6 * 64


def test_tables_must_ascend():
    graph = (tables("emb", (1, 0), 8), fc("o", 1, "emb"))
    config = replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph))
    with pytest.raises(ConfigError, match="ascending"):
        MlpEngine(config)
