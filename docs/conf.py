"""The documentation site (`make docs`): these pages and the packages' docstrings, by Sphinx.

What the code can say itself is taken from it while building, so no copy can grow old: the register map, the commands' help,
the configuration's fields. Nothing is fetched: the theme's fonts are the reader's own, and its scripts lie beside the pages.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import subprocess
import sys
from typing import Any

import nearflash
from amaranth.lib import wiring
from nearflash.contract import nvme
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import signature, stringify_signature
from sphinx.util.nodes import make_refnode

project = "nearflash"
author = "nearflash"
release = version = nearflash.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3  # as GitHub's, so that links between the pages work in both places
nitpicky = True  # every reference must be found; `make docs` makes warnings errors
default_role = "code"
highlight_language = "none"  # what names no language is prose, a table or a shell line
toc_object_entries_show_parents = "hide"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"nearflash {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_show_copyright = False

#: What prints the text that stands for `<!-- generated: NAME -->`.
GENERATED = {
    "commands": ["typer", "nearflash.cli.app", "utils", "docs", "--name", "nearflash"],
    "registers": ["nearflash", "registers"],
}


def codes() -> str:
    """Tables of the NVMe opcodes and statuses: value, name, and the comment beside it."""
    comments = ModuleAnalyzer.for_module(nvme.__name__).find_attr_docs()
    tables = []
    for kind in (nvme.Opcode, nvme.AdminOpcode, nvme.Status):
        rows = [f"| {c.value:#04x} | {c.name} | {' '.join(comments.get((kind.__name__, c.name), []))} |" for c in kind]
        tables.append("\n".join([f"| {kind.__name__} | name | |", "|---|---|---|", *rows]))
    return "\n\n".join(tables)


def generated(name: str) -> str:
    """Markdown that a command prints, less its title, as the page has one; raises if the command fails."""
    if name == "codes":
        return codes()
    text = subprocess.run([sys.executable, "-m", *GENERATED[name]], check=True, capture_output=True, text=True).stdout
    return re.sub(r"\A# .*\n", "", text)


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put generated text in its places. Examples of commands become code, to be copied whole; no line breaks before a %."""
    text = re.sub(r"<!-- generated: (\w+) -->", lambda m: generated(m[1]), source[0])
    text = re.sub(r"^Example: (.+)$", r"**Example**:\n\n```console\n$ \1\n```", text, flags=re.MULTILINE)
    source[0] = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)


def find(target: str, place: str) -> str | None:
    """The full name, where it is defined, of what ``target`` names in ``place`` or around it; None if it names nothing."""
    while True:
        names = f"{place}.{target}".strip(".").split(".")
        for split in range(len(names), 0, -1):
            try:
                owner = thing = importlib.import_module(".".join(names[:split]))
                for name in names[split:]:
                    owner, thing = thing, getattr(thing, name)
            except (ImportError, AttributeError):
                continue
            if inspect.ismodule(thing):
                return thing.__name__
            home = getattr(thing, "__module__", None) or getattr(owner, "__module__", None) or ".".join(names[:split])
            return f"{home}.{getattr(thing, '__qualname__', names[-1])}"
        if not place:
            return None
        place = place.rpartition(".")[0]


def resolve(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """References by a name that the module imports or a package exports: to where these pages document it, plain where they
    don't. What names nothing at all stays unresolved, and ends the build."""
    if node.get("refdomain") != "py":
        return None
    docstring = re.search(r"docstring of ([\w.]+)", node.source or node.parent.source or "")
    name = find(node["reftarget"].lstrip("."), docstring[1] if docstring else node.get("py:module") or "")
    if name is None:
        return None
    found = env.get_domain("py").objects.get(name)
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, name) if found else content


def construct(app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str, returns: str) -> Any:
    """A component's own arguments instead of its metaclass's; none for an enumeration."""
    if what == "class" and issubclass(thing, enum.Enum):
        return "", None
    if what == "class" and issubclass(thing, wiring.Component):
        return stringify_signature(signature(thing.__init__, bound_method=True), unqualified_typehints=True), None
    return None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", construct)
    app.connect("source-read", fill_in)
    app.connect("missing-reference", resolve)
