"""Resources of a small device against a committed baseline: ``make util``.

The ``tiny`` preset with RMC1's layers, synthesised unit by unit for XC7Z020 and compared with the baseline of this version
of Yosys (``bench/baseline``). A unit may grow by TOLERANCE or SLACK cells, whichever is more; block RAMs, UltraRAMs and DSP
slices may not grow. ``--update`` writes a new baseline: commit it together with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nearflash.cli.output import write_json
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.contract.resources import Resources
from nearflash.models import model_spec
from nearflash_hw.synthesis.report import measure
from nearflash_hw.synthesis.yosys import yosys_version

from .report import Rows, console, finish, progress, show_rows

__all__ = ["baseline_file", "compare", "main", "measured", "show"]

FAMILY = "xc7"
TOLERANCE, SLACK = 0.03, 10  # share, cells
SOFT, HARD = ("lut", "ff"), ("bram18", "uram", "dsp")


def device() -> DeviceConfig:
    return compile_device(model_spec("rmc1", 64), DeviceConfig.preset("tiny"), PlanOptions(onchip_bytes=1 << 30))


def baseline_file() -> Path:
    return Path(__file__).parent / "baseline" / f"yosys-{yosys_version()}-{FAMILY}.json"


def measured() -> dict[str, Resources]:
    with progress() as bar:
        task = bar.add_task("synthesising", total=None, note="")
        found = measure(device(), FAMILY, progress=lambda path, n, of: bar.update(task, completed=n, total=of, note=path))
        return found.units


def compare(now: dict[str, Resources], before: dict[str, Resources]) -> Rows:
    """A row for every unit that changed, appeared or went, and the total; ``fails`` names what grew too much."""
    rows: Rows = []
    total = [sum(r.values(), Resources()) for r in (now, before)]
    for path in (*dict.fromkeys([*now, *before]), "total"):
        a, b = total if path == "total" else (now.get(path, Resources()), before.get(path, Resources()))
        if a == b and path != "total":
            continue
        fails = [k for k in SOFT if getattr(a, k) > max(getattr(b, k) * (1 + TOLERANCE), getattr(b, k) + SLACK)]
        fails += [k for k in HARD if getattr(a, k) > getattr(b, k)]
        rows.append({"unit": path or "top", "fails": ", ".join(fails),
                     **{f"{k}_count": getattr(a, k) for k in (*SOFT, *HARD)},
                     **{f"{k}_change_count": getattr(a, k) - getattr(b, k) for k in (*SOFT, *HARD)}})
    return rows


def show(rows: Rows) -> None:
    show_rows(f"units that changed against {baseline_file().name}", (
        ("unit", "unit", ""), *((f"{k}{s}_count", f"{k.upper()}{h}", f) for k in (*SOFT, *HARD)
                                for s, h, f in (("", "", ",.0f"), ("_change", " +-", "+,.0f"))),
        ("fails", "grew too much", "")), rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.util", description=str(__doc__).splitlines()[0],
                                     epilog="example: python -m bench.util --json util.json")
    parser.add_argument("--update", action="store_true", help="make this the baseline")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    now = measured()
    if args.update:
        write_json(baseline_file(), {"tool": f"yosys {yosys_version()}", "family": FAMILY, "tolerance_share": TOLERANCE,
                                     "slack_count": SLACK, "units": {k: asdict(r) for k, r in now.items()}})
        console.print(f"written to {baseline_file().name}")
    if not baseline_file().is_file():
        console.print(f"[red]no baseline for Yosys {yosys_version()}: run with --update and commit it[/red]")
        return 1
    before = {k: Resources(**r) for k, r in json.loads(baseline_file().read_text())["units"].items()}
    rows = compare(now, before)
    show(rows)
    finish(args.json, {"utilisation": rows})
    return int(any(r["fails"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
