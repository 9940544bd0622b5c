"""Our five-stage family: convolution where pixels are many, self-attention where the view is wide.

Stages at 1/2 ... 1/32 of the resolution. The first two are residual 3x3 convolutions, the last three transformer blocks
whose keys lie on a pooled grid (64 keys at 256x256, as in the published network). The decoder mirrors the encoder and adds
its skips. The first stage starts from 2x2 pixels rearranged into channels, so nothing wide runs at full resolution.

Switches, settled by ablation:

- ``features``: what the first layer sees: ``amplitude``, ``log`` (a softened logarithm: variance-stabilised down to a floor,
  so that the deep fades of single-look speckle don't dominate), or ``both``.
- ``output``: ``amplitude`` (direct), ``log`` (direct, softened logarithm), ``residual`` (global residual on that), or
  ``gated``: an estimate and, per pixel, how far to trust the input instead, so that targets brighter than any scene of the
  training pass.
- ``looks``: a plane of 1/sqrt(L) as an input; without it the network is blind.
- ``position``: depthwise convolutions in the FFNs.
- ``head``: channels of two convolutions at full resolution, which see the image beside what the stages made of it. With
  them whatever changes the resolution smooths, so that an output moves with its image; 0 has neither: the first stage and
  the output then treat the four pixels of a 2x2 block differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contract.errors import ConfigError
from .blocks import ConvBlock, Downsample, SmoothDownsample, SmoothUpsample, TransformerBlock, Upsample, smooth, zero_init

__all__ = ["FiveStage", "FiveStageConfig"]

# Amplitude where the softened logarithm turns linear, on a scale whose median scene amplitude is about 0.4.
FLOOR = 0.05


@dataclass(frozen=True)
class FiveStageConfig:
    """Widths and depths, stage 1 to 5; decoder depths, stage 1 to 4. Stages 1 and 2 hold ConvBlocks, 3 to 5 attention."""

    widths: tuple[int, int, int, int, int]
    encoder: tuple[int, int, int, int, int]
    decoder: tuple[int, int, int, int]
    head_dim: int = 32
    reductions: tuple[int, int, int] = (4, 2, 1)
    features: str = "both"
    output: str = "gated"
    looks: bool = True
    position: bool = True
    head: int = 0

    def __post_init__(self) -> None:
        if self.head < 0:
            raise ConfigError("model.head", self.head, "0 or more channels")
        if self.head and self.output != "gated":
            raise ConfigError("model.head", self.head, f"0 for output {self.output}")
        for field, allowed in (("features", ("amplitude", "log", "both")),
                               ("output", ("amplitude", "log", "residual", "gated"))):
            if getattr(self, field) not in allowed:
                raise ConfigError(f"model.{field}", getattr(self, field), f"one of {', '.join(allowed)}")
        for width in self.widths[2:]:
            if width % self.head_dim:
                raise ConfigError("model.widths", width, f"an attention stage's is a multiple of head_dim {self.head_dim}")


def soft_log(amplitude: Tensor) -> Tensor:
    return torch.log(amplitude + FLOOR)


def soft_exp(x: Tensor) -> Tensor:
    # 8 is amplitude 3000 on the training scale: beyond any scene, short of overflow in bf16 arithmetic
    return F.relu(torch.exp(x.clamp(max=8.0)) - FLOOR)


class Head(nn.Module):
    """The output at full resolution: ``forward(x [N, inputs, H/2, W/2], planes [N, C, H, W])`` -> ``[N, 2, H, W]``."""

    def __init__(self, inputs: int, planes: int, width: int) -> None:
        super().__init__()
        self.up = SmoothUpsample(inputs, width)
        self.conv1 = nn.Conv2d(width + planes, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 2, 3, padding=1)
        zero_init(self.out)

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        y = F.relu(self.conv1(torch.cat([self.up(x), planes.to(x.dtype)], 1)))
        y = y + F.relu(self.conv2(y))
        with torch.autocast(x.device.type, enabled=False):  # eight bits of mantissa would show in the output
            return self.out(y.float())


class FiveStage(nn.Module):
    """``forward(amplitude [N, 1, H, W] >= 0, looks [N] > 0)`` -> amplitude ``[N, 1, H, W]``; H, W multiples of 32."""

    multiple = 32

    def __init__(self, config: FiveStageConfig) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        planes = {"amplitude": 1, "log": 1, "both": 2}[config.features]
        self.stem = nn.Conv2d(4 * planes + config.looks, w[0], 3, padding=1)
        self.encoder = nn.ModuleList(self.stage(i, depth) for i, depth in enumerate(config.encoder))
        down, up = (SmoothDownsample, SmoothUpsample) if config.head else (Downsample, Upsample)
        self.down = nn.ModuleList(down(a, b) for a, b in pairwise(w))
        self.up = nn.ModuleList(up(b, a) for a, b in pairwise(w))
        self.decoder = nn.ModuleList(self.stage(i, depth) for i, depth in enumerate(config.decoder))
        if config.head:
            self.head = Head(w[0], planes, config.head)
        else:
            self.out = nn.Conv2d(w[0], 8 if config.output == "gated" else 4, 3, padding=1)
            zero_init(self.out)

    def stage(self, i: int, depth: int) -> nn.Sequential:
        c, width = self.config, self.config.widths[i]
        if i < 2:
            return nn.Sequential(*(ConvBlock(width) for _ in range(depth)))
        return nn.Sequential(*(TransformerBlock(width, width // c.head_dim, c.reductions[i - 2], pool=True, bias=True,
                                                position=c.position) for _ in range(depth)))

    def forward(self, amplitude: Tensor, looks: Tensor) -> Tensor:
        c = self.config
        log = soft_log(amplitude)
        planes = torch.cat({"amplitude": [amplitude], "log": [log], "both": [amplitude, log]}[c.features], 1)
        x = F.pixel_unshuffle(smooth(planes) if c.head else planes, 2)
        if c.looks:
            plane = looks.rsqrt().to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
            x = torch.cat([x, plane], 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.encoder, [*self.down, None], strict=True):
            x = stage(x)
            if down is not None:
                skips.append(x)
                x = down(x)
        for i in reversed(range(len(skips))):
            x = self.decoder[i](skips[i] + self.up[i](x))
        if c.head:
            y = self.head(x, planes)
        else:
            with torch.autocast(x.device.type, enabled=False):  # as in Head
                y = F.pixel_shuffle(self.out(x.float()), 2)
        if c.output == "gated":
            estimate = F.relu(y[:, :1] + 0.4)
            return estimate + torch.sigmoid(y[:, 1:] - 3) * (amplitude - estimate)
        if c.output == "amplitude":
            return F.relu(y + 0.4)
        return soft_exp(y + log.float() if c.output == "residual" else y - 0.9)
