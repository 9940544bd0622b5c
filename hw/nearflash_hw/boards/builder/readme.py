"""The README of a build's folder: what is in it, what to run, and what nobody has run yet."""

from __future__ import annotations

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.processing import ProcessingSystem

from . import open_flow, vivado

__all__ = ["README", "readme"]

README = "README.md"
_OPEN = """
### With the open flow

```
export {chipdb}=xc7z020clg400.bin {database}=prjxray-db
./{script}
```

Result: `{results}/{stem}.bit`. Its own timing analysis leaves DSP slices, block RAM and LUT RAM out: a bitstream that it
lets pass may still be too slow. It takes a device of the size of the preset `tiny`; bigger ones were packed and not placed
or not routed.
"""


def readme(config: DeviceConfig, board: Board, ps: ProcessingSystem, stem: str) -> str:
    """Markdown."""
    opened = _OPEN.format(chipdb=open_flow.CHIPDB, database=open_flow.DATABASE, script=open_flow.SCRIPT,
                          results=open_flow.RESULT_FOLDER, stem=stem) if ps.axi == 3 else ""
    how = "non-project" if ps.axi == 3 else "a project with a block design around the shell"
    return f"""# {stem} for {board.name}

The device `{config.name}` (design {config.design_id:#010x}) with its shell for {board.name} ({board.part.order_code}), at
{config.clock_mhz:g} MHz. Written by `nearflash build`; `manifest.json` has the configuration and every file's sha256.

**No bitstream is here, and none of these scripts has been run on this folder by a tool. Nothing of this has run on a
board.** What has: the device and its shell in simulation.

| file | what |
|---|---|
| `{stem}.v` | the device and its shell, one Verilog file |
| `{stem}.xdc` | constraints for Vivado |
| `{vivado.SCRIPT}` | Vivado, {how}: sources to timing check and bitstream |
| `{stem}.hwh` | hand-off file: what PYNQ needs beside the bitstream, for pynq 3.0.1, 3.1.2 and 4.0.0 |
| `manifest.json` | configuration, tools, estimated utilisation, predicted cycles, checksums |

## Making the bitstream

### With Vivado

```
vivado -mode batch -source {vivado.SCRIPT}
```

Result: `{vivado.RESULT_FOLDER}/{stem}.bit`. The script ends with an error where timing is not met.
{opened}
## On the board

1. Copy `{stem}.bit` and this folder's `{stem}.hwh` into one folder on the board. Use this `.hwh`, not the one that Vivado
   writes: the registers are in this one alone.
2. Install the host library there, which needs NumPy and pynq alone: `pip wheel --no-deps --wheel-dir dist .` in a clone of
   nearflash makes the wheel; on the board, `sudo pip install --no-deps dist/nearflash-*.whl`.
3. Check it: `sudo python3 -m nearflash.selftest {stem}.bit`.
4. In Python: `overlay = pynq.Overlay("{stem}.bit")`. PYNQ sets the clock to {config.clock_mhz:g} MHz.
"""
