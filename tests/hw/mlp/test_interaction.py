"""Interactions alone: dot products of pairs and element-wise products, against NumPy."""

import random

import numpy as np
import pytest
from mlp_model import split_groups
from nearflash.contract import Node
from nearflash.contract.mlp import interaction_word
from nearflash.reference.requantize import requantize
from nearflash_hw.mlp.buffer import plan_edges
from nearflash_hw.mlp.interaction import Interaction
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

N_BATCH, BUFFERED, ACT_BITS = 4, 2, 8
LIMIT = (1 << ACT_BITS - 1) - 1


def make(kind, widths, lanes, dim):
    features = sum(widths) // dim if dim else 0
    width = features * (features - 1) // 2 if kind == "dot" else widths[0]
    node = Node("x", kind, width, inputs=tuple(f"p{j}" for j in range(len(widths))), dim=dim, relu=kind == "mul")
    edges = plan_edges([(f"p{j}", w, lane) for j, (w, lane) in enumerate(zip(widths, lanes, strict=True))],
                       interaction_word(node))
    return Interaction(node, edges, ACT_BITS, N_BATCH, BUFFERED)


def sums(node, x):
    if node.kind == "mul":
        return x[: node.width] * x[node.width :]
    f = x.reshape(-1, node.dim)
    return np.array([f[i] @ f[j] for i in range(len(f)) for j in range(i)])


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "widths", "lanes", "dim"), [
    ("dot", (4, 12), (1, 2), 4), ("dot", (16, 16), (4, 1), 16), ("dot", (3, 6), (1, 1), 3), ("mul", (5, 5), (1, 1), 0)])
def test_against_numpy(kind, widths, lanes, dim, stall):
    """Groups of every size, corner values among the elements; several multipliers would need a reset between them."""
    rng = random.Random(dim)
    dut = reused(make, kind, widths, lanes, dim)
    node, edges = dut.node, dut.edges
    mult, shift = rng.choice([(1, 0), (40_000, 20), (65_535, 24)]) if kind == "dot" else (40_000, 22)
    groups, samples = split_groups(rng, 10, N_BATCH), []
    beats, want = [[] for _ in edges], []
    for size in groups:
        xs = [np.array([rng.choice([0, 1, -1, LIMIT, -LIMIT, rng.randint(-LIMIT, LIMIT)]) for _ in range(sum(widths))])
              for _ in range(size)]
        samples += xs
        for n, x in enumerate(xs):
            q = requantize(sums(node, x), mult, shift, ACT_BITS, node.relu)
            want += [{"data": [int(v)], "pos": p, "n": n, "nb": size - 1} for p, v in enumerate(q)]
        for j, e in enumerate(edges):
            for pos in range(0, e.width, e.lanes):
                for n, x in enumerate(xs):
                    part = x[e.offset + pos : e.offset + min(pos + e.lanes, e.width)].tolist()
                    beats[j].append({"data": part + [0] * (e.lanes - len(part)), "pos": pos, "n": n, "nb": size - 1})
    sources = [StreamSource(getattr(dut, f"i{j}"), beats[j], stall, seed=j) for j in range(len(edges))]
    sink, busy = StreamSink(dut.o, stall, seed=9), []

    async def scale(ctx):
        ctx.set(dut.mult, mult)
        ctx.set(dut.shift, shift)
        while True:
            await ctx.tick()
            busy.append(ctx.get(dut.busy))

    simulate(dut, [scale, *sources, sink], until=lambda: len(sink.items) >= len(want), max_cycles=4000)
    assert sink.items == want
    assert all(s.drained for s in sources)
    assert any(busy)
    assert not busy[-1]
