"""Descriptors of convolutions, their content in memory, and what the gateware's units know of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from nearflash.contract.tensor import Descriptor, Op, TensorConfig, pixel_bytes
from nearflash.contract.tensor_image import pack_entries, pack_tensor, pack_weights
from nearflash.reference.tensor.epilogue import Scale, epilogue
from nearflash.reference.tensor.window import convolve


@dataclass
class Conv:
    """A convolution with its operands (``weights`` [O, kernel_h, kernel_w, C], the O channels group by group)."""

    x: np.ndarray
    weights: np.ndarray
    out: tuple[int, int]
    tile: tuple[int, int]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    shuffle: int = 1
    group: int = 0
    wide: bool = False
    residual: np.ndarray | None = None
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    mult: np.ndarray = field(default_factory=lambda: np.zeros(0))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    control: dict = field(default_factory=dict)
    table: np.ndarray | None = None
    pad_value: int = 0

    @property
    def channels(self) -> int:
        return len(self.weights) // self.shuffle ** 2

    def expected(self) -> np.ndarray:
        """The output by the integer model: int8 or int16 [H, W, C]."""
        side, c = self.shuffle, self.channels
        acc = convolve(self.x, self.weights, self.stride, self.pad, self.out, self.pad_value)

        def spread(v: np.ndarray) -> np.ndarray:  # [h, w, O] to [h * side, w * side, c]
            h, w = v.shape[:2]
            return v.reshape(h, w, side, side, c).transpose(0, 2, 1, 3, 4).reshape(h * side, w * side, c)

        bias, mult, shift = (spread(np.broadcast_to(v, acc.shape)) for v in (self.bias, self.mult, self.shift))
        k = self.control
        y = epilogue(spread(acc), Scale(mult, shift), k["low"], k["high"], bias=bias, residual=self.residual,
                     residual_scale=Scale(k["residual_mult"], k["residual_shift"]), offset=k["offset"], frac=k["frac"],
                     table=self.table)
        return y.astype(np.int16 if self.wide else np.int8)

    def descriptor(self, at: dict[str, int]) -> Descriptor:
        """Its descriptor, with operands ``at`` these addresses."""
        h, w, channels = self.x.shape
        kernel = self.weights.shape[1:3]
        r16 = self.residual is not None and self.residual.dtype == np.int16
        unused = {"r" if self.residual is None else "", "table" if self.table is None else ""}
        return Descriptor(Op.CONV, **{k: v for k, v in at.items() if k not in unused}, in_height=h, in_width=w,
                          in_channels=channels, out_channels=self.channels, out_height=self.out[0], out_width=self.out[1],
                          kernel_h=kernel[0], kernel_w=kernel[1], stride=self.stride, pad_top=self.pad[0],
                          pad_left=self.pad[1], shuffle=self.shuffle if self.shuffle > 1 else 0, pad_value=self.pad_value,
                          tile_rows=self.tile[0], tile_columns=self.tile[1], group_blocks=self.group, y16=self.wide,
                          residual=self.residual is not None, lookup=self.table is not None, r16=r16,
                          **self.control)

    def image(self, c: TensorConfig, beat: int, at: dict[str, int]) -> dict[int, bytes]:
        """What memory holds before, by address."""
        content = {at["x"]: pack_tensor(self.x.astype(np.int8), beat),
                   at["weights"]: pack_weights(self.weights, c, self.shuffle ** 2),
                   at["entries"]: pack_entries(self.bias, self.mult, self.shift)}
        if self.residual is not None:
            content[at["r"]] = pack_tensor(self.residual, beat)
        return content

    def plan(self, c: TensorConfig, beat: int, at: dict[str, int]) -> dict:
        """conv_layout's fields."""
        taps = self.weights.shape[1:3]
        h, w, channels = self.x.shape
        words = -(-channels // c.columns)
        side = self.shuffle
        blocks = side * side * -(-self.channels // c.rows)

        def surface(address: int, pixel: int, width: int, spread: int, wide: bool) -> dict[str, int]:
            row = width * pixel
            return {"at": address % (1 << 32), "pixel": pixel, "row": row, "right": spread * pixel, "down": spread * row,
                    "tile_right": self.tile[1] * spread * pixel, "tile_down": self.tile[0] * spread * row, "wide": int(wide)}

        x_pixel = pixel_bytes(channels, 0, beat)
        y_pixel = pixel_bytes(self.channels, self.wide, beat)
        r_wide = self.residual is not None and self.residual.dtype == np.int16
        origin = at["x"] - self.pad[0] * w * x_pixel - self.pad[1] * x_pixel
        return {
            "x": surface(origin, x_pixel, w, self.stride, False),
            "y": surface(at["y"], y_pixel, self.out[1] * side, side, self.wide),
            "r": surface(at["r"] if self.residual is not None else 0, pixel_bytes(self.channels, r_wide, beat),
                         self.out[1] * side, side, r_wide),
            "weights": at["weights"], "entries": at["entries"], "in_height": h, "in_width": w, "out_height": self.out[0],
            "out_width": self.out[1], "channels": self.channels, "tile_rows": self.tile[0], "tile_columns": self.tile[1],
            "tile_iy": self.tile[0] * self.stride, "tile_ix": self.tile[1] * self.stride,
            "kernel_h": taps[0], "kernel_w": taps[1], "stride": self.stride, "pad_top": self.pad[0], "pad_left": self.pad[1],
            "shuffle": side, "pad_value": self.pad_value, "words": words, "kernel_words": taps[1] * words,
            "stride_words": self.stride * words,
            "blocks": blocks, "group": self.group or blocks, "streamed": int(not self.group),
            "block_beats": taps[0] * taps[1] * words * c.rows * c.columns // beat,
            "entry_beats": len(self.weights) * 16 // beat,
            "epilogue": self.control | {"residual": int(self.residual is not None), "lookup": int(self.table is not None)}}


def random_conv(rng: np.random.Generator, **shape) -> Conv:
    """Operands for a :class:`Conv`: ``size`` [H, W, C], ``outputs``, ``kernel``, and its other fields."""
    size, outputs, kernel = shape.pop("size"), shape.pop("outputs"), shape.pop("kernel")
    r16 = shape.pop("residual", None)
    table = shape.pop("lookup", False)
    x = rng.integers(-127, 128, size)
    weights = rng.integers(-127, 128, (outputs, *kernel, size[2])).astype(np.int8)
    conv = Conv(x, weights, **shape)
    n = outputs
    conv.bias = rng.integers(-(1 << 16), 1 << 16, n)
    conv.mult, conv.shift = rng.integers(1 << 15, 1 << 16, n), rng.integers(16, 22, n)
    limit = 32767 if conv.wide else 127
    conv.control = {"low": -limit, "high": limit, "residual_mult": 40000, "residual_shift": 14, "frac": 4, "offset": 5}
    if r16 is None:
        conv.control |= {"residual_mult": 0, "residual_shift": 0}
    else:
        h, w, c = conv.out[0] * conv.shuffle, conv.out[1] * conv.shuffle, conv.channels
        conv.residual = rng.integers(-32767 if r16 else -127, 32768 if r16 else 128, (h, w, c)).astype(
            np.int16 if r16 else np.int8)
    if table:
        conv.table = rng.integers(-127, 128, 256).astype(np.int8)
    return conv
