"""Errors of the contract: each names the field, the value it had and the limit it broke, and the file it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LONGEST_PART, LONGEST_LIMIT = 200, 1000  # characters of a field or value, and of a limit, that a message shows


class NearflashError(Exception):
    """Base of every error raised on purpose by nearflash."""


def _one_line(text: str) -> str:
    """``text`` with what can't be printed on one line (control characters, lone surrogates) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python converts
        return "a huge number"
    return _cut(text, LONGEST_PART)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


class LimitError(NearflashError, ValueError):
    """A value outside its limit. The message is one line, whatever the value holds.

    Attributes: ``field`` (dotted name), ``value`` (as given), ``limit`` (text: what would be accepted), ``file`` (where it
    was read, or None).
    """

    def __init__(self, field: str, value: Any, limit: str, file: str | None = None):
        self.field, self.value, self.limit, self.file = field, value, limit, file
        where = "" if file is None else f"{file}: "
        super().__init__(_one_line(f"{where}{_cut(field, LONGEST_PART)} = {_shown(value)}: {_cut(limit, LONGEST_LIMIT)}"))

    def within(self, file: str | Path) -> None:
        """Say that the value came from ``file``, unless a file is named already."""
        if self.file is None:
            LimitError.__init__(self, self.field, self.value, self.limit, str(file))


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
