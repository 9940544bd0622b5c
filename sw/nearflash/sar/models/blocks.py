"""What the despecklers are made of: convolution for the local, self-attention for the global.

Every block keeps ``[N, C, H, W]`` (channels-last in memory, so that the views a token-wise layer needs are free) and is
built from the operators that an FC kernel, a requantiser, an integer LayerNorm and a softmax table can do: 3x3 and depthwise
convolution, linear layers, ReLU or GELU, LayerNorm over channels, matrix products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ChannelNorm", "ConvBlock", "Downsample", "MixFFN", "SmoothDownsample", "SmoothUpsample",
           "SpatialReductionAttention", "TransformerBlock", "Upsample", "smooth"]


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``[N, C, H, W]``, eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def tokens(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` -> ``[N, H*W, C]``."""
    return x.flatten(2).transpose(1, 2)


class ConvBlock(nn.Module):
    """x + scale * conv3x3(ReLU(conv3x3(x))): EDSR's residual block, without normalisation (range is kept, int8 likes it)."""

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return x + (y if self.scale == 1 else self.scale * y)


class SpatialReductionAttention(nn.Module):
    """Multi-head self-attention of every pixel over keys and values on a grid ``reduction`` times coarser (PVT).

    Args:
        channels: width, a multiple of ``heads``.
        heads: attention heads.
        reduction: stride of the key/value grid; 1 attends to every pixel.
        pool: ``True`` averages the key/value grid (no parameters, any int8 scale kept); ``False`` is the paper's strided
            convolution followed by LayerNorm.
        bias: bias of the query and key/value projections.
    """

    def __init__(self, channels: int, heads: int, reduction: int, *, pool: bool = False, bias: bool = False) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels: {channels} is not a multiple of heads {heads}")
        self.heads = heads
        self.reduction = reduction
        self.pool = pool
        self.q = nn.Linear(channels, channels, bias=bias)
        self.kv = nn.Linear(channels, 2 * channels, bias=bias)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1 and not pool:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = ChannelNorm(channels)

    def keys(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, keys, C]``."""
        if self.reduction > 1:
            if self.pool:  # ceil_mode: a grid smaller than the stride still has one key
                x = F.avg_pool2d(x, self.reduction, ceil_mode=True, count_include_pad=False)
            else:
                x = self.norm(self.reduce(x))
        return tokens(x)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q = self.q(tokens(x)).reshape(n, h * w, self.heads, -1).transpose(1, 2)
        k, v = self.kv(self.keys(x)).reshape(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        # written out: with few keys and narrow heads it trains faster than the fused kernel; and a fabric offloads these
        y = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, h * w, c)).transpose(1, 2).reshape(n, c, h, w)


class MixFFN(nn.Module):
    """linear, depthwise 3x3 (its zero padding is also the only positional information), activation, linear (SegFormer).

    ``position=False`` leaves the depthwise convolution out.
    """

    def __init__(self, channels: int, expansion: int = 2, *, gelu: bool = False, position: bool = True) -> None:
        super().__init__()
        hidden = channels * expansion
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if position else nn.Identity()
        self.fc2 = nn.Linear(hidden, channels)
        self.act = nn.GELU() if gelu else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.act(self.dwconv(y))
        return self.fc2(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """Pre-norm: x += attention(norm x); x += FFN(norm x)."""

    def __init__(self, channels: int, heads: int, reduction: int, *, pool: bool = False, bias: bool = False,
                 gelu: bool = False, position: bool = True) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = SpatialReductionAttention(channels, heads, reduction, pool=pool, bias=bias)
        self.norm2 = ChannelNorm(channels)
        self.ffn = MixFFN(channels, gelu=gelu, position=position)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Downsample(nn.Conv2d):
    """Overlapping patch embedding by 2: 3x3, stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """A 1x1 convolution to four times the channels, rearranged to twice the height and width: no checkerboard."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def smooth(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` averaged by 1-2-1 along rows and columns, edges repeated: nothing is left at half the sampling
    rate."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


class SmoothDownsample(Downsample):
    """:class:`Downsample` of a smoothed image, so that its result moves with the image.

    Source: R. Zhang, "Making convolutional networks shift-invariant again", ICML 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(smooth(input))


class SmoothUpsample(nn.Module):
    """A 1x1 convolution, interpolated bilinearly to twice the height and width: every pixel is made in the same way."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear")


def init_transformer(module: nn.Module) -> None:
    """The published initialisation: linear truncated normal 0.02, convolutions N(0, sqrt(2 / fan_out)), norms 1 and 0."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
        elif isinstance(m, nn.Conv2d):
            fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, std=(2.0 / fan_out) ** 0.5)
        else:
            continue
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def zero_init(layer: nn.Conv2d) -> None:
    """Start a residual branch or a residual output as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def count_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
