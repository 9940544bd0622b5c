"""The manifest beside a bitstream, ``x.json`` of ``x.bit`` and ``x.hwh``: what was built, from what, by what, and the
digests of the files it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..contract import DeviceConfig, NearflashError

__all__ = ["Manifest", "sha256"]

FORMAT = 1


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """``stem``: of the design's file names, which copies for several boards in
    one folder have with the board's name behind. ``device``: the configuration of its device, as
    :meth:`DeviceConfig.to_dict` (a board with Python 3.10 reads no TOML). ``tools``: versions by name. ``files``:
    sha256 by name. ``utilisation`` and ``predicted``: as ``nearflash report`` and ``nearflash fit`` have them."""

    stem: str
    board: str
    device: dict[str, Any]
    tools: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    utilisation: dict[str, Any] = field(default_factory=dict)
    predicted: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> DeviceConfig:
        """Of the device."""
        return DeviceConfig.from_dict(self.device)

    def to_json(self) -> str:
        """The file's text: the same for equal manifests."""
        content = {"format": FORMAT, "stem": self.stem, "board": self.board, "design_id": f"{self.config.design_id:#010x}",
                   "tools": self.tools, "files": self.files, "utilisation": self.utilisation, "predicted": self.predicted,
                   "config": self.device}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path, error: type[NearflashError] = NearflashError) -> Manifest:
        """Of a file. Raises ``error`` with the file's name for anything that isn't one."""
        try:
            d = json.loads(path.read_text())
            if d["format"] != FORMAT:
                raise error(f"{path}: format = {d['format']!r}: must be {FORMAT}: made by another version of nearflash")
            out = cls(d["stem"], d["board"], d["config"], d["tools"], d["files"], d["utilisation"], d["predicted"])
            if f"{out.config.design_id:#010x}" != d["design_id"]:
                raise error(f"{path}: design_id = {d['design_id']!r}: its configuration is another design's "
                            f"({out.config.design_id:#010x})")
            return out
        except OSError as e:
            raise error(f"{path}: {e.strerror or e}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise error(f"{path}: is not a manifest of nearflash build: {type(e).__name__}: {e}") from None

    @classmethod
    def beside(cls, bitfile: str | Path, error: type[NearflashError] = NearflashError) -> Manifest:
        """Of the bitstream ``bitfile``, whether or not there is one yet. Raises ``error`` without a manifest."""
        path = Path(bitfile).with_suffix(".json")
        if not path.is_file():
            raise error(f"{bitfile}: there is no {path.name} beside it, as `nearflash build` puts there")
        return cls.read(path, error)

    def check(self, path: Path, error: type[NearflashError] = NearflashError) -> None:
        """Raises ``error`` unless the file is the one of its kind (``.hwh``, ``.v`` ...) that was built."""
        wanted = self.files.get(self.stem + path.suffix)
        found = sha256(path) if path.is_file() else "missing"
        if found != wanted:
            raise error(f"{path}: sha256 is {found[:16]}, its manifest says {(wanted or 'nothing')[:16]}: these files are "
                        "of different builds; copy the whole folder again")
