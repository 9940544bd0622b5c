"""What ``nearflash fit --sar`` does: the tensor engine for a despeckler on a device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ..contract import DeviceConfig
from ..contract.boards import Board
from ..tools import load_tool
from .output import console, working

if TYPE_CHECKING:  # takes PyTorch, which --help shouldn't wait for
    from ..compiler.tensor import TensorFit

__all__ = ["fit_sar", "show_tensor", "tensor_records", "with_name"]

TILE = 256  # pixels a side


def with_name(config: DeviceConfig, name: str) -> DeviceConfig:
    """``config`` under another name."""
    return replace(config, name=name)


def fit_sar(network: str, base: DeviceConfig, board: Board, limit: float = 0.8) -> TensorFit:
    """The tensor engine for ``network`` on ``base``, within ``limit`` of the part of ``board``.

    Raises:
        ConfigError: unknown network, or a device that does not fit the board's memory.
        NothingFits: no engine, with what is short.
    """
    from ..compiler.tensor import fit_tensor
    from ..sar.fabric import tile_descriptors

    with working("compiling the network") as say:
        descriptors = tile_descriptors(network, TILE)
        found = fit_tensor(descriptors, base, board, load_tool("estimator")(board.part.family), limit, say)
    board.check_memory(found.config)
    return found


def tensor_records(found: TensorFit) -> dict[str, Any]:
    """Plain values for JSON, units in the keys."""
    from ..compiler.tensor import to_records

    return to_records(found)


def show_tensor(found: TensorFit, network: str) -> None:
    """Print the engine, its predicted tile, and what the device takes."""
    t, part, config = found.config.tensor, found.board.part, found.config
    times = Table(title=f"{config.name}: a tile of {TILE} x {TILE} pixels through {network}, {part.name} at "
                  f"{config.clock_mhz:g} MHz", title_justify="left", title_style="bold", pad_edge=False)
    for heading in ("operator", "predicted cycles", "share"):
        times.add_column(heading, justify="left" if heading == "operator" else "right")
    for name, cycles in sorted(found.operators.items(), key=lambda o: -o[1]):
        times.add_row(name, f"{cycles:,.0f}", f"{cycles / found.cycles:.1%}")
    times.add_section()
    times.add_row("all", f"{found.cycles:,.0f}", f"{found.milliseconds:,.1f} ms", style="bold")
    console.print(times)
    table = Table(title="estimated resources of the whole device and its shell", title_justify="left", title_style="bold",
                  pad_edge=False)
    for heading in ("resource", "tensor engine", "used", f"of {part.name}", "at most", "slack"):
        table.add_column(heading, justify="left" if heading == "resource" else "right")
    for name, share in found.total.shares(part).items():
        half = 2 if name == "bram18" else 1
        table.add_row("BRAM36" if half == 2 else name.upper(), *(f"{getattr(r, name) / half:,g}" for r in (
            found.engine, found.total)), f"{share:.1%}", f"{found.limit:.0%}", f"{found.limit - share:.1%}")
    console.print(table)
    console.print(f"{t.rows} x {t.columns} multipliers{', two products a DSP slice' if t.packed else ''}, {t.lanes} lanes, "
                  f"{t.depthwise} channels of a depthwise convolution, {t.pixels} pixels a tile, buffers of "
                  f"{t.input_bytes >> 10} KiB input and {t.weight_bytes >> 10} KiB weights: the array is busy "
                  f"{found.macs / (t.rows * t.columns) / found.cycles:.0%} of the time; {found.estimated} of "
                  f"{found.candidates:,} engines estimated")
