"""How the loops are compiled, and where what was compiled is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nearflash.cache import cache_dir, filled_alone, sources_digest
from nearflash_hw.elaboration import without_gc
from numba import config, njit

__all__ = ["apart", "compiled", "entry", "first_call", "within"]

# numba asks for a function anew only when its own file changes, not when one that it calls does: a folder for each state of
# the sources.
_FOLDER = cache_dir() / "timing" / sources_digest("nearflash_sim.timing.loops")


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_FOLDER)
    try:
        # Most arguments are arrays. References to them aren't counted, since nothing here makes one (8 times the speed).
        given: dict[str, Any] = {"error_model": "numpy", "_nrt": False, **options}
        return njit(cache=True, **given)(function)
    finally:
        config.CACHE_DIR = before


def entry(function: Callable[..., Any]) -> Any:
    """``function``, compiled at its first call from Python, or taken from the cache."""
    return _compiled(function)


@contextlib.contextmanager
def first_call(function: Any) -> Iterator[None]:
    """Around a call of ``function``, an :func:`entry`: of the processes that call it for the first time, one compiles it, a
    minute's work, and the others find it in the cache. numba copies a function with all its names once for each block of
    what becomes part of it, through which the garbage collector would go again and again."""
    if function.signatures:
        yield
        return
    with filled_alone(_FOLDER), without_gc():
        yield


def compiled(function: Callable[..., Any]) -> Any:
    """The same of one that only others call, where it is inlined: handing on the arrays would take longer than what it does
    (2.5 times the speed). What would let Python call it takes longer to compile than most of these do."""
    return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def within(function: Callable[..., Any]) -> Any:
    """The same of a long one: it is part of its caller before anything is compiled. Each function is compiled with all that
    it calls, so long ones that call one another would be compiled again at every level; of short ones there are too many
    for this, as the caller is copied for each."""
    return _compiled(function, inline="always", no_cpython_wrapper=True, no_cfunc_wrapper=True)


def apart(function: Callable[..., Any]) -> Any:
    """The same of a long one that is called seldom, and so isn't inlined."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
