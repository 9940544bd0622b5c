"""Figures as files: the formats, by a name's suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .contract.errors import ConfigError
from .whole import is_stream, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "figure_format", "save_figure"]

FORMATS = ("png", "pdf", "svg")
DPI = 130


def figure_format(path: Path, field: str = "figure") -> str:
    """The format that ``path`` asks for; PNG for a device or standard output. Raises :class:`ConfigError` for another."""
    kind = path.suffix[1:].lower()
    if not kind and is_stream(path):
        return "png"
    if kind not in FORMATS:
        raise ConfigError(field, str(path), f"must end in {', '.join('.' + f for f in FORMATS)}")
    return kind


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` (PNG, PDF or SVG by its suffix), whole or not at all; folders are made."""
    kind = figure_format(path)
    with whole_file(path) as part:
        figure.savefig(part, format=kind, dpi=DPI)
