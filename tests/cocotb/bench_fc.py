"""FC cores of several shapes, side by side, against torch.nn.functional.linear: row and column scan, weights on chip and
streamed from cocotbext-axi's memory, widths that the kernel does not divide, corner values."""

import random

import cocotb
import torch
from cocotb.triggers import RisingEdge
from mlp_checks import linear, weight_image
from tops import BEAT, FC_CORES, fc_cores
from verbs import PATTERNS, Bench, beats_of

SAMPLES = 6


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def cores_are_linear_layers(dut, inputs, outputs):
    rng = random.Random(f"{inputs}{outputs}")
    torch.manual_seed(rng.getrandbits(32))
    b = Bench(dut, fc_cores())
    await b.begin()
    ram = b.ram("axi", pattern=outputs)
    sinks, expected, steps = {}, {}, dict.fromkeys(FC_CORES, 0)

    async def count_steps():
        while True:
            await RisingEdge(dut.clk)
            for name in FC_CORES:
                steps[name] += int(getattr(dut, f"{name}_step").value)

    cocotb.start_soon(count_steps())
    for name, (core, act_bits, n_batch, lanes) in FC_CORES.items():
        top, high = 2 ** (core.weight_bits - 1), 2 ** (act_bits - 1) - 1
        weight = torch.randint(-top, top, (core.rows, core.columns))
        weight[0], weight[1] = -top, top - 1
        x = torch.randint(-high, high + 1, (SAMPLES, core.columns))
        x[0], x[1] = high, -high
        image = weight_image(core, weight.numpy(), BEAT)
        if core.weights == "dram":
            ram.write(0, image)
        else:
            for k, beat in enumerate(beats_of(image, BEAT)):
                b.put(f"{name}_weight_data", beat)
                b.put(f"{name}_weight_first", int(k == 0))
                b.put(f"{name}_weight_valid", 1)
                await RisingEdge(dut.clk)
            b.put(f"{name}_weight_valid", 0)
            await RisingEdge(dut.clk)
        y = linear(x, weight.numpy())
        beats, expected[name], at = [], [], 0
        while at < SAMPLES:
            size = min(SAMPLES - at, rng.randint(1, n_batch))
            meta = [{"n": n, "nb": size - 1} for n in range(size)]
            beats += [{"data": [int(x[at + n, c])], "pos": c, **meta[n]} for n in range(size) for c in range(core.columns)]
            expected[name] += [({"pos": r, **meta[n]}, y[at + n, r : r + lanes].tolist())
                               for r in range(0, core.rows, lanes) for n in range(size)]
            at += size
        b.source(f"{name}_i0", beats, inputs)
        sinks[name] = b.sink(f"{name}_o", outputs)

    await b.finish(lambda: all(len(s.items) >= len(expected[n]) for n, s in sinks.items()), 5_000,
                   idle=[f"{n}_busy" for n in FC_CORES])
    for name, sink in sinks.items():
        # Rows beyond the layer's are padding.
        got = [({k: i[k] for k in ("pos", "n", "nb")}, i["data"][: len(v)])
               for i, (_, v) in zip(sink.items, expected[name], strict=True)]
        assert got == expected[name], name
        assert steps[name] == FC_CORES[name][0].steps * SAMPLES
