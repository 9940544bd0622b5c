"""``nearflash report``: what a device costs on a board's FPGA, block by block, synthesised and estimated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from ..contract import BOARDS, ConfigError, DeviceConfig
from ..contract.boards import Board, find_board
from ..contract.resources import RESOURCE_NAMES, ControlSets, Resources
from ..contract.shell import board_config
from ..figures import figure_format, save_figure
from ..tools import load_tool
from .fit import device_of
from .output import JsonFile, check_outputs, console, output_path, text_column, write_json

__all__ = ["records", "report", "resource_table"]

UNITS = {"lut": "LUT6", "lutram": "LUT6", "ff": "flip-flops", "bram18": "RAMB18", "uram": "URAM288", "dsp": "DSP48",
         "carry": "carry bits"}
CHARACTER = 0.75  # width of a treemap's letter, a hundredth of the map
SHOWN = ("lut", "lutram", "ff", "bram18", "uram", "dsp")


def report(
    board: Annotated[str, typer.Option(help=f"Board or part: {', '.join(BOARDS)}, XC7Z020 ...")],
    model: Annotated[str | None, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd or a TOML description: the device that "
                                              "`nearflash fit` chooses for it.")] = None,
    sar: Annotated[str | None, typer.Option(help="base, tiny: with the tensor engine that `nearflash fit` chooses for it, "
                                            "alone or beside --model's.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `nearflash fit -o`, or any device configuration.")] = None,
    block: Annotated[str, typer.Option(help="One block alone: nvme, ftl, channel0, lookup.translator, mlp.core0.")] = "",
    shell: Annotated[bool, typer.Option("--shell", help="With the board's shell around the device.")] = False,
    estimate_only: Annotated[bool, typer.Option("--estimate-only", help="No synthesis: seconds, not minutes.")] = False,
    plot: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="Write a treemap of LUTs and "
                                              "flip-flops (PNG, PDF, SVG).")] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Synthesise a device (Yosys) and report LUT, LUTRAM, FF, BRAM, URAM, DSP and control sets of every block.

    Every block is synthesised apart and flattened, so nothing is optimised across blocks; results are cached by content.
    Beside each measured figure stands the estimate made before synthesis, and its error. The JSON file holds the figures as
    a list of {name, unit, value}.

    Example: nearflash report --board pynq-z2 --model rmc1 --plot rmc1.png --json rmc1.json
    """
    check_outputs(plot=plot, json_file=json_file)
    if plot is not None:
        figure_format(plot, "--plot")
    target = find_board(board)
    if shell and estimate_only:
        raise ConfigError("--shell", True, "can't be combined with --estimate-only: a shell is not estimated")
    config = device_of(target, model, plan, sar)
    if shell:
        config = board_config(config, target)
    expected: dict[str, Resources] = load_tool("estimator")(target.part.family).device(config)
    tool = f"estimate ({target.part.family})"
    measured: dict[str, Resources] = {}
    sets: dict[str, ControlSets] = {}
    if not estimate_only:
        found = synthesised(config, target, block, shell)
        measured, tool = found.units, found.tool
        sets = {**found.control_sets, "total": found.total_control_sets}
    elif block:
        within = {p: r for p, r in expected.items() if p == block or p.startswith(block + ".")}
        if not within:
            raise ConfigError("--block", block, f"must be one of {', '.join(filter(None, expected))}")
        expected = within
    if plot is not None:
        draw_treemap(measured or expected, f"{config.name} on {target.part.name}", plot)
    write_json(json_file, {"tool": tool, "part": target.part.name, "board": target.name, "device": config.name,
                           "design_id": f"{config.design_id:#010x}", "hierarchy": "kept between blocks, flattened in them",
                           "results": records(target, measured, expected, sets)})
    resource_table(f"{config.name}{f', block {block}' if block else ''} on {target.part.name}; {tool}", target, measured,
                   expected, sets)
    if plot is not None:
        console.print(f"written to {plot}")


def synthesised(config: DeviceConfig, target: Board, block: str = "", shell: bool = False) -> Any:
    """What synthesis measures (``nearflash_hw.synthesis.report.Measured``), with a progress bar."""
    measure = load_tool("synthesis")
    columns = (text_column("synthesising"), BarColumn(), MofNCompleteColumn(), text_column("blocks, {task.fields[last]}"),
               TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("synthesis", total=None, last="generating the device")
        board = target if shell else None
        return measure(config, target.part.family, block, shell=board, progress=lambda path, n, of: progress.update(
            task, completed=n, total=of, last=path or "top"))


def _cells(r: Resources, target: Board) -> list[str]:
    shares = r.shares(target.part)
    out = []
    for name in SHOWN:
        v = getattr(r, name)
        text = f"{v / 2:g}" if name == "bram18" else f"{v:,.0f}"
        out.append(f"{text} ({100 * shares[name]:.1f} %)" if name in shares and v else text)
    return out


def _error(measured: Resources, expected: Resources | None) -> str:
    if expected is None:
        return "-"
    out = []
    for name in ("lut", "ff"):
        want, got = getattr(measured, name), getattr(expected, name)
        out.append(f"{100 * (got / want - 1):+.0f} %" if want else f"{got:+.0f}")
    out += [f"{(expected.bram18 - measured.bram18) / 2:+g}", f"{expected.dsp - measured.dsp:+.0f}"]
    return " ".join(out)


def _sets(sets: ControlSets | None) -> str:
    return "" if sets is None else f"{sets.count:,d} ({sets.single:,d})"


def resource_table(title: str, target: Board, measured: dict[str, Resources], expected: dict[str, Resources],
                   sets: dict[str, ControlSets]) -> None:
    """Print blocks by their room, rooms added up. ``measured`` may be empty: then the estimates are shown. ``sets``: control
    sets by unit and of the "total"."""
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("block")
    for heading in ("LUT", "of it memory", "FF", "BRAM36", "URAM", "DSP"):
        table.add_column(heading, justify="right")
    if measured:
        table.add_column("control sets (of one FF)", justify="right")
        table.add_column("estimate - measured: LUT FF BRAM36 DSP", justify="right")
    shown = measured or expected
    rooms: dict[str, list[str]] = {}
    for path in shown:
        rooms.setdefault(path.split(".")[0], []).append(path)
    for room, paths in rooms.items():
        total = sum((shown[p] for p in paths), Resources())
        guess = sum((expected[p] for p in paths), Resources()) if all(p in expected for p in paths) else None
        if len(paths) > 1 or total != Resources():
            table.add_row(room or "top", *_cells(total, target),
                          *([_sets(sets.get(room) if len(paths) == 1 else None), _error(total, guess)] if measured else []))
        for path in paths if len(paths) > 1 else []:
            table.add_row(f"  {path}" if path != room else f"  {room}, its own", *_cells(shown[path], target),
                          *([_sets(sets[path]), _error(shown[path], expected.get(path))] if measured else []), style="dim")
    total = sum(shown.values(), Resources())
    whole = sum((expected[p] for p in shown if p in expected), Resources())
    table.add_section()
    table.add_row("total", *_cells(total, target), *([_sets(sets["total"]), _error(total, whole)] if measured else []),
                  style="bold")
    console.print(table)


def records(target: Board, measured: dict[str, Resources], expected: dict[str, Resources],
            sets: dict[str, ControlSets]) -> list[dict[str, Any]]:
    """``{name, unit, value}`` of every block and the total: measured, estimated, and shares of the part; ``sets``: control
    sets by unit and of the "total"."""
    out: list[dict[str, Any]] = []

    def add(path: str, kind: str, r: Resources) -> None:
        for name in RESOURCE_NAMES:
            out.append({"name": f"{path or 'top'}/{kind}_{name}_count", "unit": UNITS[name], "value": getattr(r, name)})

    for kind, blocks in (("measured", measured), ("estimated", expected)):
        for path, r in blocks.items():
            add(path, kind, r)
        if blocks:
            total = sum(blocks.values(), Resources())
            add("total", kind, total)
            for name, share in total.shares(target.part).items():
                out.append({"name": f"total/{kind}_{name}_share", "unit": f"of {target.part.name}", "value": share})
    for path, found in sets.items():
        out += [{"name": f"{path or 'top'}/measured_{name}_count", "unit": "control sets", "value": value}
                for name, value in (("control_sets", found.count), ("single_ff_control_sets", found.single))]
    return out


def draw_treemap(blocks: dict[str, Resources], title: str, path: Path) -> None:
    """Areas in proportion to LUTs (left) and flip-flops (right), a colour for each room."""
    import squarify
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    rooms = list(dict.fromkeys(p.split(".")[0] for p in blocks))
    colours = {room: colormaps["tab20"](i % 20) for i, room in enumerate(rooms)}
    for axes, name, heading in zip(figure.subplots(1, 2), ("lut", "ff"), ("LUT", "flip-flops"), strict=True):
        some = sorted(((getattr(r, name), p) for p, r in blocks.items() if getattr(r, name) > 0),
                      key=lambda s: (rooms.index(s[1].split(".")[0]), -s[0]))
        sizes = squarify.normalize_sizes([s for s, _ in some], 100, 60)
        for (count, p), box in zip(some, squarify.squarify(sizes, 0, 0, 100, 60), strict=True):
            axes.add_patch(_rectangle(box, colours[p.split(".")[0]]))
            label, upright = p.split(".")[-1] or "top", box["dy"] > 2 * box["dx"]
            if max(len(label), 6) * CHARACTER < box["dy" if upright else "dx"] and box["dx"] * box["dy"] > 20:
                axes.text(box["x"] + box["dx"] / 2, box["y"] + box["dy"] / 2, f"{label}\n{count:,.0f}", ha="center",
                          va="center", fontsize=7, rotation=90 if upright else 0)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 60)
        axes.set_axis_off()
        axes.set_title(f"{heading}: {sum(s for s, _ in some):,.0f}", loc="left", fontsize=11)
    figure.suptitle(title)
    save_figure(figure, path)


def _rectangle(box: dict[str, float], colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((box["x"], box["y"]), box["dx"], box["dy"], facecolor=colour, edgecolor="white", linewidth=1.5)
