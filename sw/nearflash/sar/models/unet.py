"""A plain convolutional U-Net, the peer that ``base`` is measured against at equal quality."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ConvBlock, Downsample, Upsample
from .five_stage import soft_exp, soft_log

__all__ = ["UNet"]


class UNet(nn.Module):
    """Full-resolution U-Net of residual 3x3 convolutions: four scales, skips added, log residual output.

    ``forward(amplitude [N, 1, H, W], looks [N])`` -> amplitude; H and W multiples of 8.
    """

    multiple = 8

    def __init__(self, width: int = 24, scales: int = 4) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(scales)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = nn.ModuleList(ConvBlock(w) for w in widths)
        self.down = nn.ModuleList(Downsample(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(ConvBlock(w) for w in widths[:-1])
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, amplitude: Tensor, looks: Tensor) -> Tensor:
        log = soft_log(amplitude)
        plane = looks.rsqrt().to(log.dtype).view(-1, 1, 1, 1).expand_as(log)
        x = torch.cat([amplitude, log, plane], 1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        skips = []
        for stage, down in zip(self.encoder, [*self.down, None], strict=True):
            x = F.relu(stage(x))
            if down is not None:
                skips.append(x)
                x = down(x)
        for i in reversed(range(len(skips))):
            x = F.relu(self.decoder[i](skips[i] + self.up[i](x)))
        return soft_exp(self.out(x).float() + log.float())
