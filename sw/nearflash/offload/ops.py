"""What the compiler works on between the PyTorch graph and the program: operators of the fabric on values in its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..contract.tensor import Op

__all__ = ["TABLES", "Operator", "Value", "View"]

#: Functions that a table of 256 codes computes, by the graph's operator; keywords are the operator's.
TABLES: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.gelu.default: torch.nn.functional.gelu, torch.ops.aten.tanh.default: torch.tanh}


@dataclass(eq=False)
class Value:
    """A tensor [height, width, channels] in the fabric's memory.

    ``key``: the graph node whose numbers it holds, by which its scale is found; ``aliases``: what that node is a view of,
    which has the same scale. ``bits``: 8 or 16. ``rectified``: never
    below 0, after a ReLU or as a sum or mean of such. ``zero``: the code of the number 0. ``depth``: when it is made, see
    :mod:`.match`.
    """

    key: str
    height: int
    width: int
    channels: int
    bits: int = 8
    rectified: bool = False
    zero: int = 0
    depth: int = 0
    aliases: tuple[str, ...] = ()


@dataclass(eq=False)
class Operator:
    """One descriptor to be. ``nodes``: of the graph, that it computes. ``inputs``: of ATTENTION q, k and v. ``weight`` [O,
    kernel_h, kernel_w, C] (DEPTHWISE: [kernel_h, kernel_w, C]; LAYERNORM: [C]) and ``bias`` [O] are real numbers; ``factor``
    scales an attention's logits. ``function``, if given, maps the output through a table; what goes in has the scale of
    ``before``, in 8 bits."""

    op: Op
    inputs: list[Value]
    output: Value
    name: str
    module: str
    residual: Value | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    shuffle: int = 1
    heads: int = 0
    factor: float = 1.0
    eps: float = 0.0
    nodes: list[str] = field(default_factory=list)
    function: Callable[[torch.Tensor], torch.Tensor] | None = None
    before: Value | None = None

    @property
    def operands(self) -> list[Value]:
        """Everything it reads."""
        return [*self.inputs, *([self.residual] if self.residual else [])]


@dataclass(eq=False)
class View:
    """A graph node's tensor as elements of a value: ``meta`` is a tensor without contents, whose strides and offset say
    where in the value, [1, height, width, channels], each element lies."""

    value: Value
    meta: torch.Tensor
