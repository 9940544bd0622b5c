"""Verbs for Amaranth-simulator test benches."""

from .amaranth import MemoryModel, StreamSink, StreamSource, simulate

__all__ = ["MemoryModel", "StreamSink", "StreamSource", "simulate"]
