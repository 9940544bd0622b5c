"""Scores during training: amplitude PSNR on images that are never trained on, the same speckle every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from ..speckle import speckled
from .data import Images
from .goals import Goals

__all__ = ["Validation"]


class Validation:
    """Centre crops of a validation set, speckled once with one seed a look.

    Args:
        images: the set.
        looks: looks to score.
        count: images to take, evenly spread over the set.
        crop: pixels, a multiple of 32.
        slcs: intensity of complex images to score on too (:class:`Goals`); None leaves all of Goals out.
    """

    def __init__(self, images: Images | None, looks: Sequence[int] = (1, 4), count: int = 32, crop: int = 256,
                 slcs: dict[str, np.ndarray] | None = None) -> None:
        self.clean: list[np.ndarray] = []
        self.large: list[np.ndarray] = []
        self.noisy: dict[int, list[np.ndarray]] = {}
        if images is not None:
            self._photographs(images, looks, count, crop)
        self.goals = None if slcs is None else Goals(self.large, slcs)

    def _photographs(self, images: Images, looks: Sequence[int], count: int, crop: int) -> None:
        chosen = [images.images[i] for i in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
        for image in chosen:
            x, y = ((n - crop) // 2 for n in image.size)
            self.clean.append((np.asarray(image.crop((x, y, x + crop, y + crop)), np.float32) + 1) / 256)
        self.large = [(np.asarray(image, np.float32) + 1) / 256 for image in chosen if min(image.size) > crop]
        self.noisy = {n: [np.sqrt(speckled(c**2, n, np.random.default_rng([n, i]))) for i, c in enumerate(self.clean)]
                      for n in looks}

    @torch.no_grad()
    def __call__(self, net: nn.Module, device: torch.device,
                 autocast: Callable[[], AbstractContextManager[Any]]) -> dict[str, float]:
        """``{"psnr_L1_db": ..., ...}``: mean over images, output clipped to [0, 1]."""
        scores = {}
        for looks, images in self.noisy.items():
            psnr = []
            for noisy, clean in zip(images, self.clean, strict=True):
                x = torch.from_numpy(noisy)[None, None].to(device)
                with autocast():
                    y = net(x, torch.full((1,), float(looks), device=device))
                mse = np.mean((np.clip(y.float().cpu().numpy()[0, 0], 0, 1) - clean) ** 2, dtype=np.float64)
                psnr.append(-10 * np.log10(mse))
            scores[f"psnr_L{looks}_db"] = float(np.mean(psnr))
        if self.goals is None:
            return scores

        def run(amplitude: np.ndarray, looks: float) -> np.ndarray:
            height, width = amplitude.shape
            padded = np.pad(amplitude, ((0, -height % 32), (0, -width % 32)), mode="symmetric").astype(np.float32)
            with autocast():
                y = net(torch.from_numpy(padded)[None, None].to(device), torch.full((1,), float(looks), device=device))
            return y.float().cpu().numpy()[0, 0, :height, :width]

        return scores | self.goals(run)
