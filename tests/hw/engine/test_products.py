# amaranth: UnusedElaboratable=no
import random

import pytest
from nearflash_hw.engine.lut_products import LutProducts
from nearflash_hw.engine.products import Products
from nearflash_sim.bench import simulate


@pytest.mark.parametrize(("kr", "kc", "bits", "form"), [
    (1, 1, (8, 8), {}), (3, 2, (8, 8), {}), (2, 4, (16, 8), {}), (2, 8, (8, 16), {}), (4, 4, (8, 8), {"packed": True}),
    (3, 2, (8, 8), {"packed": True}), (2, 1, (8, 8), {"acc_bits": 24})])
def test_sums_of_products_at_their_extremes(kr, kc, bits, form):
    check(Products(kr, kc, *bits, **form), kr, kc, bits, form.get("acc_bits", 0))


@pytest.mark.parametrize(("kr", "kc", "bits", "group", "stages"), [
    (1, 1, (8, 8), 1, 1), (3, 2, (8, 8), 2, 1), (2, 2, (8, 8), 2, 2), (2, 8, (8, 16), 4, 2), (1, 4, (16, 8), 4, 2),
    (1, 2, (16, 16), 2, 1)])
def test_sums_of_products_of_luts(kr, kc, bits, group, stages):
    check(LutProducts(kr, kc, *bits, group=group, stages=stages), kr, kc, bits)


def test_every_product_of_luts():
    """All weights with all activations (but -128, which there is none of), one pair a cycle."""
    dut = LutProducts(1, 1, 8, 8, group=1, stages=1)
    pairs = [(x, w) for x in range(-127, 128) for w in range(-128, 128)]
    got = []

    async def process(ctx):
        ctx.set(dut.enable, 0b111)
        for x, w in [*pairs, (0, 0), (0, 0)]:
            ctx.set(dut.x, [x])
            ctx.set(dut.w, [w])
            await ctx.tick()
            got.append(ctx.get(dut.p)[0][0])

    simulate(dut, [process], until=lambda: len(got) == len(pairs) + 2, max_cycles=len(pairs) + 10)
    assert got[2:] == [x * w for x, w in pairs]


def check(dut, kr, kc, bits, acc_bits=0):
    """80 steps, every third of extreme operands, in a row."""
    rng = random.Random(kr * kc)
    latency, (bx, bw) = 2 + dut.stages, bits
    hx, hw = (1 << bx - 1) - 1, 1 << bw - 1
    steps = []
    for k in range(80):
        corner = k % 3 == 0
        steps.append(([rng.choice([-hx, hx, 0, 1]) if corner else rng.randint(-hx, hx) for _ in range(kc)],
                      [rng.choice([-hw, hw - 1, 0, -1]) if corner else rng.randint(-hw, hw - 1) for _ in range(kr * kc)],
                      rng.random() < 0.2 or k == 0))
    got, done = [], []

    async def process(ctx):
        fly = []
        for k in range(len(steps) + latency):
            valid = k < len(steps)
            if valid:
                x, w, _ = steps[k]
                ctx.set(dut.x, x)
                ctx.set(dut.w, w)
            fly.insert(0, valid)
            ctx.set(dut.enable, sum(int(v) << s for s, v in enumerate(fly[:len(dut.enable)])))
            if acc_bits and 0 <= k - (len(dut.enable) - 1) < len(steps):
                ctx.set(dut.restart, steps[k - (len(dut.enable) - 1)][2])
            await ctx.tick()
            if k >= latency - 1 and len(got) < len(steps):
                p = ctx.get(dut.p)
                got.append([[p[r][g] for g in range(kc // dut.group)] for r in range(kr)])
        done.append(True)

    simulate(dut, [process], until=lambda: bool(done), max_cycles=200)
    total = None
    for (x, w, restart), sums in zip(steps, got, strict=True):
        want = [[sum(x[c] * w[r * kc + c] for c in range(g * dut.group, (g + 1) * dut.group))
                 for g in range(kc // dut.group)] for r in range(kr)]
        if acc_bits:
            total = want if restart else [[a + b for a, b in zip(p, q, strict=True)]
                                          for p, q in zip(total, want, strict=True)]
            want = total
        assert sums == want


@pytest.mark.parametrize(("arguments", "form", "says"), [
    ((1, 1, 8, 8), {"primitive": "lut"}, "primitive"), ((2, 2, 16, 8), {"packed": True}, "8 bits"),
    ((2, 4, 8, 8), {"acc_bits": 24}, "cannot accumulate")])
def test_forms_that_cannot_be_are_refused(arguments, form, says):
    with pytest.raises(ValueError, match=says):
        Products(*arguments, **form)


def test_products_of_luts_that_cannot_be_are_refused():
    for bits, group, stages, says in ((7, 1, 1, "weight_bits = 7"), (2, 1, 1, "weight_bits = 2"), (8, 4, 1, "stages = 1")):
        with pytest.raises(ValueError, match=says):
            LutProducts(1, 4, 8, bits, group=group, stages=stages)
