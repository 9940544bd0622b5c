# amaranth: UnusedElaboratable=no
import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import DeviceConfig, Node
from nearflash.reference.fp32 import quantize_fp32
from nearflash_hw.mlp.router import DenseInput, Fork, LaneSplitter, PooledInput
from nearflash_sim.bench import StreamSink, StreamSource, simulate

TINY = DeviceConfig.preset("tiny")


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_a_fork_gives_everything_to_everyone(n, stall):
    dut, items = Fork(8, n), [k * 7 % 256 for k in range(60)]
    sinks = [StreamSink(getattr(dut, f"o{k}"), stall * k / n, seed=k) for k in range(n)]
    simulate(dut, [*sinks, StreamSource(dut.i, items, stall / 2, seed=9)], max_cycles=2000,
             until=lambda: all(len(s.items) == len(items) for s in sinks))
    assert all(s.items == items for s in sinks)


@pytest.mark.parametrize(("lanes_in", "lanes_out", "width"), [(4, 1, 9), (4, 2, 12), (8, 2, 5), (2, 1, 1), (8, 4, 16)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_lanes_are_split_without_padding(lanes_in, lanes_out, width, stall):
    rng, samples = random.Random(width), 6
    dut = LaneSplitter(lanes_in, lanes_out, 8, width, 3)
    beats, expected = [], []
    for n in range(samples):
        elements = [rng.randint(-128, 127) for _ in range(width)] + [99] * lanes_in
        for pos in range(0, width, lanes_in):
            beats.append({"data": elements[pos:pos + lanes_in], "pos": pos, "n": n, "nb": samples - 1})
        expected += [{"data": elements[pos:pos + lanes_out], "pos": pos, "n": n, "nb": samples - 1}
                     for pos in range(0, width, lanes_out)]
    sink = StreamSink(dut.o, stall, seed=1)
    simulate(dut, [sink, StreamSource(dut.i, beats, stall, seed=2)], until=lambda: len(sink.items) == len(expected),
             max_cycles=2000)
    assert [{**i, "data": list(i["data"])} for i in sink.items] == expected


def bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def quantised(value, mult, shift):
    return int(quantize_fp32(np.array([value], np.float32), mult, shift, 8)[0])


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_dense_features_are_quantised_in_their_places(stall):
    rng, width, mult, shift = np.random.default_rng(1), 5, 40_000, -11
    dut = DenseInput(TINY, Node("dense", "dense", width=width))
    values = rng.normal(0, 30, (7, width)).astype(np.float32)
    sample = {"n": 0, "nb": 0, "last": 0, "lookup": 0, "tables": 0}
    items = [{"value": bits(v), "last": k == width - 1, "sample": sample} for row in values for k, v in enumerate(row)]
    sink = StreamSink(dut.o, stall, seed=1)

    async def constants(ctx):
        ctx.set(dut.mult, mult)
        ctx.set(dut.shift, shift)

    simulate(dut, [constants, sink, StreamSource(dut.i, items, stall, seed=2)], max_cycles=1000,
             until=lambda: len(sink.items) == len(items))
    assert [(i["data"][0], i["pos"]) for i in sink.items] == [
        (quantised(v, mult, shift), k) for row in values for k, v in enumerate(row)]


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_pooled_elements_go_to_the_node_of_their_table(stall):
    rng = np.random.default_rng(2)
    config = replace(TINY, lookup=replace(TINY.lookup, max_tables=8))
    nodes = [Node("a", "tables", tables=(0, 2), width=8), Node("b", "tables", tables=(3,), width=4)]
    scales = {t: (int(rng.integers(1 << 14, 1 << 16)), -10 - t) for t in range(4)}
    dut = PooledInput(config, nodes)
    items, expected = [], [[], []]
    for s in range(5):
        places = [0, 0]
        for table in range(4):  # table 1 belongs to no node
            for k in range(4):
                v = np.float32(rng.normal(0, 20))
                items.append({"value": bits(v), "table": table, "last_of_table": k == 3, "last_of_sample": table == k == 3,
                              "bad": 0, "sample": {"n": 0, "nb": 0, "last": s == 4, "lookup": 0, "tables": 4}})
                node = {0: 0, 2: 0, 3: 1}.get(table)
                if node is not None:
                    expected[node].append((quantised(v, *scales[table]), places[node]))
                    places[node] += 1
    sinks = [StreamSink(dut.o0, stall, seed=1), StreamSink(dut.o1, stall, seed=2)]
    source = StreamSource(dut.i, [], stall, seed=3)

    async def tables(ctx):
        for t, (mult, shift) in scales.items():
            ctx.set(dut.table, {"table": t, "quant_mult": mult, "quant_shift": shift})
            ctx.set(dut.table_valid, 1)
            await ctx.tick()
        ctx.set(dut.table_valid, 0)
        source.items += items

    simulate(dut, [tables, source, *sinks], max_cycles=2000,
             until=lambda: all(len(s.items) == len(e) for s, e in zip(sinks, expected, strict=True)))
    for sink, want in zip(sinks, expected, strict=True):
        assert [(i["data"][0], i["pos"]) for i in sink.items] == want
