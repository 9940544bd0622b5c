"""Verbs for Amaranth-simulator test benches."""

from .amaranth import MemoryModel, StreamSink, StreamSource, reused, simulate

__all__ = ["MemoryModel", "StreamSink", "StreamSource", "reused", "simulate"]
