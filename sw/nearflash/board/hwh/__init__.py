"""Hardware hand-off files (``.hwh``): what PYNQ learns of a design from, read and written."""

from __future__ import annotations

from .design import Hwh, HwhClock, HwhField, HwhInterrupt, HwhIp, HwhRegister, device_config
from .reader import parse_hwh, read_hwh
from .writer import write_hwh

__all__ = ["Hwh", "HwhClock", "HwhField", "HwhInterrupt", "HwhIp", "HwhRegister", "device_config", "parse_hwh",
           "read_hwh", "write_hwh"]
