"""Offloaded blocks: every operator of a small network against PyTorch in floating point and PT2E's quantised graph, what is
refused, and that nothing is left unfolded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nearflash.contract import CommandError, ConfigError, DataError, ModelError
from nearflash.contract.nvme import Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES, Op, spans
from nearflash.offload import Calibration, OffloadedModule, calibrated, default_config, offload, open_fabric
from nearflash.offload.calibrate import fake_quantised
from nearflash.offload.module import matched_blocks
from nearflash.offload.scales import quantise_weights
from nearflash.reference.tensor import TensorModel
from offload_maxima import maxima
from torch import nn


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.q, self.kv, self.proj = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(32, 32)

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        q = self.q(y.flatten(2).transpose(1, 2)).reshape(n, h * w, 2, 16).transpose(1, 2)
        pooled = F.avg_pool2d(y, 2).flatten(2).transpose(1, 2)
        k, v = self.kv(pooled).reshape(n, -1, 2, 2, 16).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-2, -1) * 16**-0.5, -1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(n, h * w, c)).transpose(1, 2).reshape(n, c, h, w)


class Everything(nn.Module):
    """Each operator of the fabric, and some of the host."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blur = nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32, bias=False)
        self.attend = Attend()
        self.patch = nn.Conv2d(32, 32, 2, stride=2)
        self.up = nn.Conv2d(32, 128, 1)

    def forward(self, x):
        skip = F.relu(self.stem(torch.log1p(x)))
        y = self.attend(self.blur(skip))
        y = y + F.relu(self.patch(F.pixel_shuffle(self.up(y), 2)))
        return torch.tanh(0.5 * self.up(y + y))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    model = Everything().eval()
    samples = [(torch.rand(1, 3, 16, 16) * 3,) for _ in range(4)]
    return model, samples, maxima(model, samples, "all")


def test_every_operator_follows_floating_point(small):
    model, samples, calibration = small
    module = OffloadedModule(model, open_fabric("fabric-model"), "all", calibration)
    used = {o.op for o in module.compiled(*samples[0]).matched.operators}
    assert used == set(Op) - {Op.PROGRAM}
    with torch.no_grad():
        for (x,) in samples:
            want, got = model(x), module(x)
            assert (got - want).square().mean().sqrt() < 0.03 * want.std()
    batch = torch.cat([s[0] for s in samples])
    assert torch.equal(module(batch), torch.cat([module(s[0]) for s in samples]))


def test_a_program_needs_its_memory_alone(small):
    """The image that was loaded gives the same bytes on a device that has seen nothing else, whatever its array."""
    model, samples, calibration = small
    module = OffloadedModule(model, open_fabric("fabric-model"), "all", calibration)
    want = module(*samples[0])
    config = default_config()
    other = OffloadedModule(model, open_fabric("fabric-model", replace_tensor(config, 8, 32, 16)), "all", calibration)
    other.fabric.memory[:] = 0x55
    assert torch.equal(other(*samples[0]), want)


def replace_tensor(config, rows, columns, pixels):
    return replace(config, tensor=replace(config.tensor, rows=rows, columns=columns, pixels=pixels, dram_bytes=1 << 22))


def test_what_is_fused_takes_no_descriptor(small):
    model, samples, calibration = small
    module = OffloadedModule(model, open_fabric("fabric-model"), "all", calibration)
    operators = module.compiled(*samples[0]).matched.operators
    kinds = [o.op for o in operators]
    assert kinds.count(Op.CONV) == 1 + 4 + 3  # stem; q, k, v, proj; up, patch, up
    assert sum(o.residual is not None for o in operators) == 3  # proj's, relu(patch)'s as an addition, and y + y
    assert [o.shuffle for o in operators if o.shuffle > 1] == [2]


def test_no_descriptor_writes_over_what_it_or_a_later_one_reads(small):
    model, samples, calibration = small
    module = OffloadedModule(model, open_fabric("fabric-model"), "all", calibration)
    config = module.fabric.config
    programs = [p for _, _, p in module.compiled(*samples[0]).order if p]
    assert len(programs) == 1
    where = [spans(d, config.tensor, config.beat_bytes) for d in programs[0].descriptors]
    for i, d in enumerate(where):
        first, size = d["y"]
        assert all(start >= first + size or start + n <= first for name, (start, n) in d.items() if name != "y"), i
    places = dict(zip((o.output for o in programs[0].operators), (d["y"] for d in where), strict=True))
    for i, o in enumerate(programs[0].operators):
        for v in o.operands:
            if v in places:
                made = next(k for k, other in enumerate(programs[0].operators) if other.output is v)
                first, size = places[v]
                for between in where[made + 1 : i + 1]:
                    start, n = between["y"]
                    assert start >= first + size or start + n <= first, (v.key, i)
    assert len({d["y"][0] for d in where}) < len(where)  # and yet values share memory


def test_a_relu_of_16_bits_ends_at_zero():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()).eval()
    x = torch.randn(1, 3, 8, 8)
    y = OffloadedModule(model, open_fabric("fabric-model"), "all", maxima(model, [(x,)], "all"))(x)
    with torch.no_grad():
        assert (y == 0).float().mean() > 0.3
        assert (y - model(x)).abs().max() < 0.05


def test_blocks_choose_what_is_offloaded(small):
    model, samples, _ = small
    for blocks, ops in (("conv", {Op.CONV, Op.DEPTHWISE, Op.ADD}), ("attention",
                        {Op.CONV, Op.LAYERNORM, Op.POOL, Op.ATTENTION})):
        module = OffloadedModule(model, open_fabric("fabric-model"), blocks, maxima(model, samples, blocks))
        assert {o.op for o in module.compiled(*samples[0]).matched.operators} == ops
        with torch.no_grad():
            assert (module(*samples[0]) - model(*samples[0])).abs().max() < 0.1


class Refused(nn.Module):
    def __init__(self, layer, function):
        super().__init__()
        self.layer, self.function = layer, function
        self.first = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.function(self.layer(self.first(x)))


@pytest.mark.parametrize(("layer", "message"), [
    (nn.Conv2d(4, 4, 3, dilation=2), "dilation"), (nn.Conv2d(4, 4, 9), "kernel 9x9"),
    (nn.Conv2d(4, 4, 1, groups=2), "2 groups"),
    (nn.ConvTranspose2d(4, 4, 3, stride=2), "conv_transpose2d in layer: an output of 33x33"),
    (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), "2 groups"), (nn.ConvTranspose2d(4, 4, 9), "from 9x9 pixels"),
    (nn.ConvTranspose2d(4, 260, 2, stride=2), "260 channels in 2x2 phases"), (nn.SiLU(), "silu"),
    (nn.BatchNorm2d(4), "batch_norm"),
    (nn.AvgPool2d(3, stride=1), "average pooling"), (nn.AvgPool2d(5), "average pooling of 16x16 by 5"),
    (nn.LayerNorm([4, 16, 16]), "layer_norm in layer"), (nn.PixelShuffle(2), "pixel shuffle to 1 channels")])
def test_what_cannot_be_offloaded_is_refused_by_name(layer, message):
    model = Refused(layer, lambda x: x * 1.0).eval()
    with pytest.raises(ModelError, match=message):
        matched_blocks(model, (torch.rand(1, 4, 16, 16),), ["first", "layer"])


def test_wrong_requests_are_named(small):
    model, samples, calibration = small
    with pytest.raises(ConfigError, match="fabric = 'gpu'"):
        offload(model, "gpu", calibration=calibration)
    with pytest.raises(ModelError, match="uncalibrated"):
        offload(model)
    with pytest.raises(ModelError, match="uncalibrated"):
        calibrated(model, "all", [])
    with pytest.raises(ModelError, match="blocks = 'decoder'"):
        matched_blocks(model, samples[0], ["decoder"])
    module = offload(model, calibration=Calibration({}))
    with pytest.raises(DataError, match="calibration"):
        module(*samples[0])
    module = offload(model, calibration=calibration)
    with pytest.raises(DataError, match="NaN"):
        module(torch.full((1, 3, 16, 16), torch.nan))
    config = replace_tensor(default_config(), 16, 16, 64)
    with pytest.raises(ModelError, match="must fit the tensor region"):
        offload(model, open_fabric("fabric-model", config), calibration=calibration)(torch.rand(1, 3, 640, 640))


def test_a_corrupted_descriptor_is_named_and_the_device_stays_usable(small):
    model, samples, calibration = small
    module = OffloadedModule(model, TensorModel(default_config()), "all", calibration)
    want = module(*samples[0])
    fabric = module.fabric
    at = 3 * DESCRIPTOR_BYTES + 40
    fabric.memory[at] ^= 4
    with pytest.raises(CommandError) as e:
        module(*samples[0])
    assert (e.value.status, e.value.dw0, e.value.dw1) == (Status.BAD_DESCRIPTOR, 3, 31)
    fabric.memory[at] ^= 4
    assert torch.equal(module(*samples[0]), want)
    for call, at in ((lambda: fabric.run(8, b""), 11), (lambda: fabric.run(0, b"1234"), 10),
                     (lambda: fabric.load(8, b"1234"), 12), (lambda: fabric.load(0, b"123"), 10)):
        with pytest.raises(CommandError) as e:
            call()
        assert (e.value.status, e.value.dw0) == (Status.BAD_TENSOR_SPAN, at)
    assert torch.equal(module(*samples[0]), want)


def test_calibrations_keep_their_numbers_in_a_file(tmp_path):
    Calibration({"conv2d": 1.25, "add": 3.0}, "of something").save(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json") == Calibration({"conv2d": 1.25, "add": 3.0}, "of something")
    for text in ("", "[]", '{"largest": {"a": "b"}, "note": ""}', '{"largest": {}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="calibration"):
            Calibration.read(tmp_path / "bad.json")


class Rectified(nn.Module):
    """A sum, and a mean, of what ReLUs let through."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 16), (16, 16), (16, 4)))

    def forward(self, x):
        y = F.relu(self.first(x))
        return self.out(F.avg_pool2d(y + F.relu(self.second(y)), 2))


def test_sums_and_means_of_what_is_never_negative_use_all_codes():
    torch.manual_seed(5)
    model, x = Rectified().eval(), torch.rand(1, 1, 32, 32)
    matched = matched_blocks(model, (x,), "all")
    assert [o.output.zero for o in matched.operators] == [-127, -127, -127, -127, 0]
    module = offload(model, calibration=maxima(model, [(x,)], "all"))
    with torch.no_grad():
        want = model(x)
        assert (module(x) - want).square().mean().sqrt() < 0.02 * want.std()


def test_what_is_rare_in_an_unusual_sample_has_no_codes():
    """One of 16,384 numbers may saturate, one in a hundred may not: codes for the first would make all others coarser."""
    torch.manual_seed(4)
    model = nn.Conv2d(1, 4, 3, padding=1).eval()
    usual, unusual = torch.rand(1, 1, 128, 128), torch.rand(1, 1, 128, 128)
    unusual[..., 64, ::2] = 5.0
    unusual[..., 32, 32] = 1000.0
    matched = matched_blocks(model, (usual,), "all")
    (key,) = (v.key for v in matched.inputs.values() if v.bits == 8)
    largest = [calibrated(model, "all", [(usual,)], unusual=more).largest[key] for more in ((), [(unusual,)], [(usual,)])]
    assert largest == pytest.approx([float(usual.max()), 5.0, float(usual.max())], rel=1e-4)


def test_pt2e_finds_the_same_scales_and_weights_and_leaves_no_pair_inside(small):
    model, samples, by_hand = small
    matched = matched_blocks(model, samples[0], "all")
    found = calibrated(model, "all", samples)
    for key, largest in found.largest.items():
        assert largest == pytest.approx(by_hand.largest[key], rel=1e-4), key
    graph = fake_quantised(matched, samples)
    pairs = [n for n in graph.graph.nodes if "dequantize_per_tensor" in str(n.target)]
    assert len(pairs) > 15
    # each of them is a value in the fabric's memory, or what a table maps: none is left for PyTorch to do but the inputs'
    # and the outputs'
    stored = {v.key for o in matched.operators for v in (o.output, o.before) if v}
    stored |= {v.key for v in matched.inputs.values()}
    assert {n.args[0].args[0].name for n in pairs} == stored
    buffers = dict(graph.named_buffers())
    frozen = [buffers[n.args[0].target] for n in graph.graph.nodes if "dequantize_per_channel" in str(n.target)]
    own, _ = quantise_weights(model.stem.weight.detach().double().numpy(), 0)
    assert any(f.shape == own.shape and np.abs(f.numpy().astype(int) - own).max() <= 1 for f in frozen)
    with torch.no_grad():
        module = OffloadedModule(model, open_fabric("fabric-model"), "all", found)
        fake, real = graph(*samples[0]), module(*samples[0])
    assert (fake - real).square().mean().sqrt() < 0.02 * real.std()
