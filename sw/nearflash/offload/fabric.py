"""Where programs run, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from ..contract.config import DeviceConfig
from ..contract.errors import ConfigError
from ..contract.tensor import TensorConfig
from ..reference.tensor import TensorModel

__all__ = ["FABRICS", "Fabric", "default_config", "open_fabric"]

FABRICS = ("fabric-model",)


class Fabric(Protocol):
    """The two commands of the tensor engine; see :class:`nearflash.reference.tensor.TensorModel`."""

    config: DeviceConfig

    def load(self, offset: int, content: bytes) -> None: ...

    def run(self, program: int, content: bytes) -> bytes: ...


def default_config() -> DeviceConfig:
    """The preset ``paper`` with an engine of 256 multipliers and 512 MiB for tensors. Array and buffers change cycles, no
    bit of a result."""
    return replace(DeviceConfig.preset("paper"), tensor=TensorConfig(rows=16, columns=16, dram_bytes=1 << 29))


def open_fabric(name: str, config: DeviceConfig | None = None) -> Fabric:
    """The fabric called ``name``: ``fabric-model`` is the integer reference.

    Raises:
        ConfigError: unknown name, or a device without a tensor engine.
    """
    if name not in FABRICS:
        raise ConfigError("fabric", name, f"must be one of {', '.join(FABRICS)}: no other has a tensor engine yet")
    return TensorModel(config or default_config())
