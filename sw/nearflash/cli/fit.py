"""``nearflash fit``: the kernel search for a model, the tensor engine for a despeckler, and devices for the other commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..contract import BOARDS, PRESETS, ConfigError, Core, DataError, DeviceConfig, Node
from ..contract.boards import Board, find_board
from ..tools import load_tool
from ..whole import STDOUT, whole_file
from .fit_tensor import fit_sar, show_tensor, tensor_records, with_name
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, geometry, output_path, working, write_json

if TYPE_CHECKING:  # both take PyTorch, which --help shouldn't wait for
    from ..compiler.fit import Fit, FitOptions
    from ..models import ModelSpec

__all__ = ["base_config", "board_config", "device_of", "fit", "fit_board", "load_plan", "load_spec", "plan_for",
           "sar_config", "with_few_rows"]

READS_PER_PLANE = 64  # in flight: fewer leave planes idle while others have queues
ROOMY_BRAM36, FEW_SLOTS = 200, 4
FORMAT_QUERIES = 64
PACES = (1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0)  # tried one after the other; each is a search
MAP_LINES = 64  # of a device whose lookups nobody asks for
SPEC_ROWS = 2000  # rows a table of a built-in model has here: they change the flash's size, not the logic


def fit(
    ctx: typer.Context,
    board: Annotated[str, typer.Option(help=f"Board or part: {', '.join(BOARDS)}, XC7Z020 ...")],
    model: Annotated[str | None, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd, or a TOML description (*.toml).")] = None,
    sar: Annotated[str | None, typer.Option(help="A despeckler (base, tiny): the tensor engine that is fastest for it, "
                                            "alone or in what --model's device leaves free.")] = None,
    clock: Annotated[float | None, typer.Option(help="Device clock in MHz (default: the board's).")] = None,
    dies: Annotated[int, typer.Option(help="Flash dies per channel.", min=1)] = 1,
    planes: Annotated[int, typer.Option(help="Planes per die, each with reads of its own.", min=1)] = 1,
    channels: Annotated[int | None, typer.Option(help="Flash channels (default: 4; of a despeckler alone 1).",
                                                min=1)] = None,
    preset: Annotated[str, typer.Option(help=f"Device preset: {', '.join(sorted(PRESETS))}.")] = "paper",
    share: Annotated[float, typer.Option(help="Part of the lookups' time the bottom and the top MLP may each take.")] = 1.0,
    slower: Annotated[float, typer.Option(help="Where nothing fits otherwise: how many times that long the MLPs may take, "
                                          "which then set the pace. Every step towards it is one more search.", min=1.0,
                                          max=4.0)] = 1.0,
    limit: Annotated[float, typer.Option(help="Share of each of the part's resources that may be used, by the device and by "
                                         "the shell of a PYNQ board.")] = 0.8,
    weight_bits: Annotated[str, typer.Option(help="Bits of weights: 8 or 16; for single layers too: 8,top0=16.")] = "8",
    act_bits: Annotated[int, typer.Option(help="Bits of activations: 8 or 16.")] = 8,
    error: Annotated[float | None, typer.Option(help="Choose the number formats: the fewest bits, layer by layer, for "
                                                "which the logits' mean distance to fp32 is at most this share of their "
                                                "standard deviation, on random queries.")] = None,
    stream: Annotated[str, typer.Option(help="Layers to stream from DRAM whatever fits, by commas: top0,top1.")] = "",
    onchip: Annotated[bool, typer.Option("--onchip", help="Stream no other layers.")] = False,
    packed: Annotated[bool | None, typer.Option("--packed/--no-packed", help="Two int8 products on one DSP slice (default: "
                                                "when slices would be short).")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", parser=output_path, metavar="FILE", help="Write the plan: a "
                                             "device configuration (TOML) for `nearflash run --plan` and `nearflash report "
                                             "--plan`.")] = None,
    json_file: Annotated[Path | None, JsonFile] = None,
) -> None:
    """Choose every layer's kernel, scan order, weight place and N_batch: the least resources that hide the MLPs behind the
    lookups, by exact search over estimated resources. With --sar, array, lanes and buffers of a tensor engine: the fewest
    predicted cycles for a tile of 256 x 256 pixels.

    Example: nearflash fit --model rmc1 --board pynq-z2 -o rmc1.toml
    """
    check_outputs(out=out, json_file=json_file)
    excludes(ctx, "error", "weight_bits", "act_bits")
    needs(ctx, model is not None, "--model", "share", "slower", "weight_bits", "act_bits", "error", "stream", "onchip",
          "packed")
    target = find_board(board)
    if model is None:
        if sar is None:
            raise ConfigError("--model", None, "or --sar must be given")
        device = sar_config(target, sar, clock, dies, channels or 1, preset, planes)
        target.check_memory(device)
        chosen = fit_sar(sar, device, target, limit)
        _write_plan(out, f"--sar {sar}", target, chosen.config)
        write_json(json_file, {"tensor": tensor_records(chosen)})
        show_tensor(chosen, sar)
        return
    channels = channels or 4
    bits, formats = _formats(weight_bits)
    if error is not None and not error > 0:
        raise ConfigError("--error", error, "must be above 0")
    base = board_config(target, clock, dies, channels, preset, planes=planes)
    target.check_memory(base)  # before a search that no device would come of
    from ..compiler.fit import FitOptions, to_records

    options = FitOptions(share, limit, bits, act_bits, formats, packed, tuple(filter(None, stream.split(","))), onchip)
    spec = load_spec(model)
    with working("searching kernels") as say:
        if error is not None:
            options = _measured_formats(spec, base, options, error, say)
        found = fit_board(spec, target, options, clock, dies, channels, preset, say, slower, planes)
    beside = None if sar is None else fit_sar(sar, with_name(found.config, f"{found.config.name}-{sar}"), target, limit)
    _write_plan(out, f"--model {model}{f' --sar {sar}' if sar else ''}", target, (beside or found).config)
    write_json(json_file, to_records(found) | ({"tensor": tensor_records(beside)} if beside else {}))
    _show(found)
    if beside:
        show_tensor(beside, str(sar))


def _write_plan(out: Path | None, asked: str, target: Board, config: DeviceConfig) -> None:
    if out is None:
        return
    with whole_file(out) as part:
        part.write_text(f"# nearflash fit {asked} --board {target.name}\n{config.to_toml()}")
    if out != STDOUT:
        console.print(f"plan written to {out}")


def _formats(weight_bits: str) -> tuple[int, tuple[tuple[str, int], ...]]:
    """(bits of weights, of single layers' weights) from the option."""
    first, *others = weight_bits.split(",")
    pairs = [o.partition("=") for o in others]
    numbers = "".join([first, *(bits for _, _, bits in pairs)])
    if not (first and all(name and bits for name, _, bits in pairs) and numbers.isascii() and numbers.isdecimal()):
        raise DataError("--weight-bits", weight_bits, "must be a number, and layer=number for single layers: 8,top0=16")
    return int(first), tuple((name, int(bits)) for name, _, bits in pairs)


def _measured_formats(spec: ModelSpec, base: DeviceConfig, options: FitOptions, error: float, progress: Callable[[str], None]
                      ) -> FitOptions:
    """``options`` with the formats that keep the model's logits within ``error``."""
    from ..compiler.formats import least_formats
    from ..data import synthetic_queries
    from ..models import RecModel

    spec = with_few_rows(spec)
    queries = synthetic_queries([(t.rows, t.lookups) for t in spec.tables], spec.dense, FORMAT_QUERIES, seed=1)
    found = least_formats(RecModel(spec, seed=0), base, [(queries.dense if spec.dense else None, queries.bags)], error,
                          progress)
    wide = [layer for layer, bits in found.weight_bits.items() if bits > 8]
    console.print(f"number formats: {found.act_bits}-bit activations, 16-bit weights in {', '.join(wide) or 'no layer'}: "
                  f"logits {found.error:.4f} of their standard deviation from fp32 on average ({FORMAT_QUERIES} random "
                  "queries, random weights)")
    return replace(options, weight_bits=8, act_bits=found.act_bits, formats=tuple(found.weight_bits.items()))


def fit_board(spec: ModelSpec, board: Board, options: FitOptions, clock: float | None = None, dies: int = 1,
              channels: int = 4, preset: str = "paper", progress: Callable[[str], None] = lambda text: None,
              slower: float = 1.0, planes: int = 1) -> Fit:
    """The plan with the narrowest data bus that has one, at the fastest of :data:`PACES` up to ``slower`` at which one has.
    Raises :class:`~nearflash.compiler.fit.NothingFits`, and :class:`ConfigError` when the device does not fit the board's
    memory."""
    from ..compiler.fit import NothingFits
    from ..compiler.fit import fit as search

    cost = load_tool("estimator")(board.part.family)
    failed: NothingFits | None = None
    for pace in (*(p for p in PACES if p < slower), slower):
        paced = replace(options, share=options.share * pace)
        for beat in board.beats:
            base = board_config(board, clock, dies, channels, preset, beat, planes)
            try:
                found = search(spec, base, board, cost, paced, progress)
            except NothingFits as e:
                failed = e
                continue
            board.check_memory(found.config)
            return found
    assert failed is not None
    raise failed


def board_config(board: Board, clock: float | None = None, dies: int = 1, channels: int = 4, preset: str = "paper",
                 beat_bytes: int | None = None, planes: int = 1) -> DeviceConfig:
    """What a plan for ``board`` starts from: the preset with the board's narrowest data bus or ``beat_bytes``, with no more
    tags than :data:`READS_PER_PLANE` for each plane, and with few samples being pooled at once on a part of few block
    RAMs."""
    c = DeviceConfig.preset(preset, dies=dies, planes=planes, channels=channels)
    slots = c.lookup.sample_slots if board.part.bram36 >= ROOMY_BRAM36 else min(c.lookup.sample_slots, FEW_SLOTS)
    beat = beat_bytes or board.beats[0]
    tags = min(c.lookup.tags, READS_PER_PLANE * c.flash.channel_planes * channels)
    lookup = replace(c.lookup, tags=tags, sample_slots=slots, lanes=beat // 4)
    return replace(c, clock_mhz=board.clock_mhz if clock is None else clock, beat_bytes=beat, lookup=lookup)


def sar_config(board: Board, sar: str, clock: float | None = None, dies: int = 1, channels: int = 1, preset: str = "paper",
               planes: int = 1) -> DeviceConfig:
    """What a device for a despeckler alone starts from: :func:`board_config` without a lookup engine."""
    from ..compiler.fit import PRIMITIVE

    base = board_config(board, clock, dies, channels, preset, planes=planes)
    return replace(base, name=f"{base.name}-{sar}-{board.name}",
                   lookup=replace(base.lookup, max_tables=0, map_cache_lines=MAP_LINES),
                   mlp=replace(base.mlp, primitive=PRIMITIVE[board.part.family]))  # the tensor engine's products, too


def device_of(board: Board, model: str | None, plan: Path | None, sar: str | None = None) -> DeviceConfig:
    """The device of a plan's file, or the one that `nearflash fit` chooses for ``model``, ``sar`` or both without other
    options; without any, one without an MLP.

    Raises :class:`DataError` when both are given or the file can't be read, :class:`ConfigError` for a device that does not
    fit the board's memory, and :class:`~nearflash.compiler.fit.NothingFits`.
    """
    if model is not None and plan is not None:
        raise DataError("--model", model, "give either --model or --plan")
    if sar is not None and plan is not None:
        raise DataError("--sar", sar, "give either --sar or --plan")
    if plan is not None or model is None:
        config = load_plan(plan) if plan is not None else board_config(board) if sar is None else sar_config(board, sar)
        board.check_memory(config)
        return config if sar is None else fit_sar(sar, config, board).config
    from ..compiler.fit import FitOptions

    with working("searching kernels") as say:
        config = fit_board(load_spec(model), board, FitOptions(), progress=say).config
    return config if sar is None else fit_sar(sar, with_name(config, f"{config.name}-{sar}"), board).config


def load_plan(path: Path) -> DeviceConfig:
    """The device of a plan's file. Raises :class:`DataError` without it."""
    if not path.is_file():
        raise DataError("--plan", str(path), "must be a file that `nearflash fit -o` wrote")
    return DeviceConfig.from_toml(path)


def plan_for(spec: ModelSpec, path: Path) -> DeviceConfig:
    """The device of a plan's file, with room for the tables of ``spec``. Raises :class:`DataError` for a plan of another
    model."""
    from ..compiler import with_room

    config = load_plan(path)

    def layers(nodes: tuple[Node, ...]) -> list[tuple[str, str, int, tuple[str, ...]]]:
        return [(n.name, n.kind, n.width, n.inputs) for n in nodes]

    if layers(config.mlp.graph) != layers(spec.nodes()):
        raise DataError("--plan", str(path), f"must be a plan for {spec.name}")
    return with_room(spec, config)


def base_config(preset: str, config: Path | None, channels: int | None, dies: int | None, planes: int | None,
                clock: float | None) -> DeviceConfig:
    """What the options of a command ask for: the file ``config`` or else ``preset``, and what they change of it."""
    c = DeviceConfig.from_toml(config) if config is not None else DeviceConfig.preset(preset)
    flash = {k: v for k, v in (("channels", channels), ("dies", dies), ("planes", planes)) if v is not None}
    c = replace(c, flash=replace(c.flash, **flash)) if flash else c
    return c if clock is None else replace(c, clock_mhz=clock)


def load_spec(model: str) -> ModelSpec:
    """A model by name, its tables cut to :data:`SPEC_ROWS`, or a TOML description as it is."""
    from ..models import ModelSpec, model_spec

    return ModelSpec.from_toml(Path(model)) if model.endswith(".toml") else model_spec(model, SPEC_ROWS)


def with_few_rows(spec: ModelSpec) -> ModelSpec:
    """``spec`` with at most :data:`SPEC_ROWS` rows a table."""
    return replace(spec, tables=tuple(replace(t, rows=min(t.rows, SPEC_ROWS)) for t in spec.tables))


def _kernel(core: Core) -> str:
    return f"{core.kr}x{core.kc}" + (f", {core.lut_rows}x{core.kc} of LUTs" if core.lut_rows else "")


def _show(found: Fit) -> None:
    from ..compiler.fit import SHELL

    config, part = found.config, found.board.part
    flash = geometry(config.flash.channels, config.flash.dies, config.flash.planes)
    table = Table(title=f"{config.name}: {part.name} at {config.clock_mhz:g} MHz, {flash}", title_justify="left",
                  title_style="bold", pad_edge=False)
    for heading, right in (("layer", False), ("from", False), ("size", True), ("kernel", True), ("scan", False),
                           ("weights", False), ("steps", True), ("LUT", True), ("FF", True), ("BRAM36", True), ("DSP", True),
                           ("why", False)):
        table.add_column(heading, justify="right" if right else "left")
    for layer in found.layers:
        c, r = layer.core, layer.resources
        table.add_row(c.node, "+".join(c.inputs), f"{c.rows}x{c.columns}", _kernel(c), c.scan,
                      f"{c.weights}, {c.weight_bits} bit", f"{c.steps:,}", f"{r.lut:,.0f}", f"{r.ff:,.0f}", f"{r.bram36:g}",
                      f"{r.dsp:.0f}", layer.why)
    console.print(table)
    times = Table(title="times, cycles per sample", title_justify="left", title_style="bold", pad_edge=False)
    for heading in ("constraint", "is", "at most", "slack"):
        times.add_column(heading, justify="left" if heading == "constraint" else "right")
    for name, value in (("bottom MLP", found.bottom), ("top MLP", found.top), ("streamed weights", found.stream)):
        times.add_row(name, f"{value:,.0f}", f"{found.allowed:,}", f"{100 * (1 - value / found.allowed):.1f} %")
    times.add_row("lookups (flash)", f"{found.embedding:,.0f}", "", f"random rows: {found.balance:.0%} of this pace")
    console.print(times)
    if max(found.bottom, found.top) > found.embedding:
        console.print(f"The MLPs set the pace: what keeps up with the lookups does not fit {found.limit:.0%} of the part.")
    shell = " and its shell" if SHELL in found.resources else ""
    resources = Table(title=f"estimated resources of the whole device{shell}", title_justify="left", title_style="bold",
                      pad_edge=False)
    for heading in ("resource", "used", f"of {part.name}", "at most", "slack"):
        resources.add_column(heading, justify="left" if heading == "resource" else "right")
    for name, share in found.total.shares(part).items():
        used = getattr(found.total, name)
        halves = name == "bram18"
        resources.add_row("BRAM36" if halves else name.upper(), f"{used / 2:g}" if halves else f"{used:,.0f}",
                          f"{share:.1%}", f"{found.limit:.0%}", f"{found.limit - share:.1%}")
    console.print(resources)
    console.print(f"N_batch {config.mlp.n_batch}; {'two int8 products a DSP slice; ' if config.mlp.packed else ''}"
                  f"{config.lookup.sample_slots} samples being pooled; predicted {found.queries_per_second:,.0f} queries/s")
