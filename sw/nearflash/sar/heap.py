"""Keep the memory of large arrays in the process between steps."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_large_blocks"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_large_blocks(limit: int = 1 << 28) -> None:
    """Have glibc's allocator reuse blocks of up to ``limit`` bytes instead of returning them to the kernel.

    By default every tensor above 32 MiB is mapped and unmapped anew, and its pages zeroed: on a CPU that was a third of a
    training step. Does nothing where the C library isn't glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, limit)
    libc.mallopt(M_TRIM_THRESHOLD, 4 * limit)
