"""Options that make no sense together are refused, not ignored; so are numbers that Python alone reads as such."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import typer

from ..contract.errors import ConfigError

__all__ = ["excludes", "needs", "plain_numbers"]


def plain_numbers(args: list[str]) -> None:
    """Raises :class:`ConfigError` if an option's value is a number to Python and to nobody else: ``1_000``, other digits
    than 0 to 9, spaces around."""
    for option, value in pairwise(["", *args]):
        if m := re.fullmatch(r"(--[\w-]+)=(.*)", value, re.DOTALL):
            option, value = m.groups()
        if option.startswith("--") and (not value.isascii() or re.search(r"[_\s]", value)) and _python_number(value):
            raise ConfigError(option, value, "must be digits alone (a file of that name: ./ before it)")


def _python_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
