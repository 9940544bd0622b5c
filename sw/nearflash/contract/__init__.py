"""What hardware and software agree on. NumPy only, Python 3.10; imports nothing else of nearflash."""

from .boards import BOARDS, PARTS, Board, Part
from .config import PRESETS, BusConfig, DeviceConfig, DramLayout, FlashConfig, HostConfig, LookupConfig, MlpConfig
from .errors import CommandError, ConfigError, DataError, DeviceTimeout, LimitError, ModelError, NearflashError
from .mlp import Core, Node, cores
from .nvme import AdminOpcode, Opcode, Status
from .registers import Field, Register, register_map
from .row_cache import RowCacheConfig
from .table import RowFormat, TableSpec
from .tensor import TensorConfig

__all__ = [
    "BOARDS", "PARTS", "PRESETS", "AdminOpcode", "Board", "BusConfig", "CommandError", "ConfigError", "Core",
    "DataError", "DeviceConfig", "DeviceTimeout", "DramLayout", "Field", "FlashConfig", "HostConfig", "LimitError",
    "LookupConfig", "MlpConfig", "ModelError", "NearflashError", "Node", "Opcode", "Part", "Register", "RowCacheConfig",
    "RowFormat", "Status", "TableSpec", "TensorConfig", "cores", "register_map",
]
