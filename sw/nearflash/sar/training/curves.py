"""The training curves of a run's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...whole import whole_file

__all__ = ["plot_curves"]


def plot_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Loss and validation PSNR against steps (``log.jsonl``'s lines), as a PNG picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = [line["step"] for line in lines]
    scores = [k for k in lines[-1] if k.startswith("psnr_")]
    figure, axes = plt.subplots(1, 1 + len(scores), figsize=(4.2 * (1 + len(scores)), 3.2), constrained_layout=True)
    panels = axes if len(scores) else [axes]
    for axis, key in zip(panels, ["loss", *scores], strict=True):
        axis.plot(steps, [line.get(key, float("nan")) for line in lines], marker="o", markersize=3)
        axis.set_xlabel("step")
        axis.set_title(key.replace("_db", " (dB)").replace("psnr_", "validation PSNR, "))
        axis.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)
    plt.close(figure)
