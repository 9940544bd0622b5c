"""What photographs don't score, during training: bright targets of towns, moved crops, single-look complex images.

Figures of the network alone, without what the package does around it (:mod:`nearflash.sar.methods`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..metrics import mean_kept, no_reference_report
from ..peaks import peaks_kept
from ..speckle import SystemResponse, speckled
from .cities import simulated_town

__all__ = ["RESPONSES", "Goals", "moved_rms"]

SIDE, SCENES, EDGE = 256, 4, 40
#: Of Sentinel-1, an oversampled airborne sensor, a spotlight of square pixels, and one that is hardly oversampled
RESPONSES = (SystemResponse((0.77, 0.85), (0.75, 0.75)), SystemResponse((0.5, 0.7), (0.75, 0.9)),
             SystemResponse((0.6, 0.6), (0.6, 0.6)), SystemResponse((0.95, 0.95), (1, 1)))

Run = Callable[[np.ndarray, float], np.ndarray]


class Goals:
    """``goals(run)``: the figures, by name. ``run``: amplitude float32 [256, 256] and looks to despeckled amplitude.

    Args:
        photographs: clean amplitude of at least 272 x 272 pixels, to move crops over.
        slcs: intensity of single-look complex images, float32 [H, W] by name, of a median amplitude of about 0.4.
    """

    def __init__(self, photographs: list[np.ndarray], slcs: dict[str, np.ndarray]) -> None:
        self.towns = {looks: [self._town(k, looks) for k in range(SCENES)] for looks in (1, 4)}
        self.moved = [np.sqrt(speckled(p[: SIDE + 1, : SIDE + 1] ** 2, 1, np.random.default_rng([7, k])))
                      for k, p in enumerate(photographs[:SCENES])]
        self.slcs = slcs

    @staticmethod
    def _town(k: int, looks: int) -> np.ndarray:
        return np.sqrt(simulated_town(np.random.default_rng([11, k]), SIDE, looks, RESPONSES[k]))

    def __call__(self, run: Run) -> dict[str, float]:
        scores = {}
        for looks, towns in self.towns.items():
            kept, means = [], []
            for town in towns:
                out = run(town, looks)
                kept.append(peaks_kept(town**2, out**2))
                means.append(mean_kept(town**2, out**2))
            share = np.concatenate(kept)
            scores |= {f"peaks_L{looks}_median": float(np.median(share)), f"peaks_L{looks}_tenth": float(
                np.quantile(share, 0.1)), f"town_L{looks}_mean_kept": float(np.mean(means))}
        if self.moved:
            scores["moved_rms"] = float(np.mean([moved_rms(run, image) for image in self.moved]))
        for name, intensity in self.slcs.items():
            out = run(np.sqrt(intensity), 1) ** 2
            report = no_reference_report(intensity, out, 1.0)
            scores |= {f"{name}_{key}": report[key] for key in ("ratio_mean", "ratio_variance", "mean_kept")}
        return scores


def moved_rms(run: Run, amplitude: np.ndarray, looks: float = 1.0) -> float:
    """Relative rms change of the output's amplitude when the crop begins a pixel further both ways, far from its edges; dark
    pixels count by a tenth of the mean. ``amplitude``: [H, W], more than 96 pixels on a side."""
    a, b = (run(np.ascontiguousarray(amplitude[part]), looks) for part in (np.s_[:-1, :-1], np.s_[1:, 1:]))
    a, b = a[1:, 1:][EDGE:-EDGE, EDGE:-EDGE], b[:-1, :-1][EDGE:-EDGE, EDGE:-EDGE]
    return float(np.sqrt(np.mean(((a - b) / np.maximum(a, 0.1 * a.mean())) ** 2)))
