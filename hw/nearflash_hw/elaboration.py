"""Elaboration without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["without_gc"]


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """No cyclic garbage collection in the body; as it was afterwards.

    Amaranth's elaboration makes millions of objects that all live to its end: every collection walks the whole design and
    frees nothing, up to half of the time. Blocks may be nested; the switch is one of the whole process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
