"""Damage to files: what transfers, editors, other programs and malice do to them. Seeded, endless."""

import io
import re
import zipfile
from collections.abc import Iterator

import numpy as np

NASTY = [b"", b"-1", b"--5", b"1_000", b"0x10", b"1e400", b"NaN", b"inf", b"true", b"\"x\"", b"'x'", b"[]", b"{}", b"3.5",
         b"1.2.3", b"9223372036854775808", b"9" * 5000, "١٢".encode(), b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\n", b"\r",
         b"\t", b"::", b"[" * 3000, b"{a=" * 2000, b"[/b]", b"\x1b[31m", b"\xed\xa0\x80", "\u2028".encode()]
TOKEN = re.compile(rb"[\w.+-]+|\"[^\"\n]*\"")


def damaged(raw: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Endless damaged copies of ``raw``; of a zip also such whose members are damaged and whose checksums are right."""
    while True:
        if raw[:2] == b"PK" and rng.random() < 0.6:
            yield _inside_zip(raw, rng)
        else:
            yield _bytes(raw, rng)


def _inside_zip(raw: bytes, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as z, zipfile.ZipFile(out, "w") as new:
        names = z.namelist()
        heads = [n for n in names if n.endswith(("data.pkl", "about.npy", "head.npy"))]  # what says how to read the rest
        chosen = str(rng.choice(heads if heads and rng.random() < 0.7 else names))
        for n in names:
            b = z.read(n)
            if n == chosen:
                if rng.random() < 0.1:
                    continue
                b = _head_in_npy(b, rng) if n in heads and n.endswith(".npy") and rng.random() < 0.7 else _bytes(b, rng)
            new.writestr(n, b)
    return out.getvalue()


def _head_in_npy(member: bytes, rng: np.random.Generator) -> bytes:
    """A .npy member of JSON with damage in the JSON and the right length before it."""
    text = _bytes(np.load(io.BytesIO(member)).tobytes(), rng)
    out = io.BytesIO()
    np.save(out, np.frombuffer(text, np.uint8))
    return out.getvalue()


def _bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        raw = _ONCE[int(rng.integers(len(_ONCE)))](raw, rng)
    return raw


def _span(raw: bytes, rng: np.random.Generator) -> tuple[int, int]:
    a = int(rng.integers(len(raw) + 1))
    return a, min(len(raw), a + int(rng.integers(1, 40)))


def _truncated(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw[: int(rng.integers(len(raw) + 1))]


def _flipped(raw: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(raw)
    for at in rng.integers(max(1, len(raw)), size=int(rng.integers(1, 6))):
        if raw:
            out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _inserted(raw: bytes, rng: np.random.Generator) -> bytes:
    a, b = _span(raw, rng)
    piece = (rng.bytes(b - a), raw[a:b], NASTY[int(rng.integers(len(NASTY)))])[int(rng.integers(3))]
    return raw[:a] + piece + raw[a:]


def _deleted(raw: bytes, rng: np.random.Generator) -> bytes:
    a, b = _span(raw, rng)
    return raw[:a] + raw[b:]


def _random(raw: bytes, rng: np.random.Generator) -> bytes:
    a, b = _span(raw, rng)
    return raw[:a] + rng.bytes(b - a) + raw[b:]


def _tokens(raw: bytes, rng: np.random.Generator) -> bytes:
    """One token in the place of another, or a nasty one."""
    found = list(TOKEN.finditer(raw[:20_000]))
    if not found:
        return raw
    at = found[int(rng.integers(len(found)))]
    other = found[int(rng.integers(len(found)))][0] if rng.random() < 0.5 else NASTY[int(rng.integers(len(NASTY)))]
    return raw[: at.start()] + other + raw[at.end() :]


_ONCE = (_truncated, _flipped, _inserted, _deleted, _random, _tokens, _tokens, _tokens)
