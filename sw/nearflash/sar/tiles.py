"""Tiles that overlap, and how neighbours are blended into one image without a seam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import ConfigError

__all__ = ["RAMP", "TILE", "Axis", "lerp", "plan_axis", "ramp", "tile_count"]

TILE = 512  # pixels on a side, unless told otherwise
RAMP = 16  # pixels over which one tile fades into the next


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis: tile k covers ``starts[k]`` to ``starts[k] + window``; between tiles k and k + 1 the weights
    change over the :data:`RAMP` pixels from ``ramps[k]``: every pixel used lies at least ``margin`` from a cut edge."""

    window: int
    starts: tuple[int, ...]
    ramps: tuple[int, ...]


def plan_axis(length: int, tile: int, margin: int, multiple: int = 1) -> Axis:
    """Tiles of ``tile`` pixels (rounded up to ``multiple``), evenly spread over ``length`` pixels, overlapping by at least
    2 ``margin`` + RAMP. An axis not longer than a tile has one tile of its own length.

    Raises :class:`ConfigError` for a tile that is too small for the margin.
    """
    tile = -(-tile // multiple) * multiple
    overlap = 2 * margin + RAMP
    least = overlap + 2 * RAMP + 2  # spread evenly, tiles are at least half a step apart: a ramp ends before the next begins
    if tile < least:
        raise ConfigError("tile", tile, f"must be at least {least} pixels for a method with a margin of {margin}")
    if length <= tile:
        return Axis(length, (0,), ())
    count = 1 + -(-(length - tile) // (tile - overlap))
    starts = tuple(k * (length - tile) // (count - 1) for k in range(count))
    ramps = tuple(b + (a + tile - b - RAMP) // 2 for a, b in zip(starts, starts[1:], strict=False))
    return Axis(tile, starts, ramps)


def tile_count(rows: int, columns: int, tile: int, margin: int, multiple: int = 1) -> int:
    """Tiles of an image, planned along both axes. Raises what :func:`plan_axis` raises."""
    return len(plan_axis(rows, tile, margin, multiple).starts) * len(plan_axis(columns, tile, margin, multiple).starts)


def ramp() -> np.ndarray:
    """Weights of the next tile over the overlap, float32 [RAMP]: a raised cosine from near 0 to near 1.

    The tile before has the weight 1 - w, and w + w reversed = 1 exactly: all are multiples of 2^-12.
    """
    half = np.round((0.5 - 0.5 * np.cos(np.pi * (np.arange(RAMP // 2) + 0.5) / RAMP)) * 4096) / 4096
    return np.concatenate([half, 1 - half[::-1]]).astype(np.float32)


def lerp(before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(1 - weight) before + weight after, in the form that returns equal inputs unchanged, bit for bit."""
    return before + weight * (after - before)
