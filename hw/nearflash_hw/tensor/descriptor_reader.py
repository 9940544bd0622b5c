"""A descriptor from DRAM: fetched, its CRC verified, every field held against its limits."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import ALWAYS, CRC_WORD, DESCRIPTOR_BYTES, FIELDS, USES, WORDS, Op

from ..interfaces import bits_for
from ..primitives.memport import MemReadSignature
from .plan import ADDRESS_BITS, SIZE_BITS
from .planner import descriptor_layout

__all__ = ["DescriptorReader", "word_layout"]

WORD_BITS = 32


def word_layout() -> data.StructLayout:
    """With ``en``: ``word`` is the descriptor's word ``index``."""
    return data.StructLayout({"en": 1, "index": range(WORDS), "word": WORD_BITS})


class DescriptorReader(wiring.Component):
    """``start``: reads the descriptor at ``address``, which should be the ``number``-th of its program (0: the header), and
    does with it what :func:`nearflash.contract.tensor.unpack` does.

    ``done`` pulses with ``error`` (it could not be read), or else ``fault`` and the ``word`` at fault. ``put``: its words as
    they come; ``descriptor``: all of it, from ``done`` on until the next ``start``. A cycle for every word and every beat,
    and memory's latency.
    """

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "start": In(1),
            "address": In(ADDRESS_BITS),
            "number": In(SIZE_BITS),
            "mem_read": Out(MemReadSignature(beat_bytes)),
            "put": Out(word_layout()),
            "descriptor": Out(descriptor_layout()),
            "done": Out(1),
            "error": Out(1),
            "fault": Out(1),
            "word": Out(range(WORDS)),
        })

    def elaborate(self, platform):
        m = Module()
        req, rsp, put = self.mem_read.req, self.mem_read.rsp, self.put
        words = self.beat_bytes * 8 // WORD_BITS
        buffer, left = Signal(8 * self.beat_bytes, reset_less=True), Signal(bits_for(words))
        index, word = Signal(range(WORDS)), buffer[:WORD_BITS]
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=WORD_BITS).create()
        kept = self.descriptor.as_value()
        wrong, found, at = self._wrong(m, index, word), Signal(), Signal.like(index)
        m.d.sync += [
            found.eq(wrong & put.en),
            at.eq(index),
        ]
        with m.If(found & ~self.fault):
            m.d.sync += [
                self.fault.eq(1),
                self.word.eq(at),
            ]
        m.d.comb += [
            req.payload.addr.eq(self.address),
            req.payload.beats.eq(DESCRIPTOR_BYTES // self.beat_bytes),
            crc.start.eq(self.start),
            crc.valid.eq(put.en),
            crc.data.eq(word),
            put.index.eq(index),
            put.word.eq(word),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    index.eq(0),
                    left.eq(0),
                ]
                with m.If(self.start):
                    m.d.sync += [
                        self.fault.eq(0),
                        self.error.eq(0),
                    ]
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += req.valid.eq(1)
                with m.If(req.ready):
                    m.next = "BEAT"
            with m.State("BEAT"):
                m.d.comb += rsp.ready.eq(1)
                m.d.sync += [
                    buffer.eq(rsp.payload.data),
                    left.eq(words),
                ]
                with m.If(rsp.valid):
                    m.d.sync += self.error.eq(self.error | rsp.payload.error)
                    m.next = "WORD"
            with m.State("WORD"):
                m.d.comb += put.en.eq(1)
                m.d.sync += [
                    buffer.eq(buffer >> WORD_BITS),
                    left.eq(left - 1),
                    index.eq(index + 1),
                    kept.eq(Cat(kept[WORD_BITS:], word)),
                ]
                with m.If(index == CRC_WORD):
                    m.next = "CRC"
                with m.Elif(left == 1):
                    m.next = "BEAT"
            with m.State("CRC"):
                with m.If(~crc.match_detected):
                    m.d.sync += [
                        self.fault.eq(1),
                        self.word.eq(CRC_WORD),
                    ]
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m

    def _wrong(self, m: Module, index: Signal, word) -> Signal:
        """Whether ``word``, of the descriptor's ``index``, has a bit that its operator doesn't use, or a field outside its
        limits."""
        wrong, op = Signal(), Signal(range(len(Op)))
        with m.If(self.put.en & (index == 0)):
            m.d.sync += op.eq(word[: len(op)])
        with m.Switch(index):
            for i in range(CRC_WORD):
                fields = [f for f in FIELDS if f.word == i]
                faults = []
                for f in fields:
                    v = word[f.lsb : f.lsb + f.bits]
                    v = v.as_signed() if f.low < 0 else v
                    least, most = (-(1 << f.bits - 1), (1 << f.bits - 1) - 1) if f.low < 0 else (0, (1 << f.bits) - 1)
                    faults += [v < f.low] if f.low > least else []
                    faults += [v > f.high] if f.high < most else []
                used = {o: sum((1 << f.bits) - 1 << f.lsb for f in fields if f.name in USES[o] | ALWAYS) for o in Op}
                if i == 0:
                    number = next(f for f in fields if f.name == "number")
                    faults += [word[number.lsb : number.lsb + number.bits] != self.number,
                               (word[: len(op)] == Op.PROGRAM) != (self.number == 0)]
                unused = Signal(name=f"unused{i}")
                with m.Case(i):
                    with m.Switch(op if i else Const(Op.PROGRAM)):  # word 0 says which it is
                        for o in Op if i else (Op.PROGRAM,):
                            with m.Case(o):
                                m.d.comb += unused.eq((word & (~used[o] & 0xFFFF_FFFF)) != 0)
                    m.d.comb += wrong.eq(Cat(unused, *faults).any())
        return wrong
