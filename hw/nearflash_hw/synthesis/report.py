"""Resources of a device or one of its blocks, unit by unit, from synthesis."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nearflash.contract import DeviceConfig
from nearflash.contract.resources import Resources

from ..device import Device
from .netlist import Unit, subtree, units
from .yosys import synthesise, yosys_version

__all__ = ["TOOL", "measure"]

TOOL = "yosys"


def measure(config: DeviceConfig, family: str, block: str = "", *,
            progress: Callable[[str, int, int], None] | None = None) -> tuple[dict[str, Resources], str]:
    """(resources by unit, tool and version) of ``config``'s device, or of the submodule ``block`` ("mlp.core0": instance
    names joined by dots), synthesised for ``family`` ("xc7", "xcup"). A path's own logic, without the units below it, stands
    under the path itself; "" is the device's top. ``progress``: called with (path, done, all).

    Raises :class:`~nearflash.contract.ConfigError` for an unknown block or family,
    :class:`~nearflash_hw.synthesis.yosys.SynthesisError` when the tool fails or ends early.
    """
    device = Device(config)
    found = units(device)
    if block and not any(u.path == block or u.path.startswith(block + ".") for u in found):
        found = [Unit(block, subtree(device, block))]
    elif block:
        found = [u for u in found if u.path == block or u.path.startswith(block + ".")]
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
    return {u.path: out[u.path] for u in found}, f"{TOOL} {yosys_version()}"
