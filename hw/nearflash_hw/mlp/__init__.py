"""The MLP acceleration engine: integer fully connected cores, interactions and the wiring of a model's graph."""

from .engine import MlpEngine

__all__ = ["MlpEngine"]
