"""The MLP engine of a device alone, compiled with Verilator: no flash, no host, nothing to wait for."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.program import DRAM, UNIT
from nearflash.quantize import CompiledModel
from nearflash.reference.fp32 import quantize_fp32
from nearflash.reference.mlp import run_graph
from nearflash_hw.interfaces import Layouts
from nearflash_hw.mlp import MlpEngine
from nearflash_hw.model.memories import without_zeros
from nearflash_hw.verilog import to_verilog
from nearflash_sim.verilated.build import cached_verilog

from .library import compiled

__all__ = ["Measured", "measure_engine"]

HARNESS = Path(__file__).with_name("engine.cpp")
MAX_CYCLES = 2_000_000


@dataclass(frozen=True)
class Measured:
    """One sample, counted in the engine's RTL: cycles that it is inside, cycles from the last input element to the last
    logit, and cycles in which any core took a step."""

    busy: int
    after_input: int
    stepping: int


class _Top(wiring.Component):
    """An engine without its memory port (all weights are on chip), and ``table``, a word of Verilog's, called ``quant``."""

    def __init__(self, config: DeviceConfig):
        self.engine = MlpEngine(config)
        members = self.engine.signature.members
        super().__init__({
            **{name: members[name] for name in ("dense", "pooled", "parameter", "logit", "busy", "mac_step")},
            "quant_valid": In(1), "quant": In(Layouts.of(config).table_write)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        for name in ("dense", "pooled", "parameter", "logit"):
            connect(m, flipped(getattr(self, name)), getattr(engine, name))
        m.d.comb += [engine.table_valid.eq(self.quant_valid), engine.table.eq(self.quant), self.busy.eq(engine.busy),
                     self.mac_step.eq(engine.mac_step)]
        return m


def _verilog(config: DeviceConfig) -> str:
    with without_zeros():  # the simulation begins with zeros anyway
        return to_verilog(_Top(config), "engine")


def _library(config: DeviceConfig) -> Path:
    return compiled(cached_verilog(f"engine {config!r}", lambda: _verilog(config)), "engine", HARNESS)


class _Stream(ctypes.Structure):
    _fields_ = (("items", ctypes.c_void_p), ("count", ctypes.c_uint64), ("words", ctypes.c_uint64))


class _Result(ctypes.Structure):
    _fields_ = (("last_input", ctypes.c_int64), ("last_logit", ctypes.c_int64), ("busy", ctypes.c_uint64),
                ("steps", ctypes.c_uint64), ("logits", ctypes.c_uint64))


def _words(layout: data.StructLayout) -> int:
    return -(-layout.size // 32)


def _packed(layout: data.StructLayout, items: list[dict[str, Any]]) -> np.ndarray:
    """Payloads as rows of 32-bit words."""
    words = _words(layout)
    content = b"".join(layout.const(i).as_value().value.to_bytes(4 * words, "little") for i in items)
    return np.frombuffer(content, np.uint32).reshape(len(items), words)


def _parameters(config: DeviceConfig, image: bytes) -> np.ndarray:
    """The beats of a parameter image's records."""
    layout, beat = Layouts.of(config).parameter, config.beat_bytes
    words, out, at = _words(layout), [], 0
    while at < len(image):
        target, units, _ = struct.unpack_from("<IIQ", image, at)
        assert target != DRAM, "all weights must be on chip"
        raw = np.frombuffer(image, np.uint8, units * UNIT, at + UNIT)
        raw = np.pad(raw, (0, -len(raw) % beat)).reshape(-1, beat)
        rows = np.zeros((len(raw), 4 * words), np.uint8)
        rows[:, :beat] = raw
        flags = np.full(len(raw), target, np.uint32)  # above the data: target, first, last
        flags[0] |= 1 << 16
        flags[-1] |= 1 << 17
        rows[:, beat : beat + 4] = flags.view(np.uint8).reshape(-1, 4)
        out.append(rows)
        at += UNIT + units * UNIT
    return np.ascontiguousarray(np.concatenate(out)).view(np.uint32)


def measure_engine(compiled: CompiledModel, samples: int = 2, seed: int = 1) -> Measured:
    """Random samples, one after the other, through the engine of ``compiled``; raises :class:`RuntimeError` if a logit
    differs from the reference model's or if samples take different times."""
    config = compiled.config
    layouts, graph, bits = Layouts.of(config), config.mlp.graph, config.mlp.act_bits
    library = ctypes.CDLL(str(_library(config)))
    library.engine_create.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.engine_create())
    rng = np.random.default_rng(seed)

    def run(streams: dict[int, np.ndarray], logits: int) -> tuple[_Result, np.ndarray]:
        arrays = [np.ascontiguousarray(streams.get(k, np.zeros((0, 1), np.uint32))) for k in range(4)]
        ins = (_Stream * 4)(*(_Stream(a.ctypes.data, a.shape[0], a.shape[1]) for a in arrays))
        out, result = np.zeros((max(1, logits), _words(layouts.logit)), np.uint32), _Result()
        if library.engine_run(handle, ins, ctypes.c_uint64(logits), ctypes.c_uint64(50), ctypes.c_uint64(MAX_CYCLES),
                              ctypes.c_void_p(out.ctypes.data), ctypes.c_uint64(out.shape[1]), ctypes.byref(result)):
            raise RuntimeError(f"no {logits} logits within {MAX_CYCLES} cycles")
        return result, out

    tables = [{"table": t, "quant_mult": s.quant_mult, "quant_shift": s.quant_shift} for t, s in enumerate(compiled.tables)]
    seen: set[Measured] = set()
    try:
        run({0: _packed(layouts.table_write, tables), 1: _parameters(config, compiled.image)}, 0)
        dense_width = next((n.width for n in graph if n.kind == "dense"), 0)
        for _ in range(samples):
            dense = rng.standard_normal((1, dense_width)).astype(np.float32) * 2
            pooled = [rng.standard_normal((1, t.dim)).astype(np.float32) * 2 for t in compiled.tables]
            quantised = [quantize_fp32(p, s.quant_mult, s.quant_shift, bits)
                         for p, s in zip(pooled, compiled.tables, strict=True)]
            dense_q = quantize_fp32(dense, *compiled.dense_quant, bits) if dense_width else None
            want = run_graph(graph, bits, compiled.params, dense_q, quantised)[1].ravel().view(np.uint32)
            meta = {"n": 0, "nb": 0, "last": 1, "lookup": 0, "tables": len(pooled)}
            features = [{"value": int(v), "last": int(k == dense_width - 1), "sample": meta}
                        for k, v in enumerate(dense[0].view(np.uint32))]
            elements = [{"value": int(v), "table": t, "last_of_table": int(k == p.size - 1), "bad": 0, "sample": meta,
                         "last_of_sample": int(k == p.size - 1 and t == len(pooled) - 1)}
                        for t, p in enumerate(pooled) for k, v in enumerate(p[0].view(np.uint32))]
            streams = {3: _packed(layouts.pooled_element, elements)}
            if features:
                streams[2] = _packed(layouts.dense_element, features)
            r, out = run(streams, want.size)
            if r.logits != want.size or sorted(out[:, 0].tolist()) != sorted(want.tolist()):
                raise RuntimeError("the engine's logits differ from the reference model's")
            seen.add(Measured(r.busy, r.last_logit - r.last_input, r.steps))
    finally:
        library.engine_destroy(handle)
    if len(seen) != 1:
        raise RuntimeError(f"equal samples take different times: {seen}")
    return seen.pop()
