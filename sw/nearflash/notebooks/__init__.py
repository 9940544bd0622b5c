"""Notebooks for boards, real and virtual: ``pynq get-notebooks nearflash``."""
