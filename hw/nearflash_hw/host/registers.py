"""The register file, generated from :mod:`nearflash.contract.registers`, and the performance counters."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.registers import ADDRESS_BITS, BUSES, counters, doorbell, register_map

from ..interfaces import Layouts, bits_for, index_bits
from ..model import elapsed
from ..primitives.axi_lite import AxiLiteSignature, AxiLiteSlave

__all__ = ["COUNTER_BITS", "PerfCounters", "RegisterFile"]

COUNTER_BITS = 48


class Doorbell(data.StructLayout):
    """One doorbell write."""

    def __init__(self):
        super().__init__({
            "qid": 3,
            #: CQ head rather than SQ tail.
            "completion": 1,
            "value": 16,
        })


class PerfCounters(wiring.Component):
    """48-bit counters, one per name of :func:`~nearflash.contract.registers.counters`.

    The counts lie in a memory. What happened since a counter was last visited there is counted in a few bits beside it; a
    visit, one a cycle in turn or for a capture, adds them. So a count is the sum of both at any time.
    """

    model_clock = "free"

    def __init__(self, config: DeviceConfig):
        self.names = counters(config)
        self.counts = Memory(shape=COUNTER_BITS, depth=1 << index_bits(len(self.names)), init=[])
        super().__init__({
            #: A bit per counter, added every cycle; ``cycles`` counts by itself.
            "event": In(len(self.names)),
            #: Take counter ``index`` into ``value``; every other cycle at most.
            "capture": In(1),
            #: 0 is captured beyond the last counter.
            "index": In(index_bits(len(self.names)) + 1),
            #: From the cycle after ``capture`` on.
            "value": Out(COUNTER_BITS),
        })

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
            at.eq(Mux(self.capture, self.index[:bits], turn)),
            read.addr.eq(at),
            total.eq(Mux(cleared, read.data, 0) + Array([*recent, *[Const(0, recent_bits)] * ((1 << bits) - n)])[at]),
            write.addr.eq(Mux(cleared, at, turn)),
            write.data.eq(Mux(cleared, total, 0)),
            write.en.eq(1),
        ]
        with m.If(self.capture):
            m.d.sync += self.value.eq(Mux(self.index < n, total, 0))
        with m.If(~self.capture | ~cleared):
            m.d.sync += [
                turn.eq(turn + 1),
                cleared.eq(cleared | turn.all()),
            ]
        for k, count in enumerate(recent):
            new = step if self.names[k] == "cycles" else Mux(self.event[k], step, 0)
            m.d.sync += count.eq(Mux(cleared & (at == k), 0, count) + new)
        return m


class RegisterFile(wiring.Component):
    """Every register of :func:`~nearflash.contract.registers.register_map` behind one AXI4-Lite slave.

    Writing perf_index takes the selected counter as a whole, so its halves belong together.

    Unmapped offsets and writes of parts of a register answer SLVERR and do nothing (as AXI4-Lite allows), but for a
    doorbell's low two bytes. Writes to read-only registers and bits do nothing, and a queue size beyond the largest is
    stored as the largest. A doorbell value above 65535 is ignored.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        n = config.host.queue_pairs
        super().__init__({
            #: The host.
            "axil": In(AxiLiteSignature(ADDRESS_BITS)),
            #: CSTS.RDY.
            "ready": In(1),
            #: CSTS.CFS.
            "fatal": In(1),
            #: Of register bus_status, a bit per bus.
            "bus_silent": In(len(BUSES)),
            #: A bit per queue pair, pulses: a completion was posted.
            "posted": In(n),
            #: What the DRAM's addresses begin at, in 4 KiB.
            "dram_base": Out(config.bus.address_bits - 12),
            #: CC.EN.
            "enabled": Out(1),
            #: INTMS, a bit per queue pair.
            "mask": Out(n),
            #: Something that is both pending and enabled.
            "irq": Out(1),
            #: The queue registers.
            "settings": Out(data.ArrayLayout(Layouts.of(config).queue_settings, n)),
            #: Pulses with ``doorbell``.
            "doorbell_valid": Out(1),
            "doorbell": Out(Doorbell()),
            #: See :class:`PerfCounters`.
            "event": In(len(counters(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        n = config.host.queue_pairs
        plan = register_map(config)
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS)
        m.submodules.perf = perf = PerfCounters(config)
        connect(m, flipped(self.axil), slave.bus)

        # What the device says itself, by register and field; other "ro" fields are constants.
        was_fatal = Signal()
        m.d.sync += was_fatal.eq(self.fatal)
        status = {("csts", "rdy"): self.ready, ("csts", "cfs"): self.fatal,
                  ("perf_lo", "perf_lo"): perf.value[:32], ("perf_hi", "perf_hi"): perf.value[32:],
                  **{("bus_status", name): self.bus_silent[k] for k, name in enumerate(BUSES)}}
        events = {"completion": self.posted, "fatal": self.fatal & ~was_fatal}  # of irq_pending
        stored: dict[tuple[str, str], Signal] = {}

        selected = {r.name: slave.wr_word == r.offset // 4 for r in plan}
        whole = slave.wr_strb.all()
        for r in plan:
            for f in r.fields:
                if f.access in ("rw", "w1c"):
                    stored[r.name, f.name] = value = Signal(f.width, name=f"{r.name}_{f.name}", init=f.reset)
                    write, new = slave.wr_en & whole & selected[r.name], slave.wr_data[f.lsb:f.lsb + f.width]
                    if f.access == "w1c":
                        m.d.sync += value.eq(value & ~Mux(write, new, 0) | events[f.name])
                    else:
                        with m.If(write):
                            m.d.sync += value.eq(new)
        for q in range(n):
            size = stored[f"queue{q}_size", f"queue{q}_size"]
            with m.If(slave.wr_en & whole & selected[f"queue{q}_size"] & slave.wr_data[len(size):].any()):
                m.d.sync += size.eq(config.host.queue_entries - 1)

        with m.Switch(slave.wr_word):
            for r in plan:
                if r.access != "wo":
                    with m.Case(r.offset // 4):
                        m.d.comb += slave.wr_ok.eq(whole)
            for q in range(n):
                for completion in (False, True):
                    with m.Case(doorbell(q, completion) // 4):
                        m.d.comb += [
                            slave.wr_ok.eq(1),
                            self.doorbell.qid.eq(q),
                            self.doorbell.completion.eq(completion),
                            self.doorbell_valid.eq(slave.wr_en & slave.wr_strb[:2].all() & ~slave.wr_data[16:].any()),
                        ]
        m.d.comb += self.doorbell.value.eq(slave.wr_data[:16])

        with m.Switch(slave.rd_word):
            for r in plan:
                with m.Case(r.offset // 4):
                    m.d.comb += slave.rd_ok.eq(1)
                    for f in r.fields:
                        if f.access != "wo":
                            value = stored.get((r.name, f.name), status.get((r.name, f.name), f.reset))
                            m.d.comb += slave.rd_data[f.lsb:f.lsb + f.width].eq(value)

        # perf_index is stored in one cycle and the counter captured in the next, before any read that follows the write's
        # response can be answered.
        written = Signal()
        index = stored["perf_index", "perf_index"]
        m.d.sync += written.eq(slave.wr_en & selected["perf_index"])
        beyond = index[len(perf.index) - 1 :].any()
        m.d.comb += [
            perf.event.eq(self.event),
            perf.capture.eq(written),
            perf.index.eq(Cat(index[: len(perf.index) - 1], beyond)),
        ]

        pending, enable = (Cat(stored[f"irq_{kind}", name] for name in events) for kind in ("pending", "enable"))
        m.d.comb += [
            self.enabled.eq(stored["cc", "en"]),
            self.mask.eq(stored["intms", "intms"]),
            self.irq.eq((pending & enable).any()),
        ]
        m.d.comb += self.dram_base.eq(Cat(stored[(f"dram_base_{half}",) * 2] for half in ("lo", "hi")
                                          if (f"dram_base_{half}",) * 2 in stored))
        for q in range(n):
            m.d.comb += self.settings[q].size.eq(stored[f"queue{q}_size", f"queue{q}_size"])
            for base in ("sq_base", "cq_base"):
                low, high = (stored[(f"queue{q}_{base}_{half}",) * 2] for half in ("lo", "hi"))
                m.d.comb += self.settings[q][base].eq(Cat(Const(0, 32 - len(low)), low, high))
        return m
