"""Tables whose pooled vectors fp32 holds exactly, so that torch.nn.EmbeddingBag's order of additions does not matter."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from nearflash.contract import DeviceConfig, RowFormat, TableSpec
from nearflash.contract.table import PoolMode
from nearflash.reference.pooling import choose_window

__all__ = ["BAG", "SHAPES", "exact_table", "random_bags", "torch_pool"]

BAG, MAX_WEIGHT = 6, 4.0
SHAPES = ((60, 8, RowFormat.FP32, PoolMode.SUM), (45, 12, RowFormat.FP16, PoolMode.SUM),
          (33, 4, RowFormat.FP32, PoolMode.MEAN))


def exact_table(config: DeviceConfig, rows: int, dim: int, fmt: RowFormat, mode: PoolMode) -> tuple[TableSpec, torch.Tensor]:
    """(spec without extents, fp32 [rows, dim]): multiples of 2**-8 below 4, exact in fp16 as well."""
    weight = np.random.default_rng(rows).integers(-1000, 1000, (rows, dim)) / 256.0
    lsb, headroom = choose_window(4.0, BAG, config.lookup.acc_bits, MAX_WEIGHT, fmt)
    return TableSpec(rows, dim, fmt, mode, lsb, headroom), torch.from_numpy(weight).float()


def random_bags(rng: random.Random, rows: int, batch: int, weighted: bool) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """(indices, weights: multiples of 1/4) of each sample; some are empty."""
    lengths = [rng.randint(0, BAG) for _ in range(batch)]
    return [(np.array([rng.randrange(rows) for _ in range(n)], np.int64),
             np.array([rng.randint(-12, 12) / 4 for _ in range(n)], np.float32) if weighted else None) for n in lengths]


def torch_pool(weight: torch.Tensor, mode: PoolMode, bags: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
    """fp32 [batch, dim] of EmbeddingBag, with -0 as +0."""
    bag = torch.nn.EmbeddingBag.from_pretrained(weight, mode=mode.name.lower())
    offsets = torch.tensor([0, *np.cumsum([len(i) for i, _ in bags[:-1]])])
    weights = None if bags[0][1] is None else torch.from_numpy(np.concatenate([w for _, w in bags]))
    out = bag(torch.from_numpy(np.concatenate([i for i, _ in bags])), offsets, per_sample_weights=weights)
    return (out + 0.0).numpy().astype("<f4")
