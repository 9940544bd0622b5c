"""Where a table's rows should lie: orders learnt from queries. NumPy only."""

from .orders import METHODS, Geometry, learn, striped

__all__ = ["METHODS", "Geometry", "learn", "striped"]
