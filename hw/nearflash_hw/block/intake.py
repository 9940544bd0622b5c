"""Takes commands in and walks their PRP lists."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2
from nearflash.contract.nvme import Opcode

from ..host.pieces import PieceCutter
from ..interfaces import Layouts
from .layouts import BlockLayouts
from .range_list import RANGE_BYTES

__all__ = ["Intake"]


class Intake(wiring.Component):
    """Offers a command on ``read`` (from ``read_cmd``) or ``write`` (from ``write_cmd`` and ``trim_cmd``); once it is taken
    there, its host memory piece by piece on ``read_piece`` or ``write_piece`` (see :class:`~..host.pieces.PieceCutter`), if
    it ``moves`` any.

    One command at a time; its payload is stable until its last piece is taken. ``trim_cmd`` goes first, but is taken only
    while ``list_free``; then ``write_cmd``; both only while ``write`` is ready, which must not wait for valid: they come
    seldom beside reads. Latency 1 cycle to ``read`` or ``write``.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        lay = BlockLayouts.of(config)
        piece = stream.Signature(lay.piece)
        command = stream.Signature(lay.block_command)
        super().__init__({
            #: READ.
            "read_cmd": In(command),
            #: WRITE and FLUSH.
            "write_cmd": In(command),
            #: Dataset management.
            "trim_cmd": In(command),
            #: ``trim_cmd`` may be taken.
            "list_free": In(1),
            #: A command, without its host memory.
            "read": Out(stream.Signature(lay.command)),
            "write": Out(stream.Signature(lay.command)),
            #: Of the command under way.
            "prp_req": Out(stream.Signature(lay.prp_request)),
            "prp_run": In(stream.Signature(lay.prp_run)),
            #: Its host memory, piece by piece.
            "read_piece": Out(piece),
            "write_piece": Out(piece),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.cutter = cutter = PieceCutter(c)
        connect(m, flipped(self.prp_run), cutter.run)
        sources = (self.read_cmd, self.write_cmd, self.trim_cmd)
        source = Signal(range(3))
        cmd = Signal(Layouts.of(c).block_command)
        deallocates = Signal()
        walking = Signal()
        taken, over = Signal(), Signal()
        m.d.comb += [
            cmd.eq(Array(s.payload.as_value() for s in (*sources, self.trim_cmd))[source]),
            deallocates.eq((cmd.opcode == Opcode.DSM) & cmd.deallocate),
        ]
        for out in (self.read, self.write):
            p = out.payload
            m.d.comb += [
                p.opcode.eq(cmd.opcode),
                p.qid.eq(cmd.qid),
                p.cid.eq(cmd.cid),
                p.lpn.eq(cmd.slba),
                p.count.eq(cmd.nlb + 1),
                p.moves.eq((cmd.opcode == Opcode.READ) | (cmd.opcode == Opcode.WRITE) | deallocates),
            ]
        given = self.write.payload
        m.d.comb += [
            self.prp_req.payload.prp1.eq(cmd.prp1),
            self.prp_req.payload.prp2.eq(cmd.prp2),
            self.prp_req.payload.length.eq(
                Mux(source == 2, given.count << log2(RANGE_BYTES), given.count << log2(c.lba_bytes))),
        ]
        piece = cutter.piece
        for k, out in enumerate((self.read_piece, self.write_piece)):
            mine = (source == 0) if k == 0 else (source != 0)
            m.d.comb += [
                out.valid.eq(walking & mine & piece.valid),
                out.payload.eq(piece.payload),
            ]
        m.d.comb += [
            piece.ready.eq(walking & Mux(source == 0, self.read_piece.ready, self.write_piece.ready)),
            taken.eq((self.read.valid & self.read.ready) | (self.write.valid & self.write.ready)),
            over.eq(piece.valid & piece.ready & piece.payload.last),
        ]

        with m.FSM():
            with m.State("IDLE"):
                trim = self.trim_cmd.valid & self.write.ready & self.list_free
                write = self.write_cmd.valid & self.write.ready
                m.d.sync += source.eq(Mux(trim, 2, write))
                with m.If(trim | write | self.read_cmd.valid):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [
                    self.read.valid.eq(source == 0),
                    self.write.valid.eq(source != 0),
                ]
                with m.If(taken):
                    m.next = "TRANSFER"
                    with m.If(~given.moves):
                        m.next = "END"
            with m.State("TRANSFER"):
                m.d.comb += self.prp_req.valid.eq(1)
                with m.If(self.prp_req.ready):
                    m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += walking.eq(1)
                with m.If(over):
                    m.next = "END"
            with m.State("END"):
                m.d.comb += Cat(s.ready for s in sources).eq(1 << source)
                m.next = "IDLE"
        return m
