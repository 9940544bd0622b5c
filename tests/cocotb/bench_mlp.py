"""The MLP engine with a compiled torch model's parameters: logits are those of torch.nn.functional.linear and bmm on the
same integers, and of the reference model."""

import random
from itertools import islice

import cocotb
import numpy as np
import torch
from cocotb.triggers import RisingEdge
from compiled_model import compiled
from mlp_checks import records, torch_logits
from nearflash.reference.fp32 import int_to_fp32, quantize_fp32
from nearflash.reference.mlp import run_graph
from tops import MODEL, mlp, with_model
from verbs import PATTERNS, Bench, beats_of, table_payload

SAMPLES = 7
CONFIG = with_model()
_, COMPILED = compiled(CONFIG)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS, outputs=PATTERNS)
async def logits_are_torchs(dut, inputs, outputs):
    seed = f"{inputs}{outputs}"
    rng, nprng = random.Random(seed), np.random.default_rng(list(seed.encode()))
    graph, bits, params = CONFIG.mlp.graph, CONFIG.mlp.act_bits, COMPILED.params
    b = Bench(dut, mlp())
    await b.begin()
    ram = b.ram("dram", pattern=outputs)
    chip, dram = records(COMPILED.image)
    assert dram, "no layer is streamed"
    for address, content in dram:
        ram.write(address, content)
    for t, spec in enumerate(COMPILED.tables):
        b.put("table_write", table_payload(CONFIG, t, spec))
        dut.table_valid.value = 1
        await RisingEdge(dut.clk)
    dut.table_valid.value = 0
    beats = [[{"data": d, "target": target, "first": int(k == 0), "last": int(k == len(words) - 1)}
              for k, d in enumerate(words)] for target, content in chip for words in [beats_of(content, CONFIG.beat_bytes)]]
    parameters = b.source("parameter", [x for record in beats for x in record], inputs)
    await b.until(lambda: parameters.drained, 5_000)

    dense = (nprng.standard_normal((SAMPLES, MODEL.dense)) * 2).astype(np.float32)
    pooled = [(nprng.standard_normal((SAMPLES, t.dim)) * 2).astype(np.float32) for t in MODEL.tables]
    dense_q = quantize_fp32(dense, *COMPILED.dense_quant, bits)
    pooled_q = [quantize_fp32(p, s.quant_mult, s.quant_shift, bits)
                for p, s in zip(pooled, COMPILED.tables, strict=True)]
    want = torch_logits(graph, bits, params, torch.from_numpy(dense_q), [torch.from_numpy(p) for p in pooled_q])
    assert np.array_equal(want.numpy(), run_graph(graph, bits, params, dense_q, pooled_q)[0])
    logits = int_to_fp32(want.numpy(), params.logit_exponent).view(np.uint32)
    assert len(np.unique(logits)) > SAMPLES, "a test without information"

    features, elements, groups, at = [], [], [], 0
    while at < SAMPLES:
        size = min(SAMPLES - at, rng.randint(1, CONFIG.mlp.n_batch))
        for n in range(size):
            meta = {"n": n, "nb": size - 1, "last": 0, "lookup": 0, "tables": len(pooled)}
            words = dense[at + n].view(np.uint32).tolist()
            features += [{"value": v, "last": int(k == len(words) - 1), "sample": meta} for k, v in enumerate(words)]
            for t, p in enumerate(pooled):
                words = p[at + n].view(np.uint32).tolist()
                elements += [{"value": v, "table": t, "last_of_table": int(k == len(words) - 1), "bad": 0, "sample": meta,
                              "last_of_sample": int(k == len(words) - 1 and t == len(pooled) - 1)}
                             for k, v in enumerate(words)]
        groups.append({(n, o): (int(logits[at + n, o]), size - 1) for n in range(size) for o in range(MODEL.outputs)})
        at += size
    b.source("dense", features, inputs)
    b.source("pooled", elements, inputs)
    sink = b.sink("logit", outputs)
    await b.finish(lambda: len(sink.items) >= logits.size, 8_000, idle=["busy"])
    items = iter(sink.items)
    for group in groups:  # the order within a group is free
        assert {(i["n"], i["o"]): (i["value"], i["nb"]) for i in islice(items, len(group))} == group
