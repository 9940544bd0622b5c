"""Pooling: rows to fixed-point sums to fp32 vectors.

A row passes ``row_buffer`` (factors: ``row_scale``), ``issue`` (cut into words), ``accumulators`` (``lane``:
conversion; then the addition); a drained slot passes ``drain`` (``divider`` for means). ``tables`` holds the parameters,
``touched`` which accumulators hold something, ``shapes`` every width.
"""

from .pooling import Pooling

__all__ = ["Pooling"]
