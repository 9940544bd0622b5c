"""A device on a PYNQ board. Python 3.10, NumPy and pynq alone.

The way of a query: :mod:`nearflash.runtime` -> :mod:`.backend` -> ``pynq.MMIO`` and ``pynq.allocate``. Without a board, the
same
code runs on the virtual one (``NEARFLASH_BOARD=sim:pynq-z2``).
"""
