"""Both kinds of shell under cocotb."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import shell_backend
import tops
from nearflash.contract.boards import find_board
from nearflash_hw.boards.shell import FABRIC
from nearflash_sim.cocotb_run import run_bench

#: make test-x: as many beats of data.
BEATS = 1_000_000 if os.environ.get("NEARFLASH_FORMER_LIVES") else 0


@pytest.mark.timeout(900 if not BEATS else 7200)
@pytest.mark.parametrize("board", shell_backend.BOARDS)
def test_shell(board):
    top = shell_backend.fabric(find_board(board))
    key = f"{board} {Path(tops.__file__).read_text()} {Path(shell_backend.__file__).read_text()}"
    results = run_bench(top, FABRIC, "bench_shell", name=f"shell-{board}", key=key,
                        env={"BOARD": board, "BEATS": str(BEATS)})
    assert len(list(ET.parse(results).getroot().iter("testcase"))) == 3
