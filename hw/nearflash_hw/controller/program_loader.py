"""PROGRAM_LOAD: takes a parameter image apart and sends each record to the core or the DRAM it is for."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from nearflash.contract import ConfigError, DeviceConfig, Status, cores
from nearflash.contract.program import DRAM, UNIT, dram_weight_address, expected_records, weight_units

from ..interfaces import Layouts, bits_for, index_bits
from ..primitives.memport import MemWriteSignature

__all__ = ["ProgramLoader"]

WORDS_PER_UNIT = UNIT // 4
CHUNK_BEATS = 1024  # largest DRAM write request


def plan(config: DeviceConfig) -> list[dict[str, int]]:
    """Every record a program must have, as the loader's ROM holds them."""
    out = [{"target": t, "units": u, "address": 0} for t, u in expected_records(config).items()]
    return out + [
        {"target": DRAM, "units": weight_units(c, config.beat_bytes), "address": dram_weight_address(config, c)}
        for c in cores(config.mlp.graph) if c.weights == "dram"]


class ProgramLoader(wiring.Component):
    """Carries out ``req`` {words, prp1, prp2} and answers with ``result`` {status, dw0}.

    The image (:mod:`nearflash.contract.program`) must hold each record of :func:`plan` exactly once, in any order, and
    nothing else. Record data goes out on ``parameter``, or to DRAM through ``dram_write`` in requests of at most 1024
    beats. ``loaded`` falls when a load begins and rises when one is complete. The first fault ends the load: dw0 is the
    position of its record, and the rest of the image is read and dropped. Records before the fault have reached their
    targets. A record cut off by a host bus error is ended with one arbitrary beat that has ``last``.

    One beat per cycle within a record; between records some 5 cycles and one per entry of the plan.
    Records are in units of 16 bytes, so ``beat_bytes`` must be 8 or 16.
    """

    def __init__(self, config: DeviceConfig):
        if config.beat_bytes > UNIT:
            raise ConfigError("beat_bytes", config.beat_bytes,
                              "must be 8 or 16 for a device with an MLP: parameter records are in 16-byte units")
        self.config = config
        layouts = Layouts.of(config)
        address = layouts.host_address_bits
        super().__init__({
            #: Where the image lies, and its length in words of 4 bytes.
            "req": In(stream.Signature(data.StructLayout({"words": 32, "prp1": address, "prp2": address}))),
            #: One for each.
            "result": Out(stream.Signature(data.StructLayout({"status": 11, "dw0": 32}))),
            #: The image in host memory,
            "host_req": Out(stream.Signature(layouts.prp_request)),
            #: beat by beat.
            "host_data": In(stream.Signature(layouts.host_data)),
            #: Records for the MLP, beat by beat.
            "parameter": Out(stream.Signature(layouts.parameter)),
            #: Records for DRAM.
            "dram_write": Out(MemWriteSignature(config.beat_bytes)),
            #: The last image was complete.
            "loaded": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, req, src, wr, out = self.config, self.req, self.host_data, self.dram_write, self.parameter
        beat = config.beat_bytes
        beats_per_unit = UNIT // beat
        status, ordinal = self.result.payload.status, self.result.payload.dw0

        # No field is wider than the plan's: whatever has bits above that can't be of it.
        records = plan(config)
        unit_bits = bits_for(sum(r["units"] + 1 for r in records))  # with their headers
        address_bits = max(r["address"] for r in records).bit_length()
        dram = any(r["target"] == DRAM for r in records)
        entry_layout = data.StructLayout({"target": 16, "units": unit_bits, "address": address_bits})
        m.submodules.rom = rom = Memory(shape=entry_layout, depth=len(records), init=records)
        port = rom.read_port()
        index = Signal(index_bits(len(records) + 1))
        entry = Signal(entry_layout)
        m.d.comb += port.addr.eq(index)

        header = Signal(entry_layout, reset_less=True)
        foreign = Signal()  # bits above
        remaining = Signal(unit_bits)  # units of the image after this record's header; a longer image has enough for any
        header_beat = Signal()
        seen = Signal(len(records))
        position = Signal(bits_for(len(records)))  # of the record under way, in the image
        same_record, same_units, fits = (Signal(name=s) for s in ("same_record", "same_units", "fits"))
        left = Signal(unit_bits + beats_per_unit.bit_length() - 1)  # beats of this record not yet moved
        chunk = Signal(bits_for(CHUNK_BEATS))  # beats of this DRAM request not yet moved
        first, ended = Signal(), Signal()
        taken = Signal()
        cut = Signal()  # the transfer ended on this beat with an error before the record was complete
        m.d.comb += [
            taken.eq(src.valid & src.ready),
            cut.eq(src.payload.last & (src.payload.status != 0)),
            ordinal.eq(position),
            self.host_req.payload.prp1.eq(req.payload.prp1),
            self.host_req.payload.prp2.eq(req.payload.prp2),
            self.host_req.payload.length.eq(req.payload.words << 2),
            out.payload.data.eq(src.payload.data),
            out.payload.target.eq(header.target),
            out.payload.first.eq(first),
            out.payload.last.eq((left == 1) | cut),
            wr.req.payload.addr.eq(header.address),
            wr.req.payload.beats.eq(chunk),
            wr.data.payload.data.eq(src.payload.data),
        ]
        with m.If(taken & src.payload.last):
            m.d.sync += ended.eq(1)
            with m.If(src.payload.status != 0):  # what was wrong with the image counts less than why it could not be read
                m.d.sync += status.eq(src.payload.status)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    seen.eq(0),
                    position.eq(0),
                    status.eq(0),
                    ended.eq(0),
                    header_beat.eq(0),
                    remaining.eq(req.payload.words[2:] | req.payload.words[2 + unit_bits :].any().replicate(unit_bits)),
                ]
                with m.If(req.valid):
                    m.d.sync += self.loaded.eq(0)
                    with m.If(req.payload.words[30:].any()):  # 4 GiB and more
                        m.d.sync += status.eq(Status.INVALID_FIELD)
                        m.next = "RESULT"
                    with m.Elif(req.payload.words[:2].any() | (req.payload.words == 0)):
                        m.d.sync += status.eq(Status.BAD_PROGRAM)
                        m.next = "RESULT"
                    with m.Else():
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.host_req.valid.eq(1)
                with m.If(self.host_req.ready):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += src.ready.eq(1)
                m.d.sync += index.eq(0)
                with m.If(src.valid):
                    above = []
                    for name, at, end in (("target", 0, 32), ("units", 32, 64), ("address", 64, 128)):
                        here = header_beat == at // (beat * 8)
                        word = src.payload.data[at % (beat * 8) :][: end - at]
                        above.append(here & word[len(header[name]) :].any())
                        with m.If(here):
                            m.d.sync += header[name].eq(word)
                    m.d.sync += [
                        foreign.eq((foreign & header_beat) | Cat(above).any()),
                        header_beat.eq(~header_beat),
                    ]
                    with m.If(cut):
                        m.next = "RESULT"
                    with m.Elif(header_beat == beats_per_unit - 1):
                        m.d.sync += [
                            remaining.eq(remaining - 1),
                            header_beat.eq(0),
                        ]
                        m.next = "LOOK_UP"
            with m.State("LOOK_UP"):
                m.next = "ENTRY"
            with m.State("ENTRY"):
                m.d.sync += [
                    entry.eq(port.data),
                    fits.eq(header.units <= remaining),
                ]
                m.next = "MATCH"
            with m.State("MATCH"):
                m.d.sync += [
                    same_record.eq((header.target == entry.target) & (header.address == entry.address)),
                    same_units.eq(header.units == entry.units),
                    left.eq(header.units << (beats_per_unit.bit_length() - 1)),
                    first.eq(1),
                ]
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += index.eq(index + 1)
                with m.If(same_record & ~foreign):
                    with m.If(~same_units | ~fits | seen.bit_select(index, 1)):
                        m.next = "BAD"
                    with m.Else():
                        m.d.sync += seen.bit_select(index, 1).eq(1)
                        m.next = "FORWARD"
                        if dram:
                            with m.If(header.target == DRAM):
                                m.next = "CHUNK"
                with m.Elif(index == len(records) - 1):
                    m.next = "BAD"
                with m.Else():
                    m.next = "LOOK_UP"

            with m.State("FORWARD"):
                m.d.comb += [
                    out.valid.eq(src.valid),
                    src.ready.eq(out.ready),
                ]
                with m.If(taken):
                    m.d.sync += [
                        first.eq(0),
                        left.eq(left - 1),
                    ]
                    with m.If(cut):
                        m.next = "RESULT"
                    with m.Elif(left == 1):
                        m.next = "RECORD_END"

            if dram:
                self._dram_states(m, header, left, chunk, taken, cut, status)

            with m.State("RECORD_END"):
                m.d.sync += [
                    remaining.eq(remaining - header.units),
                    position.eq(position + 1),
                ]
                m.next = "HEADER"
                with m.If(ended):
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                with m.If(status != 0):
                    m.next = "RESULT"
                with m.Elif(seen.all()):
                    m.d.sync += [
                        self.loaded.eq(1),
                        position.eq(0),
                    ]
                    m.next = "RESULT"
                with m.Else():
                    m.next = "BAD"
            with m.State("BAD"):
                with m.If(status == 0):
                    m.d.sync += status.eq(Status.BAD_PROGRAM)
                m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += src.ready.eq(~ended)
                with m.If(ended):
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.d.comb += req.ready.eq(1)
                    m.next = "IDLE"
        return m

    def _dram_states(self, m: Module, header, left, chunk, taken, cut, status) -> None:
        """Of a record for DRAM: in requests of CHUNK_BEATS."""
        beat, src, wr = self.config.beat_bytes, self.host_data, self.dram_write
        with m.State("CHUNK"):
            m.d.sync += chunk.eq(Mux(left > CHUNK_BEATS, CHUNK_BEATS, left))
            m.next = "ASK"
        with m.State("ASK"):
            m.d.comb += wr.req.valid.eq(1)
            with m.If(wr.req.ready):
                m.next = "WRITE"
        with m.State("WRITE"):
            m.d.comb += [
                wr.data.valid.eq(src.valid),
                src.ready.eq(wr.data.ready),
                wr.data.payload.strb.eq(Mux(cut, 0, (1 << beat) - 1)),
            ]
            with m.If(taken):
                m.d.sync += [
                    left.eq(left - 1),
                    chunk.eq(chunk - 1),
                    header.address.eq(header.address + beat),
                ]
                with m.If(chunk == 1):
                    m.next = "WRITTEN"
                with m.Elif(cut):
                    m.next = "PAD"
        with m.State("PAD"):  # the request's promised beats, with nothing in them
            m.d.comb += wr.data.valid.eq(1)
            with m.If(wr.data.ready):
                m.d.sync += chunk.eq(chunk - 1)
                with m.If(chunk == 1):
                    m.next = "WRITTEN"
        with m.State("WRITTEN"):
            m.d.comb += wr.done.ready.eq(1)
            with m.If(wr.done.valid):
                with m.If(status != 0):
                    m.next = "RESULT"
                with m.Elif(wr.done.payload.error):
                    m.d.sync += status.eq(Status.WRITE_FAULT)
                    m.next = "DRAIN"
                with m.Elif(left == 0):
                    m.next = "RECORD_END"
                with m.Else():
                    m.next = "CHUNK"
