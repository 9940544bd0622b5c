"""All commands. Each has an example in its --help and writes its result with --json FILE."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..contract import PRESETS, DataError, DeviceConfig
from ..whole import is_stream
from .build import build
from .despeckle import despeckle
from .evaluate import evaluate
from .fit import fit
from .options import excludes, needs
from .output import JsonFile, check_outputs, console, emit, output_path, working, write_json
from .place import place
from .report import report
from .sar import sar
from .timeline import timeline as timeline_commands
from .timing import timing

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  help="Inference next to the flash: recommendation models answered inside an SSD controller, and SAR "
                       "images despeckled.")
app.command()(build)
app.command()(despeckle)
app.command()(evaluate)
app.command()(fit)
app.command()(place)
app.command()(report)
app.command()(timing)
app.add_typer(sar, name="sar")
app.add_typer(timeline_commands, name="timeline")

Json = Annotated[Path | None, JsonFile]


@app.command()
def run(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="rmc1, rmc2, rmc3, ncf, wnd, or a TOML description (*.toml), with random "
                                              "parameters; default: the trained MovieTweetings model that ships.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint of `nearflash train` (.npz), or a dlrm or torchrec "
                                                    "state_dict (.pt).")] = None,
    rows: Annotated[int, typer.Option(help="Rows per table of a --model.", min=1)] = 2000,
    lookups: Annotated[str | None, typer.Option(help="Lookups of a dlrm or torchrec --checkpoint, of all tables or of each: "
                                                "10 or 1,2,3 (default: 1, or what --dataset holds).")] = None,
    tables: Annotated[str | None, typer.Option(help="Feature order of a torchrec --checkpoint's tables: a,b,c (default: by "
                                               "number, where the names are one prefix and a number).")] = None,
    interaction: Annotated[str | None, typer.Option(help="cat or dot, where a --checkpoint's shapes fit both.")] = None,
    round_to_fp32: Annotated[bool, typer.Option("--round-to-fp32", help="Round a --checkpoint's float64 parameters that "
                                                "fp32 does not hold exactly (default: refuse them).")] = False,
    format: Annotated[str, typer.Option(help="Table format of a --model: fp32, fp16 or int8.")] = "fp32",
    preset: Annotated[str, typer.Option(help=f"Device preset: {', '.join(sorted(PRESETS))}.")] = "paper",
    config: Annotated[Path | None, typer.Option(help="Device configuration (TOML) instead of a preset.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `nearflash fit -o`: that device, as it is.")] = None,
    board: Annotated[str | None, typer.Option(help="Print the estimated utilisation of this board or part too.")] = None,
    channels: Annotated[int | None, typer.Option(help="Flash channels.", min=1)] = None,
    dies: Annotated[int | None, typer.Option(help="Dies per channel.", min=1)] = None,
    planes: Annotated[int | None, typer.Option(help="Planes per die, each with reads of its own.", min=1)] = None,
    clock: Annotated[float | None, typer.Option(help="Device clock in MHz.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries to run (default: 256, or as many as keep a big model "
                                                "short; with --dataset, all held-out queries).", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Queries per command.", min=1)] = None,
    locality: Annotated[float | None, typer.Option(help="K of the locality generator (default 0.3).")] = None,
    histogram: Annotated[Path | None, typer.Option(help="Draw indices from a dlrm_datasets locality_stats file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Take indices from a DLRM trace log.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="MovieTweetings folder or Criteo file: replay its held-out queries "
                                                 "in order and print the AUC of fp32 and of the device.")] = None,
    placement: Annotated[Path | None, typer.Option(help="The index mapping that `nearflash place` wrote with the "
                                                   "--checkpoint: the host translates each query's rows by it.")] = None,
    block_io: Annotated[int, typer.Option(help="Random block writes and reads made and verified meanwhile.", min=0)] = 16,
    act_bits: Annotated[int, typer.Option(help="Bits of activations: 8 or 16.")] = 8,
    weight_bits: Annotated[int, typer.Option(help="Bits of weights: 8 or 16.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of parameters and queries.", min=0, max=2**64 - 1)] = 0,
    waves: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="Record waveforms of the run to "
                                               "this file, .fst or .vcd as this machine can (slow, large).")] = None,
    timeline: Annotated[Path | None, typer.Option(parser=output_path, metavar="FILE", help="Write what the RTL does when, "
                                                  "on the tracks of `nearflash evaluate --timeline`, as .pftrace.")] = None,
    json_file: Json = None,
) -> None:
    """Generate the device for a model, simulate its RTL, stream queries through it, check every answer.

    Exit code 1 when any answer differs from the integer reference model.

    Example: nearflash run --model rmc1 --channels 4 --dies 4 --batch 2 --locality 0.3 --json rmc1.json
    """
    check_outputs(json_file=json_file, waves=waves, timeline=timeline)
    excludes(ctx, "timeline", "waves")
    excludes(ctx, "plan", "preset", "config", "channels", "dies", "planes", "clock", "act_bits", "weight_bits")
    excludes(ctx, "config", "preset")
    excludes(ctx, "dataset", "locality", "histogram", "trace", "model")
    excludes(ctx, "trace", "locality", "histogram")
    excludes(ctx, "histogram", "locality")
    needs(ctx, checkpoint is not None, "--checkpoint", "placement")
    needs(ctx, model is not None and not model.endswith(".toml"), "a --model by its name", "rows", "format")
    from .run import RunOptions, run_queries

    result = run_queries(RunOptions(
        model, checkpoint, rows, lookups, format, preset, config, plan, board, channels, dies, planes, clock, queries, batch,
        locality, histogram, trace, dataset, block_io, act_bits, weight_bits, seed, waves, tables,
        interaction, round_to_fp32, placement, timeline), json_file)
    if result["mismatches"] or result["block_mismatches"]:
        raise typer.Exit(1)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="MovieTweetings folder, or a Criteo-format file.")],
    out: Annotated[Path, typer.Option("-o", "--out", parser=output_path, metavar="FILE", help="Checkpoint to write "
                                      "(.npz).")] = Path("checkpoint.npz"),
    epochs: Annotated[int | None, typer.Option(help="Epochs (default: the recipe's).", min=1)] = None,
    interaction: Annotated[str | None, typer.Option(help="cat or dot (default: the recipe's).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of initial weights and order.", min=0, max=2**64 - 1)] = 0,
    json_file: Json = None,
) -> None:
    """Train a small DLRM from real ratings or clicks; prints the AUC per epoch and on the held-out test.

    Example: nearflash train ml/movietweetings -o mine.npz
    """
    check_outputs(out=out, json_file=json_file)
    if out.suffix != ".npz" and not is_stream(out):
        raise DataError("--out", str(out), "must end in .npz, as `nearflash run --checkpoint` reads it back")
    if interaction not in (None, "cat", "dot"):
        raise DataError("--interaction", interaction, "must be cat or dot")
    import dataclasses

    from ..training import Recipe
    from ..training import save_checkpoint as save
    from ..training import train as fit

    changes: dict[str, Any] = {"dataset": "movietweetings" if dataset.is_dir() else "criteo", "seed": seed}
    changes |= {"epochs": epochs} if epochs else {}
    changes |= {"interaction": interaction} if interaction else {}
    recipe = dataclasses.replace(Recipe(), **changes)

    def text(auc: float | None) -> str:
        return "undefined (one class of labels)" if auc is None else f"{auc:.4f}"

    with working("training"):
        model, scores = fit(dataset, recipe, lambda e, loss, auc: console.print(
            f"epoch {e}/{recipe.epochs}  loss {loss:.4f}  validation AUC {text(auc)}"))
    save(out, model, recipe, scores)
    write_json(json_file, {"checkpoint": str(out), "recipe": dataclasses.asdict(recipe), **scores})
    console.print(f"test AUC {text(scores['test_auc'])} on {scores['test_queries']} held-out queries; written to {out}")


@app.command()
def config(
    source: Annotated[str, typer.Argument(help="A preset's name or a TOML file.")] = "paper",
    json_file: Json = None,
) -> None:
    """Validate a device configuration and print it as TOML with what derives from it.

    Example: nearflash config paper > my_device.toml
    """
    check_outputs(json_file=json_file)
    c = load_config(source)
    derived = {"t_read_cycles": c.t_read, "t_program_cycles": c.t_program, "t_erase_cycles": c.t_erase,
               "c_ev_128b_cycles": c.read_cycles_per_vector(128), "lbas_count": c.lbas, "lba_bytes": c.lba_bytes,
               "dram_bytes": c.layout.end, "design_id": f"{c.design_id:#010x}"}
    write_json(json_file, {"config": c.to_dict(), **derived})
    emit(c.to_toml() + "".join(f"# {k} = {v}\n" for k, v in derived.items()), json_file)


@app.command()
def registers(
    preset: Annotated[str, typer.Option(help="Device preset.")] = "paper",
    json_file: Json = None,
) -> None:
    """Print the register map as Markdown.

    Example: nearflash registers > registers.md
    """
    from ..contract.registers import counters, register_map

    check_outputs(json_file=json_file)
    c = load_config(preset)
    registers = register_map(c)
    write_json(json_file, {"registers": [asdict(r) for r in registers], "counters": list(counters(c))})
    lines = []
    for r in registers:
        lines.append((f"{r.offset:#06x}", r.name, "", "", "", r.doc))
        for f in r.fields:
            bits = f"{f.lsb + f.width - 1}:{f.lsb}" if f.width > 1 else str(f.lsb)
            lines.append(("", f.name, bits, f.access, f"{f.reset:#x}", f.doc))
    emit("| offset | register, field | bits | access | reset | meaning |\n|---|---|---|---|---|---|\n"
         + "".join(f"| {' | '.join(line)} |\n" for line in lines)
         + "\nCounters (`perf_index`): " + ", ".join(f"{i} {n}" for i, n in enumerate(counters(c))) + "\n", json_file)


def load_config(source: str) -> DeviceConfig:
    """A preset by name, or a TOML file."""
    if source in PRESETS:
        return DeviceConfig.preset(source)
    path = Path(source)
    if not path.is_file():
        raise DataError("config", source, f"must be a TOML file or one of {sorted(PRESETS)}")
    return DeviceConfig.from_toml(path)
