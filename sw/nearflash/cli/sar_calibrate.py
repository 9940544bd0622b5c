"""``nearflash sar calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..sar.methods import NETWORK_NAMES
from .output import JsonFile, check_outputs, output_path, show, write_json

__all__ = ["calibrate"]


def calibrate(
    images: Annotated[Path, typer.Argument(help="Folder of 8-bit images, none of a test set.")],
    method: Annotated[str, typer.Option(help=f"Network: one of {', '.join(NETWORK_NAMES)}.")] = "base",
    out: Annotated[Path | None, typer.Option("-o", "--out", parser=output_path, metavar="FILE",
                                             help="File to write (default: beside the weights, where --device fabric-model "
                                                  "looks).")] = None,
    count: Annotated[int, typer.Option(help="Images to take.", min=1)] = 16,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the network instead of those that ship.")] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Find the int8 scales of a network's values, which the fabric needs, on images and on simulated towns.

    Example: nearflash sar calibrate BSDS500/train --method base --checkpoint run/best.npz --json scales.json
    """
    check_outputs(out=out, json_file=json_file)
    from ..sar import fabric, network

    found = fabric.calibrate_network(method, images, count, checkpoint)
    path = out or fabric.calibration_file(checkpoint or network.WEIGHTS / f"{method}.npz")
    found.save(path)
    write_json(json_file, {"method": method, "images_count": count, "file": str(path), "largest": found.largest})
    show(f"calibration of {method}", [("images", f"{count}", ""), ("values", f"{len(found.largest)}", "with a scale"),
                                      ("written to", str(path), "")])
