"""The despecklers by name. Every one is called ``net(amplitude [N, 1, H, W], looks [N])`` and returns amplitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from ...contract.errors import ConfigError
from .blocks import count_parameters
from .five_stage import FiveStage, FiveStageConfig
from .grow import grow, without_phases
from .paper import PaperTransformer
from .unet import UNet

__all__ = ["MODELS", "FiveStage", "FiveStageConfig", "PaperTransformer", "UNet", "build", "count_macs", "count_parameters",
           "grow", "without_phases"]

FIVE_STAGE: dict[str, dict[str, Any]] = {
    "base": dict(widths=(32, 64, 96, 160, 192), encoder=(1, 1, 3, 4, 2), decoder=(1, 1, 2, 1), head=16),
    "tiny": dict(widths=(16, 32, 32, 64, 64), encoder=(1, 1, 1, 1, 1), decoder=(1, 1, 1, 1), head_dim=16),
}


def _five_stage(name: str) -> Callable[..., nn.Module]:
    def make(**options: Any) -> nn.Module:
        known = {f.name for f in fields(FiveStageConfig)}
        for key in options:
            if key not in known:
                raise ConfigError(f"model.{key}", options[key], f"an option of {name}: {', '.join(sorted(known))}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (FIVE_STAGE[name] | options).items()}
        return FiveStage(FiveStageConfig(**plain))
    return make


MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "base": _five_stage("base"), "tiny": _five_stage("tiny"), "paper": PaperTransformer, "unet": UNet}


def build(name: str, **options: Any) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: ``base`` (ours, at most 3 M parameters and 2.5 GMAC at 256x256), ``tiny`` (tests, small boards), ``paper`` (the
            published network) or ``unet`` (a convolutional peer).
        options: fields of the preset to change.

    Raises:
        ConfigError: unknown name or option.
    """
    if name not in MODELS:
        raise ConfigError("model", name, f"one of {', '.join(MODELS)}")
    try:
        return MODELS[name](**options)
    except TypeError as e:
        raise ConfigError("model", name, f"its options: {e}") from e


def count_macs(net: nn.Module, height: int = 256, width: int = 256) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products for one image (PyTorch's own counter)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.full((1, 1, height, width), 0.4), torch.ones(1))
    return counter.get_total_flops() // 2
