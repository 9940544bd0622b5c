"""A PyTorch module as a graph of ATen operators, by torch.export."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from ..contract.errors import ModelError

__all__ = ["modules_of", "parameter", "trace"]


def trace(module: nn.Module, example: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """The graph of ``module`` for inputs of the shapes of ``example``; parameters are ``get_attr`` nodes.

    Raises:
        ModelError: a module that torch.export can't take.
    """
    module.eval()
    try:
        with torch.no_grad():
            graph = torch.export.export(module, example, strict=False).module()
    except Exception as e:  # torch.export has no common base of its errors
        raise ModelError("model", type(module).__name__, f"must pass torch.export ({str(e).splitlines()[0]})") from e
    assert isinstance(graph, fx.GraphModule)
    _inline_autocast(graph)
    return graph


def _inline_autocast(graph: fx.GraphModule) -> None:
    """Put what export wrapped because autocast was off around it back into the graph, where it can be offloaded."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or getattr(node.target, "__name__", "") != "wrap_with_autocast":
            continue
        _, _, enabled, _, inner, *operands = node.args
        if enabled:
            raise ModelError("autocast", node.name, "must be off inside the module: the fabric has formats of its own")
        body = graph.get_submodule(str(inner.target))
        assert isinstance(body, fx.GraphModule)
        given = iter(operands)
        copies: dict[fx.Node, Any] = {}
        results: list[Any] = []
        with graph.graph.inserting_before(node):
            for n in body.graph.nodes:
                if n.op == "placeholder":
                    copies[n] = next(given)
                elif n.op != "output":
                    copies[n] = graph.graph.node_copy(n, copies.__getitem__)
                else:
                    results = [copies[a] for a in n.args[0]]
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.recompile()


def modules_of(node: fx.Node) -> tuple[str, ...]:
    """Names of the modules that the operator was called in, outermost first; the whole model, "", not among them."""
    names = [str(name) for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return tuple(n for n in names if n)


def parameter(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor | None:
    """The tensor that a ``get_attr`` node stands for; None for other nodes."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else None
