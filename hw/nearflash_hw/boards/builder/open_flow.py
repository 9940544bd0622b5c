"""The open flow's scripts for a Zynq-7000: Yosys, nextpnr-xilinx, FASM, frames, bitstream."""

from __future__ import annotations

from pathlib import Path

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board

from ...synthesis import open_flow
from ...synthesis.open_flow.passes import LUT_RAMS, LUT_RAMS_FILE, synthesis_passes
from ...synthesis.place.xilinx import CHIPDB
from .constraints import open_flow_pins

__all__ = ["DATABASE", "PROGRAMS", "RESULT_FOLDER", "SCRIPT", "open_flow_files"]

SCRIPT = "build_open_flow.sh"
RESULT_FOLDER = "run/open_flow"
PROGRAMS = ("yosys", "nextpnr-xilinx", "fasm2frames", "xc7frames2bit")
DATABASE = "PRJXRAY_DB_DIR"  # environment variable: folder of project X-Ray's databases
PASSES, PINS = "open_flow.ys", "open_flow.xdc"
CHECKS = ("netlist_rules.py", "route_log.py", "bitstream.py")

_SCRIPT = """\
#!/bin/sh
# {title}
# Needs: Yosys 0.70, nextpnr-xilinx, fasm2frames and xc7frames2bit on PATH, Python 3.10, and two variables:
#   {chipdb}   nextpnr-xilinx' database of {part} (.bin)
#   {database}          project X-Ray's databases: the folder that holds zynq7
# Result: {results}/{stem}.bit. Ends with an error, and no .bit, where a cell can't be routed, a path is not routed or
# timing is not met. Placements are tried with the seeds of $SEEDS.
set -eu
cd "$(dirname "$0")"
: "${{{chipdb}:?set it to the file of nextpnr-xilinx' database}}"
: "${{{database}:?set it to the folder of project X-Ray's databases}}"
part={part}
out={results}
mkdir -p "$out"
rm -f "$out/{stem}.bit"

echo "nearflash: yosys"
yosys -q -l "$out/yosys.log" {passes}
python3 netlist_rules.py "$out/netlist.json" {pins}

routed=
for seed in ${{SEEDS:-1 2 3}}; do
  echo "nearflash: nextpnr-xilinx, seed $seed"
  if nextpnr-xilinx --chipdb "${chipdb}" --xdc {pins} --json "$out/netlist.json" --fasm "$out/{stem}.fasm" \\
      --freq {mhz:g} --seed "$seed" >"$out/nextpnr.log" 2>&1 && python3 route_log.py "$out/nextpnr.log"; then
    routed=$seed
    break
  fi
done
if [ -z "$routed" ]; then
  tail -n 15 "$out/nextpnr.log" >&2
  echo "no seed was routed at {mhz:g} MHz (log: $out/nextpnr.log)" >&2
  exit 1
fi

echo "nearflash: frames and bitstream"
fasm2frames --part "$part" --db-root "${database}/zynq7" "$out/{stem}.fasm" >"$out/{stem}.frames"
xc7frames2bit --part_file "${database}/zynq7/$part/part.yaml" --part_name "$part" --frm_file "$out/{stem}.frames" \\
    --output_file "$out/{stem}.unchecked"
python3 bitstream.py "$out/{stem}.unchecked" "$part"
mv "$out/{stem}.unchecked" "$out/{stem}.bit"
echo "nearflash: done"
"""


def open_flow_files(config: DeviceConfig, board: Board, stem: str) -> dict[str, str]:
    """By name: the script, what it reads beside ``<stem>.v``, and the checks it runs."""
    checks = Path(open_flow.__file__).parent
    netlist = f"{RESULT_FOLDER}/netlist.json"
    script = _SCRIPT.format(title=f"{config.name} on {board.name}", chipdb=CHIPDB, database=DATABASE, stem=stem, pins=PINS,
                            part=board.part.order_code, results=RESULT_FOLDER, passes=PASSES, mhz=config.clock_mhz)
    return {SCRIPT: script, PINS: open_flow_pins(), LUT_RAMS_FILE: LUT_RAMS,
            PASSES: "\n".join([*synthesis_passes([f"read_verilog {stem}.v"], "nearflash_top", netlist), ""]),
            **{name: (checks / name).read_text() for name in CHECKS}}
