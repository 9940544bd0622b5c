"""The header and the size of a ``.bit`` file, as PYNQ and the parts want them.

Header: tags a (design), b (part), c (date), d (time), each with a length of two bytes, and e (the bitstream) with one of
four. As a program: ``python3 bitstream.py FILE.bit ORDER_CODE`` ends with code 1 and the reason.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BitstreamError", "Header", "check_bitstream", "parse_header"]

START = bytes.fromhex("0009 0ff00ff00ff00ff000 0001")
SYNC = bytes.fromhex("aa995566")
#: Bytes of a whole part's bitstream, by the order code's beginning (UG585, "Boot and Configuration": 32,364,512 bits). The
#: other parts' are not checked.
SIZES = {"xc7z020": 4_045_564}
BUSY = 1024  # bytes in which the synchronisation word must come


class BitstreamError(ValueError):
    """Not a bitstream for the part."""


@dataclass(frozen=True)
class Header:
    """``design``, ``part``, ``date``, ``time``: as the tool wrote them; ``size``: bytes of the bitstream that follow."""

    design: str
    part: str
    date: str
    time: str
    size: int


def parse_header(raw: bytes) -> Header:
    """Raises :class:`BitstreamError` for anything but a header with its five tags, and what it announces behind it."""
    if not raw.startswith(START):
        raise BitstreamError("no .bit header at the file's beginning")
    at, texts = len(START), []
    for tag in b"abcd":
        if raw[at : at + 1] != bytes([tag]) or len(raw) < at + 3:
            raise BitstreamError(f"tag {chr(tag)} is missing")
        size = int.from_bytes(raw[at + 1 : at + 3], "big")
        value = raw[at + 3 : at + 3 + size]
        if len(value) < size or not value.endswith(b"\0"):
            raise BitstreamError(f"tag {chr(tag)} is damaged")
        texts.append(value[:-1].decode("latin-1"))
        at += 3 + size
    if raw[at : at + 1] != b"e" or len(raw) < at + 5:
        raise BitstreamError("tag e is missing")
    size, rest = int.from_bytes(raw[at + 1 : at + 5], "big"), len(raw) - at - 5
    if size != rest:
        raise BitstreamError(f"the header announces {size:,} bytes, and {rest:,} follow")
    return Header(texts[0], texts[1], texts[2], texts[3], size)


def check_bitstream(raw: bytes, order_code: str) -> Header:
    """The header of ``raw``, a ``.bit`` file for the part of ``order_code`` ("xc7z020clg400-1"). Raises
    :class:`BitstreamError` for another part, a wrong size, or no bitstream behind the header."""
    header = parse_header(raw)
    part, wanted = header.part.lower().removeprefix("xc"), order_code.lower().removeprefix("xc")
    if len(part) < 5 or not wanted.startswith(part):
        raise BitstreamError(f"it is for {header.part or 'no part'}, not for {order_code}")
    whole = next((n for name, n in SIZES.items() if order_code.lower().startswith(name)), header.size)
    if header.size != whole:
        raise BitstreamError(f"it holds {header.size:,} bytes: a bitstream of {order_code} has {whole:,}")
    if SYNC not in raw[-header.size :][:BUSY]:
        raise BitstreamError(f"no synchronisation word in its first {BUSY} bytes")
    return header


if __name__ == "__main__":
    try:
        print(check_bitstream(Path(sys.argv[1]).read_bytes(), sys.argv[2]))
    except BitstreamError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
