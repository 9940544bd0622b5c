"""IDENTIFY byte by byte: every offset and value from the NVM Express Base Specification 1.4, figures 245, 247 and 249."""

import struct
import uuid
from dataclasses import replace

import nearflash
import pytest
from nearflash.contract import ConfigError, DeviceConfig, register_map
from nearflash.contract.identify import IDENTIFY_BYTES, identify, limits

CONFIGS = {name: DeviceConfig.preset(name) for name in ("tiny", "paper", "tlc")}
LBAS = {"tiny": 256 - 32, "paper": 65536 - 8192, "tlc": 524288 - 65536}  # raw pages less an eighth
LBADS = {"tiny": 9, "paper": 12, "tlc": 14}
MDTS = {"tiny": 1, "paper": 5, "tlc": 7}  # 16 x 512 B, 32 x 4 KiB, 32 x 16 KiB in pages of 4 KiB


def expected_page(fields):
    """4096 bytes, all 0 but ``fields`` {offset: bytes}."""
    page = bytearray(4096)
    for offset, content in fields.items():
        page[offset : offset + len(content)] = content
    return bytes(page)


@pytest.mark.parametrize("name", CONFIGS)
def test_namespace_page(name):
    n = struct.pack("<Q", LBAS[name])
    assert identify(CONFIGS[name], 0x00) == expected_page({
        0: n, 8: n, 16: n,  # NSZE, NCAP, NUSE
        # NSFEAT 24, NLBAF 25 (one format), FLBAS 26 (format 0, no metadata), MC 27, DPC 28, DPS 29, NMIC 30: 0
        33: b"\x01",  # DLFEAT bits 2:0 = 1: a deallocated block reads as 00h
        128: bytes([0, 0, LBADS[name], 0]),  # LBAF0: MS 0, LBADS, RP best
    })


@pytest.mark.parametrize("name", CONFIGS)
def test_controller_page(name):
    config = CONFIGS[name]
    page = identify(config, 0x01)
    subnqn = page[768:1024].rstrip(b"\0")
    assert page == expected_page({
        # VID 0 and SSVID 2: 0, not a company's
        4: b"NF%08X          " % config.design_id,  # SN, 20 bytes
        24: b"nearflash" + b" " * 31,  # MN, 40 bytes
        64: b"0.1.0   ",  # FR, 8 bytes
        77: bytes([MDTS[name]]),
        80: bytes([0x00, 0x00, 0x02, 0x00]),  # VER: tertiary, minor, major (2 bytes)
        111: b"\x01",  # CNTRLTYPE: I/O controller
        260: b"\x03",  # FRMW: bits 3:1 one slot, bit 0 slot 1 is read-only
        512: b"\x66", 513: b"\x44",  # SQES, CQES: 2**6 and 2**4 bytes, least and most
        516: b"\x01\0\0\0",  # NN
        520: b"\x04\0",  # ONCS bit 2: dataset management
        525: b"\x07",  # VWC: bit 0 present, bits 2:1 = 11b FLUSH of all namespaces supported
        768: subnqn,
    })
    prefix = b"nqn.2014-08.org.nvmexpress:uuid:"  # section 7.9: the form for a name with nothing but a UUID
    assert subnqn.startswith(prefix)
    assert len(subnqn) < 223
    assert str(uuid.UUID(subnqn[len(prefix) :].decode())) == subnqn[len(prefix) :].decode()


def test_two_designs_have_two_names():
    pages = [identify(c, 0x01) for c in CONFIGS.values()]
    assert len({p[4:24] for p in pages}) == len({p[768:1024] for p in pages}) == len(CONFIGS)


def test_device_page():
    c = CONFIGS["paper"]
    page = identify(c, 0xC0)
    assert struct.unpack_from("<22I", page) == tuple(limits(c).values())
    assert len(page) == IDENTIFY_BYTES
    assert not any(page[88:])
    some = replace(c, lookup=replace(c.lookup, formats=("fp32", "int8"), modes=("mean",)))
    assert (limits(c)["formats"], limits(c)["modes"]) == (0b111, 0b11)
    assert (limits(some)["formats"], limits(some)["modes"]) == (0b101, 0b10)
    with pytest.raises(ValueError, match="cns"):
        identify(c, 2)


def test_the_version_is_that_of_the_registers_and_of_the_package():
    vs = next(r for r in register_map(CONFIGS["tiny"]) if r.name == "vs")
    assert struct.unpack_from("<I", identify(CONFIGS["tiny"], 0x01), 80)[0] == vs.reset
    assert identify(CONFIGS["tiny"], 0x01)[64:72].decode().rstrip() == nearflash.__version__


@pytest.mark.parametrize(("pages", "page_bytes", "mdts"), [(2, 4096, 1), (3, 4096, 1), (4, 4096, 2), (16, 512, 1),
                                                           (31, 512, 1), (1, 16384, 2), (512, 16384, 11)])
def test_mdts_is_never_more_than_the_device_takes(pages, page_bytes, mdts):
    c = CONFIGS["paper"]
    c = replace(c, flash=replace(c.flash, page_bytes=page_bytes), host=replace(c.host, mdts_pages=pages),
                lookup=replace(c.lookup, max_dim=64))
    assert identify(c, 0x01)[77] == mdts
    assert 4096 << mdts <= pages * page_bytes


@pytest.mark.parametrize(("pages", "page_bytes"), [(1, 4096), (15, 512), (1, 512)])
def test_a_transfer_limit_that_mdts_cannot_state_is_refused(pages, page_bytes):
    c = CONFIGS["paper"]
    with pytest.raises(ConfigError, match=rf"host.mdts_pages = {pages}: must be at least {8192 // page_bytes} "):
        replace(c, flash=replace(c.flash, page_bytes=page_bytes), host=replace(c.host, mdts_pages=pages),
                lookup=replace(c.lookup, max_dim=64))
