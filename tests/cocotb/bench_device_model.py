"""A device with an MLP as its host sees it: a torch model compiled, stored through NVMe, asked: logits equal the integer
model's, without a mismatch, and lie near torch's fp32 ones."""

import cocotb
import numpy as np
import pytest
import torch
from compiled_model import compiled, queries
from device_checks import run_device
from nearflash.contract import CommandError, Status
from nearflash.quantize import to_torch
from nearflash.reference.model import IntegerModel
from tops import MODEL, device, with_model
from verbs import PATTERNS

CONFIG = with_model()
TORCH, COMPILED = compiled(CONFIG)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(inputs=PATTERNS[::2], outputs=PATTERNS[:2])
async def answers_queries(dut, inputs, outputs):
    rng = np.random.default_rng(list(f"{inputs}{outputs}".encode()))

    def program(device):
        dense, bags = queries(rng, 7)
        device.load(COMPILED, preload=False)
        # INFER of 7 queries in commands of 3, several in flight; LOOKUP of the same bags; a bad index in between.
        got = device.infer(dense, bags, batch=3)
        want = IntegerModel(COMPILED).logits(dense, bags)[1]
        assert got.tobytes() == want.tobytes(), f"{(got != want).sum()} of {want.size} logits differ"
        with torch.no_grad():
            exact = TORCH(*to_torch(dense, bags)).numpy()
        assert np.abs(got - exact).max() < 0.15 * max(1.0, np.abs(exact).max())
        bad = [(bags[0][0].copy(), bags[0][1]), *bags[1:]]
        bad[0][0][-1] = MODEL.tables[0].rows
        with pytest.raises(CommandError) as refused:
            device.infer(dense, bad)
        assert refused.value.status == Status.INDEX_OUT_OF_RANGE
        pooled, _ = IntegerModel(COMPILED).pool(bags)
        for values, reference in zip(device.lookup(bags), pooled, strict=True):
            assert values.tobytes() == reference.tobytes()
        assert device.counters()["samples_count"] == 14
        return sum(device.tables[t].pages(CONFIG) for t in range(len(MODEL.tables)))

    await run_device(dut, device(), CONFIG, inputs, outputs, program)
