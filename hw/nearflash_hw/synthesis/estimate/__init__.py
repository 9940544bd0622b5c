"""Resources before synthesis: of a device, and of the parts of an FC layer while kernels are searched."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from nearflash.contract import ConfigError, Core, DeviceConfig, MlpConfig, Node
from nearflash.contract.boards import Board
from nearflash.contract.mlp import output_lanes
from nearflash.contract.program import weight_word_beats
from nearflash.contract.resources import Resources
from nearflash.contract.shell import board_config
from nearflash.reference.mlp import LOGIT_BITS

from ...boards.resources import SHELL, shell_parts
from ...device import Device
from ...interfaces import bits_for
from ...mlp.core import FcCore
from ...mlp.epilogue import Epilogue
from ...tensor.engine import TensorEngine
from ..netlist import subtree, units
from .features import Features, features_of
from .kept import kept, kept_device, kept_shell, kept_tensor
from .memory import MemoryShape, map_memory
from .model import estimate_features, kind_of
from .shallow import Shallow

__all__ = ["Estimator"]


class Estimator:
    """Estimates for one family ("xc7", "xcup"); raises :class:`~nearflash.contract.ConfigError` for others."""

    def __init__(self, family: str):
        if family not in ("xc7", "xcup"):
            raise ConfigError("family", family, "must be xc7 or xcup")
        self.family = family

    def device(self, config: DeviceConfig) -> dict[str, Resources]:
        """Resources of every unit of ``config``'s device, under the paths that ``synthesis.netlist.units`` gives them."""
        features = kept_device(lambda: {u.path: features_of(u.rtlil) for u in units(Device(config), platform=Shallow())},
                               config)
        return {path: estimate_features(kind_of(path, config), found, self.family) for path, found in features.items()}

    def tensor(self, config: DeviceConfig) -> Resources:
        """The tensor engine of ``config`` alone."""
        t = config.tensor
        features = kept_tensor(lambda: {u.path: features_of(u.rtlil) for u in units(TensorEngine(config), True, Shallow())},
                               t, config.beat_bytes, config.mlp.primitive)
        return sum((estimate_features(kind_of(f"tensor.{path}" if path else "tensor"), found, self.family)
                    for path, found in features.items()), Resources())

    def shell(self, config: DeviceConfig, board: Board) -> Resources:
        """What ``board``'s shell takes beside ``config``'s device, whatever its clock; nothing for a board without one.
        Raises :class:`~nearflash.contract.ConfigError` for a device that the shell can't take."""
        if board.ps is None:
            return Resources()
        taken = board_config(replace(config, clock_mhz=board.ps.clock_below(config.clock_mhz)), board)
        parts = kept_shell(lambda: {str(i): features_of(p) for i, p in enumerate(shell_parts(taken, board))}, taken,
                           board.name)
        return sum((estimate_features(SHELL, part, self.family) for part in parts.values()), Resources())

    def core(self, core: Core, mlp: MlpConfig, beat_bytes: int, lanes: int, hold: bool) -> Resources:
        """One FC core, its producers sending one element a beat. ``lanes``, ``hold``: as :class:`FcCore` has them."""
        return _core(self.family, core.rows, core.columns, core.kr, core.kc, core.scan, core.weights, core.weight_bits,
                     core.lut_rows, mlp.act_bits, mlp.n_batch, mlp.buffered, mlp.packed, mlp.primitive, beat_bytes, lanes,
                     hold)

    def core_floor(self, core: Core, mlp: MlpConfig, beat_bytes: int) -> Resources:
        """The DSP slices and the weights' memory of :meth:`core`."""
        rows = core.kr - core.lut_rows
        rows = -(-rows // 2) if mlp.packed else rows
        weights = Resources()
        if core.weights != "dram":
            width = core.word_bytes * 8
            lane = width // weight_word_beats(core, beat_bytes)
            weights = map_memory(MemoryShape(width, max(2, core.steps), lane, block=core.weights == "bram"), self.family)
        return weights + Resources(dsp=rows * core.kc)

    def epilogue(self, node: Node, node_cores: list[Core], mlp: MlpConfig, last: bool) -> Resources:
        """The epilogue of an fc node with the lanes that its cores call for."""
        return self._lanes(node, node_cores, mlp, last, output_lanes(node, node_cores, last))

    def epilogue_floor(self, node: Node, node_cores: list[Core], mlp: MlpConfig, last: bool) -> Resources:
        """One lane of :meth:`epilogue`, and the DSP slices of all."""
        one = self._lanes(node, node_cores, mlp, last, 1)
        return one + Resources(dsp=one.dsp * (output_lanes(node, node_cores, last) - 1))

    def _lanes(self, node: Node, node_cores: list[Core], mlp: MlpConfig, last: bool, lanes: int) -> Resources:
        acc_bits = tuple(mlp.act_bits + c.weight_bits - 1 + (c.columns - 1).bit_length() for c in node_cores)
        return _epilogue(self.family, node.width, lanes, acc_bits, LOGIT_BITS if last else mlp.act_bits,
                         node.relu and not last, bits_for(mlp.n_batch))


@lru_cache(maxsize=4096)
def _core(family: str, rows: int, columns: int, kr: int, kc: int, scan: str, weights: str, weight_bits: int, lut_rows: int,
          act_bits: int, n_batch: int, buffered: int, packed: bool, primitive: str, beat_bytes: int, lanes: int, hold: bool
          ) -> Resources:
    core = Core(0, "", (), rows, columns, kr, kc, scan, weights, weight_bits, lut_rows)

    def make() -> Features:
        return features_of(subtree(FcCore(core, act_bits, n_batch, buffered, beat_bytes, lanes=lanes, hold_results=hold,
                                          packed=packed, primitive=primitive), "", Shallow()))

    features = kept(make, core, act_bits, n_batch, buffered, beat_bytes, lanes, hold, packed, primitive)
    return estimate_features("mlp.core", features, family)


@lru_cache(maxsize=4096)
def _epilogue(family: str, rows: int, lanes: int, acc_bits: tuple[int, ...], out_bits: int, relu: bool, nb_bits: int
              ) -> Resources:
    features = kept(lambda: features_of(subtree(Epilogue(rows, lanes, acc_bits, out_bits, relu, nb_bits), "")),
                    "epilogue", rows, lanes, acc_bits, out_bits, relu, nb_bits)
    return estimate_features("mlp.epilogue", features, family)
