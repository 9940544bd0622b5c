"""What a board punishes silently has a name here: each fault made on purpose, by the code that users write."""

import asyncio
import inspect
import re
import shutil
from pathlib import Path

import nearflash
import numpy as np
import pynq
import pytest
from nearflash.contract import AdminOpcode
from nearflash.contract.nvme import sqe
from nearflash.contract.registers import doorbell
from nearflash_sim.board import errors

BIT = "movietweetings.bit"
HIGH = 1 << 32
HEADINGS = Path(__file__).parents[3] / "docs" / "virtual_board.md"


def identify(device, address, flush=True):
    """Send IDENTIFY to ``address`` as a driver would that writes its own queue entries."""
    ring = device.driver._rings[0]
    arena = device.backend._arenas[0][0]
    at = ring.sq.address - arena.device_address
    arena[at : at + 64] = np.frombuffer(sqe(AdminOpcode.IDENTIFY, 1, nsid=0, prp1=address, cdw10=1), np.uint8)
    if flush:
        arena[at : at + 64].flush()
    device.backend.mmio_write32(doorbell(0, completion=False), 1)
    device.backend.idle(5000)


def test_missing_flush(device):
    b = device.driver.buffer(4096)
    with pytest.raises(errors.MissingFlush, match=r"processor's copy is newer.*flush"):
        identify(device, b.address, flush=False)


def test_a_fault_while_the_interrupt_is_awaited(device, overlay):
    """Whoever awaits goes on, and meets the error at the next access."""
    b = device.driver.buffer(4096)
    ring, arena = device.driver._rings[0], device.backend._arenas[0][0]
    at = ring.sq.address - arena.device_address
    arena[at : at + 64] = np.frombuffer(sqe(AdminOpcode.IDENTIFY, 1, nsid=0, prp1=b.address, cdw10=1), np.uint8)
    overlay.nearflash_0.write(doorbell(0, completion=False), 1)

    async def wait():
        await asyncio.wait_for(overlay.nearflash_0.irq.wait(), 60)

    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(wait())
    with pytest.raises(errors.MissingFlush):
        overlay.nearflash_0.read(0)


def test_missing_invalidate(device):
    buffer = pynq.allocate((4096,), np.uint8)
    identify(device, buffer.device_address)
    reads = {"item": lambda: buffer[0], "sum": buffer.sum, "arithmetic": lambda: buffer + 1, "bytes": buffer.tobytes,
             "list": lambda: list(buffer), "concatenate": lambda: np.concatenate([buffer, buffer]),
             "copy of a slice": lambda: buffer[100:200].copy(), "repr": lambda: repr(buffer)}
    unnoticed = []
    for name, read in reads.items():
        try:
            read()
            unnoticed.append(name)
        except errors.MissingInvalidate:
            continue
    assert not unnoticed
    buffer.invalidate()
    assert buffer[4:24].tobytes().strip()  # the serial number
    buffer.freebuffer()


def test_lost_write(overlay):
    with pynq.allocate((64,), np.uint32) as buffer:
        buffer[5] = 7
        with pytest.raises(errors.LostWrite, match="was written and not flushed"):
            buffer.invalidate()
        buffer.flush()
        buffer.invalidate()
        assert buffer[5] == 7


def test_outside_buffer(device):
    with pytest.raises(errors.OutsideBuffer, match=r"wrote address 0x1f000000 in cycle \d+, where nobody allocated"):
        identify(device, 0x1F00_0000)


def test_truncated_address(device):
    buffer = pynq.allocate((4096,), np.uint8)
    if buffer.device_address < HIGH:  # a board whose memory ends below 4 GiB can't show it
        assert pynq.Device.active_device.board.board.dram_bytes <= HIGH // 2
    else:
        with pytest.raises(errors.TruncatedAddress, match="low 32 bits of an address in the buffer"):
            identify(device, buffer.device_address % HIGH)
    buffer.freebuffer()


def test_use_after_free(device):
    with pynq.allocate((4096,), np.uint8) as buffer:
        address = buffer.device_address
    with pytest.raises(errors.UseAfterFree, match="that was freed"):
        identify(device, address)


def test_bogus_buffer(overlay):
    with pynq.allocate((64,), np.uint32) as buffer:
        for bogus in (buffer + 1, np.empty_like(buffer)):
            with pytest.raises(errors.BogusBuffer, match="computed from a buffer"):
                bogus.flush()


def test_strided_buffer(overlay):
    with pynq.allocate((8, 8), np.uint32) as buffer:
        for act in (buffer[:, 0].flush, buffer[:, 0].invalidate):
            with pytest.raises(errors.StridedBuffer, match="first 32 bytes"):
                act()
        buffer[3].flush()  # a row has no gaps


def test_leaked_buffers(script):
    out = script(f"import pynq; ol = pynq.Overlay({BIT!r}); kept = pynq.allocate((16,), 'u4')")
    assert out.returncode == 0, out.stderr
    assert re.search(r"LeakedBuffers: 1 buffers, 64 bytes, were never freed", out.stderr)
    out = script(f"import pynq; ol = pynq.Overlay({BIT!r})\nwith pynq.allocate((16,), 'u4') as b: b.flush()")
    assert "Leaked" not in out.stderr


def test_out_of_memory(overlay):
    with pytest.raises(errors.OutOfMemory, match="largest free range"):
        pynq.allocate((1 << 40,), np.uint8)


def test_unmapped_address(overlay):
    base = overlay.ip_dict["nearflash_0"]["phys_addr"]
    for address in (0x1000, base + 0x8_0000):
        with pytest.raises(errors.UnmappedAddress, match=f"{address:#x}"):
            pynq.MMIO(address, 4).read(0)
    with pytest.raises(errors.UnmappedAddress, match="beyond the block"):
        overlay.nearflash_0.read(0x1_0000)


def test_register_refused(overlay):
    with pytest.raises(errors.RegisterRefused, match="no such register"):
        overlay.nearflash_0.read(0x3F0)
    with pytest.raises(OSError, match="no such register"):  # as code for boards catches it
        overlay.nearflash_0.write(0x3F0, 1)


def test_bus_hang(script):
    board = pynq.Device.active_device.board
    out = script(f"import pynq\npynq.MMIO({board.ps.window:#x}, 4).read(0)")
    assert "BusHang" in out.stderr
    assert "download an overlay first" in out.stderr


def test_numpy_register_write(overlay):
    with pytest.raises(errors.NumpyRegisterWrite, match=r"uint32.*int\(value\)"):
        overlay.nearflash_0.write(0x110, np.uint32(1))
    overlay.nearflash_0.write(0x110, 1)
    assert overlay.nearflash_0.read(0x110) == 1


def copied(overlay, folder, change=lambda text: text):
    """A copy of the overlay's hand-off file, changed; the path its .bit would have."""
    text = Path(overlay.bitfile_name).with_suffix(".hwh").read_text()
    (folder / "copy.hwh").write_text(change(text))
    return str(folder / "copy.bit")


def test_wrong_clock(overlay, tmp_path):
    def slower(text):
        out, n = re.subn(r'(FCLK0_PERIPHERAL_DIVISOR0|PL0_REF_CTRL__DIVISOR0)" VALUE="\d+"', r'\1" VALUE="16"', text)
        assert n
        return re.sub(r'PL0_REF_CTRL__ACT_FREQMHZ" VALUE="[\d.]+"', 'PL0_REF_CTRL__ACT_FREQMHZ" VALUE="62.5"', out)

    with pytest.raises(errors.WrongClock, match="divisors make"):
        pynq.Overlay(copied(overlay, tmp_path, slower))


def test_overclocked(overlay):
    before = pynq.Clocks.fclk0_mhz
    pynq.Clocks.fclk0_mhz = 300
    try:
        with pytest.raises(errors.Overclocked, match="the design closes timing at"):
            overlay.nearflash_0.read(0)
        pynq.Clocks.fclk0_mhz = 50  # slower is safe
        overlay.nearflash_0.read(0)
    finally:
        pynq.Clocks.fclk0_mhz = before


def test_foreign_overlay(overlay, tmp_path):
    with pytest.raises(errors.ForeignOverlay, match=r"not the hand-off file of `nearflash build`"):
        pynq.Overlay(copied(overlay, tmp_path, lambda text: text.replace('NAME="CONFIG"', 'NAME="SETTINGS"')))
    folder = Path(overlay.bitfile_name).parent
    other = "ZCU104" if pynq.Device.active_device.board.ps.axi == 3 else "Pynq-Z2"
    shutil.copy(folder / f"movietweetings.{other}.hwh", tmp_path / "other.hwh")
    with pytest.raises(errors.ForeignOverlay, match="made for a"):
        pynq.Overlay(str(tmp_path / "other.bit"))


def test_stale_overlay(overlay, tmp_path):
    bit = copied(overlay, tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {"copy.hwh": "0123456789abcdef0123"}}')
    with pytest.raises(errors.StaleOverlay, match="of different builds"):
        pynq.Overlay(bit)
    (tmp_path / "manifest.json").write_text('{"files": {"another.hwh": "0"}}')
    with pytest.raises(errors.StaleOverlay, match=r"does not list copy\.hwh"):
        pynq.Overlay(bit)


def test_overlay_replaced(overlay):
    old = overlay.nearflash_0
    pynq.Overlay(BIT)
    with pytest.raises(errors.OverlayReplaced, match="another one has replaced"):
        old.read(0)


def test_allocate_before_download(script):
    out = script("import pynq\npynq.allocate((16,), 'u4')")
    assert "AllocateBeforeDownload" in out.stderr


def test_board_in_use(script):
    import os

    out = script("import pynq\npynq.Device.active_device", board=os.environ["NEARFLASH_BOARD"])
    assert "BoardInUse" in out.stderr
    assert str(os.getpid()) in out.stderr


def test_every_error_has_a_test_and_an_entry():
    names = set(errors.__all__) - {"BoardError"}
    tested = inspect.getsource(inspect.getmodule(test_every_error_has_a_test_and_an_entry))
    described = HEADINGS.read_text()
    assert not [n for n in names if n not in tested]
    assert not [n for n in names if f"`{n}`" not in described]
    assert len(names) >= 12


def test_after_every_fault_the_board_works(device, model):
    compiled, reference = model
    device.load(compiled)
    from nearflash.board.random_model import random_queries

    dense, bags = random_queries(compiled, 4)
    assert device.infer(dense, bags).tobytes() == reference.logits(dense, bags)[1].astype(np.float32).tobytes()
    assert nearflash.__version__
