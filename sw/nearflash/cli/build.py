"""``nearflash build``: a board's folder, from one command: Verilog, constraints, scripts, hand-off file, manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contract import BOARDS, PRESETS, ConfigError, DataError, DeviceConfig
from ..contract.boards import PYNQ_BOARDS, Board, find_board
from ..contract.shell import board_config
from ..overlays import design_config
from ..tools import load_tool
from .fit import fit_board, load_plan, load_spec
from .options import needs
from .output import JsonFile, check_outputs, console, show, working, write_json

if TYPE_CHECKING:
    from ..compiler.fit import Fit

__all__ = ["build", "device_for", "predictions"]


def build(
    ctx: typer.Context,
    board: Annotated[str, typer.Option(help=f"Board: {', '.join(b.name for b in PYNQ_BOARDS)}.")],
    out: Annotated[Path, typer.Option(help="Folder to write; one that an earlier build wrote is replaced.")],
    model: Annotated[str | None, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd or a TOML description: the device that "
                                              "`nearflash fit` chooses for it.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `nearflash fit -o`.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Device preset: {', '.join(sorted(PRESETS))}.")] = None,
    config: Annotated[Path | None, typer.Option(help="Any device configuration (TOML).")] = None,
    design: Annotated[str | None, typer.Option(help="A design that ships with its model: movietweetings.")] = None,
    clock: Annotated[float | None, typer.Option(help="Device clock in MHz (default: a plan's or a configuration's own; else "
                                                "the fastest that the board can make and should run at).")] = None,
    run: Annotated[bool | None, typer.Option("--run/--no-run", help="Run the tool too (default: if it is there).")] = None,
    tool: Annotated[str, typer.Option(help="vivado, open (Yosys, nextpnr-xilinx, project X-Ray; Zynq-7000 alone), or auto: "
                                      "the first that is there.")] = "auto",
    bitstreams: Annotated[Path, typer.Option(help="Folder under which a bitstream is filed, by board and name.")] = Path(
        "bitstreams"),
    seconds: Annotated[int, typer.Option(help="Limit on the tool's run.", min=1)] = 6 * 3600,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Write everything that makes a bitstream for a board, and make it where Vivado or the open flow is installed.

    The folder holds the Verilog of the device and its shell, constraints, Vivado's script, the open flow's (Zynq-7000), the
    hand-off file for PYNQ, a manifest and a README. The same input gives the same bytes. Nothing here has been run on a
    board yet.

    Example: nearflash build --board pynq-z2 --model rmc1 --out build/rmc1
    """
    check_outputs(json_file=json_file)
    needs(ctx, run is not False, "a tool that runs", "seconds", "bitstreams")
    given = [(o, v) for o, v in (("--model", model), ("--plan", plan), ("--preset", preset), ("--config", config),
                                ("--design", design)) if v]
    if len(given) != 1:
        raise ConfigError("device", ", ".join(o for o, _ in given) or "none", "must be one of --model, --plan, --preset, "
                          "--config and --design")
    target = find_board(board)
    source = given[0][1]
    stem = Path(source).stem if isinstance(source, Path) or source.endswith(".toml") else source
    made = load_tool("build")(target, stem, out, tool, run, bitstreams)
    with working("planning") as say:
        device, found = device_for(target, model, plan or config, preset, clock, say, design)
        predicted = predictions(device, found)
        built = made.contents(device, predicted, say)
        made.write(built)
        bitstream = made.make_bitstream(device, predicted, built, seconds, say)
    write_json(json_file, _record(target, device, out, built, made, predicted, bitstream))
    _show(target, device, out, built, made, bitstream)


def device_for(board: Board, model: str | None, file: Path | None, preset: str | None, clock: float | None,
               say: Callable[[str], None], design: str | None = None) -> tuple[DeviceConfig, Fit | None]:
    """The device with the bus that ``board`` takes, and the fit it comes from.

    Raises :class:`ConfigError` for a clock or memory that the board hasn't, and a plan that was made for another part."""
    if board.ps is None:
        raise ConfigError("--board", board.name, "has no processing system that a shell is generated for")
    if clock is not None:
        board.ps.divisors(clock)
    found = None
    if model is not None:
        from ..compiler.fit import FitOptions

        mhz = clock or board.ps.clock_below(board.clock_mhz)
        found = fit_board(load_spec(model), board, FitOptions(), mhz, progress=say)
        config = found.config
    elif file is not None:
        config = load_plan(file)
        _check_part(config, board, file)
        config = replace(config, clock_mhz=clock or config.clock_mhz)
    elif design is not None:
        config = design_config(design, board)
        config = replace(config, clock_mhz=clock or config.clock_mhz)
    else:
        if preset not in PRESETS:
            raise DataError("--preset", preset, f"must be one of {', '.join(sorted(PRESETS))}")
        config = replace(DeviceConfig.preset(preset), clock_mhz=clock or board.ps.clock_below(board.clock_mhz))
    return board_config(config, board), found


def _check_part(config: DeviceConfig, board: Board, file: Path) -> None:
    """A plan is named after its board, and its multipliers after its part's family."""
    for other in BOARDS.values():
        if config.name.endswith(f"-{other.name}") and other.part != board.part:
            raise ConfigError("name", config.name, f"is a plan for {other.part.name}: {board.name} has {board.part.name}",
                              str(file))
    from ..compiler.fit import PRIMITIVE

    if config.mlp.graph and config.mlp.primitive not in ("inferred", PRIMITIVE[board.part.family]):
        raise ConfigError("mlp.primitive", config.mlp.primitive, f"is of another part: {board.part.name} of {board.name} "
                          f"takes {PRIMITIVE[board.part.family]}", str(file))


def predictions(config: DeviceConfig, found: Fit | None) -> dict[str, float]:
    """Cycles per sample, and queries per second where a model's lookups are known."""
    from ..compiler.plan import stage_cycles

    graph = config.mlp.graph
    out: dict[str, float] = {"bottom_cycles": stage_cycles(graph, "bot"), "top_cycles": stage_cycles(graph, "top")}
    if found is not None:
        out |= {"embedding_cycles": found.embedding, "queries_per_second": round(found.queries_per_second, 1)}
    return out


def _record(board: Board, config: DeviceConfig, out: Path, built: Any, made: Any, predicted: dict[str, float],
            bitstream: dict[str, Any] | None) -> dict[str, Any]:
    return {"folder": str(out), "board": board.name, "part": board.part.name, "name": made.stem, "device": config.name,
            "design_id": f"{config.design_id:#010x}", "clock_mhz": config.clock_mhz, "files": sorted(built.files),
            "predicted": predicted, "estimated_share": built.used.shares(board.part), "bitstream": bitstream,
            "filed": str(made.filed) if bitstream else None}


def _show(board: Board, config: DeviceConfig, out: Path, built: Any, made: Any, bitstream: dict[str, Any] | None) -> None:
    shares = built.used.shares(board.part)
    show(f"{config.name} for {board.name}", [
        ("design", f"{config.design_id:#010x}", f"{config.clock_mhz:g} MHz"),
        ("estimated", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()), f"of {board.part.name}, with "
                                                                                         "the shell"),
        ("written", str(out), f"{len(built.files)} files"),
        ("bitstream", str(made.filed / f"{made.stem}.bit") if bitstream else "none", bitstream["tool"] if bitstream else
         "no tool was run: see the folder's README")])
    console.print("Nothing of this has run on a board.")
