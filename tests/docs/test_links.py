"""Links of the README and the pages in docs: files and headings they name are there, other addresses are well formed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCED = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\(([^()\s]+)\)")


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings: small letters, spaces to hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken(page: Path, text: str) -> list[str]:
    """Targets of links in ``text``, at the place of ``page``, that lead nowhere."""
    bad = []
    for target in LINK.findall(CODE.sub("", FENCED.sub("", text))):
        url = urlsplit(target)
        if url.scheme:
            found = url.scheme == "https" and "." in url.netloc
        else:
            there = page.parent / url.path if url.path else page
            found = there.exists() and (not url.fragment or url.fragment in anchors(
                text if there == page else there.read_text(encoding="utf-8")))
        bad += [] if found else [target]
    return bad


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_broken_links_are_found():
    good = ("# A b: `c`?\n[1](docs/resources.md#estimates) [2](#a-b-c) [3](docs/system.svg) ![4](https://example.org/a.png)\n"
            "`[5](code.md)`\n```\n# No heading\n[6](fence.md)\n```\n")
    bad = ["none.md", "none.svg", "#no-heading", "docs/resources.md#none", "https://nowhere", "http://a.org"]
    assert broken(ROOT / "README.md", good + "".join(f"[x]({target}) ![y]({target})\n" for target in bad)) == [
        target for target in bad for _ in "xy"]
