"""Verbs for Amaranth-simulator test benches."""

from .amaranth import reused, simulate
from .streams import StreamSink, StreamSource

__all__ = ["StreamSink", "StreamSource", "reused", "simulate"]
