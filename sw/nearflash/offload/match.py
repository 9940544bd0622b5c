"""Which operators of the graph the fabric does, and how: views become addresses, neighbours fuse.

The graph is walked once, with strides in place of contents: permutations, reshapes and slices of a value in the fabric's
memory change strides alone. A value becomes memory where an operator makes it, and crosses to the host where an operator
that stays in PyTorch reads it. *Depth* counts those crossings: the host's operators have even depths, the fabric's odd
ones; all of one odd depth are one program.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from ..contract.errors import ModelError
from ..contract.tensor import MOST_CHANNELS, Op
from .ops import TABLES, Operator, Value, View
from .trace import modules_of, parameter
from .transposed import as_convolution

__all__ = ["Matched", "Unsupported", "match"]

aten = torch.ops.aten
VIEWS = {aten.permute.default, aten.transpose.int, aten.reshape.default, aten.view.default, aten.flatten.using_ints,
         aten.unsqueeze.default, aten.squeeze.dim, aten.unbind.int, aten.slice.Tensor, aten.select.int,
         aten.unflatten.int, aten.split.Tensor, aten.chunk.default, aten.t.default}
SAME = {aten.contiguous.default, aten.clone.default, aten.dropout.default, aten.alias.default, aten.detach.default}
SHUFFLED_CHANNELS = 8  # a pixel of fewer wastes most of a beat: the host rearranges those


class Unsupported(Exception):
    """An operator, or the way it is used, that the fabric doesn't do; the text says what would be."""


class _Scores:
    """q k^T times a factor, as yet unmade; after softmax, ``normalised``. q and k: a view and the graph node that shows
    it."""

    def __init__(self, q: tuple[View, fx.Node], k: tuple[View, fx.Node], factor: float = 1.0, normalised: bool = False):
        self.q, self.k, self.factor, self.normalised = q, k, factor, normalised


class Matched:
    """Result of :func:`match`.

    Attributes:
        operators: of the fabric, in an order that works.
        views: what of the fabric's memory each graph node's tensor is.
        host: nodes that stay in PyTorch, with their depths.
        inputs: values that come from the host, by the node they hold.
        outputs: graph nodes on the fabric that the host reads.
        refused: operators of the chosen blocks that stay in PyTorch, "node (module): reason".
    """

    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.operators: list[Operator] = []
        self.views: dict[fx.Node, Any] = {}
        self.host: dict[fx.Node, int] = {}
        self.inputs: dict[tuple[fx.Node, str], Value] = {}
        self.outputs: list[fx.Node] = []
        self.refused: dict[str, str] = {}

    def program(self, depth: int) -> list[Operator]:
        """The operators of one program."""
        return [o for o in self.operators if o.output.depth == depth]


def match(graph: fx.GraphModule, chosen: Callable[[fx.Node], bool]) -> Matched:
    """Take what of the ``chosen`` nodes the fabric can do."""
    walk = _Walk(graph)
    for node in graph.graph.nodes:
        walk.visit(node, chosen)
    walk.finish()
    return walk.out


class _Walk:
    def __init__(self, graph: fx.GraphModule):
        self.out = Matched(graph)
        self.seen: dict[Value, list[fx.Node]] = {}  # nodes whose tensor is (a view of) the value
        self.made: dict[Value, Operator] = {}
        rules: dict[Any, Callable[..., Any]] = {
            aten.conv2d.default: self.conv2d, aten.linear.default: self.linear, aten.relu.default: self.relu,
            aten.add.Tensor: self.add, aten.mul.Tensor: self.mul, aten.layer_norm.default: self.layer_norm,
            aten.avg_pool2d.default: self.avg_pool2d, aten.pixel_shuffle.default: self.pixel_shuffle,
            aten.matmul.default: self.matmul, aten.softmax.int: self.softmax,
            aten.scaled_dot_product_attention.default: self.attend, aten.conv_transpose2d.input: self.conv_transpose2d,
            **dict.fromkeys(TABLES, self.table),
        }
        self.rules = rules

    # -- the walk -----------------------------------------------------------------------------------------------------
    def visit(self, node: fx.Node, chosen: Callable[[fx.Node], bool]) -> None:
        views = self.out.views
        sources = [a for a in node.all_input_nodes if a in views]
        if node.op == "call_function":
            if node.target == aten._assert_tensor_metadata.default and sources:
                return  # what tracing saw of a dtype; a value's format is the fabric's own
            if (node.target in SAME or (node.target == aten.to.dtype and node.args[1] == torch.float32)) and sources:
                views[node] = self.track(node, views[sources[0]])
                return
            if node.target is operator.getitem and sources and isinstance(views[sources[0]], tuple):
                views[node] = self.track(node, views[sources[0]][node.args[1]])
                return
            if node.target in VIEWS and sources and isinstance(views[sources[0]], View):
                found = self.view(node, views[sources[0]])
                if found is not None:
                    views[node] = found
                    return
            if node.target in self.rules and chosen(node):
                try:
                    views[node] = self.track(node, self.rules[node.target](node, *node.args, **node.kwargs))
                    return
                except Unsupported as e:
                    self.refuse(node, str(e))
            elif chosen(node) and isinstance(node.target, torch._ops.OpOverload) and (sources or node.target not in VIEWS):
                self.refuse(node, f"{node.target} is no operator of the fabric")
        self.stay(node, sources)

    def refuse(self, node: fx.Node, reason: str) -> None:
        module = (modules_of(node) or ("the model",))[-1]
        self.out.refused[node.name] = f"{node.name} in {module}: {reason}"

    def stay(self, node: fx.Node, sources: list[fx.Node]) -> None:
        """The node is the host's; what it reads of the fabric's has to cross."""
        depth = max([self.out.host[a] for a in node.all_input_nodes if a in self.out.host], default=0)
        for a in sources:
            view = self.out.views[a]
            if not isinstance(view, View):
                raise ModelError(node.name, str(node.target), "must not read the scores of an attention on the fabric: "
                                 "choose the whole block, or none of it")
            depth = max(depth, view.value.depth + 1)
            if a not in self.out.outputs:
                self.out.outputs.append(a)
        self.out.host[node] = depth

    def track(self, node: fx.Node, result: Any) -> Any:
        for one in result if isinstance(result, tuple) else (result,):
            if isinstance(one, View):
                self.seen.setdefault(one.value, []).append(node)
        return result

    def finish(self) -> None:
        """Drop what nobody reads, and give values the bits that their readers need."""
        out = self.out
        needed = {out.views[n].value for n in out.outputs}
        for o in reversed(out.operators):
            if o.output in needed:
                needed.update(o.operands)
        out.operators = [o for o in out.operators if o.output in needed]
        self.widen({out.views[n].value for n in out.outputs})

    def widen(self, outputs: set[Value]) -> None:
        """16 bits for what LayerNorm reads, for the sums that lead there, and for what the host gets; whatever else reads
        such a value gets a copy of 8."""
        ops = self.out.operators
        fixed = {o.output for o in ops if o.op in (Op.LAYERNORM, Op.ATTENTION) or o.function}  # always 8 bits
        wide = {v for v in outputs if v in self.made} | {o.inputs[0] for o in ops if o.op == Op.LAYERNORM}
        for o in reversed(ops):
            if o.residual is not None and o.output in wide - fixed:
                wide |= {v for v in o.operands if v is o.residual or o.op == Op.ADD}
        wide -= fixed
        for v in wide:
            v.bits = 16
        narrow: dict[tuple[Value, int], Value] = {}
        placed: list[Operator] = []
        for o in ops:
            if o.op not in (Op.ADD, Op.LAYERNORM):
                for i, v in enumerate(o.inputs):
                    if v.bits == 16:
                        if (v, o.output.depth) not in narrow:
                            copy = Value(v.key, v.height, v.width, v.channels, rectified=v.rectified,
                                         depth=o.output.depth, aliases=v.aliases)
                            narrow[v, o.output.depth] = copy
                            placed.append(Operator(Op.ADD, [v], copy, f"{v.key}.narrow", o.module))
                        o.inputs[i] = narrow[v, o.output.depth]
            placed.append(o)
        self.out.operators = placed
        for o in placed:  # operands come first
            if o.op in (Op.ADD, Op.POOL):
                o.output.rectified |= all(v.rectified for v in o.operands)
        signed = {v for o in placed if o.op == Op.ATTENTION for v in o.inputs}
        for o in placed:
            if o.output.rectified and o.output.bits == 8 and o.output not in signed:
                o.output.zero = -127  # all 255 codes for what a ReLU lets through

    # -- views ----------------------------------------------------------------------------------------------------------
    def view(self, node: fx.Node, source: View) -> Any:
        """The node's view(s) of the same value; None if it would need a copy."""
        metas = node.target(source.meta, *node.args[1:], **node.kwargs)  # type: ignore[operator]
        several = isinstance(metas, (tuple, list))
        for m in metas if several else (metas,):
            if m.untyped_storage()._cdata != source.meta.untyped_storage()._cdata:
                return None
        if several:
            return tuple(View(source.value, m) for m in metas)
        return self.track(node, View(source.value, metas))

    def operand(self, node: Any, layout: str) -> View:
        """What the fabric reads for ``node``: its view, or, if the host made it, an input of ``layout`` "image" [1, C, H,
        W] or "tokens" [1, ..., C]."""
        if not isinstance(node, fx.Node) or node.op == "get_attr":
            raise Unsupported("an operand that is a constant or a parameter")
        if node in self.out.views:
            view = self.out.views[node]
            if not isinstance(view, View):
                raise Unsupported("the scores of an attention as an operand")
            return view
        found = node.meta.get("val")
        shape: list[int] = list(found.shape) if isinstance(found, torch.Tensor) else []
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise Unsupported(f"an input of shape {shape}: the fabric takes one image or sequence")
        image = layout == "image" and len(shape) == 4
        h, w, c = (shape[2], shape[3], shape[1]) if image else (math.prod(shape[1:-2]), shape[-2], shape[-1])
        key = (node, "image" if image else "tokens")
        if key not in self.out.inputs:
            self.out.inputs[key] = Value(node.name, h, w, c, depth=self.out.host[node], aliases=_viewed(node))
        value = self.out.inputs[key]
        base = torch.empty((1, h, w, c), device="meta")
        return View(value, base.permute(0, 3, 1, 2) if image else base.view(shape))

    @staticmethod
    def image(view: View) -> Value:
        """The value, if the view is all of it as [1, C, H, W]."""
        v = view.value
        if tuple(view.meta.shape) != (1, v.channels, v.height, v.width) or not _dense(view.meta.permute(0, 2, 3, 1)):
            raise Unsupported("an operand that isn't a whole image [1, C, H, W]")
        return v

    @staticmethod
    def rows(view: View) -> Value:
        """The value, if the view is all of it with its channels last."""
        if view.meta.shape[-1] != view.value.channels or not _dense(view.meta):
            raise Unsupported("an operand whose last dimension isn't a whole pixel")
        return view.value

    def sole(self, view: View, node: fx.Node) -> Operator | None:
        """The operator that makes the view's value, if ``node`` alone reads it."""
        nodes = self.seen.get(view.value, [])
        users = {u for n in nodes for u in n.users if u not in nodes}
        return self.made.get(view.value) if users == {node} else None

    def emit(self, node: fx.Node, op: Op, inputs: list[Value], height: int, width: int, channels: int, **more: Any) -> Value:
        depth = max(v.depth + (v.depth + 1) % 2 for v in inputs)
        made = Value(node.name, height, width, channels, depth=depth)
        module = (modules_of(node) or ("",))[-1]
        self.made[made] = Operator(op, inputs, made, node.name, module, nodes=[node.name], **more)
        self.out.operators.append(self.made[made])
        return made

    def fused(self, made: Operator, node: fx.Node) -> None:
        """The operator now computes ``node``: it moves to the end, where everything that ``node`` reads is there."""
        made.output.key = node.name
        made.nodes.append(node.name)
        self.out.operators.remove(made)
        self.out.operators.append(made)

    def tensor(self, node: Any, what: str) -> Any:
        found = parameter(self.out.graph, node)
        if found is None:
            raise Unsupported(f"{what} that isn't a parameter")
        return found.double().numpy()

    # -- operators --------------------------------------------------------------------------------------------------------
    def conv2d(self, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0),
               dilation: Any = (1, 1), groups: int = 1) -> View:
        w = self.tensor(weight, "a weight")
        o, _, kh, kw = w.shape
        if stride[0] != stride[-1] or any(d != 1 for d in dilation) or max(kh, kw, stride[0]) > 8:
            raise Unsupported(f"kernel {kh}x{kw}, stride {list(stride)}, dilation {list(dilation)}: at most 8, one stride, "
                              "not dilated")
        pad = (padding[0], padding[-1])
        if pad[0] >= kh or pad[1] >= kw:
            raise Unsupported(f"padding {list(padding)}: below the kernel")
        v = self.image(self.operand(x, "image"))
        out = [(n + 2 * p - k) // stride[0] + 1 for n, p, k in zip((v.height, v.width), pad, (kh, kw), strict=True)]
        more = {"bias": None if bias is None else self.tensor(bias, "a bias"), "stride": stride[0], "pad": pad}
        if groups == 1:
            made = self.emit(node, Op.CONV, [v], out[0], out[1], o, weight=w.transpose(0, 2, 3, 1), **more)
        elif groups == o == v.channels:
            made = self.emit(node, Op.DEPTHWISE, [v], out[0], out[1], o, weight=w[:, 0].transpose(1, 2, 0), **more)
        else:
            raise Unsupported(f"{groups} groups of {v.channels} channels: 1, or one each")
        return _image_view(made)

    def conv_transpose2d(self, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = (1, 1),
                         padding: Any = (0, 0), output_padding: Any = (0, 0), groups: int = 1, dilation: Any = (1, 1)
                         ) -> View:
        w = self.tensor(weight, "a weight")
        side = stride[0]
        if groups != 1 or any(s != side for s in stride) or any(d != 1 for d in dilation) or side > 8:
            raise Unsupported(f"stride {list(stride)}, dilation {list(dilation)}, {groups} groups: one stride of at most 8, "
                              "not dilated, 1 group")
        v = self.image(self.operand(x, "image"))
        bordered = (padding[0], padding[-1])
        out = [(n - 1) * side - 2 * p + k + more for n, p, k, more in zip(
            (v.height, v.width), bordered, w.shape[2:], (output_padding[0], output_padding[-1]), strict=True)]
        spread, pad = as_convolution(w, side, bordered)
        o = w.shape[1]
        if any(n % side for n in out) or max(spread.shape[1:3]) > 8:
            raise Unsupported(f"an output of {out[0]}x{out[1]} from {spread.shape[1]}x{spread.shape[2]} pixels for each of "
                              f"{side}x{side} phases: sizes that the stride divides, from at most 8x8")
        if o * side**2 > MOST_CHANNELS:
            raise Unsupported(f"{o} channels in {side}x{side} phases: at most {MOST_CHANNELS} entries")
        made = self.emit(node, Op.CONV, [v], out[0], out[1], o, weight=spread, shuffle=side, pad=pad,
                         bias=None if bias is None else np.repeat(self.tensor(bias, "a bias"), side**2))
        return _image_view(made)

    def linear(self, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> View:
        w = self.tensor(weight, "a weight")
        view = self.operand(x, "tokens")
        v = self.rows(view)
        made = self.emit(node, Op.CONV, [v], v.height, v.width, len(w), weight=w[:, None, None],
                         bias=None if bias is None else self.tensor(bias, "a bias"))
        return View(made, torch.empty((*view.meta.shape[:-1], len(w)), device="meta"))

    def joins(self, *nodes: Any) -> None:
        """What is cheap anywhere follows the data: it moves no tensor to the fabric by itself."""
        if not any(n in self.out.views for n in nodes):
            raise Unsupported("nothing it reads is on the fabric")

    def relu(self, node: fx.Node, x: Any) -> View:
        self.joins(x)
        view = self.operand(x, "image")
        made = self.sole(view, node)
        if made and made.op in (Op.CONV, Op.DEPTHWISE, Op.ADD) and not made.output.rectified and not made.function:
            self.fused(made, node)
            value = made.output
        else:
            v = view.value
            value = self.emit(node, Op.ADD, [v], v.height, v.width, v.channels)
        value.rectified = True
        return View(value, view.meta)

    def table(self, node: fx.Node, x: Any, **keywords: Any) -> View:
        """A function of one number: the last thing that the operator before it does, or an ADD of its own."""
        self.joins(x)
        view = self.operand(x, "image")
        v = view.value
        before = Value(v.key, v.height, v.width, v.channels)
        made = self.sole(view, node)
        if made and made.op in (Op.CONV, Op.DEPTHWISE, Op.ADD) and not v.rectified and not made.function:
            self.fused(made, node)
        else:
            made = self.made[self.emit(node, Op.ADD, [v], v.height, v.width, v.channels)]
        made.function, made.before = functools.partial(TABLES[node.target], **keywords), before
        return View(made.output, view.meta)

    def add(self, node: fx.Node, a: Any, b: Any, alpha: float = 1) -> View:
        if alpha != 1 or not isinstance(b, fx.Node):
            raise Unsupported("a sum with a number, or with alpha")
        self.joins(a, b)
        left, right = self.operand(a, "image"), self.operand(b, "image")
        if not _same_place(left, right):
            raise Unsupported("a sum of tensors of different shapes or orders")
        for view, other in ((right, left), (left, right)):
            made = self.sole(view, node)
            if made and made.op == Op.CONV and made.residual is None and not made.output.rectified and (
                    not made.function and view.value is not other.value):
                if (depth := other.value.depth + (other.value.depth + 1) % 2) > made.output.depth:
                    made.output.depth = depth
                made.residual = other.value
                self.fused(made, node)
                return View(made.output, view.meta)
        v = left.value
        made = self.emit(node, Op.ADD, [v], v.height, v.width, v.channels, residual=right.value)
        made.depth = max(made.depth, right.value.depth + (right.value.depth + 1) % 2)
        return View(made, left.meta)

    def mul(self, node: fx.Node, a: Any, b: Any) -> Any:
        a, b = (b, a) if isinstance(a, (int, float)) else (a, b)
        if not isinstance(b, (int, float)):
            raise Unsupported("a product of two tensors")
        self.joins(a)
        source = self.out.views.get(a)
        if isinstance(source, _Scores) and not source.normalised:
            return _Scores(source.q, source.k, source.factor * b)
        view = self.operand(a, "image")
        made = self.sole(view, node)
        if (made is None or made.op not in (Op.CONV, Op.DEPTHWISE) or made.residual or made.output.rectified
                or made.function):
            raise Unsupported("a product with a number, except right after a convolution or linear layer")
        assert made.weight is not None
        made.weight = made.weight * b
        made.bias = None if made.bias is None else made.bias * b
        self.fused(made, node)
        return View(made.output, view.meta)

    def layer_norm(self, node: fx.Node, x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
                   cudnn: bool = True) -> View:
        view = self.operand(x, "tokens")
        v = self.rows(view)
        if list(shape) != [v.channels]:
            raise Unsupported(f"a LayerNorm over {list(shape)}: over the channels alone")
        gain = torch.ones(v.channels).double().numpy() if weight is None else self.tensor(weight, "a weight")
        made = self.emit(node, Op.LAYERNORM, [v], v.height, v.width, v.channels, weight=gain, eps=eps,
                         bias=None if bias is None else self.tensor(bias, "a bias"))
        return View(made, torch.empty(view.meta.shape, device="meta"))

    def avg_pool2d(self, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = (0,), ceil: bool = False,
                   count_pad: bool = True, divisor: Any = None) -> View:
        v = self.image(self.operand(x, "image"))
        side = kernel[0]
        if side != kernel[-1] or any(s != side for s in stride) or any(padding) or divisor or side > 8:
            raise Unsupported(f"average pooling {list(kernel)}, stride {list(stride)}, padding {list(padding)}: squares of "
                              "at most 8, side by side")
        if v.height % side or v.width % side:
            raise Unsupported(f"average pooling of {v.height}x{v.width} by {side}: squares that tile the image")
        return _image_view(self.emit(node, Op.POOL, [v], v.height // side, v.width // side, v.channels, stride=side))

    def pixel_shuffle(self, node: fx.Node, x: Any, side: int) -> View:
        self.joins(x)
        view = self.operand(x, "image")
        made = self.sole(view, node)
        v = self.image(view)
        if made is None or made.op != Op.CONV or made.residual or v.rectified or made.shuffle > 1 or side > 8:
            raise Unsupported("a pixel shuffle, except right after a convolution")
        if v.channels // side**2 < SHUFFLED_CHANNELS:
            raise Unsupported(f"a pixel shuffle to {v.channels // side**2} channels: at least {SHUFFLED_CHANNELS}")
        made.shuffle = side
        v.height, v.width, v.channels = v.height * side, v.width * side, v.channels // side**2
        self.fused(made, node)
        return _image_view(v)

    def matmul(self, node: fx.Node, a: Any, b: Any) -> Any:
        left = self.out.views.get(a)
        right = self.out.views.get(b)
        if isinstance(left, _Scores) and left.normalised and isinstance(right, View):
            return self.attention(node, left, (right, b))
        if isinstance(left, View) and isinstance(right, View) and left.meta.dim() == 4:
            return _Scores((left, a), (View(right.value, right.meta.transpose(-2, -1)), b))
        raise Unsupported("a product of two tensors that is no attention")

    def softmax(self, node: fx.Node, x: Any, dim: int, dtype: Any = None) -> Any:
        scores = self.out.views.get(x)
        if not isinstance(scores, _Scores) or dim not in (-1, 3) or dtype not in (None, torch.float32):
            raise Unsupported("a softmax of other than an attention's scores over the keys")
        return _Scores(scores.q, scores.k, scores.factor, True)

    def attend(self, node: fx.Node, q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False,
               scale: float | None = None, enable_gqa: bool = False) -> View:
        views = [(self.out.views.get(n), n) for n in (q, k, v)]
        if mask is not None or dropout or causal or not all(isinstance(view, View) for view, _ in views):
            raise Unsupported("an attention with a mask, or of what the host made")
        factor = q.meta["val"].shape[-1] ** -0.5 if scale is None else scale
        return self.attention(node, _Scores(views[0], views[1], factor, True), views[2])  # type: ignore[arg-type]

    def attention(self, node: fx.Node, scores: _Scores, v: tuple[View, fx.Node]) -> View:
        if not scores.factor > 0:
            raise Unsupported(f"an attention whose scores are multiplied by {scores.factor:g}: above 0")
        q, k, values = (self.headed(*shown) for shown in (scores.q, scores.k, v))
        _, heads, tokens, d = scores.q[0].meta.shape
        if k.channels != q.channels or values.channels != q.channels or k.width * k.height != values.width * values.height:
            raise Unsupported("an attention whose q, k and v differ in heads or width")
        made = self.emit(node, Op.ATTENTION, [q, k, values], q.height, q.width, q.channels, heads=heads,
                         factor=scores.factor)
        base = torch.empty((1, tokens, heads, d), device="meta")
        return View(made, base.permute(0, 2, 1, 3))

    def headed(self, view: View, node: fx.Node) -> Value:
        """The value that holds [1, heads, T, d] alone, heads as neighbouring channels: part of a linear layer's output
        becomes a layer of its own, whose numbers ``node`` shows."""
        m, v = view.meta, view.value
        _, heads, tokens, d = m.shape
        first, whole = m.storage_offset(), heads * d
        if m.stride(3) != 1 or (heads > 1 and m.stride(1) != d) or (tokens > 1 and m.stride(2) != v.channels) or (
                tokens != v.height * v.width or first + whole > v.channels):
            raise Unsupported("an attention whose heads aren't neighbouring channels of a token")
        if (first, whole) == (0, v.channels):
            return v
        made = self.made.get(v)
        if made is None or made.op != Op.CONV or made.residual or made.shuffle > 1 or v.rectified or made.function:
            raise Unsupported("part of a tensor's channels, unless a linear layer made them")
        assert made.weight is not None
        rows = slice(first, first + whole)
        part = Value(node.name, v.height, v.width, whole, depth=v.depth)
        self.made[part] = Operator(Op.CONV, list(made.inputs), part, f"{made.name}.{node.name}", made.module,
                                   weight=made.weight[rows], bias=None if made.bias is None else made.bias[rows],
                                   nodes=made.nodes)
        self.out.operators.append(self.made[part])
        return part


def _viewed(node: fx.Node) -> tuple[str, ...]:
    """Of what the node shows other shapes or orders, nearest first."""
    names = []
    while node.op == "call_function" and node.target in VIEWS | SAME | {operator.getitem} and isinstance(
            source := node.args[0], fx.Node):
        node = source
        names.append(node.name)
    return tuple(names)


def _dense(m: torch.Tensor) -> bool:
    return bool(m.storage_offset() == 0 and m.is_contiguous())


def _same_place(a: View, b: View) -> bool:
    x, y = a.meta, b.meta
    same = [(s, t) for s, t, n in zip(x.stride(), y.stride(), x.shape, strict=False) if n > 1]
    return bool(x.shape == y.shape and all(s == t for s, t in same) and x.storage_offset() == y.storage_offset()
            and a.value.channels == b.value.channels and a.value.height * a.value.width == b.value.height * b.value.width)


def _image_view(v: Value) -> View:
    return View(v, torch.empty((1, v.height, v.width, v.channels), device="meta").permute(0, 3, 1, 2))
