"""Shapes beyond a device's buffers are refused by operator, field and limit, before anything is loaded."""

from dataclasses import replace

import pytest
import torch
from nearflash.contract import ModelError
from nearflash.offload import OffloadedModule
from nearflash.reference.tensor import TensorModel
from small_despeckler import TENSORS, scales
from torch import nn


class Attend(nn.Module):
    """Every pixel attends to every pixel."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, x):
        y = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = (f(y).reshape(1, -1, 2, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        return torch.softmax(q @ k.transpose(-2, -1) * 0.3, -1) @ v


def run(model, shape, **tensor):
    torch.manual_seed(1)
    config = replace(TENSORS, tensor=replace(TENSORS.tensor, **tensor))
    x = torch.rand(shape)
    return OffloadedModule(model, TensorModel(config), "all", scales(model.eval(), (x,)))(x)


@pytest.mark.parametrize(("model", "shape", "message"), [
    (nn.Conv2d(65, 8, 1), (1, 65, 8, 8), "conv2d.in_channels = 65: must be at most 64"),
    (nn.Conv2d(8, 65, 1), (1, 8, 8, 8), "conv2d.out_channels = 65: must be at most 64"),
    (Attend(16), (1, 3, 8, 9), "matmul_1.keys = 72: must be from 1 to 64"),
    (nn.Conv2d(72, 8, 8, padding=7), (1, 72, 16, 16), "conv2d.in_channels = 72: at most 4096 bytes .* window .8x8.")])
def test_what_exceeds_a_buffer_is_named(model, shape, message):
    with pytest.raises(ModelError, match=message):
        run(model, shape, max_channels=128 if "window" in message else 64)


def test_a_larger_buffer_takes_it():
    assert run(nn.Conv2d(65, 8, 1), (1, 65, 8, 8), max_channels=128).shape == (1, 8, 8, 8)
    assert run(Attend(16), (1, 3, 8, 9), max_keys=128).shape == (1, 2, 72, 8)
