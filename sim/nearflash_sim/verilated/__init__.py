"""A generated device as a compiled, cycle-exact model: :func:`build_library` makes it, :class:`VerilatedDevice` runs it."""

from .build import BuildError, Library, build_library, cached_verilog
from .device import AxiProtocolError, Memory, Misuse, RegisterError, VerilatedDevice

__all__ = ["AxiProtocolError", "BuildError", "Library", "Memory", "Misuse", "RegisterError", "VerilatedDevice",
           "build_library", "cached_verilog"]
