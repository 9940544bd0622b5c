"""Features of generated blocks, kept on disk: generating a large kernel takes seconds, and a search looks at hundreds; a
device takes longer, and a search, its report and the next report ask for the same one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from nearflash.cache import cache_dir, digest
from nearflash.contract import DeviceConfig
from nearflash.whole import whole_file

from ...sources import gateware_digest
from .features import Features
from .memory import MemoryShape

__all__ = ["kept", "kept_device", "kept_shell", "kept_tensor"]

#: Folders whose sources change nothing: MLP and tensor engines use none of the first, no generated block anything of the
#: second.
ROOMS = ("flash", "controller", "lookup", "place")
TOOLS = ("place", "builder")


def kept(make: Callable[[], Features], *what: Any) -> Features:
    """``make()``, parts of an MLP engine, or what it gave before for the same ``what`` and the same sources of that."""
    (found,) = _kept(lambda: {"": make()}, gateware_digest(*ROOMS), repr(what)).values()
    return found


def kept_device(make: Callable[[], dict[str, Features]], config: DeviceConfig) -> dict[str, Features]:
    """``make()``, by unit of ``config``'s device, or what it gave before for an equal device and the same sources."""
    return _kept(make, gateware_digest(*TOOLS), f"device {config!r}")


def kept_shell(make: Callable[[], dict[str, Features]], config: DeviceConfig, board: str) -> dict[str, Features]:
    """``make()``, parts of ``board``'s shell around ``config``'s device, or what it gave before for equal ones."""
    return _kept(make, gateware_digest(*TOOLS), f"shell {board} {config!r}")


def kept_tensor(make: Callable[[], dict[str, Features]], *what: Any) -> dict[str, Features]:
    """``make()``, by unit of a tensor engine, or what it gave before for the same ``what`` and the same sources of that."""
    return _kept(make, gateware_digest(*ROOMS, *TOOLS), f"tensor {what!r}")


def _kept(make: Callable[[], dict[str, Features]], *key: str) -> dict[str, Features]:
    file = cache_dir() / "estimates" / f"{digest(*key)}.json"
    if not file.is_file():
        found = make()
        with whole_file(file) as part:
            part.write_text(json.dumps({path: _written(features) for path, features in found.items()}))
        return found
    os.utime(file)  # when it was used last
    return {path: _read(values) for path, values in json.loads(file.read_text()).items()}


def _written(found: Features) -> dict[str, Any]:
    return {"bits": dict(found.bits), "memories": [asdict(m) for m in found.memories], "multipliers": found.multipliers,
            "slices": found.slices, "operand_bits": found.operand_bits, "chain_bits": found.chain_bits}


def _read(values: dict[str, Any]) -> Features:
    return Features(Counter(values["bits"]), [MemoryShape(**m) for m in values["memories"]],
                    [(a, b, signed) for a, b, signed in values["multipliers"]], values["slices"], values["operand_bits"],
                    values["chain_bits"])
