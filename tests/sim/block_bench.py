"""Requests of block I/O, and LOOKUPs beside them, on the RTL and in the simulator of the device's time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from nearflash.contract import RowFormat
from nearflash.contract.table import PoolMode
from nearflash.data import BlockLoad
from nearflash_sim.small.device import load, make_table
from nearflash_sim.small.models import configured
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator, Timeline
from nearflash_sim.timing.workload import Batch

sys.path.append(str(Path(__file__).parents[1] / "system"))

from device_bench import open_device, random_bags

__all__ = ["KINDS", "MAPPED", "ONE_DIE", "both", "opened"]

ONE_DIE = configured("serial-groups")
KINDS = ((50, 8, RowFormat.FP32, PoolMode.SUM), (33, 8, RowFormat.FP16, PoolMode.MEAN),
         (40, 8, RowFormat.INT8, PoolMode.SUM))
MAPPED = 8  # pages that all tables have, from the first on


def opened(config):
    """A device with tables of :data:`KINDS`, ``made``."""
    device = open_device(config)
    rng = np.random.default_rng(0)
    device.made = [make_table(rng, config, *kind) for kind in KINDS]
    load(device, device.made, preload=True)
    return device


def both(device, blocks: BlockLoad, commands: int = 0, depth: int = 1, samples: int = 1, bag: int = 1
         ) -> tuple[Timeline, Timeline]:
    """Requests, and LOOKUPs of random bags, on the RTL and in the simulator; both start with an empty map cache."""
    device.driver.enable()
    rng = np.random.default_rng(samples * 100 + bag)
    queries = [random_bags(rng, device.made, samples, bag) for _ in range(commands)]
    rtl = measure(device, [Query(bags) for bags in queries], depth, blocks)
    simulator = Simulator(device.config, [t.spec for t in device.made], depth, blocks=blocks)
    return rtl, simulator.run(Batch.of(bags) for bags in queries)
