"""Design choices of ``base``, one at a time: a short training run each, scored on images never trained on.

``python -m bench.ablation bsds500/train bsds500/test --validate bsds500/val``. All runs see the same samples in the same
order; ``--steps`` are few, so the table ranks choices by how fast they learn, not by where they end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nearflash.sar.models import build, count_macs, count_parameters
from nearflash.sar.training.config import TrainConfig
from nearflash.sar.training.data import Images
from nearflash.sar.training.loop import Trainer
from nearflash.sar.training.validate import Validation

from .report import Rows, finish, progress, show_rows

__all__ = ["VARIANTS", "main"]

#: Fields of the recipe that differ from the first part's of the shipped one.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "global residual on the softened log": {"options": {"output": "residual"}},
    "direct, softened log": {"options": {"output": "log"}},
    "direct, amplitude": {"options": {"output": "amplitude"}},
    "input: log only": {"options": {"features": "log"}},
    "input: amplitude only": {"options": {"features": "amplitude"}},
    "blind to looks": {"options": {"looks": False}},
    "no positional information": {"options": {"position": False}},
    "loss: mean square": {"loss": "mse"},
    "white speckle only": {"correlated": 0.0},
}
COLUMNS = (("variant", "variant", ""), ("psnr_L1_db", "PSNR L=1 (dB)", ".2f"), ("psnr_L4_db", "PSNR L=4 (dB)", ".2f"),
           ("parameters_count", "parameters", ","), ("gmac_256", "GMAC at 256x256", ".2f"), ("minutes", "minutes", ".1f"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.ablation", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, help="folders of training images")
    parser.add_argument("--validate", type=Path, required=True, help="folder of images to score on")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--count", type=int, default=24, help="images of --validate to score")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="some of the variants")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    images, validation = Images(args.images), Validation(Images([args.validate]), count=args.count)
    recipe = replace(TrainConfig.load("base"), steps=args.steps, warmup=100, ema=0.99, checkpoint_every=args.steps,
                     validate_every=args.steps)
    rows: Rows = []
    names = args.only or list(VARIANTS)
    with progress() as bar:
        task = bar.add_task("ablation", total=len(names) * args.steps, note="")
        for name in names:
            changes = VARIANTS[name]
            options = recipe.options | changes.get("options", {})
            with tempfile.TemporaryDirectory() as folder:
                trainer = Trainer(replace(recipe, **changes | {"options": options}), images, Path(folder))
                trainer.run(lambda step, loss, name=name: bar.update(task, advance=1, note=f"{name}  loss {loss:.3f}"))
            net = build("base", **options)
            rows.append({"variant": name, **validation(trainer.averaged(), trainer.device, trainer.autocast),
                         "parameters_count": count_parameters(net), "gmac_256": count_macs(net) / 1e9,
                         "minutes": trainer.seconds / 60, "steps": args.steps})
            finish(args.json, {"ablation": rows})
    show_rows(f"ablation of base, {args.steps} steps each", COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
