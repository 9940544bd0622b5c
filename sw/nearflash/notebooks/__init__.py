"""Notebooks for boards, real and virtual, and one for the simulated tensor engine: ``pynq get-notebooks nearflash``."""
