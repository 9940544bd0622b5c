"""The planner's cycles are the RTL's, to the cycle: random graphs, kernels, widths and orders."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from nearflash.compiler.timing import inference_cycles
from nearflash.contract import ConfigError, DeviceConfig, MlpConfig, ModelError, Node
from nearflash_hw.mlp import MlpEngine
from nearflash_sim.bench import StreamSink, StreamSource, simulate

sys.path.insert(0, str(Path(__file__).parent))


def rtl_cycles(config: DeviceConfig, dims: tuple[int, ...]) -> tuple[int, int, int]:
    """(busy cycles, last input's cycle, last logit's cycle) of one sample of zeros: no cycle depends on a value."""
    dut = MlpEngine(config)
    dense = next((n.width for n in config.mlp.graph if n.kind == "dense"), 0)
    sample = {"n": 0, "nb": 0, "last": 1, "lookup": 0, "tables": len(dims)}
    features = [{"value": 0, "last": int(i == dense - 1), "sample": sample} for i in range(dense)]
    elements = [{"value": 0, "table": t, "last_of_table": int(i == d - 1), "bad": 0, "sample": sample,
                 "last_of_sample": int(i == d - 1 and t == len(dims) - 1)} for t, d in enumerate(dims) for i in range(d)]
    sources = [StreamSource(dut.dense, features), StreamSource(dut.pooled, elements)]
    sink = StreamSink(dut.logit)
    busy, inputs = [], []

    async def watch(ctx):
        cycle = 0
        while True:
            _, _, b, dv, dr, pv, pr = await ctx.tick().sample(dut.busy, dut.dense.valid, dut.dense.ready, dut.pooled.valid,
                                                              dut.pooled.ready)
            busy.append(b)
            if (dv and dr) or (pv and pr):
                inputs.append(cycle)
            cycle += 1

    simulate(dut, [*sources, sink, watch], until=lambda: len(sink.items) == config.mlp.graph[-1].width, max_cycles=5000)
    start = inputs[0]
    last = max(i for i, b in enumerate(busy) if b)
    assert all(busy[start + 1 : last + 1]), "busy from the first element to the last logit"
    return sum(busy), inputs[-1] - start, sink.cycles[-1] - 1 - start


def fc(rng: random.Random, name: str, inputs: tuple[str, ...], beat_bytes: int, **kw) -> Node:
    while True:
        parts = len(inputs)
        node = Node(name, "fc", rng.randint(1, 40), inputs, relu=True, kr=rng.choice((1, 2, 3, 4, 5, 6, 8, 12, 16)),
                    kc=1 << rng.randrange(5), scan=rng.choice(("row", "column")), weight_bits=rng.choice((8, 16)), **kw)
        if node.decomposed:
            node = replace(node, kr_split=tuple(rng.choice((1, 2, 3, 4, 6, 8)) for _ in range(parts)),
                           kc_split=tuple(1 << rng.randrange(5) for _ in range(parts)))
        words = [kr * kc * node.weight_bits // 8 for kr, kc in
                 zip(node.kr_split or (node.kr,), node.kc_split or (node.kc,), strict=True)]
        if all(w <= beat_bytes or w % beat_bytes == 0 for w in words):
            return node


def random_device(seed: int) -> tuple[DeviceConfig, tuple[int, ...]]:
    """A random model: fc chains from dense features and pooled vectors, cat, dot or mul where they meet."""
    rng = random.Random(seed)
    tiny = DeviceConfig.preset("tiny")
    beat = tiny.beat_bytes
    meet = rng.choice(("cat", "cat", "dot", "mul", "twice"))
    dim = 4 * rng.randint(1, 4)
    dims = tuple(dim if meet in ("dot", "mul") else 4 * rng.randint(1, 4) for _ in range(rng.randint(2, 4)))
    graph: list[Node] = []
    if meet == "mul":
        graph = [Node("emb", "tables", sum(dims[:-1]), tables=tuple(range(len(dims) - 1))),
                 Node("last", "tables", dim, tables=(len(dims) - 1,))]
        graph += [replace(fc(rng, "b0", ("emb",), beat), width=dim), Node("mul", "mul", dim, ("b0", "last"))]
        ends: tuple[str, ...] = ("mul", "b0")
    else:
        graph = [Node("dense", "dense", rng.randint(1, 50)),
                 Node("emb", "tables", sum(dims), tables=tuple(range(len(dims))))]
        previous = "dense"
        for k in range(rng.randint(0, 3)):
            graph.append(fc(rng, f"b{k}", (previous,), beat))
            previous = f"b{k}"
        if meet == "dot":
            graph.append(replace(fc(rng, "b9", (previous,), beat), width=dim))
            pairs = (len(dims) + 1) * len(dims) // 2
            graph.append(Node("dot", "dot", pairs, ("b9", "emb"), dim=dim))
            ends = ("b9", "dot")
        else:
            ends = (previous, "emb") if meet == "cat" else (previous, "emb", "dense")
    previous_ends = ends
    for k in range(rng.randint(1, 3)):
        graph.append(fc(rng, f"t{k}", previous_ends, beat, decomposed=k == 0 and rng.random() < 0.5))
        previous_ends = (f"t{k}",)
    # Some column scans send through fewer lanes than the rule gives them
    for k, n in enumerate(graph[:-1]):
        if n.kind == "fc" and n.scan == "column":
            graph[k] = replace(n, lanes=rng.choice((0, 1) if any(v % 2 for v in n.kr_split or (n.kr,)) else (0, 1, 2)))
    config = replace(tiny, mlp=MlpConfig(tuple(graph), n_batch=rng.choice((1, 2)), buffered=rng.choice((1, 2))),
                     lookup=replace(tiny.lookup, max_tables=max(tiny.lookup.max_tables, len(dims)), sample_slots=4))
    return config, dims


@pytest.mark.parametrize("seed", range(12))
def test_planned_cycles_are_the_rtls(seed):
    config, dims = random_device(seed)
    planned = inference_cycles(config, dims)
    assert rtl_cycles(config, dims) == (planned.busy, planned.last_input, planned.last_logit)


def test_a_slow_consumer_holds_up_its_producer():
    """Many outputs a cycle into a layer that takes one: result buffers and FIFOs fill, and the row scan waits."""
    graph = (Node("dense", "dense", 4), Node("wide", "fc", 512, ("dense",), kr=16, kc=4),
             Node("out", "fc", 2, ("wide",), kr=2, kc=1, scan="column"))
    config = replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph))
    planned = inference_cycles(config)
    assert planned.node["wide"] > 400  # not the 32 steps that its kernel needs
    assert rtl_cycles(config, ()) == (planned.busy, planned.last_input, planned.last_logit)


def test_layer_rule_of_the_module_text():
    """RB CB + L + RESULT + EPILOGUE + VISIBLE cycles for a lone layer that waits for its input (L = 5 for 16 columns)."""
    graph = (Node("dense", "dense", 64), Node("out", "fc", 8, ("dense",), kr=1, kc=16))
    planned = inference_cycles(replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph)))
    assert planned.node["out"] - planned.node["dense"] == 8 * 4 + 5 + 3 + 9 + 2


def test_what_cannot_be_predicted_is_refused():
    graph = (Node("dense", "dense", 64), Node("out", "fc", 8, ("dense",), kr=2, kc=16, weights="dram"))
    with pytest.raises(ModelError, match="must be on chip"):
        inference_cycles(replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph)))
    graph = (Node("emb", "tables", 8, tables=(0, 1)), Node("out", "fc", 8, ("emb",)))
    with pytest.raises(ModelError, match="dims"):
        inference_cycles(replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph)), (4, 8))


def test_lanes_that_no_engine_can_have():
    tiny = DeviceConfig.preset("tiny")
    graph = (Node("dense", "dense", 64), Node("mid", "fc", 8, ("dense",), kr=4, scan="column", lanes=2),
             Node("out", "fc", 8, ("mid",), kr=4, scan="column"))
    replace(tiny, mlp=MlpConfig(graph))
    for node in (replace(graph[1], lanes=3), replace(graph[1], lanes=8), replace(graph[1], scan="row")):
        with pytest.raises(ConfigError, match=r"mid.*lanes"):
            replace(tiny, mlp=MlpConfig((graph[0], node, graph[2])))
    with pytest.raises(ConfigError, match="last node"):
        replace(tiny, mlp=MlpConfig((*graph[:2], replace(graph[2], lanes=2))))


def test_words_fit_or_fill_beats():
    tiny = DeviceConfig.preset("tiny")  # beats of 8 bytes
    graph = (Node("dense", "dense", 64), Node("out", "fc", 8, ("dense",), kr=3, kc=4))
    with pytest.raises(ConfigError, match="fill beats"):
        replace(tiny, mlp=MlpConfig(graph))
    for kr, kc in ((3, 2), (5, 8)):
        replace(tiny, mlp=MlpConfig((graph[0], replace(graph[1], kr=kr, kc=kc))))
