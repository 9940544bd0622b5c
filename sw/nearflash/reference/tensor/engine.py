"""Programs of the tensor engine, run on the bytes of its region: what ``fabric-model`` executes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...contract.config import DeviceConfig
from ...contract.errors import CommandError, ConfigError
from ...contract.nvme import Status
from ...contract.tensor import ALIGN, DESCRIPTOR_BYTES, Descriptor, DescriptorError, Op, check, spans, unpack
from ...contract.tensor_image import ENTRY, pack_tensor, unpack_depthwise, unpack_tensor, unpack_weights
from .attention import attention
from .epilogue import Scale, epilogue
from .norm import layer_norm
from .window import convolve, depthwise, pool

__all__ = ["TensorModel"]


class TensorModel:
    """The tensor region of a device, and the two commands that reach it.

    ``executed``, if given, is called with each descriptor and its output [H, W, C] as it is written.

    Raises :class:`ConfigError` for a device without the engine.
    """

    def __init__(self, config: DeviceConfig, executed: Callable[[Descriptor, np.ndarray], None] | None = None):
        if not config.tensor.rows:
            raise ConfigError("tensor.rows", 0, "must be above 0: this device has no tensor engine")
        self.config, self.executed = config, executed
        self.memory = np.zeros(config.tensor.dram_bytes, np.uint8)  # pages that nobody writes cost nothing
        self._weights: dict[tuple[Any, ...], np.ndarray] = {}  # unpacked, by (first byte, end, ...)

    def load(self, offset: int, content: bytes) -> None:
        """TENSOR_LOAD. Raises :class:`CommandError` with BAD_TENSOR_SPAN; nothing is copied then."""
        if offset % ALIGN or offset < 0:
            raise CommandError("load", Status.BAD_TENSOR_SPAN, 12)
        if not content or len(content) % ALIGN or offset + len(content) > len(self.memory):
            raise CommandError("load", Status.BAD_TENSOR_SPAN, 10)
        self._write(offset, content)

    def run(self, program: int, content: bytes) -> bytes:
        """TENSOR_RUN: the output of the program whose header lies at ``program``, for the input ``content``.

        Raises :class:`CommandError`: BAD_TENSOR_SPAN, or BAD_DESCRIPTOR with the descriptor's number and the word at fault;
        tensors that earlier descriptors wrote are lost then, nothing else.
        """
        if program % ALIGN or not 0 <= program <= len(self.memory) - DESCRIPTOR_BYTES:
            raise CommandError("run", Status.BAD_TENSOR_SPAN, 11)
        try:
            header = self._fetch(program, 0)
            if len(content) != header["input_bytes"]:
                raise CommandError("run", Status.BAD_TENSOR_SPAN, 10)
            self._write(header["x"], content)
            for n in range(1, header["count"] + 1):
                self._execute(self._fetch(program + n * DESCRIPTOR_BYTES, n))
        except DescriptorError as e:
            raise CommandError(f"run ({e})", Status.BAD_DESCRIPTOR, e.number, e.word) from e
        return self.memory[header["y"] : header["y"] + header["output_bytes"]].tobytes()

    def _write(self, start: int, content: bytes) -> None:
        end = start + len(content)
        self.memory[start:end] = np.frombuffer(content, np.uint8)
        self._weights = {k: w for k, w in self._weights.items() if end <= k[0] or k[1] <= start}

    def _fetch(self, address: int, number: int) -> Descriptor:
        d = unpack(self.memory[address : address + DESCRIPTOR_BYTES].tobytes(), number)
        check(d, self.config.tensor, self.config.beat_bytes, address)
        return d

    def _execute(self, d: Descriptor) -> None:
        found = spans(d, self.config.tensor, self.config.beat_bytes)
        raw = {name: self.memory[start : start + size] for name, (start, size) in found.items()}
        side = max(1, d["shuffle"])
        out = (d["out_height"], d["out_width"])
        c = d["out_channels"]
        x = self._tensor(raw["x"], (d["in_height"], d["in_width"], d["in_channels"]), d["x16"])
        op = Op(d["op"])
        if op == Op.ATTENTION:
            keys = (1, d["keys"], d["in_channels"])
            k, v = (self._tensor(raw[name], keys, 0)[0] for name in ("r", "v"))
            y = attention(x.reshape(-1, d["in_channels"]), k, v, d["heads"], Scale(d["score_mult"], d["score_shift"]),
                          Scale(d["value_mult"], d["value_shift"]), d["low"], d["high"]).reshape(x.shape)
        elif op == Op.LAYERNORM:
            entries = raw["entries"].view(ENTRY)
            y = layer_norm(x, entries["scale"], entries["bias"], entries["shift"].astype(np.int64),
                           d["eps_low"] | d["eps_high"] << 32, d["low"], d["high"])
        else:
            acc = self._accumulators(op, d, x, raw)
            if side > 1:
                acc = acc.reshape(*out, side, side, c).transpose(0, 2, 1, 3, 4).reshape(out[0] * side, out[1] * side, c)
            y = self._epilogue(d, acc, raw, side)
        self._write(d["y"], pack_tensor(y.astype(np.int16 if d["y16"] else np.int8), self.config.beat_bytes))
        if self.executed:
            self.executed(d, y)

    def _tensor(self, raw: np.ndarray, shape: tuple[int, int, int], wide: int) -> np.ndarray:
        return unpack_tensor(raw, shape, bool(wide), self.config.beat_bytes)

    def _accumulators(self, op: Op, d: Descriptor, x: np.ndarray, raw: dict[str, np.ndarray]) -> np.ndarray:
        out, kernel, pad = (d["out_height"], d["out_width"]), (d["kernel_h"], d["kernel_w"]), (d["pad_top"], d["pad_left"])
        if op == Op.ADD:
            return x.astype(np.int64)
        if op == Op.POOL:
            return pool(x, d["stride"])
        groups = max(1, d["shuffle"]) ** 2
        shape = (groups * d["out_channels"], *kernel, d["in_channels"])
        key = (d["weights"], d["weights"] + len(raw["weights"]), op, shape, groups)
        if key not in self._weights:
            self._weights[key] = (
                unpack_depthwise(raw["weights"], shape[1:], self.config.beat_bytes).copy() if op == Op.DEPTHWISE
                else unpack_weights(raw["weights"].view(np.int8), shape, self.config.tensor, groups))
        return (depthwise if op == Op.DEPTHWISE else convolve)(x, self._weights[key], d["stride"], pad, out, d["pad_value"])

    def _epilogue(self, d: Descriptor, acc: np.ndarray, raw: dict[str, np.ndarray], side: int) -> np.ndarray:
        shape = (acc.shape[0], acc.shape[1], acc.shape[2])
        residual = self._tensor(raw["r"], shape, d["r16"]).astype(np.int64) if d["residual"] else None
        if "entries" in raw:
            entries = raw["entries"].view(ENTRY)
            bias, mult, shift = (entries[n].astype(np.int64) for n in ("bias", "scale", "shift"))
        else:
            bias, mult, shift = (np.array(v, np.int64) for v in (0, d["mult"], d["shift"]))
        if side > 1:  # each place of the square has its own channels, so its own entries
            h, w, c = shape
            blocks = acc.reshape(h // side, side, w // side, side, c)
            entry = [v.reshape(1, side, 1, side, c) for v in (bias, mult, shift)]
            residual = None if residual is None else residual.reshape(blocks.shape)
            acc, (bias, mult, shift) = blocks, entry
        table = raw["table"].view(np.int8) if d["lookup"] else None
        return epilogue(acc, Scale(mult, shift), d["low"], d["high"], bias=bias, residual=residual,
                        residual_scale=Scale(d["residual_mult"], d["residual_shift"]), offset=d["offset"], frac=d["frac"],
                        table=table).reshape(shape)
