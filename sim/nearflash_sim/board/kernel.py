"""Jupyter kernels of virtual boards: ``python -m nearflash_sim.board.kernel`` installs one for each."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nearflash.contract.boards import PYNQ_BOARDS

__all__ = ["install", "main"]

BOARD_NAMES = tuple(b.name for b in PYNQ_BOARDS)


def install(boards: Sequence[str], prefix: str | None = None) -> list[str]:
    """Install a kernel ``nearflash-<board>`` for each board, for this user or under ``prefix``; returns their folders."""
    from jupyter_client.kernelspec import KernelSpecManager

    folders = []
    for board in boards:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "kernel.json").write_text(json.dumps({
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": f"{board} (virtual)", "language": "python", "env": {"NEARFLASH_BOARD": f"sim:{board}"}}))
            folders.append(KernelSpecManager().install_kernel_spec(folder, f"nearflash-{board}", user=prefix is None,
                                                                   prefix=prefix))
    return folders


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nearflash_sim.board.kernel",
                                     description="Install Jupyter kernels in which pynq finds a virtual board.",
                                     epilog="Example: python -m nearflash_sim.board.kernel pynq-z2")
    parser.add_argument("boards", nargs="*", metavar="BOARD", help=f"of {', '.join(BOARD_NAMES)} (default: all)")
    parser.add_argument("--prefix", help="folder to install under (default: this user's)")
    args = parser.parse_args(argv)
    if unknown := [b for b in args.boards if b not in BOARD_NAMES]:
        parser.error(f"board {unknown[0]!r}: must be of {', '.join(BOARD_NAMES)}")
    for folder in install(args.boards or BOARD_NAMES, args.prefix):
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
