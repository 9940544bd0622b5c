"""``bitstreams/``: for each board what builds of a model and of the designs that ship wrote, without the files that anyone
can build again.

``python -m bench.bitstreams`` (``make bitstreams``) builds all of them again, a minute or two each; ``--check`` compares
instead and ends with code 1 where one differs. Commit what changed together with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nearflash.board.hwh import write_hwh
from nearflash.cli.build import device_for, predictions
from nearflash.contract import DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS, find_board
from nearflash.contract.shell import MANIFEST
from nearflash.overlays import DESIGNS, design_config, overlay_file
from nearflash_hw.boards.builder import Build
from nearflash_hw.boards.builder.manifest import sha256

__all__ = ["BUILDS", "FOLDER", "content", "differences", "main"]

FOLDER = Path(__file__).resolve().parents[1] / "bitstreams"
#: (board, name) of each: of a model, or of a design that ships with its model.
BUILDS = tuple((board.name, name) for name in ("rmc1", *DESIGNS) for board in PYNQ_BOARDS)


def content(board: str, name: str, manifest: dict[str, Any] | None = None) -> dict[str, str]:
    """The files of one folder by name: manifest and hand-off file. ``manifest``: of a build whose device it shall be,
    instead of the one that the search chooses for the model."""
    target = find_board(board)
    if manifest is None:
        model, design = (None, name) if name in DESIGNS else (name, None)
        config, found = device_for(target, model, None, None, None, lambda text: None, design)
        predicted = predictions(config, found)
    else:
        config, predicted = DeviceConfig.from_toml(manifest["config_toml"]), manifest["predicted"]
    built = Build(target, name, FOLDER / board / "new", run=False).contents(config, predicted)
    return {file: built.files[file] for file in (MANIFEST, f"{name}.hwh")}


def differences(folder: Path, wanted: dict[str, str]) -> list[str]:
    """What of ``wanted`` differs in ``folder``, by name; of the manifest, by entry. A bitstream that a tool made from these
    files is no difference, and neither are its reports."""
    out = []
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            out.append(f"{path.name} is missing")
        elif name != MANIFEST:
            out += [] if path.read_text() == text else [f"{name} differs"]
        else:
            out += _manifest_differences(json.loads(path.read_text()), json.loads(text))
    return out


def _manifest_differences(have: dict[str, Any], want: dict[str, Any]) -> list[str]:
    keys = [k for k in want if k not in ("bitstream", "files")]
    out = [f"{MANIFEST}: {k} is {have.get(k)!r:.200}, built again {want[k]!r:.200}" for k in keys if have.get(k) != want[k]]
    return out + [f"{MANIFEST}: sha256 of {name}" for name, digest in want["files"].items()
                  if have.get("files", {}).get(name) != digest]


def _ship() -> None:
    """Write the hand-off files that ship with their designs, which the builds then start from, as they are written now."""
    for design in DESIGNS:
        for board in PYNQ_BOARDS:
            overlay_file(design, board).write_text(write_hwh(design_config(design, board), board, design))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bitstreams", description="What bitstreams/ holds, built again.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args(argv)
    code = 0
    if not args.check:
        _ship()
    for board, name in BUILDS:
        print(f"{board}/{name}", flush=True)
        wanted = content(board, name)
        folder = FOLDER / board / name
        wrong = differences(folder, wanted)
        for line in wrong:
            print(f"  {line}")
        if args.check:
            code |= bool(wrong)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if wrong and (folder / f"{name}.bit").exists():
            print(f"  {name}.bit was made from other files: it is left, and so is the folder")
            code = 1
            continue
        for file, text in wanted.items() if wrong else ():
            (folder / file).write_text(text)
            print(f"  {file} {sha256(text.encode())[:12]}")
    return code


if __name__ == "__main__":
    sys.exit(main())
