"""Options that make no sense together are refused, not ignored."""

from __future__ import annotations

from typing import Any

import typer

from ..contract.errors import ConfigError

__all__ = ["check_range", "excludes", "given", "needs", "option"]


def option(ctx: typer.Context, name: str) -> str:
    """How parameter ``name`` of a command is spelled: ``--act-bits``."""
    return next(p.opts[0] if p.opts[0].startswith("-") else name for p in ctx.command.params if p.name == name)


def given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave parameter ``name``, be it its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def excludes(ctx: typer.Context, first: str, *others: str) -> None:
    """Raises :class:`ConfigError` if parameter ``first`` is given together with one of ``others``."""
    for name in others if given(ctx, first) else ():
        if given(ctx, name):
            raise ConfigError(option(ctx, name), _text(ctx.params[name]), f"can't be combined with {option(ctx, first)}")


def needs(ctx: typer.Context, condition: bool, what: str, *names: str) -> None:
    """Raises :class:`ConfigError` if one of ``names`` is given and ``condition``, in words ``what``, isn't true."""
    for name in names if not condition else ():
        if given(ctx, name):
            raise ConfigError(option(ctx, name), _text(ctx.params[name]), f"needs {what}: it would change nothing")


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raises :class:`ConfigError` for a number above ``high``, not above ``low``, or none (nan)."""
    if value is not None and not low < value <= high:
        raise ConfigError(name, value, f"must be above {low:g}" + (f" and at most {high:g}" if high < float("inf") else ""))


def _text(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)
