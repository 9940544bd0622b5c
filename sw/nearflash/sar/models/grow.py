"""A network that starts from another's weights: blocks that they lack begin as identities.

Source of the idea: T. Chen, I. Goodfellow, J. Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .blocks import ConvBlock, TransformerBlock

__all__ = ["grow", "without_phases"]

#: Layers of a residual block that its branches end with: zero makes it the identity.
CLOSING: Mapping[type[nn.Module], tuple[str, ...]] = {ConvBlock: ("conv2",), TransformerBlock: ("attn.proj", "ffn.fc2")}


def grow(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``net``'s whole state_dict made of ``state``, with every residual block that ``state`` lacks as an identity.

    Raises:
        RuntimeError: ``state`` lacks anything else, has what ``net`` lacks, or another shape.
    """
    full = {k: v.detach().clone() for k, v in net.state_dict().items()}
    missing = full.keys() - state.keys()
    for name, module in net.named_modules():
        keys = {f"{name}.{k}" for k in module.state_dict()}
        if type(module) in CLOSING and keys <= missing:
            for layer in CLOSING[type(module)]:
                for part in ("weight", "bias"):
                    full[f"{name}.{layer}.{part}"].zero_()
            missing -= keys
    if wrong := missing | (state.keys() - full.keys()):
        raise RuntimeError(f"missing or unknown: {', '.join(sorted(wrong))}")
    for key, value in state.items():
        if value.shape != full[key].shape:
            raise RuntimeError(f"{key} is {tuple(value.shape)}, not {tuple(full[key].shape)}")
        full[key] = torch.as_tensor(value, device=full[key].device)
    return full


def without_phases(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a five-stage network's ``state`` without a head what ``net``, one with a head, can go on from.

    Upsampling gets the mean of what it made of a block's four pixels, the output by blocks of four is left out, and so are
    residual blocks that ``net`` lacks; its head comes from ``net``, untrained. ``state`` as it is where ``net`` has no head
    or ``state`` has one.
    """
    if not getattr(net, "head", None) or any(k.startswith("head.") for k in state):
        return dict(state)
    own = net.state_dict()
    kept = {k: v for k, v in state.items() if k in own}
    for key, value in kept.items():
        if key.startswith("up."):
            kept[key] = value.unflatten(0, (-1, 4)).mean(1)  # pixel_shuffle takes each output's four channels in a row
    return kept | {k: v.detach().clone() for k, v in own.items() if k.startswith("head.")}
