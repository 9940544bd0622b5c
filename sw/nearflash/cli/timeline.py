"""``nearflash timeline``: what a device does when, to look at and to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .output import JsonFile, check_outputs, console, write_json

__all__ = ["timeline"]

timeline = typer.Typer(no_args_is_help=True, help="Timelines of `nearflash evaluate --timeline` and `nearflash run "
                                                   "--timeline` (Perfetto's format).")


@timeline.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A timeline.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Name the first place where two timelines differ. Exit code 1 if they do.

    Example: nearflash timeline diff before.pftrace after.pftrace
    """
    check_outputs(json_file=json_file)
    from ..timeline import Slice, read_timeline
    from ..timeline.slices import first_difference

    a, b = read_timeline(before), read_timeline(after)
    found = first_difference(a, b)
    counts = [sum(map(len, t.values())) for t in (a, b)]

    def plain(s: Slice | None) -> dict[str, Any] | None:
        return None if s is None else {"name": s.name, "begin_ns": s.begin, "end_ns": s.end}

    write_json(json_file, {"before": str(before), "after": str(after), "slices_before": counts[0], "slices_after": counts[1],
                           "equal": found is None, **({} if found is None else {
                               "track": found.track, "number": found.number, "slice_before": plain(found.before),
                               "slice_after": plain(found.after)})})
    if found is None:
        console.print(f"no difference: {counts[0]:,} slices on {len(a)} tracks")
        return

    def text(s: Slice | None) -> str:
        return "none" if s is None else f"{s.name or 'slice'} @ {s.begin:,} to {s.end:,} ns"

    console.print(f"first difference: {found.track}, slice {found.number}\n  {before}: {text(found.before)}\n"
                  f"  {after}: {text(found.after)}")
    raise typer.Exit(1)
