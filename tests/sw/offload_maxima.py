"""Scales without torchao."""

import torch
from nearflash.offload import Calibration
from nearflash.offload.module import matched_blocks


def maxima(model, samples, blocks):
    """A calibration by running the traced graph and keeping the largest magnitudes: what PT2E's minimum and maximum find."""
    matched = matched_blocks(model, samples[0], blocks)
    largest = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            out = super().run_node(n)
            if isinstance(out, torch.Tensor) and out.is_floating_point() and out.numel():
                largest[n.name] = max(largest.get(n.name, 0.0), float(out.abs().max()))
            return out

    with torch.no_grad():
        for s in samples:
            Watch(matched.graph).run(*s)
    return Calibration(largest)
