"""Options that make no sense together are refused, not ignored."""

from __future__ import annotations

from typing import Any

import typer

from ..contract.errors import ConfigError

__all__ = ["excludes", "needs"]


def excludes(ctx: typer.Context, first: str, *others: str) -> None:
    """Raises :class:`ConfigError` if parameter ``first`` is given together with one of ``others``."""
    for name in others if _given(ctx, first) else ():
        if _given(ctx, name):
            raise ConfigError(_option(ctx, name), _value(ctx, name), f"can't be combined with {_option(ctx, first)}")


def needs(ctx: typer.Context, met: bool, what: str, *names: str) -> None:
    """Raises :class:`ConfigError` if a parameter of ``names`` is given where ``what`` is not, so that it has no effect."""
    for name in names if not met else ():
        if _given(ctx, name):
            raise ConfigError(_option(ctx, name), _value(ctx, name), f"has no effect without {what}")


def _given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave parameter ``name``, be it its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _option(ctx: typer.Context, name: str) -> str:
    """How parameter ``name`` is spelled: ``--act-bits``."""
    return next(p.opts[0] for p in ctx.command.params if p.name == name)


def _value(ctx: typer.Context, name: str) -> Any:
    value = ctx.params[name]
    return value if isinstance(value, (int, float, str)) else str(value)
