"""What runs on a board: Python 3.10, NumPy and, for the driver, pynq."""
