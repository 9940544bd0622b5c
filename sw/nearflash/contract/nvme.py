"""NVMe formats the device speaks: 64-byte submission entries, 16-byte completion entries, status codes.

Queue pairs are NVMe-format rings (doorbells, phase bit, PRP), created by registers (:mod:`.registers`) rather than by
admin commands; queue pair 0 accepts :class:`AdminOpcode`, the others :class:`Opcode`. One logical block is one flash page.

Vendor opcodes keep NVMe's rule that bits 1:0 give the data direction (01b to the device, 10b from it, 11b both).

INFER and LOOKUP (one command is one batch)::

  PRP1/PRP2  the query stream, cdw10 32-bit words long (PRP list in PRP2 when it spans more than two pages)
  cdw10      words of the query stream
  cdw11      bits 15:0 samples in the batch, bit 16 weighted (each index is followed by an fp32 weight)
  cdw12      bits 7:0 number of tables T in use (tables 0..T-1, all open), bits 31:16 dense features per sample
  cdw14/15   host address (low/high), beat-aligned, of the results; contiguous

A device without a lookup engine answers INVALID_OPCODE to both, and to admin commands but IDENTIFY.

INFER returns fp32 logits, [samples][outputs]; LOOKUP returns pooled fp32 vectors, [samples][tables][dim].

The query stream is little-endian 32-bit words, sample-major; per sample: the dense features (fp32), then for each table
0..T-1 a count (bag length; the first difference of EmbeddingBag's offsets) followed by that many indices, each
followed by its fp32 weight if bit 16 of cdw11 is set. The whole stream is validated before the first flash read: a
batch with one bad index fails whole and has no effect.

Admin commands:

- TABLE_CREATE: cdw10 = table id, PRP1 = descriptor (:mod:`.table`), 80 words, in one page.
- TABLE_DELETE: cdw10 = table id.
- PROGRAM_LOAD: PRP1/PRP2 = parameter image (:mod:`.program`), cdw10 = its length in 32-bit words.
- IDENTIFY: cdw10 bits 7:0 = CNS: 00h namespace, 01h controller, C0h device limits (:mod:`.identify`); PRP1 = 4096-byte
  buffer.

Source: NVM Express Base Specification 2.0 (sections 3.3, 4.1, 4.6) and NVM Command Set Specification 1.0.
"""

from __future__ import annotations

import enum
import struct

import numpy as np

SQE_BYTES = 64
CQE_BYTES = 16
HOST_PAGE = 4096  # memory page size (CAP.MPSMIN = CC.MPS = 0): PRP entries address pages of this size
NLB_MASK = 0xFFFF


class AdminOpcode(enum.IntEnum):
    """Commands of queue pair 0."""

    IDENTIFY = 0x06
    TABLE_DELETE = 0xC0
    TABLE_CREATE = 0xC1
    PROGRAM_LOAD = 0xC5


class Opcode(enum.IntEnum):
    """Commands of all other queue pairs."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    DSM = 0x09  #: dataset management; attribute deallocate (cdw11 bit 2), cdw10 bits 7:0 = ranges - 1
    INFER = 0x83
    LOOKUP = 0x87


class Status(enum.IntEnum):
    """(status code type << 8) | status code, as in CQE dword 3 bits 27:17."""

    SUCCESS = 0x000
    INVALID_OPCODE = 0x001
    INVALID_FIELD = 0x002
    DATA_TRANSFER_ERROR = 0x004  #: AXI error on the host bus
    INVALID_NAMESPACE = 0x00B  #: NSID must be 1 for I/O
    INVALID_PRP_OFFSET = 0x013  #: PRP1 not beat-aligned, or another PRP entry not page-aligned
    LBA_OUT_OF_RANGE = 0x080
    CAPACITY_EXCEEDED = 0x081  #: no free page left to write
    COMMAND_SIZE_LIMIT = 0x183  #: the ranges of a dataset management command hold more blocks than the device
    # command specific (type 1): vendor range
    UNKNOWN_TABLE = 0x1C0  #: dw0 = table
    INDEX_OUT_OF_RANGE = 0x1C1  #: dw0 = position of the word in the query stream, dw1 = table
    OVERLAPPING_EXTENTS = 0x1C2  #: dw0 = table already there
    BAD_TABLE = 0x1C3  #: malformed descriptor; dw0 = word at fault
    BAD_BATCH = 0x1C4  #: malformed query stream (length, counts, batch, tables, dense); dw0 = position
    NO_PROGRAM = 0x1C5  #: INFER on a device without an MLP, or before PROGRAM_LOAD
    BAD_PROGRAM = 0x1C6  #: malformed parameter image; dw0 = position of the record
    ROW_NOT_FINITE = 0x1C7  #: NaN or Inf in a row or a weight; dw1 = table
    POOL_OVERFLOW = 0x1C8  #: value range exceeds the table's fixed-point window; dw1 = table
    ROW_UNMAPPED = 0x1C9  #: a row's logical block was never written; dw1 = table
    BAD_TENSOR_SPAN = 0x1CA  #: a tensor command's offset or length; dw0 = number of the cdw at fault
    BAD_DESCRIPTOR = 0x1CB  #: malformed program of the tensor engine; dw0 = its descriptor (0: header), dw1 = word at fault
    # media errors (type 2)
    WRITE_FAULT = 0x280
    UNRECOVERED_READ = 0x281


def sqe(opcode: int, cid: int, *, nsid: int = 0, prp1: int = 0, prp2: int = 0, cdw10: int = 0, cdw11: int = 0,
        cdw12: int = 0, cdw13: int = 0, cdw14: int = 0, cdw15: int = 0) -> bytes:
    """A 64-byte submission queue entry."""
    return struct.pack("<BBHIIIQQQIIIIII", opcode, 0, cid, nsid, 0, 0, 0, prp1, prp2, cdw10, cdw11, cdw12, cdw13,
                       cdw14, cdw15)


#: One completion queue entry. ``sf``: bit 0 phase, bits 11:1 status.
CQE = np.dtype([("dw0", "<u4"), ("dw1", "<u4"), ("sqhd", "<u2"), ("sqid", "<u2"), ("cid", "<u2"), ("sf", "<u2")])
