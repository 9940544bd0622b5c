"""Despeckling methods by name: networks and classical filters behind one interface.

A method maps intensity float32 [H, W], finite and > 0, with its number of looks to despeckled intensity of the same shape,
and always the same way. :func:`load_method` makes one; :func:`apply_method` calls it on an image of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..offload import OffloadedModule
    from .network import Network

__all__ = ["FILTER_NAMES", "METHOD_NAMES", "NETWORK_NAMES", "SHIFTS", "Method", "apply_method", "cycle_spin", "load_method",
           "self_ensemble"]

NETWORK_NAMES = ("base", "tiny", "paper", "unet")
# Named here, not taken from filters.FILTERS, so that a list of names (in --help) needs no SciPy
FILTER_NAMES = ("lee", "refined-lee", "kuan", "frost", "gamma-map", "bm3d", "nlm")
METHOD_NAMES = (*NETWORK_NAMES, *FILTER_NAMES, "none")

#: Rows and columns by which cycle spinning shifts: eight that differ in all remainders of 8 both ways, so that every phase
#: of three halvings of the resolution comes once.
SHIFTS = tuple((5 * k % 32, 13 * k % 32) for k in range(8))
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Method:
    """A despeckler. ``method(intensity [H, W] float32 finite > 0, looks)`` is float32 [H, W].

    Attributes:
        name: as :func:`load_method` knows it.
        margin: pixels of context that a tile needs on each side.
        multiple: H and W must be multiples of it.
        scene_scale: True if intensity must be divided by one scale factor of the whole scene first.
        details: plain values for reports: of a network its ``checkpoint`` and ``checkpoint_sha256``.
        offloaded: a network's part on a fabric, if it has one. What holds a device is to be closed.
    """

    name: str
    margin: int
    multiple: int
    scene_scale: bool
    apply: Callable[[np.ndarray, float], np.ndarray] = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    offloaded: OffloadedModule | None = field(default=None, repr=False)

    def __call__(self, intensity: np.ndarray, looks: float) -> np.ndarray:
        return self.apply(intensity, looks)

    def close(self) -> None:
        """Free the device that a network runs on, if there is one. Safe to call twice."""
        if self.offloaded is not None:
            self.offloaded.close()


def load_method(name: str, *, device: str = "cpu", checkpoint: Path | None = None, config: Path | None = None,
                overlay: Path | None = None) -> Method:
    """The method ``name``; of a network with the weights of ``checkpoint``, or those that ship. ``device``: cpu, cuda, or
    what :func:`~nearflash.sar.fabric.on_fabric` says of fabrics, ``config`` and ``overlay``.

    Raises:
        ConfigError: unknown name (the message lists them all); a checkpoint or another device for a filter, which has
            neither weights nor a GPU version; what :func:`.network.load` raises.
    """
    if name in NETWORK_NAMES:
        from . import network

        details = {"checkpoint": "shipped" if checkpoint is None else str(checkpoint)}
        return network_method(network.load(name, checkpoint, device, config=config, overlay=overlay), details)
    if name not in METHOD_NAMES:
        raise ConfigError("method", name, f"must be one of {', '.join(METHOD_NAMES)}")
    if checkpoint is not None:
        raise ConfigError("checkpoint", str(checkpoint), f"must be absent for method {name}: only networks have weights")
    if device != "cpu":
        raise ConfigError("device", device, f"must be cpu for method {name}")
    for what, given in (("config", config), ("overlay", overlay)):
        if given is not None:
            raise ConfigError(what, str(given), f"must be absent for method {name}: only networks run on a fabric")
    if name == "none":
        return Method(name, 0, 1, False, lambda intensity, looks: np.array(intensity, np.float32))
    from .filters import FILTERS

    return Method(name, FILTERS[name].margin, 1, False, FILTERS[name].apply)


def network_method(net: Network, details: dict[str, Any] | None = None, *, scatterers: bool = True,
                   expected_bias: float | None = None) -> Method:
    """``net`` with what the package does around it: the input's local mean is kept (``expected_bias``: see
    :func:`~nearflash.sar.local_mean.keep_local_mean`; None: the one that ships), and strong scatterers are, unless
    ``scatterers`` is false."""
    from .local_mean import EXPECTED_BIAS, keep_local_mean
    from .scatterers import DIMMED_DB, DIMMED_DB_INT8, bounded, dimmed, ground_level, keep_strong

    bias = EXPECTED_BIAS if expected_bias is None else expected_bias

    def apply(intensity: np.ndarray, looks: float) -> np.ndarray:
        if not scatterers:
            return keep_local_mean(intensity, net.despeckle(intensity, looks), looks, bias)
        ground = ground_level(intensity, looks)
        seen = dimmed(intensity, ground, DIMMED_DB_INT8 if net.offloaded else DIMMED_DB)
        clean = keep_local_mean(seen, net.despeckle(seen, looks), looks, bias)
        return bounded(intensity, keep_strong(intensity, clean, ground, looks))

    return Method(net.name, net.margin, net.multiple, True, apply, (details or {}) | {"checkpoint_sha256": net.sha256},
                  net.offloaded)


def apply_method(method: Method, intensity: np.ndarray, looks: float) -> np.ndarray:
    """``method`` on intensity [H, W] >= 0 of any size from 1x1, mirrored up to the method's multiple and cropped back.

    Zeros are raised to the least positive float32. No scale factor is applied.

    Raises:
        DataError, ConfigError: not [H, W], or not finite, or negative; looks not a finite number > 0.
    """
    if np.ndim(intensity) != 2 or 0 in np.shape(intensity):
        raise DataError("intensity.shape", np.shape(intensity), "must be [H, W] with at least one pixel")
    if not (math.isfinite(looks) and looks > 0):
        raise ConfigError("looks", looks, "must be a finite number > 0")
    low, high = float(np.min(intensity)), float(np.max(intensity))
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0):
        raise DataError("intensity", low if low < 0 or not math.isfinite(low) else high, "must be finite and >= 0")
    h, w = intensity.shape
    pads = ((0, -h % method.multiple), (0, -w % method.multiple))
    image = np.pad(np.maximum(intensity, TINY).astype(np.float32), pads, mode="symmetric")
    return np.ascontiguousarray(method(image, looks)[:h, :w])


def cycle_spin(method: Method) -> Method:
    """``method`` on the image shifted by each of :data:`SHIFTS`, shifted back, the amplitudes averaged: 8 times the work.

    What a network makes of a pixel depends on where the pixel lies in its grids of lower resolution: ``base`` differs by 8 %
    (rms, single look) when a crop moves by one pixel both ways, and by 0.4 % after this. Source: R. Coifman, D. Donoho,
    "Translation-invariant de-noising", 1995.

    Raises:
        ConfigError: a filter, which does the same everywhere.
    """
    if method.name not in NETWORK_NAMES:
        raise ConfigError("cycle_spin", method.name, f"must be a network ({', '.join(NETWORK_NAMES)}): filters don't depend "
                          "on where a pixel lies")

    def apply(intensity: np.ndarray, looks: float) -> np.ndarray:
        total = np.zeros(intensity.shape)
        height, width = intensity.shape
        for down, right in SHIFTS:
            pads = ((down, -down % method.multiple), (right, -right % method.multiple))
            out = method(np.pad(intensity, pads, mode="symmetric"), looks)
            total += np.sqrt(out[down : down + height, right : right + width])
        return ((total / len(SHIFTS)) ** 2).astype(np.float32)

    return replace(method, apply=apply, details=method.details | {"cycle_spin": len(SHIFTS)})


def self_ensemble(method: Method) -> Method:
    """``method`` on the eight flips and rotations of the image, the results' amplitudes averaged: eight times the work.

    Source: R. Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016.
    """
    def apply(intensity: np.ndarray, looks: float) -> np.ndarray:
        total = np.zeros(intensity.shape)
        for turns in range(4):
            for mirrored in (False, True):
                turned = np.rot90(intensity[:, ::-1] if mirrored else intensity, turns)
                out = np.rot90(np.sqrt(method(np.ascontiguousarray(turned), looks)), -turns)
                total += out[:, ::-1] if mirrored else out
        return ((total / 8) ** 2).astype(np.float32)

    return replace(method, apply=apply, details=method.details | {"self_ensemble": 8})
