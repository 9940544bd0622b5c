"""A device in place of a PyTorch model. Needs torch; nothing else of the runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .device import Device

__all__ = ["DeviceModule"]


class DeviceModule(nn.Module):
    """Drops in for a :class:`~nearflash.models.RecModel`: ``forward(dense, bags)`` gives fp32 logits [batch, outputs],
    computed by ``device``, which has the model loaded. ``batch``: samples per command; ``include_last_offset`` as
    :meth:`Device.submit`'s. No gradients."""

    def __init__(self, device: Device, batch: int | None = None, include_last_offset: bool | None = None):
        super().__init__()
        self.device, self.batch, self.include_last_offset = device, batch, include_last_offset

    @torch.no_grad()
    def forward(self, dense: Tensor | None, bags: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self.device.infer(
            dense, bags, batch=self.batch, include_last_offset=self.include_last_offset))
