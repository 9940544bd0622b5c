"""A PyTorch module some of whose blocks run on the fabric."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from ..contract.errors import CommandError, DataError, DeviceTimeout, ModelError
from ..contract.nvme import Status
from ..contract.tensor_image import pack_tensor, unpack_tensor
from .calibrate import LIMITS, Calibration, calibrate
from .cycles import program_cycles
from .fabric import DeviceFabric, Fabric
from .lower import Program, lower
from .match import Matched, match
from .ops import TABLES, Value, View
from .trace import modules_of, parameter, trace

__all__ = ["BLOCKS", "Blocks", "OffloadedModule", "matched_blocks"]

BLOCKS = ("all", "attention", "conv")
KEPT = 4  # shapes whose programs are kept

Blocks = str | Sequence[str] | Callable[[fx.Node], bool]  # as offload takes them

aten = torch.ops.aten
SOFTMAX = {aten.softmax.int, aten.scaled_dot_product_attention.default}
CONVOLUTION = {aten.conv2d.default, aten.conv_transpose2d.input, aten.relu.default, aten.add.Tensor, aten.mul.Tensor,
               aten.pixel_shuffle.default, *TABLES}


def _chooser(graph: fx.GraphModule, blocks: Blocks) -> Callable[[fx.Node], bool]:
    if callable(blocks):
        return blocks
    if blocks == "all":
        return lambda node: True
    if blocks == "conv":
        return lambda node: node.target in CONVOLUTION
    nodes = list(graph.graph.nodes)
    if blocks == "attention":
        names = {modules_of(n)[-1] for n in nodes if n.target in SOFTMAX and modules_of(n)}
        if not names:
            raise ModelError("blocks", blocks, "must be one the model has: no module of it computes a softmax")
    else:
        names = {blocks} if isinstance(blocks, str) else set(blocks)
        known = {m for n in nodes for m in modules_of(n)}
        for name in sorted(names - known):
            raise ModelError("blocks", name, f"must be one of {', '.join(BLOCKS)}, or modules of the model, such as "
                             f"{', '.join(sorted(known)[:5])}")
    return lambda node: not names.isdisjoint(modules_of(node))


def matched_blocks(model: nn.Module, example: tuple[torch.Tensor, ...], blocks: Blocks,
                   graph: fx.GraphModule | None = None) -> Matched:
    """What of ``blocks`` the fabric does, for inputs of the shapes of ``example``. ``graph``: the model's, if it was traced
    before.

    Raises:
        ModelError: an operator of a named block that the fabric can't do (all are named), a block the model doesn't have, or
            no operator at all.
    """
    graph = graph or trace(model, example)
    matched = match(graph, _chooser(graph, blocks))
    if matched.refused and not callable(blocks) and blocks not in ("all", "conv"):
        raise ModelError("blocks", blocks, "must hold operators of the fabric alone: " + "; ".join(matched.refused.values()))
    if not matched.operators:
        raise ModelError("blocks", blocks, "must hold at least one operator of the fabric: "
                         + ("; ".join(matched.refused.values()) or "there is none"))
    return matched


@dataclass
class _Compiled:
    """A graph with its programs: ``order`` is (depth, host nodes of that depth, program of that depth)."""

    matched: Matched
    order: list[tuple[int, list[fx.Node], Program | None]]

    @property
    def programs(self) -> list[Program]:
        """In the order in which an image goes through them."""
        return [program for _, _, program in self.order if program]


class OffloadedModule(nn.Module):
    """Called like ``model``, on the CPU: the chosen blocks' operators run on ``fabric``, image by image; the others in
    PyTorch.

    Programs are compiled for each shape of input when it first comes, and loaded again after a command that failed. See
    :func:`nearflash.offload.offload`.

    ``told``: where set, and on a device, hears now and then which image that works on (from 1), how many cycles it has
    taken, and how many are predicted.
    """

    def __init__(self, model: nn.Module, fabric: Fabric, blocks: Blocks, calibration: Calibration):
        super().__init__()
        self.model, self.fabric, self.blocks, self.calibration = model, fabric, blocks, calibration
        self.told: Callable[[int, int, int], None] | None = None
        self._images = 0
        self._graphs: dict[tuple[Any, ...], fx.GraphModule] = {}
        self._compiled: OrderedDict[tuple[Any, ...], _Compiled] = OrderedDict()
        self._loaded: _Compiled | None = None

    def choose(self, blocks: Blocks) -> None:
        """Other blocks from now on; what was traced stays."""
        self.blocks = blocks
        self._compiled.clear()

    def compiled(self, *inputs: torch.Tensor) -> _Compiled:
        """The programs for inputs of these shapes, [1, ...] each. Raises :class:`ModelError`."""
        key = tuple(tuple(x.shape) for x in inputs)
        if key not in self._compiled:
            with torch.inference_mode(False):  # in which torch.export can't trace, nor with tensors made in it
                example = tuple(torch.ones(x.shape) for x in inputs)
                if key not in self._graphs:
                    self._graphs[key] = trace(self.model, example)
                matched = matched_blocks(self.model, example, self.blocks, self._graphs[key])
            self._compiled[key] = _Compiled(matched, self._lower(matched))
            if len(self._compiled) > KEPT:
                old, _ = self._compiled.popitem(last=False)
                self._graphs.pop(old, None)
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _lower(self, matched: Matched) -> list[tuple[int, list[fx.Node], Program | None]]:
        last = max([*matched.host.values(), *(o.output.depth for o in matched.operators)])
        read = {matched.views[n].value for n in matched.outputs}
        read |= {v for o in matched.operators for v in o.operands if v.depth % 2 and v.depth != o.output.depth}
        order: list[tuple[int, list[fx.Node], Program | None]] = []
        base = 0
        for depth in range(last + 1):
            program = None
            operators = matched.program(depth)
            if operators:
                outputs = [o.output for o in operators if o.output in read]
                program = lower(operators, outputs, self.calibration, self.fabric.config, base)
                base = program.end
            order.append((depth, [n for n, d in matched.host.items() if d == depth], program))
        return order

    def close(self) -> None:
        """Free the fabric's device, if it is one. Safe to call twice."""
        if isinstance(self.fabric, DeviceFabric):
            self.fabric.close()

    @torch.no_grad()
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Raises :class:`DataError` for inputs without a common first dimension."""
        if len({len(x) for x in inputs}) != 1 or not len(inputs[0]):
            raise DataError("inputs", [tuple(x.shape) for x in inputs], "must agree in their first dimension, at least 1")
        return torch.cat([self._one(*(x[n : n + 1].float() for x in inputs)) for n in range(len(inputs[0]))])

    def _one(self, *inputs: torch.Tensor) -> torch.Tensor:
        compiled = self.compiled(*inputs)
        if self._loaded is not compiled:
            self._loaded = None
            for program in compiled.programs:
                self.fabric.load(program.base, program.image)
            self._loaded = compiled
        run = _Run(compiled.matched, self.fabric, self.calibration, inputs)
        self._images += 1
        done, whole = 0, sum(self.predicted_cycles(p) for p in compiled.programs)
        for _, nodes, program in compiled.order:
            if program:
                self._listen(done, whole)
                try:
                    run.program(program)
                except (CommandError, DeviceTimeout):  # whatever became of the device's memory
                    self._loaded = None
                    raise
                done += self.predicted_cycles(program)
            for node in nodes:
                run.host(node)
        return run.result

    def predicted_cycles(self, program: Program) -> int:
        """What the fabric takes for it (:mod:`.cycles`)."""
        return program_cycles(program.descriptors, self.fabric.config)

    def _listen(self, done: int, whole: int) -> None:
        told = self.told
        if isinstance(self.fabric, DeviceFabric):
            self.fabric.told = None if told is None else lambda cycles: told(self._images, done + cycles, whole)


class _Run:
    """One image on its way through the graph."""

    def __init__(self, matched: Matched, fabric: Fabric, calibration: Calibration, inputs: tuple[torch.Tensor, ...]):
        self.matched, self.fabric, self.scale = matched, fabric, calibration.scale
        self.inputs = iter(inputs)
        self.tensors: dict[fx.Node, Any] = {}
        self.codes: dict[Value, np.ndarray] = {}
        self.result: Any = None
        self.made_by_host = {value: key for key, value in matched.inputs.items()}

    def fetch(self, node: Any) -> Any:
        """A node's tensor, wherever it is."""
        if node in self.matched.views and node not in self.tensors:
            view: View = self.matched.views[node]
            v = view.value
            real = (self.codes[v].astype(np.float32) - v.zero) * np.float32(self.scale(v))
            self.tensors[node] = torch.from_numpy(real).as_strided(view.meta.shape, view.meta.stride(),
                                                                   view.meta.storage_offset())
        return self.tensors[node]

    def host(self, node: fx.Node) -> None:
        graph = self.matched.graph
        args, kwargs = map_arg((node.args, node.kwargs), self.fetch)
        if node.op == "placeholder":
            self.tensors[node] = next(self.inputs)
        elif node.op == "get_attr":
            self.tensors[node] = value if (value := parameter(graph, node)) is not None else None
        elif node.op == "call_module":
            self.tensors[node] = graph.get_submodule(str(node.target))(*args, **kwargs)
        elif node.op == "output":
            self.result = args[0][0] if isinstance(args[0], (tuple, list)) else args[0]
        else:
            self.tensors[node] = node.target(*args, **kwargs)  # type: ignore[operator]

    def program(self, program: Program) -> None:
        beat = self.fabric.config.beat_bytes
        content = bytearray(program.input_bytes)
        for v, at in program.inputs.items():
            packed = pack_tensor(self.entering(v), beat)
            content[at : at + len(packed)] = packed
        try:
            answer = np.frombuffer(self.fabric.run(program.base, bytes(content)), np.uint8)
        except CommandError as e:
            if e.status == Status.BAD_DESCRIPTOR and 1 <= e.dw0 <= len(program.operators):
                o = program.operators[e.dw0 - 1]
                raise CommandError(f"{e.what}, descriptor {e.dw0}: {o.name} in {o.module or 'the model'}", e.status, e.dw0,
                                   e.dw1) from e
            raise
        for v, at in program.outputs.items():
            size = v.height * v.width * (-(-v.channels * (v.bits // 8) // beat) * beat)
            shape = (v.height, v.width, v.channels)
            self.codes[v] = np.ascontiguousarray(unpack_tensor(answer[at : at + size], shape, v.bits == 16, beat))

    def entering(self, v: Value) -> np.ndarray:
        """Codes of what goes to the fabric: an earlier program's as they are, the host's quantised."""
        if v in self.codes:
            return self.codes[v]
        node, layout = self.made_by_host[v]
        x = self.fetch(node).float()
        if not bool(torch.isfinite(x).all()):
            raise DataError(node.name, "NaN or infinity", "must be finite: codes have none")
        x = x.permute(0, 2, 3, 1) if layout == "image" and x.dim() == 4 else x
        top = LIMITS[v.bits]
        real = x.reshape(v.height, v.width, v.channels).numpy() / np.float32(self.scale(v))
        return np.clip(np.rint(real) + v.zero, -top, top).astype(np.int16 if v.bits == 16 else np.int8)


def calibrated(model: nn.Module, blocks: Blocks, samples: Iterable[tuple[torch.Tensor, ...]], note: str = "",
               unusual: Iterable[tuple[torch.Tensor, ...]] = ()) -> Calibration:
    """Scales for ``blocks`` of ``model`` from samples of one shape, [1, ...] each; ``unusual``: see
    :func:`~nearflash.offload.calibrate.fake_quantised`.

    Raises:
        ModelError: no samples, or what :func:`matched_blocks` refuses.
    """
    given = iter(samples)
    first = next(given, None)
    if first is None:
        raise ModelError("samples", 0, "at least one: an uncalibrated model has no scales")
    return calibrate(matched_blocks(model, first, blocks), (first, *given), note, unusual)
