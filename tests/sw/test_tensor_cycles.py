"""Predicted cycles of descriptors against those that the Verilated engine took (`python -m bench tensor_tile --quick`)."""

import pytest
from nearflash.contract import TensorConfig
from nearflash.contract.tensor import Descriptor, Op
from nearflash.offload.cycles import Timing, descriptor_cycles, retiled

ENGINE, BEAT = TensorConfig(8, 16, pixels=64, lanes=8, depthwise=16, max_keys=256), 8


def tensor(op, side, channels, **fields):
    return Descriptor(op, in_height=side, in_width=side, in_channels=channels,
                      **{"out_height": side, "out_width": side, "out_channels": channels} | fields)


def kernel(op, size, side, channels, out, stride=1, **fields):
    n = -(-side // stride)
    return tensor(op, side, channels, out_height=n, out_width=n, out_channels=out, kernel_h=size, kernel_w=size,
                  stride=stride, **{"pad_top": size // 2, "pad_left": size // 2} | fields)


#: Cycles from reading a descriptor to its end, as simulated, memory's latency 30 cycles.
SIMULATED = (
    (kernel(Op.CONV, 3, 32, 9, 32, y16=1), 38_219),
    (kernel(Op.CONV, 3, 32, 32, 32, residual=1), 75_315),
    (kernel(Op.CONV, 3, 32, 32, 64, stride=2, y16=1), 39_148),
    (kernel(Op.CONV, 3, 16, 64, 64, residual=1), 75_699),
    (kernel(Op.CONV, 3, 16, 64, 96, stride=2, y16=1), 30_827),
    (kernel(Op.CONV, 1, 8, 96, 96), 6_338),
    (kernel(Op.CONV, 1, 8, 96, 96, residual=1, r16=1, y16=1), 6_428),
    (kernel(Op.CONV, 1, 8, 96, 192), 11_138),
    (kernel(Op.CONV, 1, 4, 320, 160, residual=1, r16=1, y16=1), 8_993),
    (kernel(Op.CONV, 1, 2, 192, 384), 11_536),
    (kernel(Op.CONV, 3, 64, 18, 16), 149_105),
    (kernel(Op.CONV, 3, 64, 16, 2, y16=1), 38_186),
    (kernel(Op.DEPTHWISE, 3, 8, 192, 192), 5_184),
    (kernel(Op.DEPTHWISE, 3, 4, 320, 320), 4_403),
    (tensor(Op.LAYERNORM, 8, 96, x16=1), 3_097),
    (tensor(Op.LAYERNORM, 4, 160, x16=1), 2_225),
    (kernel(Op.POOL, 4, 8, 96, 96, stride=4, pad_top=0, pad_left=0), 1_328),
    (tensor(Op.ADD, 32, 32, residual=1, x16=1), 13_046),
    (tensor(Op.ATTENTION, 8, 96, heads=3, head_dim=32, keys=4), 6_643),
)

#: On an engine of 2 lanes, where residuals come in single beats: `nearflash fit`'s for PYNQ-Z2.
NARROW = TensorConfig(8, 16, packed=True, pixels=64, lanes=2, depthwise=16, input_bytes=65536, weight_bytes=65536,
                      max_channels=512, max_keys=256)
RESIDUALS = (
    (kernel(Op.CONV, 3, 32, 32, 32, residual=1), 75_710),
    (kernel(Op.CONV, 3, 16, 64, 64, residual=1, r16=1, y16=1), 75_608),
    (kernel(Op.CONV, 1, 8, 96, 96, residual=1, r16=1, y16=1), 9_543),
    (kernel(Op.CONV, 1, 8, 192, 96, residual=1, r16=1, y16=1), 12_126),
    (kernel(Op.CONV, 1, 4, 160, 160, residual=1, r16=1, y16=1), 6_953),
    (kernel(Op.CONV, 1, 4, 320, 160, residual=1, r16=1), 9_871),
)

#: Heads whose sums take the array's ring or the exponentials longer than the array (2 lanes), whose reciprocals do (8 lanes,
#: few keys), and whose weight words do (200 keys): cycles with 2 lanes, with 8.
HEADS = (
    (tensor(Op.ATTENTION, 32, 96, heads=3, head_dim=32, keys=64), 203_843, 149_752),
    (tensor(Op.ATTENTION, 16, 160, heads=5, head_dim=32, keys=16), 52_930, 36_954),
    (tensor(Op.ATTENTION, 16, 64, heads=1, head_dim=64, keys=200), 115_850, 115_156),
    (tensor(Op.ATTENTION, 8, 96, heads=3, head_dim=32, keys=4), 8_581, 6_567),
    (tensor(Op.ATTENTION, 4, 160, heads=5, head_dim=32, keys=1), 4_056, 3_295),
)

#: Weights and entries take their share of the first tiles' time.
LINEAR = (
    (kernel(Op.CONV, 1, 32, 96, 96), 75_521),
    (kernel(Op.CONV, 1, 32, 192, 96, residual=1, r16=1, y16=1), 154_721),
    (kernel(Op.CONV, 1, 16, 160, 320), 105_154),
)

#: `nearflash fit`'s for KV260, beats of 16 bytes: words of weights and residuals' round trips count more.
WIDE = TensorConfig(32, 32, packed=True, pixels=128, lanes=16, depthwise=16, input_bytes=65536, weight_bytes=65536,
                    max_channels=512, max_keys=256)
WIDE_LINEAR = (
    (kernel(Op.CONV, 1, 32, 96, 96), 11_250),
    (kernel(Op.CONV, 1, 32, 96, 96, residual=1, r16=1, y16=1), 21_526),
    (kernel(Op.CONV, 1, 32, 192, 96, residual=1, r16=1, y16=1), 28_229),
    (kernel(Op.CONV, 1, 16, 160, 320), 15_628),
    (kernel(Op.CONV, 1, 8, 96, 192), 2_841),
)


def predicted(d, engine=ENGINE, beat=BEAT):
    return descriptor_cycles(retiled(d, engine, beat), Timing(engine, beat))


@pytest.mark.parametrize(("d", "cycles"), SIMULATED, ids=[f"{Op(d['op']).name}{i}" for i, (d, _) in enumerate(SIMULATED)])
def test_each_operator(d, cycles):
    assert predicted(d) == pytest.approx(cycles, rel=0.09)


def test_all_together():
    assert sum(predicted(d) for d, _ in SIMULATED) == pytest.approx(sum(c for _, c in SIMULATED), rel=0.005)


def test_residuals_of_few_lanes():
    for d, cycles in RESIDUALS:
        assert predicted(d, NARROW) == pytest.approx(cycles, rel=0.04)
    assert sum(predicted(d, NARROW) for d, _ in RESIDUALS) == pytest.approx(sum(c for _, c in RESIDUALS), rel=0.005)


@pytest.mark.parametrize(("d", "narrow", "wide"), HEADS, ids=[f"{d['keys']}keys" for d, *_ in HEADS])
def test_attention_of_few_lanes_and_of_many(d, narrow, wide):
    """What a reciprocal takes depends on the scores: where it counts most, with 16 keys and 8 lanes, by 2 cycles of 28."""
    assert predicted(d, NARROW) == pytest.approx(narrow, rel=0.01)
    assert predicted(d) == pytest.approx(wide, rel=0.04 if d["keys"] == 16 else 0.01)


def test_linear_layers():
    for d, cycles in LINEAR:
        assert predicted(d) == pytest.approx(cycles, rel=0.005)
    for d, cycles in WIDE_LINEAR:
        assert predicted(d, WIDE, 16) == pytest.approx(cycles, rel=0.03)
