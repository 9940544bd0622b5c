"""Input files: bytes to text, lines, TOML and numbers, with errors that name the file and the place in it."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError, LimitError

__all__ = ["check_zip", "integer", "parse_toml", "read_lines", "read_text", "reading"]

LONGEST_LINE = 1 << 28  # bytes: a trace may hold all of its indices in one line
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def reading(path: str | Path, what: str | None = None, error: type[LimitError] = DataError) -> Iterator[None]:
    """Errors raised in the body name the file ``path``; a file that can't be read is a :class:`DataError`.

    ``what`` (text: what the file should be) turns every exception left over into ``error``. It is meant for readers of
    other projects, which fail in many ways on foreign bytes; our own parsers check explicitly.
    """
    try:
        yield
    except LimitError as e:
        e.within(path)
        raise
    except OSError as e:
        raise DataError("file", e.strerror or str(e), "can't be read", str(path)) from e
    except Exception as e:
        if what is None:
            raise
        why = _ESCAPES.sub("", str(e)).strip().partition("\n")[0][:160] or type(e).__name__
        raise error("content", why, f"not {what}", str(path)) from e


def _decoded(raw: bytes, line: int = 1) -> str:
    """UTF-8 text of ``raw``, which begins in line ``line``."""
    if b"\0" in raw:
        raise DataError(f"line {line + raw.count(10, 0, raw.index(0))}", "a zero byte", "must be text in UTF-8 (not UTF-16)")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise DataError(f"line {line + raw.count(10, 0, e.start)}", raw[e.start : e.start + 8], "must be text in UTF-8"
                        ) from None


def _without_bom(raw: bytes) -> bytes:
    if raw.startswith(_UTF16):
        raise DataError("encoding", "UTF-16", "must be UTF-8")
    return raw.removeprefix(b"\xef\xbb\xbf")


def read_text(path: str | Path) -> str:
    """A file's text, UTF-8 with or without a byte order mark. Raises :class:`DataError` naming file and line."""
    with reading(path):
        return _decoded(_without_bom(Path(path).read_bytes()))


def read_lines(path: str | Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of each line; gzip is told by content.

    Raises :class:`DataError` naming file and line: not UTF-8, a line of more than ``longest`` bytes, a damaged gzip.
    """
    number = 0
    with reading(path):
        with open(path, "rb") as f:
            packed = f.read(2) == _GZIP
        with gzip.open(path, "rb") if packed else open(path, "rb") as f:
            while True:
                number += 1
                try:
                    raw = f.readline(longest + 1)
                except (EOFError, zlib.error, gzip.BadGzipFile) as e:
                    raise DataError(f"line {number}", str(e), "the gzip file is damaged or incomplete") from e
                if not raw:
                    return
                if len(raw) > longest:
                    raise DataError(f"line {number}", raw[:16], f"must hold at most {longest} bytes")
                yield number, _decoded(_without_bom(raw) if number == 1 else raw, number).rstrip("\r\n")


def integer(text: str, field: str, low: int = -(1 << 63), high: int = (1 << 63) - 1) -> int:
    """The integer that ``text`` spells: ASCII digits with an optional sign. Raises :class:`DataError`."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise DataError(field, text, "must be an integer in decimal digits")
    value = int(text) if len(digits) < 40 else None  # 40 digits are outside any range here
    if value is None or not low <= value <= high:
        raise DataError(field, text, f"must be from {low} to {high}")
    return value


def parse_toml(text: str, error: type[LimitError]) -> dict[str, Any]:
    """TOML text as plain data; ``error`` with line and column when it is not TOML."""
    import tomllib  # Python 3.11; a board that runs 3.10 gets its configuration as a dict (JSON)

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, OverflowError) as e:  # not TOML; too deep; a number of too many digits
        raise error("toml", text[:60], f"not valid TOML: {e}") from e


def check_zip(path: str | Path, what: str) -> None:
    """Compare the checksums of a zip file's members. Raises :class:`DataError` for a damaged one and for what is none
    (``what``: what the file should be)."""
    with reading(path, what), zipfile.ZipFile(path) as z:
        names = z.namelist()
        if len(set(names)) != len(names):
            raise DataError("zip", sorted(n for n in set(names) if names.count(n) > 1)[0], "must hold each name once")
        bad = z.testzip()
        if bad is not None:
            raise DataError(f"zip member {bad}", "checksum", "the file is damaged: its CRC-32 does not match")
