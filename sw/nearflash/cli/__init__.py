"""The ``nearflash`` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point: runs the command; bad input becomes one line on standard error and exit code 2."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        sys.exit("the nearflash command needs more than the host library: pip install 'nearflash[all]'")
    from ..contract import NearflashError
    from .app import app

    try:
        app()
    except (NearflashError, OSError, UnicodeDecodeError) as e:  # bad input, a file that is not there or not text
        from rich.console import Console

        Console(stderr=True).print(f"[red]nearflash: {type(e).__name__}: {e}[/red]", highlight=False)
        sys.exit(2)
