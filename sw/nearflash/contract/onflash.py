"""What lies in the device's DRAM: flash pages, out-of-band areas, block states, the FTL's map and superblock::

  page data    layout.flash + ppn * page_bytes
  OOB          layout.oob + ppn * oob_bytes: u32 magic, u32 lpn, u64 write sequence, then zeros (place for ECC);
               another magic: nothing was written here, or its program failed
  block state  layout.block_state + ((block * dies + die) * channels + channel) * 8, planes numbered as dies:
               u16 next page to program, u16 flags (bit 0: erased since new), u32 erase count.
               All zero = as from the factory: must be erased before the first program
  map          layout.map + lpn * 4: u32, 0 = unmapped, otherwise ppn + 1
  superblock   layout.superblock: u32 magic, u32 write cursor (next PPN to program), u64 write sequence;
               all zero = blank device

Pages are written in PPN order (log-structured): consecutive writes stripe over channels, then dies, then
planes, then pages.
"""

from __future__ import annotations

import struct

OOB_MAGIC = 0x424F464E  # "NFOB"
SUPERBLOCK_MAGIC = 0x4253464E  # "NFSB"
BLOCK_ERASED = 1


def oob(lpn: int, sequence: int, oob_bytes: int) -> bytes:
    """The out-of-band area of a written page."""
    return struct.pack("<IIQ", OOB_MAGIC, lpn, sequence).ljust(oob_bytes, b"\0")


def block_state(next_page: int, erased: bool, erase_count: int) -> bytes:
    return struct.pack("<HHI", next_page, int(erased), erase_count)


def superblock(cursor: int, sequence: int) -> bytes:
    return struct.pack("<IIQ", SUPERBLOCK_MAGIC, cursor, sequence)
