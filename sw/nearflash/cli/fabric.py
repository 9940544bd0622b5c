"""What the despeckling commands share about fabrics: options, and how long a device takes, said before and meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import excludes, needs
from .output import console, working

if TYPE_CHECKING:  # PyTorch, which --help shouldn't wait for
    from ..offload.fabric import DeviceFabric
    from ..sar.methods import Method

__all__ = ["DEVICE_HELP", "FabricConfig", "Overlay", "Watch", "check_fabric", "loaded"]

DEVICE_HELP = ("cpu, cuda, fabric-model (int8, bit for bit as the tensor engine computes) or fabric: the same bytes from "
               "the simulated device, or from a board with --overlay; for small images.")
FabricConfig = Annotated[Path | None, typer.Option("--config", help="Of a fabric: its device's configuration (TOML). "
                                                   "Default: preset paper with 16 x 16 multipliers.")]
Overlay = Annotated[Path | None, typer.Option("--overlay", help="Of --device fabric: the .bit of `nearflash build` on a "
                                              "PYNQ board, real or virtual, instead of the simulated device.")]
LONG_S = 10.0  # a run that may take longer is announced


def check_fabric(ctx: typer.Context, device: str) -> None:
    """Raises :class:`ConfigError` for ``--config`` and ``--overlay`` where they mean nothing."""
    needs(ctx, device in ("fabric", "fabric-model"), "--device fabric or fabric-model", "config")
    needs(ctx, device == "fabric", "--device fabric", "overlay")
    excludes(ctx, "overlay", "config")


def loaded(load: Callable[[], Method], device: str) -> Method:
    """What ``load`` gives; says that a simulated device is being built, where it may take long."""
    if device != "fabric":
        return load()
    with working("opening the device (a simulated one is generated and compiled at first, and cached)"):
        return load()


class Watch:
    """How far a network's device is: nothing for methods without one.

    ``update(share)`` hears how much is done of what was last expected. What may take longer than 10 s is announced with
    its first tile, as soon as that tells how fast the device is.
    """

    def __init__(self, method: Method, update: Callable[[float], None] = lambda share: None):
        from ..offload.fabric import DeviceFabric

        self.update = update
        self.fabric: DeviceFabric | None = None
        self._tiles, self._first, self._announced = 1, 0, True
        self._begun: tuple[int, float] | None = None  # cycles and time, when the first tile was first heard of
        # Averages of shifted or turned images take that many runs a tile
        self._runs = int(method.details.get("cycle_spin", 1)) * int(method.details.get("self_ensemble", 1))
        if method.offloaded is not None and isinstance(method.offloaded.fabric, DeviceFabric):
            self.fabric = method.offloaded.fabric
            method.offloaded.told = self._told

    def expect(self, tiles: int) -> None:
        """The next tile is the first of so many."""
        self._tiles, self._first, self._announced, self._begun = tiles * self._runs, 0, False, None

    def _told(self, image: int, cycles: int, whole: int) -> None:
        assert self.fabric is not None
        self._first = self._first or image
        now = time.perf_counter()
        if self._begun is None:
            self._begun = cycles, now
        elif not self._announced and cycles > self._begun[0]:
            self._announced = True
            rate = (cycles - self._begun[0]) / (now - self._begun[1])
            seconds = self._tiles * whole / rate
            if seconds > LONG_S:
                console.print(f"{whole / 1e6:.2f} M cycles a tile predicted, {self._tiles} to do: about "
                              f"{_duration(seconds)} at {rate / 1e3:,.0f} kHz", style="yellow")
        self.update(min((image - self._first + min(cycles / whole, 1)) / self._tiles, 1))

    def record(self) -> dict[str, Any]:
        """For JSON: the device, and the cycles that it took with its commands."""
        if self.fabric is None:
            return {}
        config = self.fabric.config
        return {"fabric": {"config": config.name, "design_id": f"{config.design_id:#010x}", "clock_mhz": config.clock_mhz,
                           "cycles": self.fabric.cycles, "simulated_cycles_per_second": self.fabric.cycles_per_second}}


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
