"""Blocks of a PyTorch image network on the fabric: ``nearflash.offload.offload``. See docs/offload.md.

>>> fast = offload(net, "fabric-model", samples=[(image, looks)])   # doctest: +SKIP
>>> fast(image, looks)                                              # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..contract.errors import ModelError
from .calibrate import Calibration
from .fabric import FABRICS, Fabric, default_config, open_fabric
from .module import BLOCKS, Blocks, OffloadedModule, calibrated

__all__ = ["BLOCKS", "FABRICS", "Blocks", "Calibration", "Fabric", "OffloadedModule", "calibrated", "default_config",
           "offload", "open_fabric"]


def offload(model: nn.Module, fabric: str | Fabric = "fabric-model", blocks: Blocks = "all", *,
            samples: Iterable[tuple[torch.Tensor, ...]] | None = None, calibration: Calibration | None = None
            ) -> OffloadedModule:
    """``model`` with the chosen blocks on the fabric, in int8, and the rest in PyTorch.

    Args:
        model: takes and returns tensors whose first dimension is the batch; torch.export must be able to trace it.
        fabric: a name for :func:`open_fabric`, or an open one.
        blocks: "all" (whatever the fabric can do), "attention" (the modules that compute a softmax), "conv" (convolutions
            and what fuses with them), names of modules, which must then consist of operators of the fabric alone, or a
            function that says of a graph node whether to take it, if the fabric can do it.
        samples: inputs to calibrate with, of one shape, [1, ...] each; no image of a test set. Needs torchao.
        calibration: instead, what an earlier calibration found.

    Raises:
        ConfigError: unknown fabric.
        ModelError: an operator that can't be offloaded (named), no scales, or a network beyond the fabric's memory.
    """
    if (samples is None) == (calibration is None):
        raise ModelError("samples", None if samples is None else "given", "or calibration must be given, one of them: an "
                         "uncalibrated model has no scales")
    if samples is not None:
        calibration = calibrated(model, blocks, samples)
    assert calibration is not None
    return OffloadedModule(model, open_fabric(fabric) if isinstance(fabric, str) else fabric, blocks, calibration)
