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
    (kernel(Op.CONV, 3, 32, 9, 32), 38_803),
    (kernel(Op.CONV, 3, 32, 32, 32, residual=1), 76_329),
    (kernel(Op.CONV, 3, 32, 32, 64, stride=2), 41_060),
    (kernel(Op.CONV, 3, 16, 64, 64, residual=1), 77_290),
    (kernel(Op.CONV, 3, 16, 64, 96, stride=2, y16=1), 33_240),
    (kernel(Op.CONV, 1, 8, 96, 96), 12_111),
    (kernel(Op.CONV, 1, 8, 96, 96, residual=1, r16=1, y16=1), 12_173),
    (kernel(Op.CONV, 1, 8, 96, 192), 13_622),
    (kernel(Op.CONV, 1, 4, 320, 160, residual=1, r16=1, y16=1), 11_288),
    (kernel(Op.CONV, 1, 16, 64, 32, residual=1, shuffle=2), 21_991),
    (kernel(Op.DEPTHWISE, 3, 8, 192, 192), 5_596),
    (kernel(Op.DEPTHWISE, 3, 4, 320, 320), 4_048),
    (tensor(Op.LAYERNORM, 8, 96, x16=1), 3_100),
    (tensor(Op.LAYERNORM, 4, 160, x16=1), 2_228),
    (kernel(Op.POOL, 4, 8, 96, 96, stride=4, pad_top=0, pad_left=0), 1_328),
    (tensor(Op.ADD, 8, 96, x16=1), 2_068),
    (tensor(Op.ATTENTION, 8, 96, heads=3, head_dim=32, keys=4), 6_604),
)


def predicted(d):
    return descriptor_cycles(retiled(d, ENGINE, BEAT), Timing(ENGINE, BEAT))


@pytest.mark.parametrize(("d", "cycles"), SIMULATED, ids=[f"{Op(d['op']).name}{i}" for i, (d, _) in enumerate(SIMULATED)])
def test_each_operator(d, cycles):
    assert predicted(d) == pytest.approx(cycles, rel=0.1)


def test_all_together():
    assert sum(predicted(d) for d, _ in SIMULATED) == pytest.approx(sum(c for _, c in SIMULATED), rel=0.02)
