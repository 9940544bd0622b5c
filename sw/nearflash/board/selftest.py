"""Does this board answer right? ``python -m nearflash.selftest``.

The same checks on a real board and on the virtual one, each against the integer reference on the processors. The report says
everything that whoever reads it would ask for.
"""

from __future__ import annotations

import asyncio
import json
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pynq

from .. import __version__
from ..contract import CommandError, DeviceTimeout, Opcode, Status
from ..contract.registers import register_map
from ..contract.shell import DEVICE
from ..reference.model import IntegerModel
from ..reference.tensor import TensorModel
from ..runtime.device import Device
from ..runtime.device import open as open_device
from .random_model import random_model, random_queries
from .random_tensors import random_tensors

__all__ = ["CHECKS", "Outcome", "check_board", "report", "run"]

#: By name, in the order in which they run. A check returns what it saw, and raises whatever for a failure.
CHECKS: dict[str, Callable[[Device, Any], str]] = {}


@dataclass
class Outcome:
    """Of one check."""

    name: str
    passed: bool
    seen: str
    seconds: float
    trace: str = field(default="", repr=False)


def check(function: Callable[[Device, Any], str]) -> Callable[[Device, Any], str]:
    CHECKS[function.__name__.lstrip("_").replace("_", " ")] = function
    return function


def _same(what: str, got: Any, want: Any) -> None:
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.tobytes() != want.tobytes():
        differ = int((got != want).sum()) if got.shape == want.shape else got.size
        raise AssertionError(f"{what}: {differ} of {want.size} values differ; the first expected "
                             f"{want.flat[0]}, got {got.flat[0] if got.size else 'nothing'}")


@check
def _registers(device: Device, overlay: Any) -> str:
    """Every constant register reads what the configuration says; the register map's names reach them."""
    constants = [r for r in register_map(device.config) if r.access == "ro" and r.reset]
    for r in constants:
        got = device.backend.mmio_read32(r.offset)
        mask = r.bits("ro")
        if r.name != "csts" and got & mask != r.reset & mask:
            raise AssertionError(f"register {r.name}: {got:#x}, must be {r.reset:#x}")
    by_name = int(getattr(overlay, DEVICE).register_map.design_id)
    if by_name != device.config.design_id:
        raise AssertionError(f"register_map.design_id: {by_name:#x}, must be {device.config.design_id:#x}")
    return f"{len(constants)} constants"


@check
def _block_io(device: Device, overlay: Any) -> str:
    """Pages written come back, before and after a controller reset."""
    rng = np.random.default_rng(1)
    size, last = device.config.lba_bytes, device.config.lbas - 1
    pages = {lba: rng.bytes(size) for lba in {0, 1, last // 2, last}}
    for lba, page in pages.items():
        device.write(lba, page)
    device.flush()
    for again in (False, True):
        if again:
            device.reset()
        for lba, page in pages.items():
            if device.read(lba) != page:
                raise AssertionError(f"block {lba} differs{' after a reset' if again else ''}")
    device.trim(0, 2)
    if any(device.read(0, 2)):
        raise AssertionError("trimmed blocks don't read as zeros")
    return f"{len(pages)} blocks of {size} B"


@check
def _lookups(device: Device, overlay: Any) -> str:
    """Pooled vectors equal the reference's bits."""
    if not device.config.lookup.max_tables:
        return "this device has no lookup engine: nothing to check"
    model = random_model(device.config)
    device.load(model, preload=False)
    _, bags = random_queries(model, 8)
    want, _ = IntegerModel(model).pool(bags)
    for t, (a, b) in enumerate(zip(device.lookup(bags), want, strict=True)):
        _same(f"table {t}", a, b)
    return f"{sum(len(i) for i, _ in bags)} lookups in {len(bags)} tables"


@check
def _inference(device: Device, overlay: Any) -> str:
    """Logits equal the integer model's bits, by polling and by interrupt, while blocks are read and written."""
    if not device.config.mlp.graph:
        return "this device has no MLP: nothing to check"
    model = random_model(device.config)
    device.load(model, preload=False)
    count = min(16, device.config.host.max_batch)
    dense, bags = random_queries(model, count)
    want = IntegerModel(model).logits(dense, bags)[1].astype(np.float32)
    page = np.random.default_rng(2).bytes(device.config.lba_bytes)
    spare = device.config.lbas - 2
    ticket = device.submit(dense, bags)
    device.write(spare, page)
    if device.read(spare) != page:
        raise AssertionError(f"block {spare} differs beside an inference")
    _same("logits, polled", device.result(ticket), want)
    got = _in_a_loop(_awaited(device, dense, bags))
    _same("logits, awaited", got, want)
    return f"{2 * count} queries"


async def _awaited(device: Device, dense: Any, bags: Any) -> np.ndarray:
    return await device.result_async(device.submit(dense, bags))


def _in_a_loop(coroutine: Any) -> Any:
    """The result of a coroutine, in an event loop of PYNQ's: its interrupts belong to the one that was current first."""
    loop = asyncio.get_event_loop_policy().get_event_loop()
    return loop.run_until_complete(coroutine)


@check
def _tensors(device: Device, overlay: Any) -> str:
    """A program of every operator that the tensor engine has gives the integer model's bytes."""
    if not device.config.tensor.rows:
        return "this device has no tensor engine: nothing to check"
    program, model = random_tensors(device.config), TensorModel(device.config)
    model.load(0, program.image)
    want = model.run(0, program.content)
    device.load_tensors(0, program.image)
    _same("codes", np.frombuffer(device.run_tensors(0, program.content, len(want)), np.int8), np.frombuffer(want, np.int8))
    return f"{program.operators} operators, {len(want)} B"


@check
def _errors(device: Device, overlay: Any) -> str:
    """A command that must fail fails with its status, and the device works on."""
    driver = device.driver
    b = driver.buffer(device.config.lba_bytes)
    try:
        driver.call(1, Opcode.READ, "read beyond the end", [b], nsid=1, prp1=b.address, cdw10=device.config.lbas, cdw12=0)
    except CommandError as e:
        if e.status != Status.LBA_OUT_OF_RANGE:
            raise AssertionError(f"a read beyond the end gave {e.status!r}") from e
    else:
        raise AssertionError("a read beyond the end succeeded")
    device.read(0)
    return "refused by status"


@check
def _timeout_and_reset(device: Device, overlay: Any) -> str:
    """A wait that is too short ends with what the device was doing; after a reset of the whole device it works."""
    b = device.driver.buffer(device.config.lba_bytes)
    command = device.driver.submit(1, Opcode.READ, "a read", [b], nsid=1, prp1=b.address, cdw10=0, cdw12=0)
    try:
        device.driver.wait(command, 0)
    except DeviceTimeout as e:
        said = str(e)
    else:
        said = "the read was done at once"
    device.subsystem_reset()
    device.write(0, bytes(device.config.lba_bytes))
    device.read(0)
    return said


def run(device: Device, overlay: Any, progress: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """All checks. What is stored on the device's first, middle and last blocks is lost."""
    outcomes = []
    for name, function in CHECKS.items():
        start = time.monotonic()
        try:
            seen, passed, trace = function(device, overlay), True, ""
        except Exception as e:  # whatever a broken board does is the finding
            seen, passed, trace = f"{type(e).__name__}: {e}", False, traceback.format_exc()
        outcome = Outcome(name, passed, seen, time.monotonic() - start, trace)
        outcomes.append(outcome)
        progress(outcome)
        if not passed:
            break  # the rest stands on it
    return outcomes


def check_board(bitfile: str, progress: Callable[[Outcome], None] = lambda outcome: None) -> tuple[list[Outcome], str]:
    """Download an overlay and check it: outcomes, and the report as JSON."""
    overlay = pynq.Overlay(bitfile)
    with open_device("pynq", overlay=overlay) as device:
        outcomes = run(device, overlay, progress)
        return outcomes, report(device, overlay, outcomes)


def report(device: Device, overlay: Any, outcomes: list[Outcome]) -> str:
    """JSON to send in."""
    board = getattr(overlay.device, "name", "")
    return json.dumps({
        "passed": all(o.passed for o in outcomes) and len(outcomes) == len(CHECKS), "nearflash": __version__,
        "pynq": pynq.__version__, "python": platform.python_version(), "machine": platform.machine(), "board": board,
        "simulated": type(overlay.device).__name__ == "SimDevice",
        "overlay": overlay.bitfile_name.rpartition("/")[2], "design_id": f"{device.config.design_id:#010x}",
        "clock_mhz": device.config.clock_mhz,
        "fclk0_mhz": float(pynq.Clocks.fclk0_mhz), "checks": [asdict(o) for o in outcomes],
        "counters": device.counters() if all(o.passed for o in outcomes) else {}}, indent=2) + "\n"
