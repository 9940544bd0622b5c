"""An evaluation as one HTML file that needs nothing else, and what made it."""

from __future__ import annotations

import base64
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version

from .. import __version__
from .tables import Table

__all__ = ["command_line", "html_report", "versions"]

PACKAGES = ("torch", "numpy", "numba", "matplotlib")
STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px}div{overflow-x:auto}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top;text-align:left}.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}
pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}h2{margin-top:2.2rem;font-size:1.15rem}"""


def versions() -> dict[str, str]:
    """Of this package and of those that the figures depend on; and the machine's processor."""
    out = {"nearflash": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out | {"machine": f"{platform.system()} {platform.machine()}"}


def command_line() -> str:
    """The command that runs, as a shell takes it."""
    return shlex.join(["nearflash", *sys.argv[1:]])


def html_report(title: str, command: str, found: Mapping[str, str], shown: Sequence[Table],
                pngs: Mapping[str, bytes]) -> str:
    """The page: ``command`` and versions (``found``), figures (``pngs``), tables. All is part of it, nothing is fetched."""
    pictures = ""
    for name, png in pngs.items():
        text = escape(name.replace("_", " ").capitalize())
        pictures += f'<h2>{text}</h2>\n<img alt="{text}" src="data:image/png;base64,{base64.b64encode(png).decode()}">\n'
    about = ", ".join(f"{k} {v}" for k, v in found.items())
    first, rest = shown[:1], shown[1:]
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}'
            f"</style></head><body>\n<h1>{escape(title)}</h1>\n<pre>{escape(command)}</pre>\n<p>{escape(about)}</p>\n"
            f"{''.join(t.html() for t in first)}{pictures}{''.join(t.html() for t in rest)}</body></html>\n")
