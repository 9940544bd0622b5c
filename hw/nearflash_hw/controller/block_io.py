"""Block I/O: executes READ, WRITE, FLUSH and dataset management commands."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.nvme import Opcode, Status

from ..host.pieces import PieceCutter
from ..interfaces import FlashOp, Layouts, bits_for, index_bits
from ..primitives.arbiter import StreamArbiter
from ..primitives.fifo import StreamFifo
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .ftl import allocate_layout, update_layout
from .map_cache import ERROR
from .page_feeder import BeatReader, PageFeeder, read_layout
from .range_list import MAX_RANGES, RANGE_BYTES, RangeList

__all__ = ["BlockIo"]


class BlockIo(wiring.Component):
    """Executes the commands on ``cmd`` in order, the pages of one command in parallel, one ``completion`` each, and between
    them those on ``trim_cmd``.

    ``page_slots`` page buffers form a ring in one block RAM with one write and one read port (one beat per cycle each).
    READ: translate, flash READ into a slot with tag = slot, then DMA to the host in page order; unmapped pages are zeros.
    WRITE: DMA from the host into a slot, then allocate, ERASE if asked, PROGRAM (both with tag = slot; the channel answers a
    die's commands in order), and once programmed change the map: a logical block is never torn. FLUSH: everything earlier is
    complete, so it only syncs the FTL. DSM deallocate (``trim_cmd``): all ranges are taken in and checked, then unmapped
    beside the commands that follow, one such list at a time: its walk may take as long as the device is large. What runs
    meanwhile sees each block mapped or not.

    The first failure sets the command's status and stops new pages; what is in flight is completed. Pages of a failed
    WRITE are each either old or new. Statuses: CAPACITY_EXCEEDED (``full``), WRITE_FAULT (flash or map write, or
    no page because the log is ``stalled``),
    UNRECOVERED_READ (flash or map read), DATA_TRANSFER_ERROR (host bus), LBA_OUT_OF_RANGE (a DSM range),
    COMMAND_SIZE_LIMIT (a DSM's ranges together), or the PRP list's.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        self.layouts = lay = Layouts(config)
        n = config.flash.channels
        super().__init__({
            "cmd": In(stream.Signature(lay.block_command)),
            "trim_cmd": In(stream.Signature(lay.block_command)),
            "completion": Out(stream.Signature(lay.completion)),
            "ftl_req": Out(stream.Signature(lay.translate_request)),
            "ftl_rsp": In(stream.Signature(lay.translate_response)),
            "update": Out(stream.Signature(update_layout(config))),
            "update_done": In(stream.Signature(ERROR)),
            "allocate": In(stream.Signature(allocate_layout(config))),
            "full": In(1),
            "stalled": In(1),
            "sync": Out(stream.Signature(1)),
            "sync_done": In(stream.Signature(ERROR)),
            "flash_cmd": Out(stream.Signature(lay.flash_command)).array(n),
            "flash_in": Out(stream.Signature(lay.data_bits)).array(n),
            "flash_data": In(stream.Signature(lay.flash_data)).array(n),
            "flash_done": In(stream.Signature(lay.flash_done)).array(n),
            "prp_req": Out(stream.Signature(lay.prp_request)),
            "prp_run": In(stream.Signature(lay.prp_run)),
            "host_read": Out(MemReadSignature(config.beat_bytes)),
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.cutter = self._cutter = PieceCutter(self.config)
        connect(m, flipped(self.prp_run), self._cutter.run)
        self._piece = self._cutter.piece
        self._declare()
        self._buffer(m)
        self._flash(m)
        reading = self._read(m)
        fetching = self._fetch(m)
        writing = self._write(m)
        trimming = self._trim(m)
        self._control(m, {"READ": reading, "WRITE": fetching & writing, "TRIM": fetching & trimming})
        self._slots(m)
        return m

    def _declare(self):
        """Signals that the engines share."""
        c, lay = self.config, self.layouts
        slots = c.host.page_slots
        slot_bits = index_bits(slots)
        self._command = Signal(lay.block_command)
        self._start = Signal()  # pulse: a command begins, everything of the last one is over
        self._running = {k: Signal(name=f"run_{k.lower()}") for k in ("READ", "WRITE", "TRIM")}
        self._pages = Signal(17)  # of the command
        self._stop = Signal()  # the command failed
        self._faults = {s: Signal(name=f"fault_{s.name.lower()}") for s in (
            Status.CAPACITY_EXCEEDED, Status.WRITE_FAULT, Status.UNRECOVERED_READ, Status.DATA_TRANSFER_ERROR,
            Status.LBA_OUT_OF_RANGE, Status.COMMAND_SIZE_LIMIT)}
        # the list of ranges that is unmapped beside other commands: it holds a use of the map's update port
        self._trimming = Signal()
        self._trim_updates, self._page_updates = Signal(), Signal()
        self._trim_done = Signal(lay.completion)
        self._trim_answers, self._trim_answered = Signal(), Signal()
        self._answering = Signal()  # the completion of another command is on offer
        self._bad_list = Signal()  # the piece on offer carries a PRP status
        self._pieces_over = Signal()  # the transfer's last piece was taken
        # the ring of slots: taken at the head, freed at the tail, in page order
        self._head, self._tail = Signal(slot_bits), Signal(slot_bits)
        self._used = Signal(range(slots + 1))
        self._claim, self._free = Signal(), Signal()
        self._retired = Signal(17)  # pages freed so far
        # of each slot: flash results still to come (2: ERASE and PROGRAM), whether one was bad, unmapped
        self._pending = Array(Signal(2, name=f"pending{k}") for k in range(slots))
        self._bad = Array(Signal(name=f"bad{k}") for k in range(slots))
        self._zero = Array(Signal(name=f"zero{k}") for k in range(slots))
        # what the flash still owes to a slot, and an answer of it
        self._expect, self._expect_slot, self._expect_n = Signal(), Signal(slot_bits), Signal(2)
        self._answer, self._answer_slot, self._answer_bad = Signal(), Signal(slot_bits), Signal()
        # the one flash command on offer
        self._flash_valid, self._flash_op = Signal(), Signal(FlashOp)
        self._flash_ppn, self._flash_slot = Signal(lay.ppn_bits), Signal(slot_bits)
        self._flash_taken = Signal()

    def _next_slot(self, slot):
        return Mux(slot == self.config.host.page_slots - 1, 0, slot + 1)

    def _channel(self, ppn):
        return ppn[: log2(self.config.flash.channels)]

    # -- shared parts ---------------------------------------------------------------------------------------------
    def _buffer(self, m):
        """The page buffer: one write port (flash or host), one read port shared by the feeders and the host DMA."""
        c, lay = self.config, self.layouts
        n = c.flash.channels
        beat_bits = log2(c.page_beats)
        m.submodules.pages = pages = Memory(
            shape=lay.data_bits, depth=c.host.page_slots * c.page_beats, init=[])
        wr, rd = pages.write_port(), pages.read_port()
        self._buffer_write = wr

        m.submodules.read_arbiter = arbiter = StreamArbiter(read_layout(c), n + 1)
        m.submodules.to_host = self._to_host = BeatReader(c)
        self._feeders = [PageFeeder(c) for _ in range(n)]
        grant, arrives = Signal.like(arbiter.grant), Signal()
        m.d.comb += [
            arbiter.o.ready.eq(1), rd.en.eq(arbiter.o.valid),
            rd.addr.eq(Cat(arbiter.o.payload.beat, arbiter.o.payload.slot))]
        m.d.sync += [grant.eq(arbiter.grant), arrives.eq(arbiter.o.valid)]
        for k, reader in enumerate((*self._feeders, self._to_host)):
            connect(m, reader.read, arbiter.i[k])
            m.d.comb += [reader.arrives.eq(arrives & (grant == k)), reader.data.eq(rd.data)]
        for k, feeder in enumerate(self._feeders):
            m.submodules[f"feeder{k}"] = feeder
            connect(m, feeder.o, flipped(self.flash_in[k]))

        # flash data: the channels take turns beat by beat, each slot has its own place
        m.submodules.flash_arbiter = flash = StreamArbiter(lay.flash_data, n)
        for k in range(n):
            connect(m, flipped(self.flash_data[k]), flash.i[k])
        place = Array(Signal(beat_bits, name=f"place{k}") for k in range(c.host.page_slots))
        beat = flash.o.payload
        slot = beat.tag[: len(self._head)]
        from_flash, ends = Signal(), Signal()
        m.d.comb += flash.o.ready.eq(1)
        m.d.sync += [from_flash.eq(flash.o.valid), ends.eq(flash.o.valid & beat.last)]
        rsp = self.host_read.rsp
        into_buffer = self._running["WRITE"] & rsp.valid & rsp.ready
        self._host_place = host_place = Signal(range(c.host.page_slots * c.page_beats))
        host_addr, write_data = Signal.like(wr.addr), Signal(lay.data_bits, reset_less=True)
        write_en = Signal()
        m.d.sync += write_en.eq(flash.o.valid | into_buffer)
        with m.If(flash.o.valid):
            m.d.sync += [write_data.eq(beat.data), self._answer_slot.eq(slot), self._answer_bad.eq(beat.error)]
        with m.Elif(into_buffer):
            m.d.sync += [
                host_addr.eq(host_place), write_data.eq(rsp.payload.data),
                host_place.eq(Mux(host_place == c.host.page_slots * c.page_beats - 1, 0, host_place + 1))]
        # The place of a flash beat is looked up in the cycle of the write: choosing the channel has taken one already.
        slot = self._answer_slot
        with m.If(from_flash):
            m.d.sync += place[slot].eq(place[slot] + 1)
        m.d.comb += [wr.en.eq(write_en), wr.addr.eq(Mux(from_flash, Cat(place[slot], slot), host_addr)),
                     wr.data.eq(write_data)]
        with m.If(self._start):
            m.d.sync += [host_place.eq(0), *(p.eq(0) for p in place)]
        self._flash_ends = ends

    def _flash(self, m):
        """Offers a command to its channel; collects results."""
        c, f, lay = self.config, self.config.flash, self.layouts
        ppn = self._flash_ppn
        low = log2(f.channels)
        die = ppn[low : low + log2(f.dies)]
        page = ppn[low + log2(f.dies) : low + log2(f.dies) + log2(f.pages)]
        block = ppn[low + log2(f.dies) + log2(f.pages) : f.ppn_bits]
        for k, out in enumerate(self.flash_cmd):
            p = out.payload
            m.d.comb += [
                out.valid.eq(self._flash_valid & (self._channel(ppn) == k)), p.op.eq(self._flash_op), p.die.eq(die),
                p.block.eq(block), p.page.eq(page), p.column.eq(0), p.tag.eq(self._flash_slot),
                p.beats.eq(Mux(self._flash_op == FlashOp.READ, c.page_beats, c.raw_page_beats))]
            with m.If(out.valid & out.ready):
                m.d.comb += self._flash_taken.eq(1)
        m.submodules.done_arbiter = done = StreamArbiter(lay.flash_done, f.channels)
        for k in range(f.channels):
            connect(m, flipped(self.flash_done[k]), done.i[k])
        done_valid = Signal()
        m.d.comb += done.o.ready.eq(1)
        m.d.sync += done_valid.eq(done.o.valid)
        with m.If(done.o.valid):  # never together with read data: a command reads or writes
            m.d.sync += [self._answer_slot.eq(done.o.payload.tag), self._answer_bad.eq(done.o.payload.error)]
        m.d.comb += self._answer.eq(self._flash_ends | done_valid)

    def _slots(self, m):
        """The ring and what each slot waits for."""
        m.d.sync += self._used.eq(self._used + self._claim - self._free)
        with m.If(self._claim):
            m.d.sync += self._head.eq(self._next_slot(self._head))
        with m.If(self._free):
            m.d.sync += [self._tail.eq(self._next_slot(self._tail)), self._retired.eq(self._retired + 1)]
        with m.If(self._answer):
            m.d.sync += self._pending[self._answer_slot].eq(self._pending[self._answer_slot] - 1)
            with m.If(self._answer_bad):
                m.d.sync += self._bad[self._answer_slot].eq(1)
        with m.If(self._expect):
            m.d.sync += [self._pending[self._expect_slot].eq(self._expect_n), self._bad[self._expect_slot].eq(0)]
        with m.If(self._start):
            m.d.sync += [self._used.eq(0), self._head.eq(0), self._tail.eq(0), self._retired.eq(0)]

    # -- READ -----------------------------------------------------------------------------------------------------
    def _read(self, m):
        """Translates and reads pages ahead; sends them to the host in order. Returns whether it is idle and done."""
        c = self.config
        run, piece = self._running["READ"], self._piece
        issued = Signal(17)
        slot = Signal.like(self._head)  # being issued
        more = Signal()
        m.d.comb += more.eq(run & ~self._stop & (issued != self._pages))
        m.d.comb += self.ftl_req.payload.lpn.eq(self._command.slba + issued)
        with m.If(self._start):
            m.d.sync += issued.eq(0)
        with m.FSM(name="issue") as issue:
            with m.State("IDLE"):
                m.d.sync += slot.eq(self._head)
                with m.If(more & (self._used != c.host.page_slots)):
                    m.d.comb += [
                        self._claim.eq(1), self._expect.eq(1), self._expect_slot.eq(self._head), self._expect_n.eq(1)]
                    m.d.sync += self._zero[self._head].eq(0)
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.ftl_req.valid.eq(1)
                with m.If(self.ftl_req.ready):
                    m.d.sync += issued.eq(issued + 1)
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                rsp = self.ftl_rsp
                m.d.comb += rsp.ready.eq(1)
                m.d.sync += [self._flash_ppn.eq(rsp.payload.ppn), self._flash_slot.eq(slot),
                             self._flash_op.eq(FlashOp.READ)]
                with m.If(rsp.valid):
                    m.d.comb += self._faults[Status.UNRECOVERED_READ].eq(rsp.payload.error)
                    with m.If(rsp.payload.mapped & ~rsp.payload.error):
                        m.next = "COMMAND"
                    with m.Else():
                        m.d.comb += [self._expect.eq(1), self._expect_slot.eq(slot), self._expect_n.eq(0)]
                        m.d.sync += self._zero[slot].eq(1)
                        m.next = "IDLE"
            with m.State("COMMAND"):
                m.d.comb += self._flash_valid.eq(1)
                with m.If(self._flash_taken):
                    m.next = "IDLE"

        # -- to the host
        req, beats, done = self.host_write.req, self.host_write.data, self.host_write.done
        current = Signal(piece.payload.shape())
        left, final = Signal.like(current.beats), Signal()  # beats not sent; it is one
        place = Signal(log2(c.page_beats))  # in the slot
        settled = Signal()
        writes = Signal(16)  # requests not answered yet
        reader = self._to_host
        m.d.comb += [
            settled.eq((self._used != 0) & (self._pending[self._tail] == 0)),
            req.payload.addr.eq(current.addr), req.payload.beats.eq(current.beats),
            beats.payload.strb.eq(-1), done.ready.eq(1),
            reader.addr.payload.beat.eq(place), reader.addr.payload.slot.eq(self._tail),
            self._faults[Status.DATA_TRANSFER_ERROR].eq(
                (done.valid & done.payload.error)
                | (self.host_read.rsp.valid & self.host_read.rsp.ready & self.host_read.rsp.payload.error))]
        m.d.sync += writes.eq(writes + (req.valid & req.ready) - (done.valid & done.ready))
        # A beat of an unmapped page is read like any other and replaced by zero on its way out; the flags follow the
        # beats in order.
        m.submodules.zeros = zeros = StreamFifo(1, 8)
        m.d.comb += [
            zeros.i.valid.eq(reader.addr.valid & reader.addr.ready), zeros.i.payload.eq(self._zero[self._tail]),
            zeros.o.ready.eq(reader.o.valid & beats.ready), beats.valid.eq(reader.o.valid),
            reader.o.ready.eq(beats.ready), beats.payload.data.eq(Mux(zeros.o.payload, 0, reader.o.payload))]
        with m.If(self._start):
            m.d.sync += place.eq(0)
        with m.FSM(name="send") as send:
            with m.State("IDLE"):
                m.d.sync += [current.eq(piece.payload), left.eq(piece.payload.beats),
                             final.eq(piece.payload.beats == 1)]
                with m.If(run & self._stop):  # drop what is left
                    m.d.comb += [piece.ready.eq(1), self._free.eq(settled)]
                with m.Elif(run & settled):
                    with m.If(self._bad[self._tail]):
                        m.d.comb += self._faults[Status.UNRECOVERED_READ].eq(1)
                    with m.Else():
                        m.d.comb += piece.ready.eq(1)
                        with m.If(piece.valid & ~self._bad_list):
                            m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += req.valid.eq(1)
                with m.If(req.ready):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += reader.addr.valid.eq(1)
                with m.If(reader.addr.ready):
                    m.d.sync += [left.eq(left - 1), final.eq(left == 2), place.eq(place + 1)]
                    with m.If(final):
                        m.d.comb += self._free.eq(current.page_end)
                        m.next = "IDLE"
        return (issue.ongoing("IDLE") & send.ongoing("IDLE") & (self._used == 0) & (writes == 0) & self._pieces_over
                & ~more)

    # -- WRITE ----------------------------------------------------------------------------------------------------
    def _fetch(self, m):
        """Requests host data piece by piece (WRITE: into the ring; DSM: into the range list). Returns whether it is
        idle and done."""
        c = self.config
        piece, req, rsp = self._piece, self.host_read.req, self.host_read.rsp
        write, trim = self._running["WRITE"], self._running["TRIM"]
        in_page = Signal()  # the piece's page has its slot
        current = Signal(piece.payload.shape())
        self._owed = owed = Signal(bits_for(max(c.host.page_slots * c.page_beats, MAX_RANGES * RANGE_BYTES // 8)))
        self._filled = Signal()  # pulse: a page is complete in the buffer
        place = Signal(log2(c.page_beats))
        m.d.comb += [req.payload.addr.eq(current.addr), req.payload.beats.eq(current.beats)]
        m.d.sync += owed.eq(owed + Mux(req.valid & req.ready, current.beats, 0) - (rsp.valid & rsp.ready))
        with m.If(write & rsp.valid & rsp.ready):
            m.d.sync += place.eq(place + 1)
            m.d.comb += self._filled.eq(place == c.page_beats - 1)
        with m.If(self._start):
            m.d.sync += [place.eq(0), in_page.eq(0)]
        with m.FSM(name="fetch") as fetch:
            with m.State("IDLE"):
                m.d.sync += current.eq(piece.payload)
                with m.If((write | trim) & self._stop):
                    m.d.comb += piece.ready.eq(1)
                with m.Elif(write & ~in_page):
                    with m.If((self._used != c.host.page_slots) & ~self._pieces_over):
                        m.d.comb += self._claim.eq(1)
                        m.d.sync += in_page.eq(1)
                with m.Elif(write | trim):
                    m.d.comb += piece.ready.eq(1)
                    with m.If(piece.valid & ~self._bad_list):
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += req.valid.eq(1)
                with m.If(req.ready):
                    with m.If(current.page_end):
                        m.d.sync += in_page.eq(0)
                    m.next = "IDLE"
        m.d.comb += self._bad_list.eq(piece.valid & piece.ready & (piece.payload.status != 0))
        with m.If(piece.valid & piece.ready & piece.payload.last):
            m.d.sync += self._pieces_over.eq(1)
        with m.If(self._start):
            m.d.sync += self._pieces_over.eq(0)
        return fetch.ongoing("IDLE") & (owed == 0) & self._pieces_over

    def _write(self, m):
        """Programs filled pages and maps them, both in page order. Returns whether it is idle and done."""
        c, lay = self.config, self.layouts
        run = self._running["WRITE"]
        waiting = Signal(range(c.host.page_slots + 1))  # pages filled, not programmed
        programmed = Signal(17)
        slot = Signal.like(self._head)
        erase, sequence = Signal(), Signal(64)
        m.submodules.ppns = ppns = StreamFifo(lay.ppn_bits, c.host.page_slots)  # of the slots from the tail on
        offer = self.allocate
        taken = Signal()
        m.d.comb += taken.eq(offer.valid & offer.ready)
        m.d.sync += waiting.eq(waiting + self._filled - taken)
        with m.If(self._start):
            m.d.sync += [waiting.eq(0), programmed.eq(0), slot.eq(0)]
        with m.FSM(name="program") as program:
            with m.State("IDLE"):
                with m.If(run & ~self._stop & (waiting != 0)):
                    m.next = "ALLOCATE"
            with m.State("ALLOCATE"):
                m.d.comb += [offer.ready.eq(~self._stop), ppns.i.valid.eq(taken), ppns.i.payload.eq(offer.payload.ppn)]
                m.d.sync += [
                    self._flash_ppn.eq(offer.payload.ppn), self._flash_slot.eq(slot), sequence.eq(offer.payload.sequence),
                    erase.eq(offer.payload.erase)]
                with m.If(self._stop):
                    m.next = "IDLE"
                with m.Elif(taken):
                    m.d.comb += [self._expect.eq(1), self._expect_slot.eq(slot),
                                 self._expect_n.eq(1 + offer.payload.erase)]
                    m.next = "FEED"
                with m.Elif(self.full):
                    m.d.comb += self._faults[Status.CAPACITY_EXCEEDED].eq(1)
                    m.next = "IDLE"
                with m.Elif(self.stalled):
                    m.d.comb += self._faults[Status.WRITE_FAULT].eq(1)
                    m.next = "IDLE"
            with m.State("FEED"):
                for k, feeder in enumerate(self._feeders):
                    m.d.comb += feeder.job.valid.eq(self._channel(self._flash_ppn) == k)
                m.d.sync += [
                    programmed.eq(programmed + 1), slot.eq(self._next_slot(slot)),
                    self._flash_op.eq(Mux(erase, FlashOp.ERASE, FlashOp.PROGRAM))]
                m.next = "COMMAND"
            with m.State("COMMAND"):
                m.d.comb += self._flash_valid.eq(1)
                with m.If(self._flash_taken):
                    m.d.sync += [erase.eq(0), self._flash_op.eq(FlashOp.PROGRAM)]
                    with m.If(~erase):
                        m.next = "IDLE"
        for feeder in self._feeders:  # a feeder holds a job for every slot, so it always takes one
            m.d.comb += [
                feeder.job.payload.slot.eq(self._flash_slot), feeder.job.payload.sequence.eq(sequence),
                feeder.job.payload.lpn.eq(self._command.slba + programmed)]

        change = self.update
        with m.FSM(name="map") as mapping:
            with m.State("IDLE"):
                with m.If(run & ppns.o.valid & (self._pending[self._tail] == 0)):
                    with m.If(self._bad[self._tail]):
                        m.d.comb += [self._faults[Status.WRITE_FAULT].eq(1), self._free.eq(1), ppns.o.ready.eq(1)]
                    with m.Else():
                        m.next = "UPDATE"
            with m.State("UPDATE"):
                m.d.comb += self._page_updates.eq(1)
                with m.If(~self._trim_updates):
                    m.d.comb += [
                        change.valid.eq(1), change.payload.mapped.eq(1), change.payload.ppn.eq(ppns.o.payload),
                        change.payload.lpn.eq(self._command.slba + self._retired)]
                    with m.If(change.ready):
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self._page_updates.eq(1), self.update_done.ready.eq(1)]
                with m.If(self.update_done.valid):
                    m.d.comb += [self._free.eq(1), ppns.o.ready.eq(1)]
                    with m.If(self.update_done.payload.error):
                        m.d.comb += self._faults[Status.WRITE_FAULT].eq(1)
                    m.next = "IDLE"
        return (program.ongoing("IDLE") & mapping.ongoing("IDLE") & ~ppns.o.valid
                & (self._stop | (self._retired == self._pages)))

    # -- dataset management -----------------------------------------------------------------------------------------
    def _trim(self, m):
        """Takes a list of ranges in; unmaps it once all are known to be good, beside later commands. Returns whether the
        command in front is done with it."""
        run, cmd = self._running["TRIM"], self._command
        m.submodules.ranges = ranges = RangeList(self.config)
        rsp = self.host_read.rsp
        count = Signal(range(MAX_RANGES + 1))
        start = self._start & (cmd.opcode == Opcode.DSM)
        with m.If(start):
            m.d.sync += count.eq(cmd.nlb[:8] + 1)
        m.d.comb += [
            ranges.start.eq(start), ranges.count.eq(count),
            ranges.beat.valid.eq(run & rsp.valid), ranges.beat.payload.eq(rsp.payload.data),
            rsp.ready.eq(~run | ranges.beat.ready)]
        here = Signal()  # the list is in and nothing more of it is on its way
        m.d.comb += here.eq(run & ~self._stop & ranges.stored & (self._owed == 0))
        with m.If(here):
            m.d.comb += [self._faults[Status.LBA_OUT_OF_RANGE].eq(ranges.bad),
                         self._faults[Status.COMMAND_SIZE_LIMIT].eq(ranges.long & ~ranges.bad)]

        change, done = self.update, self._trim_done
        with m.FSM(name="trim") as trim:
            with m.State("IDLE"):
                m.d.sync += [done.qid.eq(cmd.qid), done.cid.eq(cmd.cid), done.status.eq(0)]
                with m.If(here & ~ranges.bad & ~ranges.long & self._pieces_over):
                    m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += ranges.walk.eq(1)
                with m.If(ranges.walked):
                    m.next = "ANSWER"
                with m.Elif(ranges.lpn.valid & ~self._page_updates):
                    m.next = "UPDATE"
            with m.State("UPDATE"):
                m.d.comb += [
                    self._trim_updates.eq(1), change.valid.eq(1), change.payload.lpn.eq(ranges.lpn.payload),
                    change.payload.ppn.eq(0), change.payload.mapped.eq(0), ranges.lpn.ready.eq(change.ready)]
                with m.If(change.ready):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self._trim_updates.eq(1), self.update_done.ready.eq(1)]
                with m.If(self.update_done.valid):
                    with m.If(self.update_done.payload.error):
                        m.d.sync += done.status.eq(Status.WRITE_FAULT)
                    m.next = "WALK"
            with m.State("ANSWER"):
                with m.If(~self._answering):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self._trim_answers.eq(1)
                with m.If(self._trim_answered):
                    m.next = "IDLE"
        m.d.comb += self._trimming.eq(~trim.ongoing("IDLE"))
        return self._stop | self._trimming

    # -- commands -------------------------------------------------------------------------------------------------
    def _control(self, m, finished):
        c = self.config
        cmd = self._command
        status = Signal(11)
        length = Signal(32)
        m.d.comb += [
            self._stop.eq(status != 0),
            self.prp_req.payload.prp1.eq(cmd.prp1), self.prp_req.payload.prp2.eq(cmd.prp2),
            self.prp_req.payload.length.eq(length),
            self.completion.payload.qid.eq(cmd.qid), self.completion.payload.cid.eq(cmd.cid),
            self.completion.payload.status.eq(status)]
        with m.If(self._trim_answers):
            m.d.comb += [self.completion.valid.eq(1), self.completion.payload.eq(self._trim_done),
                         self._trim_answered.eq(self.completion.ready)]
        with m.If(~self._stop):
            for code, fault in self._faults.items():
                with m.If(fault):
                    m.d.sync += status.eq(code)
            with m.If(self._bad_list):
                m.d.sync += status.eq(self._piece.payload.status)
        with m.FSM(name="command"):
            with m.State("IDLE"):
                trim = self.trim_cmd.valid & ~self._trimming  # first: it comes seldom, and what follows would never let it
                m.d.comb += [self.cmd.ready.eq(~trim), self.trim_cmd.ready.eq(~self._trimming)]
                m.d.sync += [cmd.eq(Mux(trim, self.trim_cmd.payload, self.cmd.payload)), status.eq(0)]
                with m.If(self.cmd.valid | trim):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += self._start.eq(1)
                m.d.sync += [
                    self._pages.eq(cmd.nlb + 1),
                    length.eq(Mux(cmd.opcode == Opcode.DSM, (cmd.nlb[:8] + 1) << log2(RANGE_BYTES),
                                  (cmd.nlb + 1) << log2(c.lba_bytes)))]
                with m.Switch(cmd.opcode):
                    with m.Case(Opcode.READ, Opcode.WRITE):
                        m.next = "TRANSFER"
                    with m.Case(Opcode.DSM):
                        m.next = "TRANSFER"
                        with m.If(~cmd.deallocate):  # only hints
                            m.next = "COMPLETE"
                    with m.Case(Opcode.FLUSH):
                        m.next = "SYNC"
                    with m.Default():
                        m.d.sync += status.eq(Status.INVALID_OPCODE)
                        m.next = "COMPLETE"
            with m.State("TRANSFER"):
                m.d.comb += self.prp_req.valid.eq(1)
                with m.If(self.prp_req.ready):
                    m.next = "TRIM"
                    with m.If(cmd.opcode == Opcode.READ):
                        m.next = "READ"
                    with m.If(cmd.opcode == Opcode.WRITE):
                        m.next = "WRITE"
            for name, end in finished.items():
                with m.State(name):
                    m.d.comb += self._running[name].eq(1)
                    with m.If(end):
                        m.next = "COMPLETE"
                        if name == "TRIM":
                            with m.If(~self._stop):  # goes on by itself
                                m.next = "IDLE"
            with m.State("SYNC"):
                m.d.comb += self.sync.valid.eq(1)
                with m.If(self.sync.ready):
                    m.next = "SYNCED"
            with m.State("SYNCED"):
                m.d.comb += self.sync_done.ready.eq(1)
                with m.If(self.sync_done.valid):
                    m.d.comb += self._faults[Status.WRITE_FAULT].eq(self.sync_done.payload.error)
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += self._answering.eq(1)
                with m.If(~self._trim_answers):
                    m.d.comb += self.completion.valid.eq(1)
                    with m.If(self.completion.ready):
                        m.next = "IDLE"
