"""The parameter image that PROGRAM_LOAD sends, from integer parameters (:mod:`nearflash.contract.program`)."""

from __future__ import annotations

import numpy as np

from ..contract import Core, DeviceConfig, cores
from ..contract.program import (
    DENSE_QUANT,
    DRAM,
    EPILOGUE,
    INTERACTION,
    LOGIT_FORMAT,
    dram_weight_address,
    record,
    scale_entry,
    weight_word_beats,
)
from ..reference.mlp import MlpParams

__all__ = ["parameter_image", "weight_words"]


def weight_words(core: Core, weight: np.ndarray, beat_bytes: int) -> bytes:
    """``weight`` [core.rows, core.columns] as the core's weight words, in its scan order, each padded to whole beats."""
    padded = np.zeros((core.row_blocks * core.kr, core.column_blocks * core.kc), f"<i{core.weight_bits // 8}")
    padded[: core.rows, : core.columns] = weight
    blocks = padded.reshape(core.row_blocks, core.kr, core.column_blocks, core.kc)
    order = (0, 2, 1, 3) if core.scan == "row" else (2, 0, 1, 3)
    words = np.ascontiguousarray(blocks.transpose(order)).reshape(core.steps, -1).view(np.uint8)
    out = np.zeros((core.steps, weight_word_beats(core, beat_bytes) * beat_bytes), np.uint8)
    out[:, : words.shape[1]] = words
    return out.tobytes()


def parameter_image(config: DeviceConfig, params: MlpParams, dense: tuple[int, int] = (0, 0)) -> bytes:
    """Every record of ``config``'s graph; ``dense``: (mult, shift) of the dense quantiser. Empty for an empty graph."""
    graph = config.mlp.graph
    if not graph:
        return b""
    out = []
    width = {n.name: n.width for n in graph}
    nodes = {n.name: n for n in graph}
    for c in cores(graph):
        inputs = nodes[c.node].inputs
        first = sum(width[i] for i in inputs[: inputs.index(c.inputs[0])])
        data = weight_words(c, params.fc[c.node].weight[:, first : first + c.columns], config.beat_bytes)
        if c.weights == "dram":
            out.append(record(DRAM, data, dram_weight_address(config, c)))
        else:
            out.append(record(c.index, data))
    for i, n in enumerate(graph):
        if n.kind == "fc":
            p = params.fc[n.name]
            entries = (scale_entry(int(b), int(m), int(s)) for b, m, s in zip(p.bias, p.mult, p.shift, strict=True))
            out.append(record(EPILOGUE + i, b"".join(entries)))
        elif n.kind in ("dot", "mul"):
            out.append(record(INTERACTION + i, scale_entry(0, params.scale[n.name].mult, params.scale[n.name].shift)))
        elif n.kind == "dense":
            entry = dense[0].to_bytes(4, "little") + dense[1].to_bytes(4, "little", signed=True)
            out.append(record(DENSE_QUANT, entry))
    out.append(record(LOGIT_FORMAT, params.logit_exponent.to_bytes(4, "little", signed=True)))
    return b"".join(out)
