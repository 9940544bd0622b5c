"""Despecklers on the fabric: their calibrations, one beside each weights file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..contract.config import DeviceConfig
from ..contract.errors import ConfigError, DataError, ModelError
from ..contract.tensor import Descriptor
from ..offload import Calibration, OffloadedModule, calibrated, offload, open_fabric
from ..offload.ops import Value
from .level import level
from .models import MODELS, build
from .network import WEIGHTS, Network, load
from .scatterers import DIMMED_DB_INT8, dimmed, ground_level
from .speckle import speckled
from .training.cities import simulated_town
from .training.data import Images
from .training.goals import RESPONSES

__all__ = ["CROP", "DEVICES", "calibrate_network", "calibration_file", "network_calibration", "on_fabric", "samples",
           "tile_descriptors", "towns"]

DEVICES = ("fabric-model", "fabric")
CROP = 256  # side of a sample, pixels
LOOKS = (1.0, 4.0)  # of the samples, in turn
TOWNS = 4  # of each sensor
BRIGHT, BRIGHTER = 4, 1.5  # every so many samples one is so many times as bright: levels up to where :mod:`.level` begins


def calibration_file(weights: Path) -> Path:
    """Where the calibration of a weights file lies: ``base.fabric.json`` beside ``base.npz``."""
    return weights.with_suffix(".fabric.json")


def network_calibration(network: Network, weights: Path) -> Calibration:
    """The scales beside the file ``weights`` that ``network`` was loaded from.

    Raises:
        DataError: a calibration that is damaged, or of other weights.
        ModelError: no calibration.
    """
    path = calibration_file(weights)
    if not path.exists():
        raise ModelError("calibration", str(path), f"must be there: nearflash sar calibrate IMAGES --method {network.name} "
                         "makes it")
    calibration = Calibration.read(path)
    if calibration.note != network.sha256:
        raise DataError("calibration", str(path), f"of these weights ({network.sha256[:12]}): it was made from "
                        f"{calibration.note[:12]}; nearflash sar calibrate makes another")
    return calibration


def on_fabric(network: Network, device: str, weights: Path, config: Path | None = None,
              overlay: Path | None = None) -> None:
    """Put everything of ``network`` that the fabric can do there: on the integer model (``device`` "fabric-model"), or on
    a device ("fabric"), simulated, or where there is an ``overlay`` (a ``.bit``) in that on a board. ``config``: of the
    device (TOML), if not the default one; an overlay has its own.

    Raises:
        ConfigError: unknown device, an unfit configuration or overlay, or both.
        DataError, ModelError: as :func:`network_calibration`.
    """
    if device not in DEVICES:
        raise ConfigError("device", device, f"must be cpu, cuda, {' or '.join(DEVICES)}")
    if overlay is not None and (config is not None or device != "fabric"):
        raise ConfigError("overlay", str(overlay), "must be given for device fabric alone, and without a configuration: it "
                          "has its own")
    settings = None if config is None else DeviceConfig.from_toml(config)
    calibration = network_calibration(network, weights)
    name = "fabric-model" if device == "fabric-model" else "sim" if overlay is None else "pynq"
    fabric = open_fabric(name, settings, None if overlay is None else str(overlay))
    network.net = network.offloaded = offload(network.net, fabric, calibration=calibration)
    network.bf16 = False


def samples(folder: Path, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``count`` inputs (amplitude [1, 1, 256, 256], looks [1]) from images spread evenly over ``folder`` (8 bits, of at
    least 256 pixels a side; BSDS500's image 12003, part of which is in Set12, left out), with simulated speckle of 1 and 4
    looks in turn. Every fourth is brighter, as far as a network is given (:data:`.level.MOST`).

    Raises:
        DataError: no folder, an image that can't be read, fewer images of that size than ``count``.
    """
    images = [i for i in Images([folder]).images if min(i.size) >= CROP]
    if not 0 < count <= len(images):
        raise DataError("images", count, f"from 1 to {len(images)}, the images of at least {CROP} pixels a side in {folder}")
    for n in range(count):
        gray = np.asarray(images[n * len(images) // count], np.float64)[:CROP, :CROP] / 255
        if n % BRIGHT == BRIGHT - 1:
            gray = gray * BRIGHTER
        looks = LOOKS[n % len(LOOKS)]
        amplitude = np.sqrt(speckled(gray**2, looks, np.random.default_rng(n))).astype(np.float32)
        yield torch.from_numpy(amplitude)[None, None], torch.tensor([looks])


def towns(count: int = TOWNS) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``count`` simulated towns as each of several sensors sees them, speckle of 1 and 4 looks in turn: inputs (amplitude
    [1, 1, 256, 256], looks [1]) as a network is given them, with bright targets dimmed and their level divided out."""
    for n in range(count):
        looks = LOOKS[n % len(LOOKS)]
        for k, response in enumerate(RESPONSES):
            noisy = simulated_town(np.random.default_rng([n, k]), CROP, looks, response).astype(np.float32)
            amplitude = np.sqrt(dimmed(noisy, ground_level(noisy, looks), DIMMED_DB_INT8))
            yield torch.from_numpy(amplitude / level(amplitude, looks))[None, None], torch.tensor([looks])


def calibrate_network(name: str, folder: Path, count: int = 16, checkpoint: Path | None = None) -> Calibration:
    """Scales for the network ``name``, tied to its weights.

    Raises:
        ConfigError, DataError, ModelError: as :func:`.network.load` and :func:`samples`; no torchao.
    """
    network = load(name, checkpoint)
    return calibrated(network.net, "all", samples(folder, count), network.sha256, towns())


class _AnyScale(Calibration):
    """One scale for every value: what a program's sizes are doesn't depend on it."""

    def scale(self, value: Value) -> float:
        return 2.0**-7


def tile_descriptors(name: str, side: int = CROP) -> list[Descriptor]:
    """What the fabric runs for a tile of ``side`` x ``side`` pixels of the network ``name``, as its shipped weights have it
    or else its preset. Sizes alone: scales are made up, no calibration is needed.

    Raises:
        ConfigError: unknown name.
        ModelError: a network of which the fabric can do nothing.
    """
    net = load(name).net if (WEIGHTS / f"{name}.npz").exists() or name not in MODELS else build(name).eval()
    module = OffloadedModule(net, open_fabric("fabric-model"), "all", _AnyScale({}))
    order = module.compiled(torch.ones(1, 1, side, side), torch.ones(1)).order
    return [d for _, _, program in order if program for d in program.descriptors]
