"""The simulator as the host library calls it, by name: EmbeddingBag queries in, a timeline out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nearflash.contract import DeviceConfig, TableSpec
from nearflash.contract.modelled import Modelled

from .simulator import Simulator, Timeline
from .workload import Batch, place

__all__ = ["simulate"]


def simulate(config: DeviceConfig, tables: Sequence[TableSpec], commands: Iterable[Sequence[Any]], dense: int | None,
             depth: int = 1, modelled: Modelled | None = None, slices: int = 0) -> Timeline:
    """The cycles of ``commands``, each a command's (indices, offsets) per table, on an idle device that was just enabled.

    ``tables`` lie one behind the other on its flash, none of them allocated. ``dense``: features of a sample, the commands
    then being INFER; None: they are LOOKUP. ``depth``: commands in flight.
    ``modelled``: what is simulated beyond the gateware. ``slices``: the most that its timeline may have. Raises
    :class:`~nearflash.contract.DataError` for tables that don't fit and for commands that the device would refuse, and
    :class:`~nearflash.contract.ModelError` for an engine that is not simulated.
    """
    batches = (Batch.of(bags, dense is not None, dense or 0) for bags in commands)
    return Simulator(config, place(config, tables), depth, modelled=modelled, slices=slices).run(batches)
