"""Block I/O, wired together: see :mod:`nearflash_hw.block` for how its components work together."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig

from ..controller.map_cache import ERROR
from ..primitives.arbiter import StreamArbiter
from ..primitives.memport import MemReadSignature, MemWriteSignature
from .flash_orders import FlashOrders
from .intake import Intake
from .landing import Landing
from .layouts import BlockLayouts
from .ledger import ReadLedger
from .mapper import Mapper
from .page_feeders import PageFeeders
from .programmer import Programmer
from .read_issue import ReadIssue
from .read_sender import ReadSender
from .trimmer import Trimmer
from .update_port import UpdatePort
from .write_control import WriteControl
from .write_fetch import WriteFetch

__all__ = ["BlockIo"]


class BlockIo(wiring.Component):
    """Executes READs (``read_cmd``), up to host.block_reads of them together; WRITE and FLUSH (``write_cmd``), in order; and
    beside them dataset management (``trim_cmd``). One ``completion`` each, in any order.

    READ: see :mod:`nearflash_hw.block`; unmapped pages are zeros. WRITE: the pages of one command in parallel; each is
    mapped once it is programmed, so that a logical block is never torn, and is old or new for a READ meanwhile. FLUSH covers
    every WRITE before it. DSM deallocate: all ranges are taken in and checked, then unmapped beside other commands, one such
    list at a time: its walk may take as long as the device is large. What runs meanwhile sees each block mapped or not.

    The first failure is a command's status; a WRITE that failed starts no new pages, and completes what is in flight: its
    pages are each either old or new. Statuses: CAPACITY_EXCEEDED (``full``), WRITE_FAULT (flash or map write, or no page
    because the log is ``stalled``), UNRECOVERED_READ (flash or map read), DATA_TRANSFER_ERROR (host bus), LBA_OUT_OF_RANGE
    (a DSM range), COMMAND_SIZE_LIMIT (a DSM's ranges together), or the PRP list's.

    ``flash_waits`` and ``flash_room``: see :class:`~.landing.Landing`.
    """

    model_clock = "own"

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        n = config.flash.channels
        super().__init__({
            #: READ.
            "read_cmd": In(stream.Signature(lay.block_command)),
            #: WRITE and FLUSH.
            "write_cmd": In(stream.Signature(lay.block_command)),
            #: Dataset management.
            "trim_cmd": In(stream.Signature(lay.block_command)),
            #: One per command, in any order.
            "completion": Out(stream.Signature(lay.completion)),
            #: Translations of pages to read.
            "ftl_req": Out(stream.Signature(lay.translate_request)),
            "ftl_rsp": In(stream.Signature(lay.translate_response)),
            #: Changes of the map.
            "update": Out(stream.Signature(lay.map_update)),
            "update_done": In(stream.Signature(ERROR)),
            #: The log.
            "allocate": In(stream.Signature(lay.log_page)),
            #: It has no more pages.
            "full": In(1),
            #: It offers none now.
            "stalled": In(1),
            #: FLUSH.
            "sync": Out(stream.Signature(1)),
            "sync_done": In(stream.Signature(ERROR)),
            #: Of each channel.
            "flash_cmd": Out(stream.Signature(lay.flash_command)).array(n),
            #: Of each channel: pages to program.
            "flash_in": Out(stream.Signature(lay.data_bits)).array(n),
            #: Of each channel: pages read.
            "flash_data": In(stream.Signature(lay.flash_data)).array(n),
            #: Of each channel: results of PROGRAM and ERASE.
            "flash_done": In(stream.Signature(lay.flash_done)).array(n),
            #: A bit per channel: see :class:`~.landing.Landing`.
            "flash_waits": In(n),
            "flash_room": Out(n),
            #: A walker for all commands.
            "prp_req": Out(stream.Signature(lay.prp_request)),
            "prp_run": In(stream.Signature(lay.prp_run)),
            "host_read": Out(MemReadSignature(config.beat_bytes)),
            "host_write": Out(MemWriteSignature(config.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        c, lay = self.config, BlockLayouts.of(self.config)
        m.submodules.intake = intake = Intake(c)
        m.submodules.orders = orders = FlashOrders(c)
        m.submodules.completions = completions = StreamArbiter(lay.outcome, 3)
        for name in ("read_cmd", "write_cmd", "trim_cmd", "prp_run"):
            connect(m, flipped(getattr(self, name)), getattr(intake, name))
        connect(m, intake.prp_req, flipped(self.prp_req))
        for k, port in enumerate(self.flash_cmd):
            connect(m, orders.flash_cmd[k], flipped(port))
        out = completions.o
        m.d.comb += [
            self.completion.valid.eq(out.valid),
            out.ready.eq(self.completion.ready),
            self.completion.payload.qid.eq(out.payload.qid),
            self.completion.payload.cid.eq(out.payload.cid),
            self.completion.payload.status.eq(out.payload.status),
        ]
        connect(m, self._reads(m, intake, orders), completions.i[0])
        for k, stream_ in enumerate(self._writes(m, intake, orders)):
            connect(m, stream_, completions.i[1 + k])
        return m

    def _reads(self, m, intake, orders):
        """Wires the reading half; returns its completions."""
        c = self.config
        m.submodules.issue, m.submodules.ledger = issue, ledger = ReadIssue(c), ReadLedger(c)
        m.submodules.landing, m.submodules.sender = landing, sender = Landing(c), ReadSender(c)
        m.submodules.read_buffer = buffer = Memory(
            shape=BlockLayouts.of(c).data_bits, depth=c.host.read_slots * c.page_beats, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        connect(m, intake.read, issue.start)
        connect(m, intake.read_piece, issue.piece)
        connect(m, ledger.tag, issue.tag)
        connect(m, issue.open, ledger.open)
        connect(m, issue.place, sender.place)
        connect(m, issue.ftl_req, flipped(self.ftl_req))
        connect(m, flipped(self.ftl_rsp), issue.ftl_rsp)
        connect(m, issue.order, orders.order[0])
        connect(m, issue.blank, sender.page[0])
        connect(m, landing.page, sender.page[1])
        connect(m, sender.free, landing.free)
        connect(m, issue.failed, ledger.retire[0])
        connect(m, sender.retire, ledger.retire[1])
        connect(m, sender.host_write, flipped(self.host_write))
        for k, port in enumerate(self.flash_data):
            connect(m, flipped(port), landing.flash_data[k])
        m.d.comb += [
            landing.waits.eq(self.flash_waits),
            self.flash_room.eq(landing.room),
            write.en.eq(landing.write_en),
            write.addr.eq(landing.write_addr),
            write.data.eq(landing.write_data),
            read.en.eq(sender.read_en),
            read.addr.eq(sender.read_addr),
            sender.read_data.eq(read.data),
        ]
        return ledger.completion

    def _writes(self, m, intake, orders):
        """Wires the writing half; returns its completions."""
        c = self.config
        m.submodules.control, m.submodules.fetch = control, fetch = WriteControl(c), WriteFetch(c)
        m.submodules.programmer, m.submodules.mapper = programmer, mapper = Programmer(c), Mapper(c)
        m.submodules.feeders, m.submodules.trimmer = feeders, trimmer = PageFeeders(c), Trimmer(c)
        m.submodules.updates = updates = UpdatePort(c)
        m.submodules.write_buffer = buffer = Memory(
            shape=BlockLayouts.of(c).data_bits, depth=c.host.page_slots * c.page_beats, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        connect(m, intake.write, control.command)
        connect(m, intake.write_piece, fetch.piece)
        connect(m, fetch.list_beat, trimmer.beat)
        connect(m, fetch.host_read, flipped(self.host_read))
        connect(m, flipped(self.allocate), programmer.allocate)
        connect(m, programmer.order, orders.order[1])
        connect(m, programmer.feed, feeders.feed)
        connect(m, programmer.programmed, mapper.programmed)
        connect(m, control.sync, flipped(self.sync))
        connect(m, flipped(self.sync_done), control.sync_done)
        for k, client in enumerate((mapper, trimmer)):
            connect(m, client.update, updates.i[k])
            connect(m, updates.done[k], client.update_done)
        connect(m, updates.update, flipped(self.update))
        connect(m, flipped(self.update_done), updates.update_done)
        for k in range(c.flash.channels):
            connect(m, feeders.flash_in[k], flipped(self.flash_in[k]))
            connect(m, flipped(self.flash_done[k]), mapper.flash_done[k])
        for part in (fetch, programmer, mapper, trimmer):
            m.d.comb += part.begin.eq(control.begin)
        for part in (fetch, programmer, trimmer):
            m.d.comb += part.stop.eq(control.stop)
        m.d.comb += [
            *(control.fault[k].eq(part.fault) for k, part in enumerate((fetch, programmer, mapper, trimmer))),
            fetch.writes.eq(control.writes),
            fetch.lists.eq(control.lists),
            trimmer.lists.eq(control.lists),
            trimmer.command.eq(control.current),
            programmer.lpn.eq(control.current.lpn),
            control.fetched.eq(fetch.over),
            trimmer.fetched.eq(fetch.over),
            control.held.eq(fetch.held),
            control.listed.eq(trimmer.listed),
            intake.list_free.eq(~trimmer.busy),
            programmer.filled.eq(fetch.filled),
            fetch.freed.eq(mapper.freed),
            programmer.full.eq(self.full),
            programmer.stalled.eq(self.stalled),
            write.en.eq(fetch.write_en),
            write.addr.eq(fetch.write_addr),
            write.data.eq(fetch.write_data),
            read.en.eq(feeders.read_en),
            read.addr.eq(feeders.read_addr),
            feeders.read_data.eq(read.data),
        ]
        return control.completion, trimmer.completion
