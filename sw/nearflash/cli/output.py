"""How commands report: tables for people on standard output, one JSON file for programs, one line for an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import typer
from rich.console import Console
from rich.progress import ProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from ..contract.errors import ConfigError, LimitError, NearflashError
from ..whole import STDOUT, check_target, is_stream, whole_file

__all__ = ["JsonFile", "begin", "check_outputs", "console", "emit", "geometry", "one_line", "output_path",
           "show", "text_column", "working", "write_json"]

_STDOUT_NAMES = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class _Console(Console):
    """Plain text: what a file or a key is called is never taken for markup or an emoji. Once nobody reads standard output
    any more (``| head``) it says nothing, and the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2 if self.stderr else 1)


# Logs get whole tables, not 80 columns
console = _Console(highlight=False, markup=False, emoji=False,
                   width=None if sys.stdout is not None and sys.stdout.isatty() else 120)


class _State:
    """Of the command that runs: whether standard output was closed when it began."""

    closed: ClassVar[bool] = False


def begin(*, closed: bool = False) -> None:
    """Start a command: tables go to standard output, which was ``closed`` or not."""
    console.quiet = console.stderr = False
    _State.closed = closed


def output_path(text: str | Path) -> Path:
    """An output option's value. ``-`` and the names of standard output are :data:`~nearflash.whole.STDOUT`; ``./-`` is a
    file of that name."""
    name = str(text)
    if name == "-" or name in _STDOUT_NAMES:
        return STDOUT
    if not name or name.endswith("/"):
        raise typer.BadParameter(f"{name!r} must be the name of a file")
    return Path.cwd() / name if Path(name) == STDOUT else Path(name)


#: The option of every command that writes its result as JSON.
JsonFile = typer.Option("--json", parser=output_path, metavar="FILE", help="Write the result to this file as JSON; - is "
                        "standard output, and tables then go to standard error.")


def check_outputs(**targets: Path | None) -> None:
    """Check, before the work, what will be written: ``targets`` by the options' names, ``json_file`` for ``--json``.

    With one of them on standard output, everything else printed goes to standard error. Raises ``OSError`` for one that
    can't be written, :class:`ConfigError` for two of one name and for a closed standard output.
    """
    seen: dict[str, str] = {}
    for name, target in targets.items():
        if target is None:
            continue
        option = "--" + name.removesuffix("_file").replace("_", "-")
        if target == STDOUT:
            if _State.closed:
                raise ConfigError(option, "-", "standard output is closed")
            console.stderr = True
        check_target(target)
        place = str(target) if is_stream(target) else os.path.realpath(target)
        if place in seen and (target == STDOUT or not is_stream(target)):
            raise ConfigError(option, str(target), f"is what {seen[place]} writes too: choose another name")
        seen[place] = option


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write ``result`` to ``path`` (nothing if None), whole or not at all; folders are made."""
    if path is None:
        return
    with whole_file(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")


def emit(text: str, elsewhere: Path | None) -> None:
    """Print a command's own result: plain, unwrapped, for programs. Raises :class:`ConfigError` if nobody could get it,
    standard output being closed and the result not written ``elsewhere`` either."""
    if _State.closed and elsewhere is None:
        raise ConfigError("standard output", "closed", "must be open: this command prints its result")
    print(text, end="", file=sys.stderr if console.stderr else sys.stdout)


def geometry(channels: int, dies: int, planes: int) -> str:
    """A device's flash in a few words."""
    return f"{channels} channels x {dies} dies" + (f" x {planes} planes" if planes > 1 else "")


def show(title: str, rows: Iterable[tuple[str, str | Text, str]]) -> None:
    """A table of (what, value, note)."""
    table = Table(title=title, title_justify="left", show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def text_column(form: str) -> ProgressColumn:
    """A progress bar's text, never taken for markup."""
    return TextColumn(form, markup=False)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Say ``text`` while the block runs, on a terminal; yields a function that changes it."""
    with console.status(Text(text)) as status:
        yield lambda text: status.update(Text(text))


def one_line(error: Exception) -> str | None:
    """What standard error says of ``error``; None for one that is a bug's."""
    name = type(error).__name__
    usage, click_error = typer.BadParameter.__mro__[1:3]  # whichever click this typer carries
    if isinstance(error, click_error):
        context = getattr(error, "ctx", None)
        text, hint = error.format_message(), ""  # type: ignore[attr-defined]
        if name == "NoArgsIsHelpError":  # the text is the help, and empty where it's printed already
            return text
        if isinstance(error, usage) and context is not None:
            broken = getattr(error.__cause__, "errors", list)()  # pydantic's, which does not name the value
            hint = f" (given: {broken[0]['input']!r})" if broken and "input" in broken[0] else ""
            hint += f" (see {context.command_path} --help)"
        return f"nearflash: {_printable(text)}{hint}"
    if isinstance(error, MemoryError) or _out_of_memory(error):
        return f"nearflash: {name}: not enough memory: {_printable(str(error)) or 'none left'}"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("nearflash"):
        return f"nearflash: {error.name} is missing: pip install 'nearflash[all]'"
    if isinstance(error, NearflashError) and not isinstance(error, (LimitError, OSError)):
        return f"nearflash: {name}: " + "\n".join(map(_printable, str(error).split("\n")))  # may end with a tool's output
    if isinstance(error, (NearflashError, OSError, UnicodeDecodeError)):  # bad input, a file that's not there or not text
        return f"nearflash: {name}: {_printable(str(error))}"
    return None


def _out_of_memory(error: Exception) -> bool:
    """PyTorch has no MemoryError."""
    return isinstance(error, RuntimeError) and (type(error).__name__ == "OutOfMemoryError"
                                                or "can't allocate memory" in str(error))


def _printable(text: str) -> str:
    """``text`` in one line, with no control characters a terminal would obey."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else ascii(c)[1:-1] for c in text)
