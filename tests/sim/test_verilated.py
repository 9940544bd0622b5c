# amaranth: UnusedElaboratable=no
"""The verilated harness on a small device: registers and a DMA copier between its two memories."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig, DeviceTimeout, NearflashError
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.axi_lite import AxiLiteSignature, AxiLiteSlave
from nearflash_hw.primitives.countdown import Countdown
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import ADDR_BITS
from nearflash_hw.verilog import to_verilog
from nearflash_sim import backend
from nearflash_sim.verilated import AxiProtocolError, BuildError, RegisterError, VerilatedDevice, build, build_library

BEAT = 16
SOURCE, TARGET, BEATS, GO, SABOTAGE, DELAY, STATUS = range(0, 28, 4)
TO_HOST = 2  # in GO, beside bit 0
BAD_WLAST, BAD_ADDRESS, BAD_STABLE, BAD_VALID = 1, 2, 4, 8


class Copier(wiring.Component):
    """Copies BEATS beats from SOURCE in one memory to TARGET in the other, DELAY cycles after a write to GO, then raises
    ``irq`` until a write to STATUS. SABOTAGE breaks one AXI rule at a time on the host port."""

    def __init__(self):
        axi = AxiSignature(ADDR_BITS, BEAT * 8, 5)
        super().__init__({"s_axi": In(AxiLiteSignature(12)), "m_axi_host": Out(axi), "m_axi_dram": Out(axi), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(12)
        m.submodules.host = host = MemInterconnect(BEAT, 1, 1)
        m.submodules.dram = dram = MemInterconnect(BEAT, 1, 1)
        connect(m, flipped(self.s_axi), slave.bus)
        connect(m, host.axi, flipped(self.m_axi_host))
        connect(m, dram.axi, flipped(self.m_axi_dram))

        source, target, beats = Signal(32), Signal(32), Signal(16)
        sabotage, to_host, errors, decoded = Signal(4), Signal(), Signal(8), Signal()
        r_wait, w_wait, done = Signal(), Signal(), Signal()
        delay = Signal(16)
        m.submodules.timer = timer = Countdown(16)
        m.d.comb += [timer.value.eq(delay), timer.run.eq(1)]
        regs = {SOURCE: source, TARGET: target, BEATS: beats, SABOTAGE: sabotage, DELAY: delay,
                STATUS: Cat(done, errors, decoded)}
        with m.Switch(slave.rd_word):
            for offset, reg in regs.items():
                with m.Case(offset // 4):
                    m.d.comb += [slave.rd_data.eq(reg), slave.rd_ok.eq(1)]
        with m.If(slave.wr_en):
            with m.Switch(slave.wr_word):
                for offset in (SOURCE, TARGET, BEATS, SABOTAGE, DELAY):
                    with m.Case(offset // 4):
                        m.d.sync += regs[offset].eq(slave.wr_data)
                with m.Case(GO // 4):
                    m.d.comb += timer.load.eq(1)
                    m.d.sync += [to_host.eq(slave.wr_data[1]), r_wait.eq(1), w_wait.eq(1), done.eq(0)]
                with m.Case(STATUS // 4):
                    m.d.sync += [done.eq(0), errors.eq(0), decoded.eq(0)]
        m.d.comb += [slave.wr_ok.eq(slave.wr_word <= STATUS // 4), self.irq.eq(done)]

        for to, a, b in ((0, host, dram), (1, dram, host)):  # a: read, b: written
            r, w = a.read[0], b.write[0]
            m.d.comb += [
                r.req.payload.addr.eq(source), r.req.payload.beats.eq(beats),
                r.req.valid.eq(r_wait & ~timer.busy & (to_host == to)),
                w.req.payload.addr.eq(target), w.req.payload.beats.eq(beats),
                w.req.valid.eq(w_wait & ~timer.busy & (to_host == to)),
                w.data.payload.data.eq(r.rsp.payload.data), w.data.payload.strb.eq((1 << BEAT) - 1),
                w.data.valid.eq(r.rsp.valid), r.rsp.ready.eq(w.data.ready), w.done.ready.eq(1)]
            with m.If(r.req.valid & r.req.ready):
                m.d.sync += r_wait.eq(0)
            with m.If(w.req.valid & w.req.ready):
                m.d.sync += w_wait.eq(0)
            with m.If(r.rsp.valid & r.rsp.ready & r.rsp.payload.error):
                m.d.sync += errors.eq(errors + 1)
            with m.If(w.done.valid):
                m.d.sync += done.eq(1)
                with m.If(w.done.payload.error):
                    m.d.sync += errors.eq(errors | 0x80)

        axi = self.m_axi_host
        with m.If((axi.rvalid & axi.rresp.all()) | (axi.bvalid & axi.bresp.all())):  # DECERR
            m.d.sync += decoded.eq(1)

        ticks = Signal()
        with m.If(sabotage != 0):  # otherwise the copier comes to rest, which a gated model is about
            m.d.sync += ticks.eq(~ticks)
        with m.If(sabotage & BAD_WLAST):
            m.d.comb += self.m_axi_host.wlast.eq(~host.axi.wlast)
        with m.If(sabotage & BAD_ADDRESS):
            m.d.comb += self.m_axi_host.araddr.eq(host.axi.araddr + BEAT)
        with m.If(sabotage & BAD_STABLE):
            m.d.comb += self.m_axi_host.wdata.eq(host.axi.wdata ^ ticks)
        with m.If(sabotage & BAD_VALID):
            m.d.comb += self.m_axi_host.arvalid.eq(host.axi.arvalid & ticks)
        return m


@pytest.fixture(scope="module")
def verilog():
    return to_verilog(Copier(), "copier")


@pytest.fixture(scope="module")
def forms(verilog):
    """The same in the forms made for simulation, too."""
    return {"board": verilog, **{name: to_verilog(Copier(), "copier", model=True, gated=name == "gated")
                                 for name in ("ungated", "gated")}}


@pytest.fixture(scope="module", params=["board", "ungated", "gated"])
def library(request, forms):
    return build_library(forms[request.param], "copier")


@pytest.fixture
def device(library):
    with VerilatedDevice(library) as d:
        yield d


def copy(d, source, target, nbytes, *, to_host, max_cycles=20_000):
    """Runs one copy; returns (cycles, STATUS)."""
    d.write_register(SOURCE, source)
    d.write_register(TARGET, target)
    d.write_register(BEATS, nbytes // BEAT)
    d.write_register(GO, 1 | (TO_HOST if to_host else 0))
    cycles = d.run_until_irq(max_cycles)
    status = d.read_register(STATUS)
    d.write_register(STATUS, 0)
    assert not d.irq
    return cycles, status


@pytest.mark.parametrize("timing", [{}, {"read_latency": 200, "write_latency": 40}, {"stall": 0.4, "seed": 5}])
def test_copies_both_ways(device, timing):
    device.host.set_timing(**timing)
    device.dram.set_timing(**timing)
    rng = np.random.default_rng(1)
    for source, target, nbytes in ((0, 0, 16), (0xFF0, 0x5000, 32), (0x12340, 0x30, 20_000), (0x8000, 0xFFF0, 4096)):
        content = rng.integers(0, 256, nbytes, dtype=np.uint8)
        guard = rng.integers(0, 256, nbytes + 2 * BEAT, dtype=np.uint8)
        device.host.write(source, content)
        device.dram.write(0x100000 + target - BEAT, guard)
        _, status = copy(device, source, 0x100000 + target, nbytes, to_host=False)
        assert status == 1
        got = device.dram.read(0x100000 + target - BEAT, nbytes + 2 * BEAT)
        assert got == bytes(guard[:BEAT]) + content.tobytes() + bytes(guard[-BEAT:])
        _, status = copy(device, 0x100000 + target, 0x200000, nbytes, to_host=True)
        assert status == 1
        assert device.host.read(0x200000, nbytes) == content.tobytes()
    host, dram = device.host.traffic, device.dram.traffic
    assert host.read_beats == host.write_beats == dram.read_beats == dram.write_beats == 1 + 2 + 1250 + 256


def test_one_beat_per_cycle(device):
    device.host.set_timing(read_latency=50)
    cycles, _ = copy(device, 0, 0, 1000 * BEAT, to_host=False)
    assert 1000 < cycles < 1000 + 50 + 30


def test_registers(device):
    device.write_register(TARGET, 0xDEADBEEF)
    assert device.read_register(TARGET) == 0xDEADBEEF
    with pytest.raises(RegisterError, match="0x40"):
        device.read_register(0x40)
    with pytest.raises(RegisterError, match="0x40"):
        device.write_register(0x40, 0)
    device.reset()
    assert device.read_register(TARGET) == 0


def test_waits_are_capped(device):
    before = device.cycles
    with pytest.raises(DeviceTimeout, match="within 500 cycles"):
        device.run_until_irq(500)
    assert device.cycles == before + 500
    with pytest.raises(DeviceTimeout):
        device.run_until_host_word(0x40, 1, 1, 300)
    with pytest.raises(ValueError, match="multiple of 4"):
        device.run_until_host_word(0x42, 1, 1, 300)


def test_run_until_host_word_sees_the_device_write(device):
    device.dram.write(0, (0x1_0001).to_bytes(16, "little"))
    for register, value in ((SOURCE, 0), (TARGET, 0x3000), (BEATS, 1), (GO, 1 | TO_HOST)):
        device.write_register(register, value)
    device.run_until_host_word(0x3000, 0x1_0000, 0x1_0000, 500)
    assert device.host.read(0x3000, 4) == b"\1\0\1\0"


def test_reset_forgets_bursts_and_keeps_memory(device):
    device.host.write(0, b"kept")
    device.host.set_timing(read_latency=1000)
    device.write_register(BEATS, 64)
    device.write_register(GO, 1)
    device.step(50)
    device.reset()
    device.step(2000)
    assert not device.irq
    assert device.host.read(0, 4) == b"kept"
    assert copy(device, 0, 0, 64, to_host=False)[1] == 1


@pytest.mark.parametrize("decode", [False, True])
def test_injected_faults_answer_errors(device, decode):
    device.host.inject_fault(0x1010, 16, decode=decode)
    device.host.write(0x1010, b"old!")
    assert copy(device, 0x1000, 0, 64, to_host=False)[1] == 1 | 1 << 1 | decode << 9
    device.dram.fill(0, 0x55, 64)
    assert copy(device, 0, 0x1000, 64, to_host=True)[1] == 1 | 0x80 << 1 | decode << 9
    assert device.host.read(0x1000, 64) == b"\x55" * 16 + b"old!" + bytes(12) + b"\x55" * 32
    device.host.clear_faults()
    assert copy(device, 0, 0x1000, 64, to_host=True)[1] == 1


@pytest.mark.parametrize(("sabotage", "to_host", "message"), [
    (BAD_WLAST, True, "WLAST is 0 on beat 4 of 4"), (BAD_ADDRESS, False, "crosses a 4 KiB boundary"),
    (BAD_STABLE, True, "W changed"), (BAD_VALID, False, "AR changed or fell")])
def test_broken_axi_rules_are_reported(device, sabotage, to_host, message):
    device.host.set_timing(stall=0.9)
    device.write_register(SABOTAGE, sabotage)

    def run():
        for _ in range(10):  # stalls are random
            copy(device, 0x1000 - 64, 0x1000 - 64, 64, to_host=to_host)

    with pytest.raises(AxiProtocolError, match=message) as e:
        run()
    assert "m_axi_host" in str(e.value)
    device.write_register(SABOTAGE, 0)
    device.reset()
    assert copy(device, 0, 0, 64, to_host=to_host)[1] == 1


def test_memory_back_door(device):
    m = device.dram
    assert m.read(0x7FFF_FFF0, 32) == bytes(32)
    assert m.allocated_bytes == 0
    words = np.arange(5000, dtype=np.uint32)
    m.write(4000, words)
    out = np.zeros_like(words)
    m.read_into(4000, out)
    assert (out == words).all()
    m.fill(4000, 0xAB, 10_000)
    assert m.read(3999, 10_002) == b"\0" + b"\xab" * 10_000 + words.tobytes()[10_000:10_001]
    m.clear()
    assert m.read(4000, 4) == bytes(4)
    for bad in (-1, 1 << 40):
        with pytest.raises(ValueError, match="must lie within"):
            m.read(bad, 1)


def test_devices_are_independent(library):
    with VerilatedDevice(library) as a, VerilatedDevice(library) as b:
        a.host.write(0, b"a" * 64)
        a.write_register(SOURCE, 0x40)
        assert b.read_register(SOURCE) == 0
        assert b.host.read(0, 4) == bytes(4)
    a.close()
    with pytest.raises(NearflashError, match="closed"):
        a.step()


def test_every_form_takes_the_same_cycles(forms):
    """Also over waits that a gated model passes in one step: of a timer, of a memory, and of nothing."""
    seen = []
    for text in forms.values():
        with VerilatedDevice(build_library(text, "copier")) as d:
            runs = []
            d.reset(5)
            for delay, latency in ((0, 7), (1, 1), (2, 100), (40, 3), (5000, 1000), (65535, 50)):
                d.dram.set_timing(read_latency=latency, write_latency=3)  # random stalls would fall elsewhere
                d.write_register(DELAY, delay)
                runs += [copy(d, 0x100, 0x40, nbytes, to_host=to_host, max_cycles=100_000)
                         for nbytes in (16, 64, 5000) for to_host in (0, 1)]
                d.step(delay)
                with pytest.raises(DeviceTimeout):
                    d.run_until_irq(777)
                runs.append(d.cycles)
            seen.append((runs, d.host.traffic, d.dram.traffic))
    assert seen[0] == seen[1] == seen[2]


def test_a_gated_model_passes_rest_in_a_few_steps(forms):
    with VerilatedDevice(build_library(forms["gated"], "copier")) as d:
        d.step(10**13)  # months, cycle by cycle
        assert d.cycles == 10**13 + 8  # and the reset it began with
        assert copy(d, 0, 0, 64, to_host=False)[1] == 1


def test_a_timer_is_not_overrun(device):
    device.write_register(DELAY, 30_000)
    cycles, _ = copy(device, 0, 0, 16, to_host=False, max_cycles=40_000)
    assert 30_000 <= cycles < 30_000 + 100 + 30  # the host memory's latency, and a few


def test_same_design_is_built_once(verilog):
    first, again = (build_library(verilog, "copier") for _ in range(2))
    assert again.cached
    assert again.path == first.path
    assert "verilator_bin" in again.log.read_text()


def test_another_optimisation_is_another_build(verilog, monkeypatch):
    built = []
    for flags in ("-O1", "-O1 -fno-inline"):  # not -O0, which the code that runs once has anyway
        monkeypatch.setenv("NEARFLASH_OPT_FAST", flags)
        built.append(build_library(verilog, "copier"))
        assert f" {flags} -c " in built[-1].log.read_text()
    assert built[0].path != built[1].path


def test_trace_has_the_signals(verilog, tmp_path, device):
    with pytest.raises(NearflashError, match="without trace"), device.trace(tmp_path / "x"):
        pass
    with VerilatedDevice(build_library(verilog, "copier", trace=True)) as d:
        with d.trace(tmp_path / "wave.fst") as path:
            copy(d, 0, 0, 64, to_host=False)
        assert path.stat().st_size > 1000
        if path.suffix == ".vcd":
            assert "m_axi_dram_wdata" in path.read_text()


def test_cached_verilog_generates_once(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    calls = []

    def generate():
        calls.append(1)
        return "module x; endmodule\n"

    assert build.cached_verilog("k", generate) == build.cached_verilog("k", generate) == "module x; endmodule\n"
    build.cached_verilog("other", generate)
    assert len(calls) == 2


@pytest.fixture
def fresh_tools():
    caches = (build.compiler, build.tool_versions)
    for f in caches:
        f.cache_clear()
    yield
    for f in caches:
        f.cache_clear()


@pytest.mark.usefixtures("fresh_tools")
def test_compiler_choice(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    found, broken = {"g++", "clang++-14", "clang++-16"}, set()
    monkeypatch.setattr(build.shutil, "which", lambda name: name if name in found else None)
    monkeypatch.setattr(build.os, "listdir", lambda folder: sorted(found))
    monkeypatch.setattr(build, "_links", lambda cxx: cxx[0] not in broken)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)

    def chosen():
        build.compiler.cache_clear()
        return build.compiler()

    assert chosen() == ("clang++-16",)
    broken.add("clang++-16")  # installed without a standard library, say
    assert chosen() == ("clang++-14",)
    found.add("clang++")
    assert chosen() == ("clang++",)
    broken |= found
    assert chosen() == ("g++",)
    found.clear()
    with pytest.raises(BuildError, match=r"install g\+\+ .*ziglang"):
        chosen()
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: object())
    assert chosen()[:4] == (sys.executable, "-m", "ziglang", "c++")


@pytest.mark.usefixtures("fresh_tools")
def test_a_compiler_that_cannot_link_is_noticed():
    assert build._links(build.compiler())
    assert not build._links(("false",))


def test_a_failed_build_says_why_and_leaves_no_entry(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFLASH_CACHE", str(tmp_path))
    with pytest.raises(BuildError, match="verilator_bin failed"):
        build_library("module broken(", "broken")
    assert not [p for p in (tmp_path / "verilated").iterdir() if p.is_dir() and p.suffix != ".failed"]
    with pytest.raises(BuildError):
        build_library("module broken(", "broken")


def test_a_devices_name_is_not_part_of_its_build(monkeypatch):
    keys = []
    monkeypatch.setattr(backend, "cached_verilog", lambda key, generate: keys.append(key) or "")
    monkeypatch.setattr(backend, "build_library", lambda *a, **k: None)
    config = DeviceConfig.preset("tiny")
    for c in (config, replace(config, name="other"), replace(config, clock_mhz=50.0)):
        backend.build(c)
    assert keys[0] == keys[1] != keys[2]
