"""Shared by the MLP gateware's tests: weight images as contract.program lays them out, groups of samples, beats."""

import numpy as np
from nearflash.contract import Core
from nearflash.contract.program import weight_word_beats


def weight_image(core: Core, weight, beat_bytes: int) -> bytes:
    """The words of ``weight`` [R, C] in step order, each padded to whole beats."""
    padded = np.zeros((core.row_blocks * core.kr, core.column_blocks * core.kc), np.int64)
    padded[: core.rows, : core.columns] = weight
    size = weight_word_beats(core, beat_bytes) * beat_bytes
    out = bytearray()
    for step in range(core.steps):
        if core.scan == "row":
            rb, cb = divmod(step, core.column_blocks)
        else:
            cb, rb = divmod(step, core.row_blocks)
        block = padded[rb * core.kr : (rb + 1) * core.kr, cb * core.kc : (cb + 1) * core.kc]
        out += block.astype({8: "<i1", 16: "<i2"}[core.weight_bits]).tobytes().ljust(size, b"\0")
    return bytes(out)


def as_beats(content: bytes, beat_bytes: int) -> list[int]:
    content = content.ljust(-(-len(content) // beat_bytes) * beat_bytes, b"\0")
    return [int.from_bytes(content[i : i + beat_bytes], "little") for i in range(0, len(content), beat_bytes)]


def split_groups(rng, samples: int, n_batch: int) -> list[int]:
    """Group sizes, at random from 1 to ``n_batch``."""
    out = []
    while samples:
        out.append(min(samples, rng.randint(1, n_batch)))
        samples -= out[-1]
    return out
