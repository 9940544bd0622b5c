"""nearflash: inference next to the flash. Importing this package needs NumPy alone."""

__version__ = "0.1.0"
