"""From operators and scales to a program: integers for every real number, addresses for every value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.config import DeviceConfig
from ..contract.errors import ModelError
from ..contract.tensor import ALIGN, DESCRIPTOR_BYTES, Descriptor, DescriptorError, Op, check, pack_program, pixel_bytes
from ..contract.tensor_image import pack_depthwise, pack_entries, pack_weights
from .calibrate import LIMITS, Calibration
from .ops import Operator, Value
from .scales import quantise_weights, rescaling, rescalings, table_codes
from .tile import plan_tile

__all__ = ["Program", "lower"]

FRAC = {8: 12, 16: 6}  # bits a sum keeps below a step: terms of 24 bits then reach 16 and 4 times the output's range


@dataclass(frozen=True)
class Program:
    """What TENSOR_LOAD puts at ``base`` (``image``: program, weights and entries) and TENSOR_RUN runs.

    ``inputs``, ``outputs``: values and their byte offsets in the command's input and output; ``operators`` in the order of
    the descriptors; ``end``: first byte of the region it doesn't use.
    """

    base: int
    image: bytes
    inputs: dict[Value, int]
    outputs: dict[Value, int]
    input_bytes: int
    operators: tuple[Operator, ...]
    descriptors: tuple[Descriptor, ...]
    end: int


def _up(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def lower(operators: Sequence[Operator], outputs: Sequence[Value], calibration: Calibration, config: DeviceConfig, base: int
          ) -> Program:
    """The program of ``operators`` from byte ``base`` of the tensor region; ``outputs``: values to return.

    Raises:
        ModelError: an operator beyond the engine's limits (named), or a network beyond the region.
    """
    build = _Builder(calibration, config)
    at = base + (len(operators) + 1) * DESCRIPTOR_BYTES
    blobs: list[bytes] = []

    def constant(content: bytes) -> int:
        nonlocal at
        start, padded = at, content.ljust(_up(len(content)), b"\0")
        blobs.append(padded)
        at += len(padded)
        return start

    drafts = [build.descriptor(o, constant) for o in operators]
    made = {o.output for o in operators}
    inputs = list(dict.fromkeys(v for o in operators for v in o.operands if v not in made))
    header = Descriptor(Op.PROGRAM)
    where: dict[Value, int] = {}
    offsets: list[dict[Value, int]] = []
    for values, start, size in ((inputs, "x", "input_bytes"), (outputs, "y", "output_bytes")):
        header[start], places = at, {}
        for v in values:
            places[v], where[v] = at - header[start], at
            at += _up(build.bytes(v))
        header[size] = at - header[start]
        offsets.append(places)
    at = _place(operators, where, at, build.bytes)
    if at > config.tensor.dram_bytes:
        raise ModelError("tensors", at, f"must fit the tensor region of {config.tensor.dram_bytes} bytes")
    for o, d in zip(operators, drafts, strict=True):
        d["x"], d["y"] = where[o.inputs[0]], where[o.output]
        if o.op == Op.ATTENTION:
            d["r"], d["v"] = where[o.inputs[1]], where[o.inputs[2]]
        if o.residual:
            d["r"] = where[o.residual]
        try:
            check(d, config.tensor, config.beat_bytes)
        except DescriptorError as e:
            raise ModelError(f"{o.name}.{e.field.split('.')[-1]}", e.value, e.limit) from e
    image = pack_program(header, drafts) + b"".join(blobs)
    return Program(base, image, offsets[0], offsets[1], header["input_bytes"], tuple(operators), tuple(drafts), at)


def _place(operators: Sequence[Operator], where: dict[Value, int], first: int, size: Callable[[Value], int]) -> int:
    """Addresses from ``first`` on for what has none yet; values that are never needed at the same time share bytes. Returns
    the end."""
    last = {v: i for i, o in enumerate(operators) for v in (*o.operands, o.output)}
    live: list[tuple[int, int, int]] = []  # start, end, last use
    top = first
    for i, o in enumerate(operators):
        live = [span for span in live if span[2] >= i]
        if o.output in where:
            continue
        need, start = _up(size(o.output)), first
        for a, b, _ in sorted(live):
            if start + need <= a:
                break
            start = max(start, b)
        where[o.output] = start
        live.append((start, start + need, last[o.output]))
        top = max(top, start + need)
    return top


class _Builder:
    def __init__(self, calibration: Calibration, config: DeviceConfig):
        self.scale, self.config = calibration.scale, config

    def bytes(self, v: Value) -> int:
        return v.height * v.width * pixel_bytes(v.channels, v.bits == 16, self.config.beat_bytes)

    def descriptor(self, o: Operator, constant: Callable[[bytes], int]) -> Descriptor:
        x, y = o.inputs[0], o.output
        side = o.shuffle
        top = LIMITS[y.bits]
        d = Descriptor(o.op, in_height=x.height, in_width=x.width, in_channels=x.channels, out_height=y.height // side,
                       out_width=y.width // side, out_channels=y.channels,
                       low=y.zero if y.rectified else -top, high=top)
        if o.op in (Op.POOL, Op.ADD):
            d["x16"] = x.bits == 16
        if o.op == Op.LAYERNORM:
            self.norm(o, d, constant)
        elif o.op == Op.ATTENTION:
            self.attention(o, d)
        else:
            d["y16"] = y.bits == 16
            self.summed(o, d, constant)
        return d

    def summed(self, o: Operator, d: Descriptor, constant: Callable[[bytes], int]) -> None:
        x, y = o.inputs[0], o.output
        sx, sy = self.scale(x), self.scale(y)
        if o.function:
            assert o.before is not None
            step, sy = sy, self.scale(o.before)
            d["lookup"], d["table"] = 1, constant(table_codes(o.function, sy, step).tobytes())
        exact = o.residual is None and o.op in (Op.CONV, Op.DEPTHWISE)  # nothing is added after the requantiser but a zero
        d["frac"] = 0 if exact else FRAC[y.bits]
        steps = 2.0 ** d["frac"] / sy
        offset = y.zero * 2.0 ** d["frac"]
        d["residual"] = o.residual is not None
        if o.op in (Op.CONV, Op.DEPTHWISE):
            self.weighted(o, d, constant, sx, steps)
        else:
            area = o.stride**2 if o.op == Op.POOL else 1
            d["mult"], d["shift"] = rescaling(sx * steps / area, o.name)
            offset -= x.zero * sx * steps
            if o.op == Op.POOL:
                d["kernel_h"] = d["kernel_w"] = d["stride"] = o.stride
        if o.residual is not None:
            r = o.residual
            d["r16"] = r.bits == 16
            d["residual_mult"], d["residual_shift"] = rescaling(self.scale(r) * steps, o.name)
            offset -= r.zero * self.scale(r) * steps
        d["offset"] = round(offset)

    def weighted(self, o: Operator, d: Descriptor, constant: Callable[[bytes], int], sx: float, steps: float) -> None:
        assert o.weight is not None
        x = o.inputs[0]
        depthwise = o.op == Op.DEPTHWISE
        weight = o.weight
        bias = np.zeros(weight.shape[-1 if depthwise else 0]) if o.bias is None else o.bias
        if o.shuffle > 1:  # PyTorch's channels are (channel, row, column); the fabric writes a pixel's at once
            order = np.arange(len(weight)).reshape(-1, o.shuffle**2).T.reshape(-1)
            weight, bias = weight[order], bias[order]
        codes, scales = quantise_weights(weight, weight.ndim - 1 if depthwise else 0)
        kernel = codes.shape[:2] if depthwise else codes.shape[1:3]
        mult, shift = rescalings(scales * sx * steps, o.name)
        whole = codes.astype(np.int64).sum((0, 1) if depthwise else (1, 2, 3))
        entries = np.rint(bias / (scales * sx)).astype(np.int64) - x.zero * whole
        if np.abs(entries).max() >= 1 << 45:
            raise ModelError(f"{o.name}.bias", int(np.abs(entries).max()), "must be below 2**45 accumulator steps: its "
                             "channel's weights are too small beside it")
        t = self.config.tensor
        d["weights"] = constant(pack_depthwise(codes, self.config.beat_bytes) if depthwise
                                else pack_weights(codes, t, o.shuffle**2))
        d["entries"] = constant(pack_entries(entries, mult, shift))
        d["kernel_h"], d["kernel_w"], d["stride"] = *kernel, o.stride
        d["pad_top"], d["pad_left"], d["pad_value"] = *o.pad, x.zero
        if not depthwise:
            d["shuffle"] = o.shuffle if o.shuffle > 1 else 0
        plan = plan_tile(d, t, self.config.beat_bytes)
        d["tile_rows"], d["tile_columns"] = plan.rows, plan.columns
        if not depthwise:
            d["group_blocks"] = plan.group_blocks

    def norm(self, o: Operator, d: Descriptor, constant: Callable[[bytes], int]) -> None:
        assert o.weight is not None
        x, y = o.inputs[0], o.output
        d["x16"] = x.bits == 16
        gain = o.weight / self.scale(y)
        bias = np.zeros(len(gain)) if o.bias is None else o.bias / self.scale(y)
        shift = int(np.clip(10 + np.floor(np.log2(32767 / max(float(np.abs(gain).max()), 2.0**-10))), 0, 25))
        codes = np.rint(gain * 2.0 ** (shift - 10))
        if np.abs(codes).max() > 32767:
            raise ModelError(f"{o.name}.weight", float(np.abs(o.weight).max()), "must be below 32767 output steps")
        d["entries"] = constant(pack_entries(np.rint((bias + y.zero) * 2.0**shift).astype(np.int64), codes.astype(np.int64),
                                             np.full(len(gain), shift)))
        eps = max(1, round(o.eps * x.channels**2 / self.scale(x) ** 2))
        if eps >= 1 << 48:
            raise ModelError(f"{o.name}.eps", o.eps, "must be below 2**48 squared input steps: the input hardly varies")
        d["eps_low"], d["eps_high"] = eps & 0xFFFF_FFFF, eps >> 32

    def attention(self, o: Operator, d: Descriptor) -> None:
        q, k, v = o.inputs
        d["heads"], d["head_dim"], d["keys"] = o.heads, q.channels // o.heads, k.height * k.width
        logs = o.factor * self.scale(q) * self.scale(k) * float(np.log2(np.e)) * 256
        d["score_mult"], d["score_shift"] = rescaling(logs, o.name)
        mult, shift = rescaling(self.scale(v) / self.scale(o.output), o.name)
        d["value_mult"], d["value_shift"] = mult, shift - 1
