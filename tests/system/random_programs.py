"""Programs of random operators for the tensor engine, each on what an earlier one wrote or on the program's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nearflash.contract import DeviceConfig
from nearflash.contract.tensor import (
    ALIGN,
    DESCRIPTOR_BYTES,
    ENTRY_BYTES,
    TABLE_BYTES,
    Descriptor,
    DescriptorError,
    Op,
    check,
    pack_program,
    spans,
)
from nearflash.contract.tensor_image import pack_entries, pack_weights

OPS = tuple(op for op in Op if op != Op.PROGRAM)


@dataclass(frozen=True)
class Random:
    """A program: ``image`` for TENSOR_LOAD at 0, ``content`` for TENSOR_RUN; ``descriptors`` in their order."""

    image: bytes
    content: bytes
    descriptors: tuple[Descriptor, ...]


def random_program(rng: np.random.Generator, config: DeviceConfig, ops: list[Op]) -> Random:
    """A descriptor for each of ``ops``. The command's output is what they all wrote."""
    t = config.tensor
    # program | tables, depthwise weights | convolutions' weights | their entries | LayerNorm's | the input | what is written
    codes = (len(ops) + 1) * DESCRIPTOR_BYTES
    weights = codes + (1 << 13)
    entries = weights + t.dram_bytes // 8
    gains = entries + 2 * t.max_channels * ENTRY_BYTES
    given = gains + 2 * t.max_channels * ENTRY_BYTES
    written = given + t.dram_bytes // 8
    header = Descriptor(Op.PROGRAM, x=given, input_bytes=written - given, y=written)
    n = 2 * t.max_channels
    scales = pack_entries(rng.integers(-(1 << 18), 1 << 18, n), rng.integers(1 << 15, 1 << 16, n), rng.integers(14, 26, n))
    norms = pack_entries(rng.integers(-(1 << 20), 1 << 20, n), rng.integers(-32767, 32768, n), rng.integers(12, 24, n))
    places = {"codes": codes, "weights": weights, "entries": entries, "gains": gains, "given": given, "written": written}
    at, last, descriptors = written, None, []
    constants = bytearray(_codes(rng, entries - codes))
    for op in ops:
        d = _descriptor(rng, config, op, places, at, last)
        descriptors.append(d)
        if op == Op.CONV:
            groups = max(1, d["shuffle"]) ** 2
            shape = (groups * d["out_channels"], d["kernel_h"], d["kernel_w"], d["in_channels"])
            packed = pack_weights(rng.integers(-127, 128, shape).astype(np.int8), t, groups)
            start = d["weights"] - codes
            constants[start:start + len(packed)] = packed
            places["weights"] += -(-len(packed) // ALIGN) * ALIGN
        at += -(-spans(d, t, config.beat_bytes)["y"][1] // ALIGN) * ALIGN
        last = d
    header["output_bytes"] = at - written
    program = pack_program(header, descriptors).ljust(codes, b"\0")
    return Random(program + constants + scales + norms, _codes(rng, written - given), tuple(descriptors))


def _codes(rng: np.random.Generator, size: int) -> bytes:
    """-128 is no code, nor the higher half of one of 16 bits."""
    return rng.integers(-127, 128, size).astype(np.int8).tobytes()


def _descriptor(rng: np.random.Generator, config: DeviceConfig, op: Op, places: dict[str, int], at: int,
                last: Descriptor | None) -> Descriptor:
    """One that writes to ``at``: the first guess that the contract's check takes."""
    for _ in range(2000):
        d = _guess(rng, config, op, places, at, last)
        try:
            check(d, config.tensor, config.beat_bytes)
        except DescriptorError:
            continue
        found = spans(d, config.tensor, config.beat_bytes)
        if op == Op.CONV and sum(found["weights"]) > places["entries"]:
            continue
        # what was written may hold -128, as half of a code of 16 bits
        if all(sum(found.get(name, (0, 0))) <= places["written"] or d[name] == (last or {}).get("y") for name in "xrv"):
            return d
    raise AssertionError(f"no {op.name} descriptor in 2000 guesses")


def _guess(rng: np.random.Generator, config: DeviceConfig, op: Op, places: dict[str, int], at: int, last: Descriptor | None
           ) -> Descriptor:
    t = config.tensor

    def within(name: str) -> int:
        return places[name] + ALIGN * int(rng.integers(0, 16 if name in ("entries", "gains") else 64))

    def integer(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    h, w, c = integer(1, 9), integer(1, 9), integer(1, t.max_channels)
    d = Descriptor(op, x=within("given"), y=at)
    if op in (Op.POOL, Op.ADD, Op.LAYERNORM):
        d["x16"] = integer(0, 1)
    if last is not None and rng.random() < 0.6:  # what was written just now
        side = max(1, last["shuffle"])
        wide = last["y16"]
        if not wide or op in (Op.POOL, Op.ADD, Op.LAYERNORM):
            h, w, c, d["x"] = last["out_height"] * side, last["out_width"] * side, last["out_channels"], last["y"]
            if op in (Op.POOL, Op.ADD, Op.LAYERNORM):
                d["x16"] = wide
    if op == Op.ATTENTION:
        d["head_dim"] = config.beat_bytes * integer(1, 64 // config.beat_bytes)
        c = d["head_dim"] * max(1, c // d["head_dim"])
        d["heads"], d["keys"] = c // d["head_dim"], integer(1, t.max_keys)
        d["r"], d["v"] = within("given"), within("given")
        d["score_mult"], d["score_shift"] = integer(1 << 15, 65535), integer(10, 30)
        d["value_mult"], d["value_shift"] = integer(1 << 15, 65535), integer(12, 17)
    d["in_height"], d["in_width"], d["in_channels"] = h, w, c
    d["out_height"], d["out_width"], d["out_channels"] = h, w, c
    if op in (Op.CONV, Op.DEPTHWISE, Op.POOL, Op.ADD):
        d["y16"], d["frac"], d["offset"] = integer(0, 1), integer(0, 9), integer(-500, 500)
    if op in (Op.POOL, Op.ADD):
        d["mult"], d["shift"] = integer(1 << 15, 65535), integer(10, 24)
    if op == Op.POOL:
        side = integer(1, 4)
        d["kernel_h"] = d["kernel_w"] = d["stride"] = side
        d["out_height"], d["out_width"] = h // side, w // side
    if op in (Op.CONV, Op.DEPTHWISE):
        d["kernel_h"], d["kernel_w"], d["stride"] = integer(1, 4), integer(1, 4), integer(1, 3)
        d["pad_top"], d["pad_left"], d["pad_value"] = integer(0, 2), integer(0, 2), integer(-127, 127)
        for axis, n, pad in (("height", h, d["pad_top"]), ("width", w, d["pad_left"])):
            d[f"out_{axis}"] = integer(1, (n + pad - 1) // d["stride"] + 1)
        d["tile_rows"], d["tile_columns"] = integer(1, 8), integer(1, 8)
        d["weights"], d["entries"] = within("codes"), within("entries")
    if op == Op.CONV:
        d["weights"] = places["weights"]
        d["out_channels"] = integer(1, t.max_channels // 4)
        d["shuffle"], d["group_blocks"] = integer(0, 2), integer(0, 3)
    if op in (Op.CONV, Op.ADD) and rng.random() < 0.5:
        d["residual"], d["r16"], d["r"] = 1, integer(0, 1), within("given")
        d["residual_mult"], d["residual_shift"] = integer(1 << 15, 65535), integer(8, 20)
    if op in (Op.CONV, Op.DEPTHWISE, Op.ADD) and not d["y16"] and rng.random() < 0.4:
        d["lookup"], d["table"] = 1, places["codes"] + TABLE_BYTES * integer(0, 15)
    if op == Op.LAYERNORM:
        d["entries"], d["eps_low"] = within("gains"), integer(1, 1 << 20)
    limit = 32767 if d["y16"] else 127
    d["low"], d["high"] = (-limit if rng.random() < 0.7 else 0), limit
    return d
