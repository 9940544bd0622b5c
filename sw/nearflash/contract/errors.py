"""Errors of the contract: each names the field, the value it had and the limit it broke."""

from __future__ import annotations

from typing import Any


class NearflashError(Exception):
    """Base of every error raised on purpose by nearflash."""


class LimitError(NearflashError, ValueError):
    """A value outside its limit.

    Attributes: ``field`` (dotted name), ``value`` (as given), ``limit`` (text: what would be accepted).
    """

    def __init__(self, field: str, value: Any, limit: str):
        self.field, self.value, self.limit = field, value, limit
        super().__init__(f"{field} = {value!r}: {limit}")


class ConfigError(LimitError):
    """An impossible device configuration."""


class ModelError(LimitError):
    """A model, checkpoint or operator that can't be done exactly; it is refused, never approximated."""


class DataError(LimitError):
    """A malformed input file, table or query."""


class CommandError(NearflashError):
    """The device completed a command with a status other than success.

    Attributes: ``status`` (:class:`nearflash.contract.nvme.Status`), ``dw0``, ``dw1`` (command-specific result words).
    """

    def __init__(self, what: str, status: Any, dw0: int = 0, dw1: int = 0):
        self.what, self.status, self.dw0, self.dw1 = what, status, dw0, dw1
        name = getattr(status, "name", f"{status:#x}")  # a status this library does not know is a bare number
        super().__init__(f"{what}: status {name} (dw0={dw0:#x}, dw1={dw1:#x})")


class DeviceTimeout(NearflashError, TimeoutError):
    """The device did not answer within the cycles or seconds allowed."""
