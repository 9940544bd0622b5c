"""Resources of a device or one of its blocks, unit by unit, from synthesis."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.resources import ControlSets, Resources

from ..boards.resources import shell_units
from ..device import Device
from .kept_units import kept_units
from .netlist import Unit, subtree, units
from .yosys import ControlSet, control_sets, synthesise, yosys_version

__all__ = ["TOOL", "Measured", "device_units", "measure", "synthesise_units"]

TOOL = "yosys"
SHARED = ("\\clk", "\\rst")  # one net in all units; others of two units are different nets, whatever their names


@dataclass(frozen=True)
class Measured:
    """Resources and control sets by unit's path, control sets of all units together, and the tool with its version."""

    units: dict[str, Resources]
    control_sets: dict[str, ControlSets]
    total_control_sets: ControlSets
    tool: str


def measure(config: DeviceConfig, family: str, block: str = "", *, shell: Board | None = None,
            progress: Callable[[str, int, int], None] | None = None) -> Measured:
    """Resources and control sets, by unit, of ``config``'s device, or of the submodule ``block`` ("mlp.core0": instance
    names joined by dots), synthesised for ``family`` ("xc7", "xcup"). A path's own logic, without the units below it, stands
    under the path itself; "" is the device's top. ``shell``: a board whose shell is measured too, under "shell".
    ``progress``: called with (path, done, all).

    Raises :class:`~nearflash.contract.ConfigError` for an unknown block or family,
    :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when the tool fails or ends early.
    """
    found = device_units(config)
    if shell is not None:
        found += kept_units(lambda: shell_units(config, shell), f"shell of {shell.name} {config!r}")
    if block and not any(u.path == block or u.path.startswith(block + ".") for u in found):
        found = [Unit(block, subtree(Device(config), block))]
    elif block:
        found = [u for u in found if u.path == block or u.path.startswith(block + ".")]
    out = synthesise_units(found, family, progress)
    sets = {u.path: control_sets(u.rtlil, family) for u in found}
    return Measured(out, {p: _counted(s) for p, s in sets.items()}, _counted(_joined(sets)),
                    f"{TOOL} {yosys_version()}")


def device_units(config: DeviceConfig) -> list[Unit]:
    """The units of ``config``'s device."""
    return kept_units(lambda: units(Device(config)), f"device {config!r}")


def synthesise_units(found: Sequence[Unit], family: str, progress: Callable[[str, int, int], None] | None = None
                     ) -> dict[str, Resources]:
    """Resources of each unit by its path, as many at once as there are processors. ``progress`` and errors: those of
    :func:`measure`."""
    out: dict[str, Resources] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # each runs a process
        # the largest first, so that the last to finish is a small one
        jobs = {u.path: pool.submit(synthesise, u.rtlil, family) for u in sorted(found, key=lambda u: -len(u.rtlil))}
        try:
            for n, (path, job) in enumerate(jobs.items()):
                out[path] = job.result()
                if progress is not None:
                    progress(path, n + 1, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {u.path: out[u.path] for u in found}


def _counted(sets: Counter[ControlSet]) -> ControlSets:
    return ControlSets(len(sets), sum(n == 1 for n in sets.values()))


def _joined(by_unit: dict[str, Counter[ControlSet]]) -> Counter[ControlSet]:
    """The control sets of all units in one count."""
    out: Counter[ControlSet] = Counter()
    for path, sets in by_unit.items():
        for (clock, enable, reset), n in sets.items():
            out[_net(path, clock), _net(path, enable), _net(path, reset)] += n
    return out


def _net(path: str, name: str) -> str:
    """A unit's net among all units'; a constant is the same everywhere."""
    return name if name in SHARED or not name.startswith(("\\", "$")) else f"{path} {name}"
