"""A module's blocks as parts of the fabric's work, so that each can be taken or left by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import fx, nn

from ..contract.tensor import Op
from .module import matched_blocks
from .ops import Value
from .trace import modules_of

__all__ = ["Part", "parts_of"]

BETWEEN = "between blocks"


class Part:
    """The operators of one block: its ``name``, their number, and which graph nodes they compute.

    No operator is in two parts, so a choice of parts cuts nothing that is fused, and whatever crosses between them has a
    scale in the calibration of the whole.
    """

    def __init__(self, name: str):
        self.name, self.operators = name, 0
        self.nodes: set[str] = set()

    def only(self) -> Callable[[fx.Node], bool]:
        """This part on the fabric and no other; a choice for :func:`nearflash.offload.offload`."""
        return lambda node: node.name in self.nodes

    def without(self) -> Callable[[fx.Node], bool]:
        """Everything else on the fabric."""
        return lambda node: node.name not in self.nodes


def blocks_of(model: nn.Module) -> list[str]:
    """Names of its children, those of lists and sequences in their place."""
    def expanded(name: str, module: nn.Module) -> Iterator[str]:
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            for child, inner in module.named_children():
                yield from expanded(f"{name}.{child}", inner)
        else:
            yield name

    return [block for name, child in model.named_children() for block in expanded(name, child)]


def parts_of(model: nn.Module, example: tuple[torch.Tensor, ...]) -> list[Part]:
    """The blocks of ``model`` that have operators of the fabric, in the order of its children, and ``between blocks`` what
    it does outside of them. An addition or ReLU that is an operator of its own belongs to where its input is made: it does
    not go to the fabric alone. ``example``: inputs [1, ...].

    Raises:
        ModelError: no operator at all, or a model that can't be traced.
    """
    matched = matched_blocks(model, example, "all")
    names = blocks_of(model)

    def block(modules: tuple[str, ...]) -> str:
        return next((name for name in names if name in modules), BETWEEN)

    of_node = {n.name: block(modules_of(n)) for n in matched.graph.graph.nodes}
    parts = {name: Part(name) for name in (*names, BETWEEN)}
    maker: dict[Value, str] = {}
    for o in matched.operators:
        name = maker.get(o.inputs[0], BETWEEN) if o.op == Op.ADD else of_node[o.nodes[0]]
        maker[o.output] = name
        if o.nodes:  # none: a copy at another width
            parts[name].operators += 1
            of_node |= dict.fromkeys(o.nodes, name)
    for node, name in of_node.items():
        parts[name].nodes.add(node)
    return [part for part in parts.values() if part.operators]
