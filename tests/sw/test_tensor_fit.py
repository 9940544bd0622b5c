"""The tensor engine for a board: the fastest that fits, by predictions that agree with simulation."""

from dataclasses import dataclass, replace

import pytest
from nearflash.compiler.fit import NothingFits
from nearflash.compiler.tensor import TilePredictor, candidates, fit_tensor, to_records
from nearflash.contract import BOARDS, DeviceConfig, ModelError, TensorConfig
from nearflash.contract.resources import Resources
from nearflash.contract.tensor import Descriptor, Op
from nearflash.offload.bounds import macs
from nearflash.offload.cycles import Timing, descriptor_cycles, retiled

Z020 = BOARDS["pynq-z2"]
BASE = replace(DeviceConfig.preset("tiny"), beat_bytes=8, lookup=replace(DeviceConfig.preset("tiny").lookup, lanes=2))


def conv(side, channels, out, kernel, **fields):
    return Descriptor(Op.CONV, in_height=side, in_width=side, in_channels=channels, out_height=side, out_width=side,
                      out_channels=out, kernel_h=kernel, kernel_w=kernel, stride=1, pad_top=kernel // 2,
                      pad_left=kernel // 2, **fields)


def square(op, side, channels, **fields):
    return Descriptor(op, in_height=side, in_width=side, in_channels=channels, out_height=side, out_width=side,
                      out_channels=channels, **fields)


NETWORK = [
    conv(64, 9, 32, 3), conv(64, 32, 32, 3, residual=1), conv(16, 96, 96, 1, residual=1, r16=1, y16=1),
    square(Op.LAYERNORM, 16, 96, x16=1), square(Op.DEPTHWISE, 16, 192, kernel_h=3, kernel_w=3, stride=1, pad_top=1,
                                                pad_left=1),
    square(Op.ATTENTION, 16, 96, heads=3, head_dim=32, keys=64), square(Op.ADD, 16, 96, residual=1, x16=1, r16=1)]


REST, AROUND = Resources(lut=12_000, ff=10_000, bram18=30, dsp=10), Resources(lut=1_000)


@dataclass
class Costs:
    """A cost model with round figures, of which none falls where an engine grows. ``asked``: engines that were estimated."""

    lane: int = 2_000
    rest: Resources = REST

    def __post_init__(self):
        self.asked = []

    def engine(self, t):
        n = t.rows * t.columns
        return Resources(lut=6_000 + self.lane * t.lanes + 40 * t.depthwise + (4 if t.packed else 2) * n, ff=30 * n,
                         bram18=(t.input_bytes + t.weight_bytes) // 1024 + t.pixels // 16 + t.rows,
                         dsp=n // (2 if t.packed else 1) + 3 * t.depthwise + 12 * t.lanes + 30)

    def device(self, config):
        t = config.tensor
        return {"": self.rest} | ({"tensor": self.engine(t), "tensor_commands": AROUND} if t.rows else {})

    def shell(self, config, board):
        return Resources(lut=500)

    def tensor(self, config):
        self.asked.append(config.tensor)
        return self.engine(config.tensor)


def fits(t, costs, limit):
    used = sum(costs.device(replace(BASE, tensor=t)).values(), costs.shell(BASE, Z020))
    return all(v <= limit for v in used.shares(Z020.part).values())


@pytest.mark.parametrize(("lane", "lanes", "estimated"), [(2_000, 4, 1), (5_600, 2, 2), (7_000, 2, 2)])
def test_nothing_faster_fits(lane, lanes, estimated):
    """The second's engine of 4 lanes fits, its device doesn't; the third's is too large by far."""
    costs = Costs(lane)
    found = fit_tensor(NETWORK, BASE, Z020, costs, 0.8)
    assert fits(found.config.tensor, costs, 0.8)
    assert (found.config.tensor.lanes, found.estimated >= estimated) == (lanes, True)
    predict = TilePredictor(NETWORK, 8)
    every = list(candidates(NETWORK, 8, BASE.tensor.dram_bytes))
    times = [sum(predict(t).values()) for t in every if fits(t, costs, 0.8)]
    assert found.cycles == pytest.approx(min(times))
    # what is nowhere smaller than an engine that is too large is not generated
    assert len(costs.asked) == found.estimated < 0.05 * len(every) == 0.05 * found.candidates


def test_the_engine_takes_the_network():
    t = fit_tensor(NETWORK, BASE, Z020, Costs()).config.tensor
    assert t.max_channels == 256  # 192 in DEPTHWISE
    assert t.max_keys >= 4 * 64  # attention's tiles at their longest
    assert t.rows * t.columns >= 128


def test_what_is_short_is_said():
    with pytest.raises(NothingFits, match=r"lut [\d,]+ where 26,600 may be used, [\d,]+ short") as e:
        fit_tensor(NETWORK, BASE, Z020, Costs(9_000), 0.5)
    assert "80" not in str(e.value)
    assert "2 lanes" in str(e.value)  # the smallest engine, not the fastest
    with pytest.raises(NothingFits, match=r"without one lut 60,500 of 42,560"):
        fit_tensor(NETWORK, BASE, Z020, Costs(rest=Resources(lut=60_000)))
    with pytest.raises(ModelError, match="limit"):
        fit_tensor(NETWORK, BASE, Z020, Costs(), 1.5)


def test_records_name_the_engine_and_its_tile():
    found = fit_tensor(NETWORK, BASE, Z020, Costs())
    r = to_records(found)
    assert r["tile_ms"] == pytest.approx(r["tile_cycles"] / 1e5)  # 100 MHz
    assert r["tile_cycles"] == pytest.approx(sum(r[f"{o}_cycles"] for o in (
        "conv", "layernorm", "depthwise", "attention", "add")))
    assert r["engine_lut_count"] == found.total.lut - 12_500
    assert r["tile_macs_count"] == 64 * 64 * 9 * 32 * (9 + 32) + 256 * (96 * 96 + 9 * 192 + 2 * 64 * 96)
    assert 0 < r["array_share"] < 1


def test_a_descriptor_takes_at_least_what_its_array_and_its_bytes_take():
    for t in candidates(NETWORK, 16, 1 << 26):
        if t.packed or t.pixels != 64 or t.input_bytes != 32768 or t.weight_bytes != 32768:
            continue
        for d in NETWORK:
            assert descriptor_cycles(retiled(d, t, 16), Timing(t, 16)) >= macs(d) / (t.rows * t.columns if d["op"] in (
                Op.CONV, Op.ATTENTION) else 3 * t.depthwise)


def test_buffers_that_are_too_small_are_refused():
    wide = conv(8, 1024, 64, 8)
    with pytest.raises(ModelError, match="in_channels"):
        TilePredictor([wide], 8)(TensorConfig(8, 16, input_bytes=16384))


def test_engines_predicted_one_after_the_other_have_their_own_tiles():
    """Whatever of an engine a tile is chosen by: a predictor that has seen other engines says what a new one says."""
    first = TensorConfig(8, 16, lanes=8, depthwise=16, max_keys=256)
    layers = [conv(48, 16, 16, 3), conv(30, 96, 24, 1), square(Op.DEPTHWISE, 40, 64, kernel_h=3, kernel_w=3, stride=1,
                                                               pad_top=1, pad_left=1)]
    for network in (NETWORK, layers):
        seen = TilePredictor(network, 8)
        for t in (first, replace(first, lanes=2), replace(first, depthwise=8), replace(first, pixels=128),
                  replace(first, weight_bytes=16384), replace(first, input_bytes=16384), replace(first, rows=16)):
            assert seen(t) == pytest.approx(TilePredictor(network, 8)(t))


def test_the_smallest_engine_says_early_that_none_fits():
    """Lookups that leave room for no engine: the fastest and the smallest are estimated, no other."""
    costs = Costs(lane=4_000, rest=Resources(lut=29_000))
    with pytest.raises(NothingFits, match=r"with 4 x 8 multipliers and 2 lanes lut [\d,]+ where 42,560"):
        fit_tensor(NETWORK, BASE, Z020, costs)
    assert len(costs.asked) == 2
