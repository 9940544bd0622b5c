"""Where programs run, by name."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from typing import Protocol

from ..contract.config import DeviceConfig
from ..contract.errors import ConfigError, DataError
from ..contract.tensor import DESCRIPTOR_BYTES, DescriptorError, TensorConfig, unpack
from ..reference.tensor import TensorModel
from ..runtime.device import Device
from ..runtime.device import open as open_device

__all__ = ["FABRICS", "DeviceFabric", "Fabric", "default_config", "open_fabric"]

FABRICS = ("fabric-model", "sim")


class Fabric(Protocol):
    """The two commands of the tensor engine; see :class:`nearflash.reference.tensor.TensorModel`."""

    config: DeviceConfig

    def load(self, offset: int, content: bytes) -> None: ...

    def run(self, program: int, content: bytes) -> bytes: ...


class DeviceFabric:
    """The tensor engine of an open device.

    Raises :class:`ConfigError` for a device without one; its commands raise :class:`~nearflash.contract.CommandError`.
    """

    def __init__(self, device: Device):
        if not device.config.tensor.rows:
            raise ConfigError("tensor.rows", 0, "must be above 0: this device has no tensor engine")
        self.device, self.config = device, device.config
        self._output_bytes: dict[int, int] = {}  # of the programs that were loaded here

    def load(self, offset: int, content: bytes) -> None:
        """TENSOR_LOAD; a program begins ``content``, or nothing that is run from there."""
        kept = {at: n for at, n in self._output_bytes.items() if not offset <= at < offset + len(content)}
        self.device.load_tensors(offset, content)
        self._output_bytes = kept
        with contextlib.suppress(DescriptorError, struct.error):  # no header, or no bytes for one
            self._output_bytes[offset] = unpack(content[:DESCRIPTOR_BYTES], 0)["output_bytes"]

    def run(self, program: int, content: bytes) -> bytes:
        """TENSOR_RUN. Raises :class:`DataError` for a program that was not loaded here."""
        if program not in self._output_bytes:
            raise DataError("program", program, "must be where a program was loaded")
        return self.device.run_tensors(program, content, self._output_bytes[program])


def default_config() -> DeviceConfig:
    """The preset ``paper`` with an engine of 256 multipliers and 512 MiB for tensors. Array and buffers change cycles, no
    bit of a result."""
    return replace(DeviceConfig.preset("paper"), tensor=TensorConfig(rows=16, columns=16, dram_bytes=1 << 29))


def open_fabric(name: str, config: DeviceConfig | None = None) -> Fabric:
    """The fabric called ``name``: ``fabric-model`` is the integer reference; ``sim`` the simulated device of ``config``,
    which the caller closes (``fabric.device.close()``).

    Raises:
        ConfigError: unknown name, or a device without a tensor engine.
    """
    if name not in FABRICS:
        raise ConfigError("fabric", name, f"must be one of {', '.join(FABRICS)}: no other has a tensor engine yet")
    if name == "fabric-model":
        return TensorModel(config or default_config())
    return DeviceFabric(open_device(name, config or default_config()))
