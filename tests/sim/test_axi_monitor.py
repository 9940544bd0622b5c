"""The monitor accepts what AXI allows, and names each breach."""

from __future__ import annotations

import re

import pytest
from nearflash_sim.models.axi_monitor import Address, AxiBreach, AxiMonitor

READY = {"arready": 1, "awready": 1, "wready": 1, "bready": 1, "rready": 1}


def play(cycles, monitor=None, **options):
    """Cycles of what differs from all zero and always ready."""
    monitor = monitor or AxiMonitor(4, **options)
    for c in cycles:
        monitor.cycle(lambda name, c=c: (READY | c).get(name, 0))
    return monitor


def address(ch, *, ready=1, **fields):
    fields = {"id": 0, "addr": 0, "len": 0, "size": 2, "burst": 1} | fields
    return {f"{ch}valid": 1, f"{ch}ready": ready} | {ch + k: v for k, v in fields.items()}


def word(**fields):
    return {"wvalid": 1, "wdata": 5, "wstrb": 15, "wlast": 1} | {"w" + k: v for k, v in fields.items()}


def read(**fields):
    return {"rvalid": 1, "rlast": 1} | {"r" + k: v for k, v in fields.items()}


B = {"bvalid": 1}


def test_a_legal_unaligned_burst_that_ends_just_below_a_boundary():
    """The first transfer is short, so the last byte is 4095, though start + beats x size lies beyond."""
    burst = Address(0, 3841, 63, 2, 1)
    beats = list(burst.beats())
    assert (beats[0], beats[1], beats[-1]) == (3841, 3844, 4092)
    data = [word(strb=0b1110 if k == 0 else 15, last=k == 63) for k in range(64)]
    monitor = play([address("aw", addr=3841, len=63), *data, B, address("ar", addr=3841, len=63),
                    *(read(last=k == 63) for k in range(64))])
    assert monitor.idle
    assert monitor.beats == {"r": 64, "w": 64}
    with pytest.raises(AxiBreach, match="from 0xf04 to 0x1003 crosses 4 KiB"):
        play([address("aw", addr=3844, len=63)])
    with pytest.raises(AxiBreach, match="WSTRB 0xf outside the 4 bytes at 0xf01"):
        play([address("aw", addr=3841, len=63), word(last=0)])
    with pytest.raises(AxiBreach, match="WSTRB 0x10 outside the 4 bytes at 0xf01"):  # of a wider bus, the next transfer's
        play([address("aw", addr=3841, len=63), word(strb=0b1_0000, last=0)], AxiMonitor(8))


def test_legal_traffic_of_any_order():
    monitor = play([
        word(last=0), address("aw", addr=8, len=1, ready=0), address("aw", addr=8, len=1) | word(), B | {"bready": 0}, B,
        address("ar", id=3, len=1), address("ar", id=4), read(id=4), read(id=3, last=0), read(id=3),
        address("ar", addr=24, len=3, burst=2), *(read(last=k == 3) for k in range(4)),
        address("aw", addr=2, size=1), word(strb=0b1100), B])
    assert monitor.idle
    assert [ch for ch, _ in monitor.bursts] == ["aw", "ar", "ar", "ar", "aw"]
    assert list(Address(0, 24, 3, 2, 2).beats()) == [24, 28, 16, 20]
    assert list(Address(0, 6, 2, 1, 0).beats()) == [6, 6, 6]


@pytest.mark.parametrize(("cycles", "message"), [
    ([address("ar", ready=0), {}], "ARVALID fell"),
    ([address("ar", ready=0), address("ar", addr=4)], "AR changed"),
    ([word() | {"wready": 0}, word(data=6)], "W changed"),
    ([address("aw", size=3)], "8 bytes a beat on a bus of 4"),
    ([address("aw", burst=3)], "AWBURST is 3"),
    ([address("ar", burst=0, len=16)], "17 beats"),
    ([address("ar", burst=2, len=2)], "wrapping burst of 3"),
    ([address("ar", burst=2, len=3, addr=2)], "wrapping burst of 4 beats at 0x2"),
    ([address("aw", len=1), word()], "WLAST is 1 with 2"),
    ([address("aw"), word(last=0)], "WLAST is 0 with 1"),
    ([address("aw", size=0, addr=1), word(strb=1)], "WSTRB 0x1 outside the 1 bytes at 0x1"),
    ([B], "BID 0"),
    ([address("aw"), word() | B], "BID 0"),  # with the last word, not after it
    ([word(), B], "BID 0"),
    ([address("ar"), read(id=1)], "RID 1"),
    ([address("ar") | read()], "RID 0"),
    ([address("ar"), read(), read()], "RID 0"),
    ([address("ar", len=1), read()], "RLAST is 1 with 2"),
    ([address("ar"), read(last=0)], "RLAST is 0 with 1")])
def test_breaches(cycles, message):
    with pytest.raises(AxiBreach, match=re.escape(message)):
        play(cycles)


@pytest.mark.parametrize(("cycles", "message"), [
    ([address("ar", len=16)], "17 beats"),
    ([address("aw", id=2), address("aw", id=1), word(id=1)], "WID is [1], the next burst is 2's")])
def test_breaches_of_axi3(cycles, message):
    with pytest.raises(AxiBreach, match=re.escape(message)):
        play(cycles, axi3=True)
    if "WID" not in message:
        play(cycles)


def test_bytes_outside_buffers():
    writable = {"writable": lambda address, n: address >= 16 and address + n <= 32}
    play([address("aw", addr=12, len=1), word(strb=0, last=0), word()], **writable)
    with pytest.raises(AxiBreach, match="2 bytes written at 0xe"):
        play([address("aw", addr=12), word(strb=0b1100)], **writable)


def test_idle_is_only_when_nothing_is_owed():
    for cycles in ([address("ar")], [word()], [address("aw")], [address("aw"), word()], [address("ar", ready=0)]):
        assert not play(cycles).idle
