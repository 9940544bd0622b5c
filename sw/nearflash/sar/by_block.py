"""What int8 costs a network, block by block: each alone on the fabric, and everything but it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..contract.config import DeviceConfig
from ..offload import Blocks, OffloadedModule, open_fabric
from ..offload.parts import parts_of
from . import network
from .evaluate import CleanImage, evaluate
from .fabric import network_calibration
from .methods import network_method

__all__ = ["loss_by_block"]


def loss_by_block(images: list[CleanImage], name: str, looks: float, seeds: int = 1, *, checkpoint: Path | None = None,
                  config: DeviceConfig | None = None, protocol: str = "project",
                  note: Callable[[int, int, str], None] = lambda done, total, what: None) -> dict[str, Any]:
    """PSNR of the network ``name`` in fp32, in int8 on the integer model, and with only one of its blocks in int8 and with
    all but one, for each block that has operators of the fabric. Images and speckle as in :func:`.evaluate.evaluate`.

    ``lost_db``: below fp32. What a block sends elsewhere has 16 bits where only it is in int8: an 8-bit copy is counted
    where it is read.

    Raises:
        ConfigError, DataError, ModelError: as :func:`.network.load`, :func:`.fabric.network_calibration` and
            :func:`.evaluate.evaluate`.
    """
    net = network.load(name, checkpoint)
    net.bf16 = False
    calibration = network_calibration(net, checkpoint or network.WEIGHTS / f"{name}.npz")
    module = OffloadedModule(net.net, open_fabric("fabric-model", config), "all", calibration)
    parts = parts_of(net.net, (torch.ones(1, 1, 2 * net.multiple, 2 * net.multiple), torch.ones(1)))
    offloaded = copy.copy(net)
    offloaded.net = offloaded.offloaded = module
    total = 2 + 2 * len(parts)
    done = 0

    def score(what: str, blocks: Blocks | None) -> float:
        nonlocal done
        note(done, total, what)
        if blocks is not None:
            module.choose(blocks)
        method = network_method(net if blocks is None else offloaded)
        found: dict[str, Any] = evaluate(images, method, looks, seeds, protocol=protocol)
        done += 1
        return found["psnr_db"]

    fp32 = score("fp32", None)
    whole = score("all blocks", "all")
    rows: Sequence[dict[str, Any]] = [
        {"block": part.name, "operators_count": part.operators,
         "only_lost_db": fp32 - score(f"only {part.name}", part.only()),
         "without_lost_db": fp32 - score(f"all but {part.name}", part.without())} for part in parts]
    return {"method": name, "looks": looks, "seeds": seeds, "protocol": protocol, "images_count": len(images),
            "fp32_psnr_db": fp32, "psnr_db": whole, "lost_db": fp32 - whole, "blocks": rows}
