"""Where programs run, by name."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..contract.config import DeviceConfig
from ..contract.errors import ConfigError, DataError
from ..contract.tensor import DESCRIPTOR_BYTES, Descriptor, DescriptorError, TensorConfig, check, unpack
from ..reference.tensor import TensorModel
from ..runtime.device import Device
from ..runtime.device import open as open_device
from .cycles import program_cycles

__all__ = ["FABRICS", "DeviceFabric", "Fabric", "default_config", "open_fabric"]

FABRICS = ("fabric-model", "sim", "pynq")
SLOWEST = 20  # times the predicted cycles of a program, after which a device counts as dead


class Fabric(Protocol):
    """The two commands of the tensor engine; see :class:`nearflash.reference.tensor.TensorModel`."""

    config: DeviceConfig

    def load(self, offset: int, content: bytes) -> None: ...

    def run(self, program: int, content: bytes) -> bytes: ...


@dataclass(frozen=True)
class _Loaded:
    """A program on the device: how long its output is, and its predicted cycles."""

    output_bytes: int
    cycles: int


class DeviceFabric:
    """The tensor engine of an open device.

    ``told``: where set, hears now and then how many cycles a program under way has taken.

    Raises :class:`ConfigError` for a device without one; its commands raise :class:`~nearflash.contract.CommandError`, and
    :class:`~nearflash.contract.DeviceTimeout` after 20 times the predicted cycles of a program (or the device's own limit,
    if that is longer).
    """

    def __init__(self, device: Device):
        _need_engine(device.config)
        self.device, self.config = device, device.config
        self.told: Callable[[int], None] | None = None
        self._programs: dict[int, _Loaded] = {}  # that were loaded here
        self.cycles = 0  # that its commands took
        self._seconds = 0.0

    @property
    def cycles_per_second(self) -> float:
        """Of wall time, in the commands so far; 0 before any."""
        return self.cycles / self._seconds if self._seconds else 0.0

    def load(self, offset: int, content: bytes) -> None:
        """TENSOR_LOAD; a program begins ``content``, or nothing that is run from there."""
        kept = {at: p for at, p in self._programs.items() if not offset <= at < offset + len(content)}
        with self._timed():
            self.device.load_tensors(offset, content)
        self._programs = kept
        with contextlib.suppress(DescriptorError, struct.error):  # no header, or no bytes for one
            header = unpack(content[:DESCRIPTOR_BYTES], 0)
            self._programs[offset] = _Loaded(header["output_bytes"],
                                             program_cycles(self._descriptors(content, header["count"]), self.config))

    def _descriptors(self, image: bytes, count: int) -> Iterator[Descriptor]:
        """Those of ``image`` up to the first that is broken, which ends the program."""
        with contextlib.suppress(DescriptorError, struct.error):
            for n in range(1, count + 1):
                d = unpack(image[n * DESCRIPTOR_BYTES : (n + 1) * DESCRIPTOR_BYTES], n)
                check(d, self.config.tensor, self.config.beat_bytes)
                yield d

    def run(self, program: int, content: bytes) -> bytes:
        """TENSOR_RUN. Raises :class:`DataError` for a program that was not loaded here."""
        if program not in self._programs:
            raise DataError("program", program, "must be where a program was loaded")
        known = self._programs[program]
        timeout = max(self.device.driver.timeout, SLOWEST * known.cycles)
        with self._timed():
            return self.device.run_tensors(program, content, known.output_bytes, timeout, self.told)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        cycles, seconds = self.device.backend.cycles, time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - seconds
            self.cycles += self.device.backend.cycles - cycles

    def close(self) -> None:
        """Close the device. Safe to call twice."""
        self.device.close()


def _need_engine(config: DeviceConfig) -> None:
    if not config.tensor.rows:
        raise ConfigError("tensor.rows", 0, "must be above 0: this device has no tensor engine")


def default_config() -> DeviceConfig:
    """The preset ``paper`` with an engine of 256 multipliers and 512 MiB for tensors. Array and buffers change cycles, no
    bit of a result."""
    return replace(DeviceConfig.preset("paper"), tensor=TensorConfig(rows=16, columns=16, dram_bytes=1 << 29))


def open_fabric(name: str, config: DeviceConfig | None = None, overlay: Any = None) -> Fabric:
    """The fabric called ``name``: ``fabric-model`` is the integer reference; ``sim`` the simulated device of ``config``;
    ``pynq`` the device in ``overlay`` (a ``pynq.Overlay``, or the path of its ``.bit``) on a board, real or virtual. The
    caller closes a device (``fabric.close()``).

    Raises:
        ConfigError: unknown name, a device without a tensor engine, no overlay for ``pynq`` or one for another.
    """
    if name not in FABRICS:
        raise ConfigError("fabric", name, f"must be one of {', '.join(FABRICS)}")
    if (overlay is None) == (name == "pynq"):
        raise ConfigError("overlay", overlay, "must be given for pynq, and for no other fabric")
    if name == "fabric-model":
        return TensorModel(config or default_config())
    if name == "sim":
        config = config or default_config()
        _need_engine(config)  # before a build that takes minutes
        return DeviceFabric(open_device(name, config))
    device = open_device(name, config, overlay=overlay)
    try:
        return DeviceFabric(device)
    except ConfigError:
        device.close()
        raise
