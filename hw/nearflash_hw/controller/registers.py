"""The register file, generated from :mod:`nearflash.contract.registers`, and the performance counters."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import REGISTERS, DeviceConfig
from nearflash.contract.registers import (
    ADDRESS_BITS,
    BUS_STATUS,
    QUEUE_REGISTERS,
    capabilities,
    counters,
    doorbell,
    queue_register,
)

from ..interfaces import bits_for, index_bits
from ..model import elapsed
from ..primitives.axi_lite import AxiLiteSignature, AxiLiteSlave

__all__ = ["COUNTER_BITS", "PerfCounters", "RegisterFile", "doorbell_layout", "queue_settings_layout"]

COUNTER_BITS = 48


def queue_settings_layout(config: DeviceConfig) -> data.StructLayout:
    """One queue pair as the host configured it; ``size`` is entries - 1."""
    return data.StructLayout({"sq_base": 64, "cq_base": 64, "size": index_bits(config.host.queue_entries)})


def doorbell_layout(config: DeviceConfig) -> data.StructLayout:
    """One doorbell write. ``completion``: CQ head rather than SQ tail."""
    return data.StructLayout({"qid": 3, "completion": 1, "value": 16})


class PerfCounters(wiring.Component):
    """48-bit counters, one per name of :func:`~nearflash.contract.registers.counters`, each adding its bit of ``event``
    every cycle (``cycles`` counts by itself). ``capture`` (every other cycle at most) takes counter ``index`` (0 beyond the
    last) into ``value``, which has it from the next cycle on.

    The counts lie in a memory. What happened since a counter was last visited there is counted in a few bits beside it; a
    visit, one a cycle in turn or for a capture, adds them. So a count is the sum of both at any time.
    """

    model_clock = "free"

    def __init__(self, config: DeviceConfig):
        self.names = counters(config)
        self.counts = Memory(shape=COUNTER_BITS, depth=1 << index_bits(len(self.names)), init=[])
        super().__init__({
            "event": In(len(self.names)), "capture": In(1), "index": In(index_bits(len(self.names)) + 1),
            "value": Out(COUNTER_BITS)})

    def elaborate(self, platform):
        m = Module()
        n = len(self.names)
        bits = index_bits(n)
        step = elapsed(platform)
        # A round of visits takes as long again with captures between them, and the first one only clears the memory, which
        # sees no reset. A model's step is a rest of any length.
        recent_bits = bits_for(2 << bits) if isinstance(step, int) else COUNTER_BITS
        recent = [Signal(recent_bits, name=f"recent_{name}") for name in self.names]
        m.submodules.counts = counts = self.counts
        read, write = counts.read_port(domain="comb"), counts.write_port()
        cleared = Signal()
        turn, at = Signal(bits), Signal(bits)
        total = Signal(COUNTER_BITS)
        m.d.comb += [
            at.eq(Mux(self.capture, self.index[:bits], turn)), read.addr.eq(at),
            total.eq(Mux(cleared, read.data, 0) + Array([*recent, *[Const(0, recent_bits)] * ((1 << bits) - n)])[at]),
            write.addr.eq(Mux(cleared, at, turn)), write.data.eq(Mux(cleared, total, 0)), write.en.eq(1)]
        with m.If(self.capture):
            m.d.sync += self.value.eq(Mux(self.index < n, total, 0))
        with m.If(~self.capture | ~cleared):
            m.d.sync += [turn.eq(turn + 1), cleared.eq(cleared | turn.all())]
        for k, count in enumerate(recent):
            new = step if self.names[k] == "cycles" else Mux(self.event[k], step, 0)
            m.d.sync += count.eq(Mux(cleared & (at == k), 0, count) + new)
        return m


class RegisterFile(wiring.Component):
    """Every register of the contract behind one AXI4-Lite slave.

    ``settings`` are the queue registers; ``doorbell`` is a one-cycle pulse with ``doorbell_valid``; ``ready`` and
    ``fatal`` show up in CSTS. Writing perf_index takes the selected counter as a whole, so its halves belong together.
    Unmapped offsets answer SLVERR. Writes to read-only registers and bits do nothing; doorbells read 0. Bits that mean
    nothing (below 4 KiB of a queue base) read 0, and a queue size beyond the largest is stored as the largest.
    A doorbell write must carry its low two bytes; one with a value above 65535 is ignored.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        n = config.host.queue_pairs
        super().__init__({
            "axil": In(AxiLiteSignature(ADDRESS_BITS)),
            "ready": In(1), "fatal": In(1), "bus_silent": In(len(BUS_STATUS)),
            "enabled": Out(1), "mask": Out(n),
            "settings": Out(data.ArrayLayout(queue_settings_layout(config), n)),
            "doorbell_valid": Out(1), "doorbell": Out(doorbell_layout(config)),
            "event": In(len(counters(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        n, entries = config.host.queue_pairs, config.host.queue_entries
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS)
        m.submodules.perf = perf = PerfCounters(config)
        connect(m, flipped(self.axil), slave.bus)

        stored: dict[str, Signal] = {}  # every "rw" register, by name
        values: dict[int, object] = {}  # what reading an offset returns
        read_only = {
            "cap_lo": Const(capabilities(config) & 0xFFFF_FFFF, 32), "cap_hi": Const(capabilities(config) >> 32, 32),
            "csts": Cat(self.ready, self.fatal), "bus_status": self.bus_silent,
            "design_id": Const(config.design_id, 32),
            "clock_khz": Const(round(config.clock_mhz * 1000), 32),
            "perf_lo": perf.value[:32], "perf_hi": perf.value[32:],
        }
        plan = [(r, r.name, r.offset) for r in REGISTERS]
        plan += [(r, f"queue{q}_{r.name}", queue_register(q, r.name)) for q in range(n) for r in QUEUE_REGISTERS]
        size_bits = index_bits(entries)

        with m.Switch(slave.wr_word):
            for reg, name, offset in plan:
                if reg.access == "ro":
                    values[offset] = read_only.get(name, Const(reg.reset, 32))
                    with m.Case(offset // 4):
                        m.d.comb += slave.wr_ok.eq(1)
                    continue
                low = 12 if reg.name.endswith("base_lo") else 0
                width = size_bits if reg.name == "size" else 32
                stored[name] = value = Signal(32, name=name, init=reg.reset)
                values[offset] = value
                with m.Case(offset // 4):
                    m.d.comb += slave.wr_ok.eq(1)
                    with m.If(slave.wr_en):
                        for byte in range(4):
                            lo, hi = max(8 * byte, low), min(8 * byte + 8, width)
                            if lo < hi:
                                with m.If(slave.wr_strb[byte]):
                                    m.d.sync += value[lo:hi].eq(slave.wr_data[lo:hi])
                        if width < 32:
                            with m.If(slave.wr_strb.all() & slave.wr_data[width:].any()):
                                m.d.sync += value[:width].eq(entries - 1)
            for q in range(n):
                for completion in (False, True):
                    offset = doorbell(q, completion)
                    values[offset] = Const(0, 32)
                    with m.Case(offset // 4):
                        m.d.comb += [
                            slave.wr_ok.eq(1), self.doorbell.qid.eq(q), self.doorbell.completion.eq(completion),
                            self.doorbell_valid.eq(slave.wr_en & slave.wr_strb[:2].all() & ~slave.wr_data[16:].any())]
        m.d.comb += self.doorbell.value.eq(slave.wr_data[:16])

        with m.Switch(slave.rd_word):
            for offset, value in values.items():
                with m.Case(offset // 4):
                    m.d.comb += [slave.rd_data.eq(value), slave.rd_ok.eq(1)]

        # perf_index is stored in one cycle and the counter captured in the next, before any read that follows the write's
        # response can be answered.
        written = Signal()
        index = next(r.offset for r in REGISTERS if r.name == "perf_index")
        m.d.sync += written.eq(slave.wr_en & (slave.wr_word == index // 4))
        beyond = stored["perf_index"][len(perf.index) - 1 :].any()
        m.d.comb += [
            perf.event.eq(self.event), perf.capture.eq(written),
            perf.index.eq(Cat(stored["perf_index"][: len(perf.index) - 1], beyond))]

        m.d.comb += [self.enabled.eq(stored["cc"][0]), self.mask.eq(stored["intms"])]
        for q in range(n):
            m.d.comb += [
                self.settings[q].sq_base.eq(Cat(stored[f"queue{q}_sq_base_lo"], stored[f"queue{q}_sq_base_hi"])),
                self.settings[q].cq_base.eq(Cat(stored[f"queue{q}_cq_base_lo"], stored[f"queue{q}_cq_base_hi"])),
                self.settings[q].size.eq(stored[f"queue{q}_size"]),
            ]
        return m
