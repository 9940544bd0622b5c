"""The integers of fully connected layers, from PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from nearflash.contract import Core
from nearflash.contract.program import DRAM, weight_word_beats
from nearflash.reference.requantize import requantize

__all__ = ["linear", "records", "torch_logits", "weight_image"]


def linear(x: torch.Tensor, weight: np.ndarray, bias: np.ndarray | None = None) -> torch.Tensor:
    """torch.nn.functional.linear on integers: exact, float64 holds every partial sum."""
    b = None if bias is None else torch.as_tensor(bias).double()
    return torch.nn.functional.linear(x.double(), torch.as_tensor(weight).double(), b).long()


def torch_logits(graph, act_bits: int, params, dense: torch.Tensor, pooled: list[torch.Tensor]) -> torch.Tensor:
    """Integer logits [B, outputs] of quantised inputs (int64)."""
    v: dict[str, torch.Tensor] = {}
    for n in graph:
        x = torch.cat([v[i] for i in n.inputs], 1) if n.inputs else None
        if n.kind == "dense":
            v[n.name] = dense
        elif n.kind == "tables":
            v[n.name] = torch.cat([pooled[t] for t in n.tables], 1)
        elif n.kind == "dot":
            f = x.view(len(x), -1, n.dim)
            i, j = torch.tril_indices(f.shape[1], f.shape[1], -1)
            p = params.scale[n.name]
            v[n.name] = requantize(torch.bmm(f, f.transpose(1, 2))[:, i, j], p.mult, p.shift, act_bits)
        else:
            p, last = params.fc[n.name], n is graph[-1]
            mult, shift = torch.as_tensor(p.mult), torch.as_tensor(p.shift)
            v[n.name] = requantize(linear(x, p.weight, p.bias), mult, shift, 32 if last else act_bits, n.relu and not last)
    return v[graph[-1].name]


def weight_image(core: Core, weight: np.ndarray, beat_bytes: int) -> bytes:
    """Weight words in step order (:mod:`nearflash.contract.program`), each padded to whole beats."""
    padded = np.zeros((core.row_blocks * core.kr, core.column_blocks * core.kc), f"<i{core.weight_bits // 8}")
    padded[: core.rows, : core.columns] = weight
    blocks = padded.reshape(core.row_blocks, core.kr, core.column_blocks, core.kc).swapaxes(1, 2)
    if core.scan == "column":
        blocks = blocks.swapaxes(0, 1)
    size = weight_word_beats(core, beat_bytes) * beat_bytes
    return b"".join(b.tobytes().ljust(size, b"\0") for row in blocks for b in row)


def records(image: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """A parameter image taken apart: [(target, data)], and [(address, data)] of what goes to DRAM."""
    chip, dram, at = [], [], 0
    while at < len(image):
        target, units, address = np.frombuffer(image, "<u4,<u4,<u8", 1, at)[0].item()
        data = image[at + 16 : at + 16 + 16 * units]
        (dram if target == DRAM else chip).append((address if target == DRAM else target, data))
        at += 16 + 16 * units
    return chip, dram
