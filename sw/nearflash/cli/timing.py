"""``nearflash timing``: the frequency of a device, or one of its blocks, and the path that limits it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ..contract import BOARDS, ConfigError, DeviceConfig
from ..contract.boards import find_board
from ..tools import load_tool
from .fit import load_plan, load_spec, with_few_rows
from .options import excludes
from .output import JsonFile, check_outputs, console, show, working, write_json

__all__ = ["timing"]

STAND_IN = ("{part} is a stand-in for {target}: it shows which paths are long and what a change does to them; it is not a "
            "promise of the target's frequency.")


def timing(
    ctx: typer.Context,
    block: Annotated[str, typer.Option(help="One block alone: nvme, ftl, channel0, lookup.translator, mlp.core0 ...; "
                                       "default: the whole device.")] = "",
    model: Annotated[str, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd or a TOML description (*.toml): whose device."
                                       )] = "rmc1",
    preset: Annotated[str, typer.Option(help="Device preset that --model is compiled for.")] = "paper",
    plan: Annotated[Path | None, typer.Option(help="A plan of `nearflash fit -o`, or any device configuration (TOML), "
                                              "instead of --model and --preset.")] = None,
    board: Annotated[str, typer.Option(help=f"Board or part: {', '.join(BOARDS)}, XC7Z020 ...")] = "pynq-z2",
    tool: Annotated[str, typer.Option(help="auto, vivado, nextpnr-xilinx or ecp5: auto takes the first that is installed, "
                                      "in this order; or unplaced: the family's cells, --net-ns for every net.")] = "auto",
    net_ns: Annotated[float | None, typer.Option(help="What `unplaced` takes for a net, in ns (default: 0.7 for 7 series, "
                                                 "0.45 for UltraScale+).", min=0.001)] = None,
    freq: Annotated[float | None, typer.Option(help="Clock to aim at, in MHz (default: the board's).", min=1)] = None,
    seconds: Annotated[int, typer.Option(help="Limit on each of synthesis and placement.", min=1)] = 3600,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Place and route a device or a block, or time it before that; report Fmax, slack and the critical path.

    The unit's ports are registered outside it, so paths into and out of it count. Results are cached by content. A negative
    slack is a result, not an error: the exit code is 0.

    `unplaced` needs Yosys alone and takes a minute or two for a small device: cells as on an Artix-7 or an UltraScale+ part,
    each net a guess.

    Example: nearflash timing --block mlp.core0 --model rmc1 --board pynq-z2 --freq 125 --json core0.json
    """
    check_outputs(json_file=json_file)
    excludes(ctx, "plan", "model", "preset")
    if net_ns is not None and tool != "unplaced":
        raise ConfigError("--net-ns", net_ns, "needs --tool unplaced: the others know their nets")
    for option, value in (("--freq", freq), ("--net-ns", net_ns)):
        if value is not None and not math.isfinite(value):
            raise ConfigError(option, value, "must be a number")
    run = load_tool("timing")
    target = find_board(board)
    config = _config(model, preset, plan)
    target.check_memory(config)
    mhz = freq or target.clock_mhz
    with working(f"timing {block or config.name}"):
        result = run(config, block, target, tool, mhz, seconds, net_ns)
    write_json(json_file, {"block": block, "device": config.name, "design_id": f"{config.design_id:#010x}",
                           "board": target.name, "target_part": target.part.name, **result.to_dict(mhz)})
    _show(result, block or config.name, target.part.name, mhz)


def _config(model: str, preset: str, plan: Path | None) -> DeviceConfig:
    from ..compiler import PlanOptions, compile_device
    from .app import load_config

    if plan is not None:
        return load_plan(plan)
    return compile_device(with_few_rows(load_spec(model)), load_config(preset), PlanOptions())  # rows that fit any preset


def _show(r: Any, what: str, target: str, mhz: float) -> None:
    how = "placed and routed" if r.placed else "timed before placement"
    console.print(Text.assemble((what, "bold"), f" {how} by {r.tool} {r.version} on {r.part}"))
    if r.stand_in:
        console.print(STAND_IN.format(part=r.part, target=target), style="yellow")
    if r.caveat:
        console.print(r.caveat, style="yellow")
    slack = r.slack_ns(mhz)
    rows: list[tuple[str, str | Text, str]] = [
        ("Fmax", f"{r.fmax_mhz:.1f} MHz", f"{len(r.path)} steps, {r.levels} levels of logic"),
        ("slack", Text(f"{slack:+.2f} ns", "green" if slack >= 0 else "red"), f"against {mhz:g} MHz"),
        ("critical path", f"{r.logic_ns + r.routing_ns:.2f} ns", f"logic {r.logic_ns:.2f}, routing {r.routing_ns:.2f}")]
    if r.fmax_logic_mhz is not None and r.fmax_logic_mhz > r.fmax_mhz:
        rows.append(("Fmax beside multipliers", f"{r.fmax_logic_mhz:.1f} MHz",
                     "without paths through multipliers, whose registers this tool leaves unused"))
    rows += [(name, f"{n:,}", f"of {r.available[name]:,}" if name in r.available else "") for name, n in r.used.items()]
    rows.append(("of these, to time ports", f"{r.harness_ff:,} ff", ""))
    show("timing", rows)
    show("critical path", [(s.kind, f"{s.ns:.2f} ns", s.at) for s in r.path])
    if r.registers:
        show("registers that wait longest (without paths through multipliers)",
             [(x.name, f"{x.arrival_ns:.2f} ns", "") for x in r.registers[:8]])
