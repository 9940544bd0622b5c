"""Stands in for nextpnr-xilinx: as strict about its options, its netlist and its constraints as the real one, and it
prints the log it is given. Run as a program; LOG_<seed>.txt or LOG.txt beside it is the log, EXIT.txt the exit code, and
VERSION.txt what it says its version is."""

import argparse
import json
import re
import sys
from pathlib import Path

BELS = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "MUXF7", "MUXF8", "CARRY4", "INV", "FDRE", "FDSE", "FDCE", "FDPE",
        "RAM32M", "RAM64M", "RAM64X1D", "RAM128X1D", "SRL16E", "SRLC32E", "RAMB18E1", "RAMB36E1", "DSP48E1", "BUFG", "IBUF",
        "OBUF", "PS7", "GND", "VCC"}


def error(text):
    print(f"ERROR: {text}")
    sys.exit(1)


def main():
    here = Path(__file__).parent
    if sys.argv[1:] == ["--version"]:
        version = here / "VERSION.txt"
        print('"nextpnr-xilinx" -- Next Generation Place and Route (Version '
              f"{version.read_text() if version.exists() else '0.8.2'})", file=sys.stderr)
        return
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("chipdb", "xdc", "json", "freq", "seed"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--fasm")
    parser.add_argument("--timing-allow-fail", action="store_true")
    o = parser.parse_args()
    if Path(o.chipdb).read_text() != "database":
        error("chip database is damaged")
    (module,) = [m for m in json.loads(Path(o.json).read_text())["modules"].values() if "top" in m.get("attributes", {})]
    xdc = Path(o.xdc).read_text()
    for name, port in module["ports"].items():
        for i in range(len(port["bits"])):
            bit = re.escape(name if len(port["bits"]) == 1 else f"{name}[{i}]")
            for prop in ("IOSTANDARD", "PACKAGE_PIN"):
                if not re.search(rf"set_property {prop} \w+ \[get_ports \{{?{bit}\}}?\]", xdc):
                    error(f"port {name} of type PAD has no {prop} property")
    for name, cell in module["cells"].items():
        if cell["type"] not in BELS:
            error(f"Unable to place cell '{name}', no Bels remaining of type '{cell['type']}'")
        if cell["type"] == "SRLC32E" and "Q31" in cell["connections"]:
            error(f"No wire found for port Q31 on source cell {name}")
        if any("x" in bits for bits in cell["connections"].values()):
            print("Warning: Timing analysis failed due to presence of combinatorial loops, incomplete specification of "
                  "timing ports, etc.")
    log = here / f"LOG_{o.seed}.txt"
    print((log if log.exists() else here / "LOG.txt").read_text())
    if o.fasm:
        Path(o.fasm).write_text("SLICE_X0Y0.ALUT.INIT[0] = 1\n")
    code = here / "EXIT.txt"
    sys.exit(int(code.read_text()) if code.exists() else 0)


if __name__ == "__main__":
    main()
