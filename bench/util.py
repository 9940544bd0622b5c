"""Resources of a small device against a committed baseline: ``make util``.

The ``tiny`` preset with RMC1's layers, synthesised unit by unit for XC7Z020 and compared with the baseline of this version
of Yosys (``bench/baseline``). A unit may grow by TOLERANCE or SLACK cells, whichever is more; block RAMs, UltraRAMs and DSP
slices may not grow. ``--update`` writes a new baseline: commit it together with the reason.

With a unit's resources the baseline keeps the digest of what they follow from (the unit's text, tool and passes): a unit
that did not change is not synthesised again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nearflash.cli.output import write_json
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DeviceConfig
from nearflash.contract.resources import Resources
from nearflash.models import model_spec
from nearflash_hw.synthesis.report import device_units, synthesise_units
from nearflash_hw.synthesis.yosys import synthesis_key, yosys_version

from .report import Rows, console, finish, progress, show_rows

__all__ = ["Baseline", "baseline_file", "compare", "device", "main", "measured", "show"]

FAMILY = "xc7"
KEY = "synthesised_from"
TOLERANCE, SLACK = 0.03, 10  # share, cells
SOFT, HARD = ("lut", "ff"), ("bram18", "uram", "dsp")


def device() -> DeviceConfig:
    return compile_device(model_spec("rmc1", 64), DeviceConfig.preset("tiny"), PlanOptions(onchip_bytes=1 << 30))


def baseline_file() -> Path:
    return Path(__file__).parent / "baseline" / f"yosys-{yosys_version()}-{FAMILY}.json"


@dataclass(frozen=True)
class Baseline:
    """Resources by unit's path, and what each was synthesised from (:func:`~nearflash_hw.synthesis.yosys.synthesis_key`)."""

    units: dict[str, Resources]
    keys: dict[str, str]

    @classmethod
    def read(cls) -> Baseline:
        """Raises OSError without a baseline for this version of Yosys."""
        kept = json.loads(baseline_file().read_text())["units"]
        return cls({k: Resources(**{n: v for n, v in u.items() if n != KEY}) for k, u in kept.items()},
                   {k: u[KEY] for k, u in kept.items()})

    def write(self) -> None:
        write_json(baseline_file(), {"tool": f"yosys {yosys_version()}", "family": FAMILY, "tolerance_share": TOLERANCE,
                                     "slack_count": SLACK,
                                     "units": {k: {KEY: self.keys[k], **asdict(r)} for k, r in self.units.items()}})


def measured(before: Baseline) -> Baseline:
    """The device now; of ``before`` what holds still."""
    found = device_units(device())
    keys = {u.path: synthesis_key(u.rtlil, FAMILY) for u in found}
    with progress() as bar:
        task = bar.add_task("synthesising", total=None, note="")
        new = synthesise_units([u for u in found if before.keys.get(u.path) != keys[u.path]], FAMILY,
                               lambda path, n, of: bar.update(task, completed=n, total=of, note=path))
    known = before.units | new
    return Baseline({u.path: known[u.path] for u in found}, keys)


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
    there = baseline_file().is_file()
    before = Baseline.read() if there else Baseline({}, {})
    now = measured(before)
    if args.update:
        now.write()
        console.print(f"written to {baseline_file().name}")
    elif not there:
        console.print(f"[red]no baseline for Yosys {yosys_version()}: run with --update and commit it[/red]")
        return 1
    rows = compare(now.units, before.units)
    show(rows)
    finish(args.json, {"utilisation": rows})
    return int(not args.update and any(r["fails"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
