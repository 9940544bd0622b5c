import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash.contract import Core
from nearflash_hw.engine import products
from nearflash_hw.engine.kernel import Kernel
from nearflash_hw.mlp.buffer import plan_edges
from nearflash_hw.mlp.core import FcCore
from nearflash_hw.mlp.weights import PASSES_OWED
from nearflash_sim.bench import StreamSink, StreamSource, simulate
from nearflash_sim.models import MemoryModel
from nearflash_sim.models.dsp48 import Dsp48

sys.path.insert(0, str(Path(__file__).parent))
from mlp_model import as_beats, split_groups, weight_image


def make_core(rows, columns, kr, kc, scan, weights="onchip", weight_bits=8):
    return Core(0, "fc", ("x",), rows, columns, kr, kc, scan, weights, weight_bits)


def run(core, *, n_batch=1, act_bits=8, lanes=1, widths=None, in_lanes=1, samples=5, stall=0.0, mem_stall=0.0, buffered=2,
        beat_bytes=16, seed=0, hold=False, element_major=False, sizes=None, latency=5, late=False,
        **form):
    """Compare a core with NumPy over random groups; returns (cycles of inputs taken, sink, steps, cycles). ``late``: nobody
    asks whether weights were read before the core has stopped for it."""
    rng, nprng = random.Random(seed), np.random.default_rng(seed)
    widths = widths or (core.columns,)
    edges = plan_edges([("x", w, in_lanes) for w in widths], core.kc)
    dut = FcCore(core, act_bits, n_batch, buffered, beat_bytes, lanes=lanes, edges=edges, hold_results=hold, address=4096,
                 **form)
    hi = 2 ** (act_bits - 1) - 1
    w = nprng.integers(-(2 ** (core.weight_bits - 1)), 2 ** (core.weight_bits - 1), (core.rows, core.columns))
    x = nprng.integers(-hi, hi + 1, (samples, core.columns))
    x[0] = hi
    acc = x @ w.T
    image = weight_image(core, w, beat_bytes)
    sizes = sizes or split_groups(rng, samples, n_batch)
    feeds = [[] for _ in edges]
    expected, at = [], 0
    for size in sizes:
        nb = size - 1
        for j, e in enumerate(edges):
            order = [(n, p) for n in range(size) for p in range(0, e.width, e.lanes)]
            if element_major:
                order.sort(key=lambda t: (t[1], t[0]))
            for n, p in order:
                v = [int(x[at + n, e.offset + p + i]) if p + i < e.width else rng.randint(-hi, hi) for i in range(e.lanes)]
                feeds[j].append({"data": v, "pos": p, "n": n, "nb": nb})
        for p in range(0, core.rows, lanes):
            for n in range(size):
                expected.append((p, n, nb, acc[at + n, p : p + lanes].tolist()))
        at += size
    sources = [StreamSource(getattr(dut, f"i{j}"), [], stall, seed=seed + j) for j in range(len(edges))]
    sink = StreamSink(dut.o, stall, seed=seed + 9)
    memory = MemoryModel(beat_bytes, latency=latency, stall=mem_stall, seed=seed)
    memory.write(4096, image)
    trace = {"steps": [], "busy": [], "cycle": 0}

    async def load(ctx):
        if core.weights == "onchip":
            beats = as_beats(image, beat_bytes)
            for i, b in enumerate([*beats, 0x55] if beat_bytes == 8 else beats):  # a record's padding beat is ignored
                ctx.set(dut.weight_data, b)
                ctx.set(dut.weight_first, i == 0)
                ctx.set(dut.weight_valid, 1)
                await ctx.tick()
                trace["cycle"] += 1
            ctx.set(dut.weight_valid, 0)
        for s, f in zip(sources, feeds, strict=True):
            s.items += f
        while True:
            _, _, step, busy = await ctx.tick().sample(dut.step, dut.busy)
            trace["cycle"] += 1
            if step:
                trace["steps"].append(trace["cycle"])
            trace["busy"].append(busy)

    actors = [*sources, sink, load]
    if core.weights == "dram":
        failed = StreamSink(dut.failed, 1.0 if late else stall, seed=77)

        async def ask_late(ctx):
            while len(sink.items) < PASSES_OWED * len(expected) // len(sizes):
                await ctx.tick()
            await ctx.tick().repeat(200)
            assert len(sink.items) < len(expected), "the core went on"
            failed.stall = 0.0

        if late:
            actors.append(ask_late)
        actors += [memory.read_port(dut.mem_read), failed]
    simulate(dut, actors, until=lambda: len(sink.items) >= len(expected), max_cycles=20_000)
    assert all(s.drained for s in sources)
    assert len(sink.items) == len(expected)
    for got, (p, n, nb, a) in zip(sink.items, expected, strict=True):
        assert (got["pos"], got["n"], got["nb"]) == (p, n, nb)
        assert got["data"][: len(a)] == a
    if core.weights == "dram":
        assert failed.items == [0] * len(sizes)
    assert not trace["busy"][-1]
    assert memory.pending == 0
    assert len(trace["steps"]) == core.steps * samples
    return trace["steps"], sink, sizes


@pytest.mark.parametrize("scan", ["row", "column"])
@pytest.mark.parametrize("n_batch", [1, 2, 4])
@pytest.mark.parametrize("weights", ["onchip", "dram"])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_core_matches_numpy(scan, n_batch, weights, stall):
    core = make_core(7, 11, 2, 4, scan, weights)
    run(core, n_batch=n_batch, stall=stall, mem_stall=stall, samples=7, seed=n_batch)


def test_a_core_waits_for_those_who_ask_whether_its_weights_were_read():
    """It keeps as many answers as it has places for."""
    run(make_core(6, 8, 2, 4, "row", "dram"), samples=PASSES_OWED + 5, sizes=[1] * (PASSES_OWED + 5), late=True)


@pytest.mark.parametrize("scan", ["row", "column"])
@pytest.mark.parametrize(("rows", "columns", "kr", "kc", "lanes", "in_lanes"), [
    (1, 1, 1, 1, 1, 1), (1, 9, 8, 4, 4, 2), (9, 1, 4, 8, 2, 1), (16, 8, 4, 8, 4, 8), (5, 6, 8, 8, 1, 4), (6, 5, 1, 2, 1, 2),
    (3, 17, 4, 1, 2, 1), (1, 3, 16, 16, 16, 16), (17, 9, 5, 2, 1, 1), (30, 8, 12, 4, 4, 2), (7, 6, 3, 1, 1, 2),
])
def test_core_shapes(scan, rows, columns, kr, kc, lanes, in_lanes):
    core = make_core(rows, columns, kr, kc, scan)
    run(core, n_batch=2, lanes=lanes, in_lanes=in_lanes, stall=0.2, samples=6, seed=rows + columns, element_major=True)


@pytest.mark.parametrize("scan", ["row", "column"])
@pytest.mark.parametrize(("act_bits", "weight_bits", "beat_bytes"), [(8, 8, 8), (16, 16, 16), (16, 8, 32), (8, 16, 8)])
@pytest.mark.parametrize("weights", ["onchip", "dram"])
def test_core_widths(scan, act_bits, weight_bits, beat_bytes, weights):
    core = make_core(6, 10, 4, 8, scan, weights, weight_bits)
    run(core, n_batch=2, act_bits=act_bits, beat_bytes=beat_bytes, samples=4, seed=3, stall=0.2)


@pytest.mark.parametrize("scan", ["row", "column"])
@pytest.mark.parametrize("in_lanes", [1, 4])
@pytest.mark.parametrize("buffered", [1, 2])
def test_core_joins_several_producers(scan, in_lanes, buffered):
    """Edges of widths that do not align: partial beats must not spill into the next edge."""
    core = make_core(6, 4 + 5 + 3 + 6, 2, 4, scan)
    run(core, n_batch=2, widths=(4, 5, 3, 6), in_lanes=in_lanes, samples=9, seed=5, stall=0.3, buffered=buffered)


@pytest.mark.parametrize(("kr", "kc", "n_batch", "scan"), [
    (1, 1, 1, "column"), (4, 1, 1, "row"), (4, 1, 2, "row"), (3, 2, 2, "column"), (4, 4, 1, "row"), (2, 8, 2, "row")])
@pytest.mark.parametrize(("packed", "primitive"), [
    (True, "inferred"), (False, "dsp48e1"), (True, "dsp48e1"), (False, "dsp48e2"), (True, "dsp48e2")])
def test_core_forms(kr, kc, n_batch, scan, packed, primitive, monkeypatch):
    """Other shapes of the multiplier array: equal sums, and equal cycles."""
    monkeypatch.setattr(products, "Instance", Dsp48)
    core = make_core(7, 19, kr, kc, scan)
    ends = []
    for form in ({}, {"packed": packed, "primitive": primitive}):
        steps, sink, _ = run(core, n_batch=n_batch, samples=4, stall=0.2, seed=kc, **form)
        ends.append((steps, sink.cycles))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("kr", "kc", "n_batch", "scan", "packed"), [(4, 1, 1, "row", False), (5, 2, 2, "column", True)])
def test_core_with_rows_of_luts(kr, kc, n_batch, scan, packed):
    """Equal sums, and equal cycles, also where slices alone would add up."""
    core = make_core(7, 19, kr, kc, scan)
    ends = []
    for rows in (0, 2):
        steps, sink, _ = run(replace(core, lut_rows=rows), n_batch=n_batch, samples=4, stall=0.2, seed=kc, packed=packed)
        ends.append((steps, sink.cycles))
    assert ends[0] == ends[1]


def test_block_ram_accumulators():
    """Enough rows that the column scan's accumulators are in block RAM."""
    core = make_core(72, 5, 1, 1, "column")
    run(core, n_batch=1, samples=2, seed=1)
    run(make_core(16, 5, 2, 1, "column"), n_batch=16, samples=18, sizes=[16, 1, 1], seed=1)


@pytest.mark.parametrize("scan", ["row", "column"])
def test_one_step_per_cycle(scan):
    """Groups back to back: steps x samples cycles each, but for the turn-around of a group."""
    core = make_core(16, 16, 2, 2, scan)
    steps, sink, sizes = run(core, n_batch=2, lanes=1, in_lanes=2, samples=8, sizes=[2] * 4)
    assert steps[-1] - steps[0] + 1 <= core.steps * 8 + 2 * len(sizes)
    if scan == "row":  # progressive: the first outputs come long before the last step
        latency = Kernel(2, 2, 8, 8).latency
        assert sink.cycles[0] == steps[0] + (core.column_blocks - 1) * 2 + latency + 4


def test_dram_words_at_memory_speed():
    """A word of 4 beats: 4 cycles a word at nb = 0, and the next group's words are there when it starts."""
    core = make_core(16, 32, 8, 8, "row", "dram")
    steps, _, _ = run(core, samples=6, in_lanes=8, latency=10)
    assert steps[-1] - steps[0] <= 6 * core.steps * 4 + 6 * 4


def test_dram_long_image_is_read_in_bursts():
    core = make_core(40, 40, 2, 4, "column", "dram")  # 200 one-beat words of which a burst holds 256
    run(core, samples=2, in_lanes=4)
    core = make_core(64, 40, 2, 4, "row", "dram")  # 320 words: two bursts, the second shorter
    run(core, samples=3, in_lanes=4)


def test_few_row_blocks_with_many_samples():
    """An accumulator is used again in the next cycle when a group of one meets one row block, however deep they are."""
    run(make_core(4, 5, 4, 1, "column"), n_batch=128, samples=3, sizes=[1, 2], seed=2)
    run(make_core(6, 5, 2, 1, "column"), n_batch=32, samples=3, sizes=[1, 2], seed=2)


@pytest.mark.parametrize("scan", ["row", "column"])
def test_results_wait_for_a_slow_reader(scan):
    run(make_core(40, 2, 1, 2, scan), samples=3, stall=0.85, seed=1)


def test_dram_prefetch_waits_for_room():
    """An image beyond the FIFO, memory four times as fast as the samples use words."""
    run(make_core(60, 40, 1, 4, "row", "dram"), n_batch=4, samples=8, sizes=[4, 4], in_lanes=4)
