"""What IDENTIFY answers: the pages of the NVM Express Base Specification 1.4 (figures 247 and 245) and the device's own.

Fields that are 0 are "not reported" or "not supported" there, and left out here.
"""

from __future__ import annotations

import struct
import uuid

from .config import FORMATS, MODES, DeviceConfig, log2
from .nvme import HOST_PAGE
from .registers import NVME_VERSION

__all__ = ["CNS", "IDENTIFY_BYTES", "identify", "limits"]

IDENTIFY_BYTES = 4096
FIRMWARE = "0.1.0"  # the package's version
CNS = (0x00, 0x01, 0xC0)  #: namespace, controller, device limits


def identify(config: DeviceConfig, cns: int) -> bytes:
    """The 4096 bytes IDENTIFY returns for ``cns``; the gateware's ROM is made from this. Raises ValueError for a ``cns``
    that is not one of :data:`CNS`."""
    pages = {0x00: _namespace, 0x01: _controller, 0xC0: _device}
    if cns not in pages:
        raise ValueError(f"cns = {cns:#x}: must be 0x00, 0x01 or 0xc0")
    page = bytearray(IDENTIFY_BYTES)
    for offset, field in pages[cns](config).items():
        page[offset : offset + len(field)] = field
    return bytes(page)


def _text(text: str, length: int) -> bytes:
    """ASCII, padded with spaces (section 1.5 of the specification)."""
    return text.encode("ascii").ljust(length)


def _namespace(config: DeviceConfig) -> dict[int, bytes]:
    blocks = struct.pack("<Q", config.lbas)
    return {
        0: blocks * 3,  # NSZE, NCAP, NUSE
        33: b"\x01",  # DLFEAT: deallocated blocks read as zeros
        128: struct.pack("<HBB", 0, log2(config.lba_bytes), 0),  # LBAF0: no metadata, LBADS
    }


def _controller(config: DeviceConfig) -> dict[int, bytes]:
    # Devices of one design can't be told apart: there is no place yet where a board's own number could come from.
    nqn = f"nqn.2014-08.org.nvmexpress:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'nearflash:{config.design_id:08x}')}"
    return {
        # VID and SSVID (0 and 2) stay 0000h, which PCI-SIG gives nobody: this is no PCI function, and another company's
        # number would make hosts apply that company's quirks. (FFFFh says that no device is there.)
        4: _text(f"NF{config.design_id:08X}", 20),  # SN
        24: _text("nearflash", 40),  # MN
        64: _text(FIRMWARE, 8),  # FR
        77: bytes([(config.host.mdts_pages * config.lba_bytes // HOST_PAGE).bit_length() - 1]),  # MDTS, in pages of MPSMIN
        80: struct.pack("<I", NVME_VERSION),  # VER
        111: b"\x01",  # CNTRLTYPE: I/O controller
        260: b"\x03",  # FRMW: one firmware slot, read-only
        512: b"\x66\x44",  # SQES, CQES: entries of 64 and 16 bytes, no others
        516: struct.pack("<I", 1),  # NN
        520: struct.pack("<H", 1 << 2),  # ONCS: dataset management
        525: b"\x07",  # VWC: FLUSH needed, also for all namespaces at once (NSID FFFFFFFFh)
        768: nqn.encode(),  # SUBNQN
    }


def _device(config: DeviceConfig) -> dict[int, bytes]:
    return {4 * i: struct.pack("<I", v) for i, v in enumerate(limits(config).values())}


def limits(config: DeviceConfig) -> dict[str, int]:
    """The device limits page (CNS C0h): 32-bit words in this order. Without a lookup engine those of queries are 0."""
    lk, m = config.lookup, config.mlp
    queries = {
        "max_tables": lk.max_tables, "max_extents": lk.max_extents, "max_dim": lk.max_dim, "max_bag": lk.max_bag,
        "max_batch": config.host.max_batch, "accumulators": lk.accumulators, "acc_bits": lk.acc_bits,
        "formats": sum(1 << FORMATS.index(f) for f in lk.formats), "modes": sum(1 << MODES.index(f) for f in lk.modes),
        "act_bits": m.act_bits, "n_batch": m.n_batch, "outputs": m.graph[-1].width if m.graph else 0,
        "dense": sum(n.width for n in m.graph if n.kind == "dense"),
        "tables": sum(len(n.tables) for n in m.graph if n.kind == "tables"),
    }
    return {
        "version": 1, "design_id": config.design_id, **(queries if lk.max_tables else dict.fromkeys(queries, 0)),
        "lba_bytes": config.lba_bytes, "lbas": config.lbas, "beat_bytes": config.beat_bytes,
        "mdts_pages": config.host.mdts_pages, "queue_pairs": config.host.queue_pairs,
        "queue_entries": config.host.queue_entries,
    }
