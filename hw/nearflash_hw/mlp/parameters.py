"""Takes parameter records apart: beats for weight memories, 16-byte entries for everything else."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import DeviceConfig
from nearflash.contract.program import UNIT

from ..interfaces import Layouts

__all__ = ["ENTRY_BITS", "ParameterBus"]

ENTRY_BITS = UNIT * 8
COUNT_BITS = 16


class ParameterBus(wiring.Component):
    """One record stream in; out, one cycle later and without back-pressure: every beat (``beat_valid``, ``beat_first``,
    ``beat_data``) and every 16-byte entry (``entry_valid``, ``entry``, its number ``index`` in the record), with the
    record's ``target``.

    With 32-byte beats a beat takes two cycles; a record that ends in half a beat gives one entry of padding, whose index
    is out of the target's range.
    """

    def __init__(self, config: DeviceConfig):
        self.beat_bytes = config.beat_bytes
        super().__init__({
            #: Records.
            "i": In(stream.Signature(Layouts.of(config).parameter)),
            #: Of what comes out.
            "target": Out(16),
            #: A beat of the record.
            "beat_valid": Out(1),
            "beat_first": Out(1),
            "beat_data": Out(config.beat_bytes * 8),
            #: A 16-byte entry of the record.
            "entry_valid": Out(1),
            "entry": Out(ENTRY_BITS),
            #: The entry's number in the record.
            "index": Out(COUNT_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        i = self.i.payload
        bits = self.beat_bytes * 8
        half = Signal()  # 8-byte beats: the entry's first half is here; 32-byte beats: the beat's second half is due
        take = Signal()
        index = Signal(COUNT_BITS)
        m.d.comb += [
            take.eq(self.i.valid & self.i.ready),
            self.i.ready.eq(1),
        ]
        m.d.sync += [
            self.beat_valid.eq(take),
            self.entry_valid.eq(0),
        ]
        with m.If(take):
            m.d.sync += [
                self.target.eq(i.target),
                self.beat_first.eq(i.first),
                self.beat_data.eq(i.data),
            ]
        with m.If(self.entry_valid):
            m.d.sync += index.eq(self.index + 1)
        number = Mux(self.entry_valid, self.index + 1, index)
        if bits == ENTRY_BITS:
            with m.If(take):
                m.d.sync += [
                    self.entry_valid.eq(1),
                    self.entry.eq(i.data),
                    self.index.eq(Mux(i.first, 0, number)),
                ]
        elif bits < ENTRY_BITS:
            start = Signal()
            with m.If(take):
                m.d.sync += [
                    half.eq(i.first | ~half),
                    start.eq(i.first),
                    self.entry.eq(Cat(self.entry[bits:], i.data)),
                ]
                with m.If(half & ~i.first):
                    m.d.sync += [
                        self.entry_valid.eq(1),
                        self.index.eq(Mux(start, 0, number)),
                    ]
        else:
            m.d.comb += self.i.ready.eq(~half)
            m.d.sync += half.eq(take)
            with m.If(take):
                m.d.sync += [
                    self.entry_valid.eq(1),
                    self.entry.eq(i.data),
                    self.index.eq(Mux(i.first, 0, number)),
                ]
            with m.Elif(half):
                m.d.sync += [
                    self.entry_valid.eq(1),
                    self.entry.eq(self.beat_data[ENTRY_BITS:]),
                    self.index.eq(number),
                ]
        return m
