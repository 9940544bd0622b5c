"""The published despeckling transformer (Perera et al., IGARSS 2022, arXiv 2201.09355), block by block.

Five stages of overlap patch embedding and spatial-reduction attention, a convolutional decoder that adds the encoder's
skips. 24,099,201 parameters, 6.743 GMAC at 256x256; H and W must be multiples of 32. Input: amplitude; output: amplitude.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .blocks import ChannelNorm, ConvBlock, TransformerBlock, init_transformer

__all__ = ["STAGES", "PaperDecoder", "PaperStage", "PaperTransformer"]

# kernel, channels, heads, depth, reduction of each stage (the reference table)
STAGES = ((7, 32, 1, 3, 8), (3, 64, 1, 3, 8), (3, 128, 2, 4, 4), (3, 320, 4, 6, 2), (3, 512, 8, 3, 1))
TAIL = (16, 8)  # channels at full resolution: after the last upsampling, and before the output


class PaperStage(nn.Module):
    """Overlap patch embedding (stride 2, LayerNorm), ``depth`` transformer blocks, LayerNorm."""

    def __init__(self, inputs: int, kernel: int, channels: int, heads: int, depth: int, reduction: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(inputs, channels, kernel, stride=2, padding=kernel // 2)
        self.embed_norm = ChannelNorm(channels)
        self.blocks = nn.Sequential(*(TransformerBlock(channels, heads, reduction, gelu=True) for _ in range(depth)))
        self.norm = ChannelNorm(channels)
        init_transformer(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed_norm(self.embed(x))))


class PaperDecoder(nn.Module):
    """Five transposed convolutions 4x4 stride 2, a residual block after each; the skips of stages 4 to 1 are added."""

    def __init__(self) -> None:
        super().__init__()
        widths = [stage[1] for stage in reversed(STAGES)] + [TAIL[0]]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.residual = nn.ModuleList(ConvBlock(b, scale=0.1) for b in widths[1:])
        self.tail = nn.ConvTranspose2d(TAIL[0], TAIL[1], 3, stride=1, padding=1)
        self.out = nn.Conv2d(TAIL[1], 1, 3, padding=1)

    def forward(self, skips: list[Tensor]) -> Tensor:
        x = skips[-1]
        for i, (up, residual) in enumerate(zip(self.up, self.residual, strict=True)):
            x = residual(up(x))
            if i < len(skips) - 1:
                x = x + skips[-2 - i]
        return torch.tanh(self.out(self.tail(x)))


class PaperTransformer(nn.Module):
    """``forward(amplitude [N, 1, H, W], looks [N])`` -> amplitude ``[N, 1, H, W]``; the network takes no looks."""

    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        inputs = [1] + [stage[1] for stage in STAGES]
        self.stages = nn.ModuleList(PaperStage(n, *stage) for n, stage in zip(inputs, STAGES, strict=False))
        self.decoder = PaperDecoder()

    def forward(self, amplitude: Tensor, looks: Tensor) -> Tensor:
        skips = []
        x = amplitude
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.decoder(skips)
