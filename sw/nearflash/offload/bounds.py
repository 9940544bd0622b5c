"""What a descriptor takes at least: multiplications, bytes, cycles (docs/offload.md, "Loop order and bounds")."""

from __future__ import annotations

from ..contract.config import DeviceConfig
from ..contract.tensor import Descriptor, Op, spans

__all__ = ["bound_cycles", "macs", "moved_bytes"]


def macs(d: Descriptor) -> int:
    """Multiply-accumulates; of an attention, QK^T and AV once each."""
    pixels, taps = d["out_height"] * d["out_width"], d["kernel_h"] * d["kernel_w"]
    if d["op"] == Op.CONV:
        return pixels * taps * d["in_channels"] * d["out_channels"] * max(1, d["shuffle"]) ** 2
    if d["op"] == Op.DEPTHWISE:
        return pixels * taps * d["in_channels"]
    if d["op"] == Op.ATTENTION:
        return 2 * pixels * d["keys"] * d["in_channels"]
    return 0


def moved_bytes(d: Descriptor, config: DeviceConfig) -> tuple[int, int]:
    """(read, written), every operand once."""
    sizes = {name: size for name, (_, size) in spans(d, config.tensor, config.beat_bytes).items()}
    written = sizes.pop("y")
    return sum(sizes.values()), written


def bound_cycles(d: Descriptor, config: DeviceConfig) -> int:
    """max(MACs / array, bytes read / beat, bytes written / beat): reads and writes have channels of their own."""
    read, written = moved_bytes(d, config)
    t = config.tensor
    return round(max(macs(d) / (t.rows * t.columns), read / config.beat_bytes, written / config.beat_bytes))
