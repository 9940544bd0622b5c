"""A program of random numbers for any tensor engine, made with NumPy alone: what a board can be tested with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..contract import DeviceConfig
from ..contract.tensor import ALIGN, DESCRIPTOR_BYTES, Descriptor, Op, check, pack_program, spans
from ..contract.tensor_image import pack_entries

__all__ = ["RandomTensors", "random_tensors"]

SIDE, CHANNELS = 4, 16  # of the inputs, and of every output but POOL's; whole beats of any engine
READ = ("x", "r", "v")  # inputs
KERNEL = {"kernel_h": 3, "kernel_w": 3, "stride": 1, "pad_top": 1, "pad_left": 1, "pad_value": -7, "tile_rows": SIDE,
          "tile_columns": SIDE}
#: Of each operator, beside sizes and addresses. Shifts spread the outputs over their range, with some saturation.
FIELDS: dict[Op, dict[str, int]] = {
    Op.CONV: KERNEL, Op.DEPTHWISE: KERNEL,
    Op.POOL: {"kernel_h": 2, "kernel_w": 2, "stride": 2, "mult": 50_000, "shift": 17},
    Op.ADD: {"mult": 40_000, "shift": 16, "residual": 1, "residual_mult": 60_000, "residual_shift": 16},
    Op.LAYERNORM: {"eps_low": 1},
    Op.ATTENTION: {"heads": 1, "head_dim": CHANNELS, "keys": SIDE * SIDE, "score_mult": 40_000, "score_shift": 20,
                   "value_mult": 40_000, "value_shift": 15},
}
SHIFTS = {Op.CONV: 26, Op.DEPTHWISE: 24, Op.LAYERNORM: 19}  # of those with an entry a channel


class RandomTensors(NamedTuple):
    """``image``: what is loaded at 0, where the program begins; ``content``: its input; ``operators`` of it."""

    image: bytes
    content: bytes
    operators: int


def random_tensors(config: DeviceConfig, seed: int = 0) -> RandomTensors:
    """Every operator of ``config``'s engine once, each of the same inputs. Raises
    :class:`~nearflash.contract.tensor.DescriptorError` for a region that is too small for them."""
    rng = np.random.default_rng(seed)
    beat, t = config.beat_bytes, config.tensor
    ops = [op for op in FIELDS if op.name.lower() in t.operators]
    at = -(-(len(ops) + 1) * DESCRIPTOR_BYTES // ALIGN) * ALIGN
    constants, descriptors = b"", []

    def aligned(size: int) -> int:
        return -(-size // ALIGN) * ALIGN

    def kept(content: bytes) -> int:
        nonlocal constants
        place = at + len(constants)
        constants += content.ljust(aligned(len(content)), b"\0")
        return place

    def codes(size: int) -> bytes:
        return rng.integers(-127, 128, size).astype(np.int8).tobytes()

    for op in ops:
        side = SIDE // FIELDS[op].get("stride", 1)
        d = Descriptor(op, in_height=SIDE, in_width=SIDE, in_channels=CHANNELS, out_height=side, out_width=side,
                       out_channels=CHANNELS, low=-127, high=127, **FIELDS[op])
        if op in SHIFTS:
            scale = rng.integers(1 << 15, 1 << 16, CHANNELS) * (0.4 if op == Op.LAYERNORM else 1)
            d["entries"] = kept(pack_entries(rng.integers(-1000, 1000, CHANNELS), scale, np.full(CHANNELS, SHIFTS[op])))
        if "weights" in spans(d, t, beat):
            d["weights"] = kept(codes(spans(d, t, beat)["weights"][1]))
        descriptors.append(d)
    given = {name: at + len(constants) + k * SIDE * SIDE * CHANNELS for k, name in enumerate(READ)}
    start = y = at + len(constants) + len(READ) * SIDE * SIDE * CHANNELS
    for d in descriptors:
        for name in READ:
            d[name] = given[name] if name in spans(d, t, beat) else 0
        d["y"] = y
        y += aligned(spans(d, t, beat)["y"][1])
    header = Descriptor(Op.PROGRAM, x=given["x"], input_bytes=start - given["x"], y=start, output_bytes=y - start)
    program = pack_program(header, descriptors)
    for d in (header, *descriptors):
        check(d, t, beat)
    return RandomTensors(program.ljust(at, b"\0") + constants, codes(start - given["x"]), len(ops))
