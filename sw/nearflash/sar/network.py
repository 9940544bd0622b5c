"""A trained despeckler: weights from a file, run on arrays.

Weights are an ``.npz`` of plain arrays (the state_dict's names) and ``meta``, a JSON text: model, options of its preset, and
where they come from. The shipped ones lie in ``nearflash/sar/weights``.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..contract.errors import ConfigError, DataError, ModelError
from ..whole import whole_file
from .heap import keep_large_blocks
from .level import level
from .models import MODELS, build
from .training.loop import native_bf16

if TYPE_CHECKING:
    from ..offload import OffloadedModule

__all__ = ["WEIGHTS", "Network", "load", "read_weights", "write_weights"]

WEIGHTS = Path(__file__).parent / "weights"
FABRIC = "fabric"  # what names of fabrics begin with


def write_weights(path: Path, net: nn.Module, meta: dict[str, Any]) -> None:
    """Write ``net``'s parameters and ``meta`` (at least ``model`` and ``options``), whole or not at all."""
    arrays = {k: v.detach().cpu().numpy() for k, v in net.state_dict().items()}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """``(meta, state_dict)`` of a weights file.

    Raises:
        DataError: missing, damaged, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            state = {k: torch.from_numpy(file[k]) for k in file.files if k != "meta"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise DataError("checkpoint", str(path), f"a weights file of `nearflash sar train` ({e})") from e
    return meta, state


class Network:
    """A network ready to run.

    Attributes:
        name: the model's.
        multiple: H and W must be multiples of it.
        margin: pixels of context that a tile needs on each side.
        meta: where the weights come from.
        sha256: of the weights file, "" for none.
        offloaded: ``net``, if part of it is on a fabric.
    """

    margin = 32

    def __init__(self, net: nn.Module, name: str, device: str = "cpu", meta: dict[str, Any] | None = None,
                 sha256: str = "") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device", device, "cpu: this machine has no CUDA device")
        try:
            self.device = torch.device(device)
        except RuntimeError as e:
            raise ConfigError("device", device, "cpu, cuda, fabric-model or fabric") from e
        self.offloaded: OffloadedModule | None = None
        self.net = net.to(device=self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.name, self.meta, self.sha256 = name, meta or {}, sha256
        self.multiple: int = net.multiple  # type: ignore[assignment]
        self.bf16 = native_bf16(self.device)
        keep_large_blocks()

    @torch.inference_mode()
    def despeckle(self, intensity: np.ndarray, looks: float) -> np.ndarray:
        """Intensity ``[H, W]`` or ``[N, H, W]``, float32, >= 0, scaled to a median amplitude of about 0.4 -> the same.

        Raises:
            DataError: a shape that isn't a multiple of ``multiple``, or looks that aren't positive.
        """
        if intensity.ndim not in (2, 3) or any(n % self.multiple or n == 0 for n in intensity.shape[-2:]):
            raise DataError("shape", intensity.shape, f"[H, W] or [N, H, W], H and W multiples of {self.multiple}")
        if not looks > 0:
            raise DataError("looks", looks, "above 0")
        given = np.sqrt(intensity, dtype=np.float32)
        above = level(given, looks) if self.offloaded else np.float32(1)
        amplitude = torch.from_numpy(given / above).reshape(-1, 1, *intensity.shape[-2:])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            y = self.net(amplitude.to(self.device), torch.full((len(amplitude),), float(looks), device=self.device))
        y = y.float().cpu().numpy().reshape(intensity.shape)
        return np.square(np.maximum(y, 0) * above)


def load(name: str = "base", checkpoint: Path | None = None, device: str = "cpu", *, config: Path | None = None,
         overlay: Path | None = None) -> Network:
    """The network ``name`` with its shipped weights, or with those of ``checkpoint``, on ``device``: cpu, cuda, or what
    :func:`~nearflash.sar.fabric.on_fabric` says of ``fabric-model``, ``fabric``, ``config`` and ``overlay``.

    Raises:
        ConfigError: unknown name, no such device, or no weights ship for it; a ``config`` or ``overlay`` for cpu or cuda.
        DataError: an unreadable checkpoint.
        ModelError: a checkpoint of another model, or of other shapes; one without a calibration, for a fabric.
    """
    if name not in MODELS:
        raise ConfigError("model", name, f"one of {', '.join(MODELS)}")
    path = checkpoint or WEIGHTS / f"{name}.npz"
    if checkpoint is None and not path.exists():
        shipped = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.npz")))
        raise ConfigError("model", name, f"with shipped weights ({shipped}), or given with --checkpoint")
    meta, state = read_weights(path)
    if meta.get("model") != name:
        raise ModelError("checkpoint", str(path), f"weights of {name}; these are of {meta.get('model')!r}")
    fabric = device.startswith(FABRIC)
    for what, given in (("config", config), ("overlay", overlay)):
        if given is not None and not fabric:
            raise ConfigError(what, str(given), f"must be absent for device {device}: only a fabric has one")
    net = build(name, **meta.get("options", {}))
    try:
        net.load_state_dict(state)
    except RuntimeError as e:
        raise ModelError("checkpoint", str(path), f"weights that fit {name} ({str(e).splitlines()[-1].strip()})") from e
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network = Network(net, name, "cpu" if fabric else device, meta, sha256)
    if fabric:
        from .fabric import on_fabric

        on_fabric(network, device, path, config, overlay)
    return network
