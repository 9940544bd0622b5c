"""Stock PYNQ on the virtual board that NEARFLASH_BOARD names."""

import gc
import os
import subprocess
import sys

import nearflash
import pynq
import pytest
from nearflash.board.random_model import random_model
from nearflash.reference.model import IntegerModel

BIT = "movietweetings.bit"


@pytest.fixture
def overlay():
    """A fresh download, found by its bare name."""
    yield pynq.Overlay(BIT)
    gc.collect()  # buffers that a failed test still held


@pytest.fixture
def device(overlay):
    with nearflash.open("pynq", overlay=overlay) as d:
        yield d
    assert not pynq.Device.active_device.board.memory.regions, "the driver left buffers behind"


@pytest.fixture(scope="session")
def model():
    """Random parameters for the overlay's device, and the integer model of them."""
    from nearflash_sim.board.overlay import read_overlay

    board = pynq.Device.active_device.board.board
    compiled = random_model(read_overlay(pynq.Overlay(BIT, download=False).bitfile_name, board))
    return compiled, IntegerModel(compiled)


@pytest.fixture
def script():
    """Runs a script in a process of its own, on a board of its own (or on ``board``)."""

    def run(text: str, board: str | None = None) -> subprocess.CompletedProcess:
        env = dict(os.environ)
        env["NEARFLASH_BOARD"] = board or env["NEARFLASH_BOARD"] + "-other"
        return subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True, timeout=120,
                              check=False)

    return run
