"""Programs of the open flow and Vivado that are as strict about their options as the real ones, and what they make."""

import stat
import sys
from pathlib import Path

SYNC = bytes.fromhex("aa995566")
SIZE = 4_045_564  # of a bitstream of the XC7Z020

#: The real Yosys; a netlist that it made of the same passes and Verilog is kept in folder KEEP, if there is one.
YOSYS = """
import hashlib, shutil, sys
from pathlib import Path
if sys.argv[1:3] != ["-q", "-l"] or len(sys.argv) != 5:
    sys.exit(f"yosys: {sys.argv}")
open(sys.argv[3], "w").close()
lines = Path(sys.argv[4]).read_text().splitlines()
netlist = Path(lines[-1].removeprefix("write_json "))
key = hashlib.sha256(b"".join(Path(p).read_bytes() for p in (sys.argv[4], lines[0].split()[1]))).hexdigest()
kept = Path(KEEP or ".", key)
if not kept.exists():
    from pyosys import libyosys as ys
    design = ys.Design()
    for line in lines:
        ys.run_pass(line, design)
    if KEEP:
        shutil.copy(netlist, kept)
else:
    shutil.copy(kept, netlist)
"""

FASM2FRAMES = """
import sys
from pathlib import Path
a = sys.argv[1:]
if len(a) != 5 or a[0::2][:2] != ["--part", "--db-root"] or not Path(a[3], a[1]).is_dir() or not Path(a[4]).is_file():
    sys.exit(f"fasm2frames: {a}")
print("0x00000000 0x0,0x0")
"""

FRAMES2BIT = """
import sys
from pathlib import Path
a = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if set(a) != {"--part_file", "--part_name", "--frm_file", "--output_file"} or not Path(a["--part_file"]).is_file():
    sys.exit(f"xc7frames2bit: {a}")
if not Path(a["--frm_file"]).read_text():
    sys.exit("no frames")
sys.path.insert(0, HERE)
from stand_ins import bitstream
Path(a["--output_file"]).write_bytes(bitstream(a["--part_name"]))
"""

VIVADO = """
import re, sys
from pathlib import Path
if sys.argv[1:] == ["-version"]:
    print("vivado v2099.1 (64-bit)")
    sys.exit()
if sys.argv[1:] != ["-mode", "batch", "-nojournal", "-nolog", "-source", "build_vivado.tcl"]:
    sys.exit(f"vivado: {sys.argv}")
text = Path("build_vivado.tcl").read_text()
stem, part = (re.search(rf"set {name} \\{{(.+)\\}}", text)[1] for name in ("stem", "part"))
out = Path("run/vivado")
out.mkdir(parents=True)
for name in ("timing.rpt", "utilization.rpt", "drc.rpt"):
    (out / name).write_text(name)
print("nearflash: route_design", flush=True)
sys.path.insert(0, HERE)
from stand_ins import bitstream
(out / f"{stem}.bit").write_bytes(bitstream(PART or part))
"""


def bitstream(part):
    """What a tool for ``part`` writes: a header and as much as the XC7Z020 takes, of whatever part."""
    texts = b"".join(tag + (len(t) + 1).to_bytes(2, "big") + t + b"\0" for tag, t in (
        (b"a", b"top;UserID=0X0"), (b"b", part.encode()), (b"c", b"2026/11/28"), (b"d", b"12:00:00")))
    start = bytes.fromhex("0009 0ff00ff00ff00ff000 0001")
    return start + texts + b"e" + SIZE.to_bytes(4, "big") + b"\xff" * 32 + SYNC + bytes(SIZE - 36)


def install(folder, name, text, **values):
    """Program ``name`` in ``folder``; ``values``: names that ``text`` uses."""
    given = "".join(f"{k} = {v!r}\n" for k, v in {"HERE": str(Path(__file__).parent), **values}.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{given}{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def open_flow(folder, log, keep=""):
    """The open flow's programs in ``folder``/bin, databases beside it; the environment's variables for them. ``keep``: a
    folder for Yosys' netlists."""
    nextpnr = (Path(__file__).parents[1] / "synthesis" / "strict_nextpnr.py").read_text()
    for name, text in (("yosys", YOSYS), ("nextpnr-xilinx", nextpnr), ("fasm2frames", FASM2FRAMES),
                       ("xc7frames2bit", FRAMES2BIT)):
        install(folder / "bin", name, text, KEEP=str(keep))
    (folder / "bin" / "LOG.txt").write_text(log)
    (folder / "xc7z020clg400.bin").write_text("database")
    part = folder / "db" / "zynq7" / "xc7z020clg400-1"
    part.mkdir(parents=True)
    (part / "part.yaml").write_text("part")
    return {"NEXTPNR_XILINX_CHIPDB": str(folder / "xc7z020clg400.bin"), "PRJXRAY_DB_DIR": str(folder / "db")}
