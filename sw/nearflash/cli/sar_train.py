"""``nearflash sar train``: a despeckler from a folder of clean images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from ..contract.errors import ConfigError, DataError
from .output import JsonFile, check_outputs, console, text_column, write_json

__all__ = ["train"]


def train(
    images: Annotated[list[Path], typer.Argument(help="Folders of clean images (PNG, JPEG, TIFF).")],
    recipe: Annotated[str, typer.Option(help="base, base-finetune, base-levels, base-even, base-texture, tiny, "
                                        "tiny-levels, tiny-even, unet, unet-second, paper (for a GPU; never run "
                                        "to the end), or a TOML file.")] = "base",
    out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder: checkpoint, weights, log.")] = Path("run"),
    validate: Annotated[Path | None, typer.Option(help="Folder of images to score on, never trained on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: PyTorch's choice).", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew even if the folder holds a checkpoint.")] = False,
    init: Annotated[Path | None, typer.Option(help="Start from these weights (.npz) instead of random ones; the later "
                                                   "parts of a recipe do. Blocks they lack start as identities.")] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Train a despeckler on clean images; speckle is drawn anew at every step. Interrupt at will: the same command resumes.

    Under torchrun the batch is spread over the processes, and the result is that of one process.

    Example: nearflash sar train bsds500/train bsds500/test --validate bsds500/val --recipe base -o runs/base

    Example: torchrun --nproc-per-node 2 -m nearflash sar train bsds500/train -o runs/base
    """
    weights, curves = out / "weights.npz", out / "curves.png"
    check_outputs(json_file=json_file, out=weights, curves=curves)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError("--device", device, "must be auto, cpu or cuda")
    import torch
    import torch.distributed as dist

    from ..sar.models import grow
    from ..sar.network import read_weights, write_weights
    from ..sar.training.config import TrainConfig
    from ..sar.training.curves import plot_curves
    from ..sar.training.data import Images
    from ..sar.training.loop import Trainer
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
        trainer = Trainer(config, Images(images, colours=config.tones > 0), out, device)
        initial = None
        if init:
            try:
                initial = grow(trainer.net, read_weights(init)[1])
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
            validation = Validation(Images([validate]))
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
                    "images": len(trainer.images), "hours": trainer.seconds / 3600,
                    "validation": lines[-1] | (score(result) if score and config.initial_share else {})}
            write_weights(weights, result, meta)
            plot_curves(lines, curves)
            write_json(json_file, {"weights": str(weights), **meta})
            console.print(f"weights in {weights}, curves in {curves}")
    finally:
        if spread:
            dist.destroy_process_group()
