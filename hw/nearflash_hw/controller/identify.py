"""IDENTIFY: the constant pages that describe the device."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig, Status
from nearflash.contract.identify import CNS, IDENTIFY_BYTES, identify
from nearflash.contract.nvme import HOST_PAGE

from ..interfaces import Layouts, bits_for, index_bits
from ..primitives.memport import MemWriteSignature

__all__ = ["Identify"]


class Identify(wiring.Component):
    """Writes the page of :func:`nearflash.contract.identify.identify` for ``req.cns`` to host memory, then one ``result``.

    The page goes to PRP1 up to the end of its host page and, where PRP1 has an offset, the rest to PRP2. Only the
    pages up to their last non-zero beat are stored. One beat per cycle; latency 3 cycles to the first request.
    Source: NVM Express Base Specification 2.0, section 5.17.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        address = Layouts.of(config).host_address_bits
        super().__init__({
            #: Which page, and where to.
            "req": In(stream.Signature(data.StructLayout({"cns": 8, "prp1": address, "prp2": address}))),
            #: One for each.
            "result": Out(stream.Signature(data.StructLayout({"status": 11}))),
            #: To host memory.
            "mem_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        beat, wr, req = self.config.beat_bytes, self.mem_write, self.req
        low = beat.bit_length() - 1
        content: list[int] = []
        place: dict[int, tuple[int, int]] = {}  # cns -> (first, beats) in the ROM
        for cns in CNS:
            page = identify(self.config, cns)
            used = -(-len(page.rstrip(b"\0")) // beat)
            place[cns] = (len(content), used)
            content += [int.from_bytes(page[k * beat : (k + 1) * beat], "little") for k in range(used)]
        m.submodules.rom = rom = Memory(shape=beat * 8, depth=len(content), init=content)
        port = rom.read_port()

        beats = IDENTIFY_BYTES // beat
        cns, entry, prp2 = Signal(8), Signal.like(req.payload.prp1), Signal.like(req.payload.prp2)
        second = Signal()  # the part at PRP2
        known = Signal()
        left = Signal(bits_for(beats))  # beats of the page not yet sent
        part = Signal(bits_for(beats))  # beats of this request not yet sent
        size = Signal(bits_for(beats))  # beats of this request
        stored = Signal(bits_for(beats))  # beats of the page still to come from the ROM
        address = Signal(index_bits(len(content)))
        advance, fresh = Signal(), Signal()  # fresh: what the ROM gives is of ``address``
        asked, failed = Signal(), Signal()
        m.d.comb += [
            port.addr.eq(address),
            port.en.eq(1),
            wr.req.payload.addr.eq(Cat(Const(0, low), entry[low:-1])),
            wr.req.payload.beats.eq(size),
            wr.data.payload.data.eq(Mux(stored != 0, port.data, 0)),
            wr.data.payload.strb.eq((1 << beat) - 1),
        ]

        m.d.sync += fresh.eq(~advance)
        status = self.result.payload.status
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += req.ready.eq(1)
                m.d.sync += [
                    cns.eq(req.payload.cns),
                    entry.eq(req.payload.prp1),
                    prp2.eq(req.payload.prp2),
                    second.eq(0),
                    left.eq(beats),
                    failed.eq(0),
                ]
                with m.If(req.valid):
                    m.next = "LOCATE"
            with m.State("LOCATE"):
                m.d.sync += known.eq(0)
                with m.Switch(cns):
                    for c, (first, used) in place.items():
                        with m.Case(c):
                            m.d.sync += [
                                known.eq(1),
                                address.eq(first),
                                stored.eq(used),
                            ]
                m.next = "CHECK"
            with m.State("CHECK"):
                room = (HOST_PAGE // beat) - entry[low:12]
                m.d.sync += [
                    size.eq(Mux(second, left, room)),
                    part.eq(Mux(second, left, room)),
                    asked.eq(0),
                ]
                with m.If(~known):
                    m.d.sync += status.eq(Status.INVALID_FIELD)
                    m.next = "RESULT"
                with m.Elif(Mux(second, entry[:12].any(), entry[:low].any())):
                    m.d.sync += status.eq(Status.INVALID_PRP_OFFSET)
                    m.next = "RESULT"
                with m.Elif(entry[-1]):
                    m.d.sync += status.eq(Status.DATA_TRANSFER_ERROR)
                    m.next = "RESULT"
                with m.Else():
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [
                    wr.req.valid.eq(~asked),
                    wr.data.valid.eq(fresh & (part != 0)),
                    advance.eq(wr.data.valid & wr.data.ready),
                ]
                with m.If(wr.req.ready):
                    m.d.sync += asked.eq(1)
                with m.If(advance):
                    m.d.sync += [
                        part.eq(part - 1),
                        left.eq(left - 1),
                        stored.eq(Mux(stored != 0, stored - 1, 0)),
                        address.eq(address + 1),
                    ]
                with m.If(asked & (part == 0)):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += wr.done.ready.eq(1)
                m.d.sync += [
                    entry.eq(prp2),
                    second.eq(1),
                ]
                with m.If(wr.done.valid):
                    m.d.sync += failed.eq(failed | wr.done.payload.error)
                    with m.If(left != 0):
                        m.next = "CHECK"
                    with m.Else():
                        m.d.sync += status.eq(
                            Mux(failed | wr.done.payload.error, Status.DATA_TRANSFER_ERROR, Status.SUCCESS))
                        m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.next = "IDLE"
        return m
