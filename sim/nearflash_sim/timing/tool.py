"""The simulator as the host library calls it, by name: EmbeddingBag queries in, a timeline out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.contract.modelled import Modelled
from nearflash.data.block_load import BlockLoad

from .simulator import Simulator, Timeline
from .workload import Batch, place

__all__ = ["LiveDevice", "simulate"]


class LiveDevice:
    """A simulated device whose commands are sent one by one, by a host that has others too; otherwise as
    :func:`simulate`'s. At most ``depth`` commands are in flight."""

    def __init__(self, config: DeviceConfig, tables: Sequence[TableSpec], dense: int | None, depth: int = 1,
                 modelled: Modelled | None = None):
        self._simulator, self._dense = Simulator(config, place(config, tables), depth, modelled=modelled), dense

    def send(self, bags: Sequence[Any], after: int) -> None:
        """A command, submitted in cycle ``after`` or as soon as the device's driver is free. Fewer than ``depth`` must be in
        flight."""
        self._simulator.send(Batch.of(bags, self._dense is not None, self._dense or 0), after)

    def wait(self, left: int) -> np.ndarray:
        """Until at most ``left`` commands are in flight: cycles (int64) in which those were complete that this call is the
        first to know of, in order."""
        return self._simulator.wait(left)[1]

    def counters(self) -> dict[str, int]:
        """So far, as :attr:`Timeline.counters`."""
        return self._simulator.counters()


def simulate(config: DeviceConfig, tables: Sequence[TableSpec], commands: Iterable[Sequence[Any]], dense: int | None,
             depth: int = 1, modelled: Modelled | None = None, slices: int = 0, blocks: BlockLoad | None = None) -> Timeline:
    """The cycles of ``commands``, each a command's (indices, offsets) per table, on an idle device that was just enabled.

    ``tables`` lie one behind the other on its flash, none of them allocated. ``dense``: features of a sample, the commands
    then being INFER; None: they are LOOKUP. ``depth``: commands in flight.
    ``modelled``: what is simulated beyond the gateware. ``slices``: the most that its timeline may have. ``blocks``: block
    I/O meanwhile. Raises
    :class:`~nearflash.contract.DataError` for tables that don't fit and for commands that the device would refuse.
    """
    simulator = Simulator(config, place(config, tables), depth, modelled=modelled, slices=slices, blocks=blocks)
    return simulator.run(Batch.of(bags, dense is not None, dense or 0) for bags in commands)
