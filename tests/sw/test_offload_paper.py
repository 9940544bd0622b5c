"""Offloaded operators of the published network: transposed convolutions, GELU and tanh as tables, all its widths."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nearflash.contract.tensor import Op
from nearflash.offload import Calibration, OffloadedModule, default_config
from nearflash.offload.module import matched_blocks
from nearflash.reference.tensor import TensorModel
from nearflash.sar.models.paper import STAGES, PaperDecoder, PaperStage
from offload_maxima import maxima
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
import tensor_oracles as oracle
from tensor_shapes import transposed_shape


class Marked(nn.Module):
    """A convolution that copies codes of scale 1, then ``layer``."""

    def __init__(self, channels, layer):
        super().__init__()
        self.copy, self.layer = nn.Conv2d(channels, channels, 1, bias=False), layer
        with torch.no_grad():
            self.copy.weight[:] = torch.eye(channels)[..., None, None]

    def forward(self, x):
        return self.layer(self.copy(x))


@pytest.mark.parametrize("seed", range(8))
def test_a_transposed_convolution_is_exact(seed):
    """Every number an integer: weights of scale 1, an output of 16 bits with steps of 2**k. What comes back is PyTorch's
    transposed convolution, rounded once."""
    rng = np.random.default_rng([5, seed])
    size, kernel, stride, pad, more = transposed_shape(rng)
    c, o = int(rng.integers(1, 20)), int(rng.integers(1, 20))
    layer = nn.ConvTranspose2d(c, o, kernel, stride, pad, more)
    with torch.no_grad():
        layer.weight[:] = torch.tensor(rng.choice([-127, -50, 3, 127], layer.weight.shape))
        layer.weight[0] = 127  # the largest of every channel and phase
        layer.bias[:] = torch.tensor(rng.integers(-5000, 5000, o))
    model, x = Marked(c, layer).eval(), torch.tensor(rng.integers(-127, 128, (1, c, *size)), dtype=torch.float32)
    matched = matched_blocks(model, (x,), "all")
    copied, made = (o.output.key for o in matched.operators)
    want = F.conv_transpose2d(x.double(), layer.weight.double(), layer.bias.double(), stride, pad, more)
    step = 2.0 ** max(0, np.ceil(np.log2(float(want.detach().abs().max()) / 32767)))
    calibration = Calibration({"x": 127.0, copied: 127.0, made: step * 32767})
    got = OffloadedModule(model, TensorModel(default_config()), "all", calibration)(x)
    assert torch.equal(got.double(), torch.floor(want / step + 0.5) * step)


@pytest.mark.parametrize(("name", "layer"), [("gelu", nn.GELU()), ("tanh", nn.Tanh())])
def test_a_table_has_the_nearest_code_to_every_input(name, layer):
    """All 255 codes of one image through the convolution's table, against the C library's functions."""
    x = torch.arange(-128, 128.0).clamp(-127).reshape(1, 1, 16, 16) / 32
    model = Marked(1, layer).eval()
    matched = matched_blocks(model, (x,), "all")
    one, = matched.operators
    assert one.op == Op.CONV
    assert one.function
    calibration = Calibration({"x": 127 / 32, one.before.key: 127 / 32, one.output.key: 2.0})
    got = OffloadedModule(model, TensorModel(default_config()), "all", calibration)(x).flatten()[1:] / (2 / 127)
    exact = torch.tensor(oracle.tabled(name, 1 / 32, 2 / 127))
    assert (got - exact).abs().max() < 0.5 + 1e-4
    assert len(got.round().unique()) > 50


class Tables(nn.Module):
    """Functions of all the places where a table can be: after a convolution, a depthwise one, a sum, a transposed
    convolution; and where none fuses: what two read, what LayerNorm made, before a ReLU."""

    def __init__(self):
        super().__init__()
        self.first, self.depth = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norm, self.up = nn.LayerNorm(16), nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        y = F.gelu(self.first(x))
        z = F.gelu(self.depth(y), approximate="tanh")
        y = torch.tanh(y + z)
        both = self.depth(y)
        y = y + F.gelu(both) + both
        y = F.relu(F.gelu(self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        return torch.tanh(self.last(F.gelu(self.up(y))))


def test_tables_fuse_where_they_can_and_follow_floating_point():
    torch.manual_seed(2)
    model, samples = Tables().eval(), [(torch.randn(1, 3, 8, 8),) for _ in range(3)]
    module = OffloadedModule(model, TensorModel(default_config()), "all", maxima(model, samples, "all"))
    matched = module.compiled(*samples[0]).matched
    assert not matched.refused
    tables = [(o.op, len(o.operands)) for o in matched.operators if o.function]
    assert sorted(tables) == sorted([(Op.CONV, 1), (Op.DEPTHWISE, 1), (Op.ADD, 2), (Op.ADD, 1), (Op.ADD, 1), (Op.CONV, 1),
                                     (Op.CONV, 1)])
    assert all(o.output.bits == 8 for o in matched.operators if o.function)
    with torch.no_grad():
        for (x,) in samples:
            want = model(x)
            assert (module(x) - want).square().mean().sqrt() < 0.04 * want.std()


class Paper(nn.Module):
    """The published network at its full widths, a block for each stage."""

    def __init__(self):
        super().__init__()
        inputs = [1] + [stage[1] for stage in STAGES]
        self.stages = nn.ModuleList(PaperStage(n, kernel, channels, heads, 1, reduction) for n, (
            kernel, channels, heads, _, reduction) in zip(inputs, STAGES, strict=False))
        self.decoder = PaperDecoder()

    def forward(self, x):
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.decoder(skips)


def test_the_published_network_follows_floating_point():
    """All of it but the one layer whose entries no engine holds."""
    torch.manual_seed(0)
    model, x = Paper().eval(), torch.rand(1, 1, 32, 32)
    module = OffloadedModule(model, TensorModel(default_config()), "all", maxima(model, [(x,)], "all"))
    matched = module.compiled(x).matched
    assert list(matched.refused.values()) == [
        "conv_transpose2d in decoder.up.0: 320 channels in 2x2 phases: at most 1024 entries"]
    assert sum(o.function is not None for o in matched.operators) == 5 + 1
    with torch.no_grad():
        want = model(x)
        assert (module(x) - want).square().mean().sqrt() < 0.05 * want.std()
