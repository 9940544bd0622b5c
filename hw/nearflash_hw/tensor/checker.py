"""Whether a descriptor's fields agree with each other, the engine's limits and the region."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract.tensor import WORDS, Op, TensorConfig

from ..interfaces import bits_for, index_bits
from .checks import CONSTANT, FACTOR_BITS, PROGRAM, SLOTS, VALUE_BITS, Code, Instruction, checks
from .descriptor_reader import word_layout
from .plan import ADDRESS_BITS

__all__ = ["DescriptorChecker"]

SATURATED = VALUE_BITS - 1  # bits of a product


class DescriptorChecker(wiring.Component):
    """``start``: runs :func:`.checks.checks` on the words that came by ``put``, of operator ``op``, in the program at
    ``program``; ``done`` pulses with ``fault`` and the ``word`` at fault.

    One accumulator, one operand: the rules are some 200 instructions, of which a descriptor takes up to 150, of three cycles
    or (products, skips) four.
    """

    def __init__(self, config: TensorConfig, beat_bytes: int):
        self.code = checks(config, beat_bytes)
        super().__init__({
            "put": In(word_layout()),
            "op": In(range(len(Op))),
            "program": In(ADDRESS_BITS),
            "start": In(1),
            "done": Out(1),
            "fault": Out(1),
            "word": Out(range(WORDS)),
        })

    def elaborate(self, platform):
        m = Module()
        skip_bits = max(5, bits_for(max(i.word for i in self.code)))
        layout = data.StructLayout({"code": index_bits(len(Code)), "slot": index_bits(SLOTS), "lsb": 6, "bits": 6,
                                    "constant": SATURATED, "when": 3, "word": skip_bits})

        def bits(i: Instruction) -> int:
            fields = vars(i) | {"code": int(i.code)}
            return sum(v << layout[n].offset for n, v in fields.items())

        m.submodules.rom = rom = Memory(shape=layout.size, depth=len(self.code), init=[bits(i) for i in self.code])
        fetch = rom.read_port()
        now = data.View(layout, fetch.data)
        m.submodules.slots = slots = Memory(shape=VALUE_BITS, depth=SLOTS, init=[])
        write, read = slots.write_port(), slots.read_port(domain="comb")

        at, following = (Signal(index_bits(len(self.code) + 1), name=n) for n in ("at", "following"))
        a, b, product = Signal(VALUE_BITS), Signal(VALUE_BITS), Signal(VALUE_BITS + FACTOR_BITS)
        raw, mask = Signal(VALUE_BITS, reset_less=True), Signal(VALUE_BITS)
        stands, store, jumps = Signal(), Signal(), Signal()
        m.d.comb += [
            following.eq(at),
            fetch.addr.eq(following),
            read.addr.eq(now.slot),
            mask.eq(Array(Const((1 << k) - 1, VALUE_BITS) for k in range(VALUE_BITS + 1))[now.bits]),
            stands.eq(Mux(a < b, now.when[0], Mux(a == b, now.when[1], now.when[2]))),
            write.en.eq(self.put.en | store),
            write.addr.eq(Mux(self.put.en, self.put.index, now.slot)),
            write.data.eq(Mux(self.put.en, self.put.word, a)),
        ]
        m.d.sync += [
            at.eq(following),
            raw.eq(Mux(now.slot == CONSTANT, now.constant, Mux(now.slot == PROGRAM, self.program, read.data))),
            b.eq((raw >> now.lsb) & mask),
            product.eq(a * b[:FACTOR_BITS]),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += following.eq(0)
                m.d.sync += a.eq(0)
                with m.If(self.start):
                    m.d.sync += self.fault.eq(0)
                    m.next = "READ"
            with m.State("READ"):
                m.next = "OPERAND"
            with m.State("OPERAND"):
                m.next = "EXECUTE"
            with m.State("EXECUTE"):
                m.d.comb += following.eq(at + 1)
                m.d.sync += jumps.eq(Mux(now.code == Code.SKIP, stands, ~b.bit_select(self.op, 1)))
                m.next = "READ"
                with m.Switch(now.code):
                    with m.Case(Code.LOAD):
                        m.d.sync += a.eq(b)
                    with m.Case(Code.ADD):
                        m.d.sync += a.eq(a + b)
                    with m.Case(Code.SUB):
                        m.d.sync += a.eq(a - b)
                    with m.Case(Code.MUL):
                        m.next = "PRODUCT"
                    with m.Case(Code.STORE):
                        m.d.comb += store.eq(1)
                    with m.Case(Code.NEED):
                        with m.If(~stands):
                            m.d.sync += [
                                self.fault.eq(1),
                                self.word.eq(now.word),
                            ]
                            m.next = "END"
                    with m.Case(Code.SKIP, Code.ONLY):
                        m.d.comb += following.eq(at)
                        m.next = "SKIP"
                    with m.Case(Code.END):
                        m.next = "END"
            with m.State("SKIP"):
                m.d.comb += following.eq(at + 1 + Mux(jumps, now.word, 0))
                m.next = "READ"
            with m.State("PRODUCT"):
                m.d.sync += a.eq(Mux(product[SATURATED:].any(), (1 << SATURATED) - 1, product))
                m.next = "READ"
            with m.State("END"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
