"""What keeping the input's local mean does to a network: to photographs' PSNR, and to the means of fields.

``python -m bench.local_mean bsds500/val --json local_mean.json``. Rows are the bias that ``nearflash.sar.local_mean``
expects: none (nothing is corrected), the one that ships, and 5 %, strong scatterers kept as ever. PSNR is on the first
``--images`` of the folder, one seed; fields are those of ``bench.radiometry``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nearflash.sar import despeckle, network, simulated
from nearflash.sar.evaluate import CleanImage, evaluate, load_images
from nearflash.sar.local_mean import EXPECTED_BIAS
from nearflash.sar.methods import NETWORK_NAMES, network_method

from .report import Rows, finish, progress, show_rows

__all__ = ["main", "measure"]

LOOKS = (1, 4)
BIASES = (0.0, 0.03, EXPECTED_BIAS)
COLUMNS = (("expected_bias", "expected bias", "g"), *((f"psnr_l{n}_db", f"PSNR, L = {n} (dB)", ".3f") for n in LOOKS),
           *((f"field_error_l{n}", f"a field's mean, L = {n}", ".1%") for n in LOOKS))


class _Remembering(network.Network):
    """Despeckles an image once, however many biases are tried on the result."""

    def __init__(self, net: network.Network) -> None:
        self.__dict__ = dict(net.__dict__)
        self.done: dict[bytes, np.ndarray] = {}

    def despeckle(self, intensity: np.ndarray, looks: float) -> np.ndarray:
        key = hashlib.sha256(intensity.tobytes() + str((intensity.shape, looks)).encode()).digest()
        if key not in self.done:
            self.done[key] = super().despeckle(intensity, looks)
        return self.done[key]


def measure(name: str, images: list[CleanImage], seeds: int = 3, checkpoint: Path | None = None) -> Rows:
    net = _Remembering(network.load(name, checkpoint))
    methods = [network_method(net, expected_bias=bias) for bias in BIASES]
    rows: Rows = [{"expected_bias": bias} for bias in BIASES]
    with progress() as bar:
        task = bar.add_task(f"local mean of {name}", total=len(rows) * len(LOOKS), note="")
        for looks in LOOKS:
            noisy = [simulated.observed(simulated.fields(), looks, seed) for seed in range(seeds)]
            for row, corrected in zip(rows, methods, strict=True):
                bar.update(task, note=f"bias {row['expected_bias']:g}, L = {looks}")
                out = [despeckle(i, domain="intensity", looks=looks, method=corrected) for i in noisy]
                kept = simulated.fields_kept(noisy, out)
                row[f"psnr_l{looks}_db"] = evaluate(images, corrected, looks, 1)["psnr_db"]
                row[f"field_error_l{looks}"] = float(np.abs(kept - 1).max())
                bar.advance(task)
    show_rows(f"local mean of {name}: {len(images)} images; the largest error of fields of -15 to +20 dB, {seeds} seeds",
              COLUMNS, rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.local_mean", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of clean 8-bit images that the network wasn't trained on")
    parser.add_argument("--method", default="base", choices=NETWORK_NAMES)
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those that ship")
    parser.add_argument("--images", dest="count", type=int, default=12, help="how many of them (default 12)")
    parser.add_argument("--seeds", type=int, default=3, help="realisations of the fields' speckle (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    for key in ("count", "seeds"):
        if getattr(args, key) < 1:
            parser.error(f"--{'images' if key == 'count' else key} must be at least 1")
    finish(args.json, {"local_mean": measure(args.method, load_images(args.images, args.count), args.seeds,
                                              args.checkpoint)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
