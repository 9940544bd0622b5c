"""``nearflash sar train``: a despeckler from clean images, from a sensor's own images, or from both."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from ..contract.errors import ConfigError, DataError
from .output import JsonFile, check_outputs, console, text_column, write_json

__all__ = ["train"]


def train(
    images: Annotated[list[Path] | None, typer.Argument(help="Folders of clean images (PNG, JPEG, TIFF).")] = None,
    recipe: Annotated[str, typer.Option(help="base, base-finetune, base-levels, base-even, base-texture, "
                                        "base-scenes, base-moved, base-photos, base-finish, base-whole, "
                                        "base-own, tiny, tiny-levels, tiny-even, unet, unet-second, paper (for a GPU; "
                                        "never run to the end), or a TOML file.")] = "base",
    out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder: checkpoint, weights, log.")] = Path("run"),
    validate: Annotated[Path | None, typer.Option(help="Folder of images to score on, never trained on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: PyTorch's choice).", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew even if the folder holds a checkpoint.")] = False,
    init: Annotated[Path | None, typer.Option(help="Start from these weights (.npz) instead of random ones; the later "
                                                   "parts of a recipe do. Blocks they lack start as identities.")] = None,
    self_supervised: Annotated[list[Path] | None, typer.Option(help="A single-look complex image to learn from without "
                                                               "clean ones: its real part is scored by its imaginary one. "
                                                               "Several times for several.")] = None,
    dates: Annotated[list[Path] | None, typer.Option(help="A folder of co-registered images of some dates, each scored by "
                                                     "the others. Several times for several.")] = None,
    dates_looks: Annotated[float, typer.Option(help="Looks of the images in --dates.")] = 1.0,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Train a despeckler on clean images; speckle is drawn anew at every step. Interrupt at will: the same command resumes.

    With --self-supervised or --dates also, or only, on your own sensor's images, which no clean image is needed for.

    Under torchrun the batch is spread over the processes, and the result is that of one process.

    Example: nearflash sar train bsds500/train bsds500/test --validate bsds500/val --recipe base -o runs/base

    Example: nearflash sar train --self-supervised slc.tif --recipe base-own --init base.npz -o runs/own

    Example: torchrun --nproc-per-node 2 -m nearflash sar train bsds500/train -o runs/base
    """
    weights, curves = out / "weights.npz", out / "curves.png"
    check_outputs(json_file=json_file, out=weights, curves=curves)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError("--device", device, "must be auto, cpu or cuda")
    import torch
    import torch.distributed as dist

    from ..sar.io import read_complex
    from ..sar.models import grow, without_phases
    from ..sar.network import read_weights, write_weights
    from ..sar.training.config import TrainConfig
    from ..sar.training.curves import plot_curves
    from ..sar.training.data import MOVED, Images
    from ..sar.training.loop import Trainer
    from ..sar.training.observed import Observations, scaled_intensity
    from ..sar.training.validate import Validation

    config = TrainConfig.load(recipe)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threads:
        torch.set_num_threads(threads)
    spread = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if spread:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        slcs = {path: read_complex(path) for path in self_supervised or []}
        observations = None
        if self_supervised or dates:
            observations = Observations(list(slcs.values()), [(stack_of(folder), dates_looks) for folder in dates or []],
                                        config.crop + MOVED)
        trainer = Trainer(config, Images(images, colours=config.tones > 0) if images else None, out, device, observations)
        initial = None
        if init:
            try:
                initial = grow(trainer.net, without_phases(trainer.net, read_weights(init)[1]))
            except RuntimeError as e:
                raise DataError("init", str(init), f"weights that fit {config.model} ({e})") from e
        if config.initial_share and initial is None:
            raise ConfigError("init", None, "must be given: the recipe keeps a share of the weights it starts from")
        if not fresh and trainer.resume():
            console.print(f"resumed at step {trainer.step} of {config.steps}")
        elif initial is not None:
            trainer.start_from(initial)
        score = None
        if validate and trainer.rank == 0:
            validation = Validation(Images([validate]), slcs={p.stem: scaled_intensity(i) for p, i in slcs.items()})
            score = lambda net: validation(net, trainer.device, trainer.autocast)  # noqa: E731
        columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=console, disable=trainer.rank > 0) as bar:
            task = bar.add_task(config.model, total=config.steps, completed=trainer.step)
            trainer.run(lambda step, loss: bar.update(task, completed=step, description=f"{config.model}  loss {loss:.4f}"),
                        score)
        if trainer.rank == 0:
            lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            result = trainer.result(initial)
            meta = {"model": config.model, "options": config.options, "recipe": config.to_dict(),
                    "images": len(trainer.images) if trainer.images else 0, "hours": trainer.seconds / 3600,
                    "validation": lines[-1] | (score(result) if score and config.initial_share else {})}
            write_weights(weights, result, meta)
            plot_curves(lines, curves)
            write_json(json_file, {"weights": str(weights), **meta})
            console.print(f"weights in {weights}, curves in {curves}")
    finally:
        if spread:
            dist.destroy_process_group()


def stack_of(folder: Path) -> np.ndarray:
    """Intensity of a folder of dates, in the order of their names, float32 [dates, H, W]. Raises DataError for fewer than
    two images, and for other shapes."""
    from ..sar.io import SUFFIXES, read_array

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if len(paths) < 2:
        raise DataError("dates", str(folder), "a folder with at least two images")
    images = [read_array(path)[0] for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(f"{path} shape", image.shape, f"must be that of {paths[0]}, {images[0].shape}")
    return np.stack(images)
