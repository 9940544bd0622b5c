"""A despeckler with random weights that fits the tensor engine of TENSORS, and scales for networks made in tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from nearflash.contract.tensor import TensorConfig
from nearflash.offload import Calibration
from nearflash.offload.module import matched_blocks
from nearflash.sar import network
from nearflash.sar.fabric import calibration_file
from nearflash.sar.models import build
from nearflash_sim.small.device import SMALL
from torch import fx, nn

#: The device with a tensor engine that tests share, so that it is compiled once.
TENSORS = replace(SMALL, name="tensors", tensor=TensorConfig(
    rows=4, columns=8, pixels=16, lanes=2, depthwise=8, input_bytes=8192, weight_bytes=8192, max_channels=64, max_keys=64,
    dram_bytes=1 << 18))
OPTIONS = {"widths": [8, 16, 16, 16, 16], "head_dim": 8}


def scales(model: nn.Module, inputs: tuple[torch.Tensor, ...], note: str = "") -> Calibration:
    """Of everything in the traced graph, by what it is for ``inputs``, [1, ...] each."""
    matched, largest = matched_blocks(model, inputs, "all"), {}

    class Watch(fx.Interpreter):
        def run_node(self, n):
            out = super().run_node(n)
            if isinstance(out, torch.Tensor) and out.is_floating_point():
                largest[n.name] = float(out.abs().max())
            return out

    with torch.no_grad():
        Watch(matched.graph).run(*inputs)
    return Calibration(largest, note)


def write_despeckler(folder: Path) -> tuple[Path, Path]:
    """Weights (with their scales beside them) and TENSORS as files."""
    torch.manual_seed(2)
    net = build("tiny", **OPTIONS).eval()
    nn.init.normal_(net.out.weight, std=0.05)
    weights, device = folder / "small.npz", folder / "tensors.toml"
    network.write_weights(weights, net, {"model": "tiny", "options": OPTIONS})
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    scales(net, (torch.rand(1, 1, 32, 32) * 2 + 0.01, torch.tensor([2.0])), sha256).save(calibration_file(weights))
    device.write_text(TENSORS.to_toml())
    return weights, device
