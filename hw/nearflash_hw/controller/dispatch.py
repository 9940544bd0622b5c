"""Checks submission entries and sends each to where it is carried out."""

from enum import IntEnum
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nearflash.contract import AdminOpcode, DeviceConfig, Opcode, Status
from nearflash.contract.tensor import TENSOR_LOAD, TENSOR_RUN

from ..host.queues import QueueEntry
from ..interfaces import Layouts

__all__ = ["Dispatcher", "Target", "targets"]


class Target(IntEnum):
    """Where a command goes: answered at once, the admin engine, READs, WRITEs and FLUSHes, inference, dataset management,
    the tensor engine."""

    REJECT = 0
    ADMIN = 1
    READ = 2
    WRITE = 3
    INFER = 4
    TRIM = 5
    TENSOR = 6


def targets(config: DeviceConfig) -> list[Target]:
    """Those that a device of ``config`` has; a :class:`Dispatcher` numbers them in this order."""
    engines = {Target.INFER: config.lookup.max_tables, Target.TENSOR: config.tensor.rows}
    return [t for t in Target if engines.get(t, 1)]


_PORTS = {Target.REJECT: "reject", Target.ADMIN: "admin_cmd", Target.READ: "read_cmd", Target.WRITE: "write_cmd",
          Target.INFER: "infer_cmd", Target.TRIM: "trim_cmd", Target.TENSOR: "tensor_cmd"}


NSID = 1
NSID_ALL = 0xFFFFFFFF


class Dispatcher(wiring.Component):
    """Gives a ``verdict`` on the entry that :class:`~.queues.Queues` offers, and carries it out with ``take``.

    Each target has a one-entry register behind it, ``target_free`` while that is empty: ``reject`` (a completion with the
    status of a command that failed a check), ``admin_cmd``, ``read_cmd``, ``write_cmd`` (WRITE and FLUSH) and ``trim_cmd``
    (dataset management), which must not wait for each other: they take from microseconds to as long as the device is large;
    ``infer_cmd`` (with a lookup engine), which ``hold_infer`` keeps from being filled; ``tensor_cmd`` (with a tensor
    engine). Latency: 4 cycles from ``entry_valid`` to the command's stream.

    Checks, first to fail wins: opcode, FUSE and PSDT (must be 0), NSID (1; FLUSH takes FFFFFFFFh too), LBA range,
    transfer size, PRP1 alignment, a loaded program for INFER. What the query stream says is checked by the lookup engine.
    """

    def __init__(self, config: DeviceConfig):
        self.config = config
        layouts = Layouts.of(config)
        tensor = {"tensor_cmd": Out(stream.Signature(layouts.tensor_command))} if config.tensor.rows else {}
        infer = {"infer_cmd": Out(stream.Signature(layouts.infer_command))} if config.lookup.max_tables else {}
        holds = {
            #: No inference command is ``acceptable``.
            "hold_infer": In(1),
            #: INFER has what it needs.
            "program_loaded": In(1),
        } if config.lookup.max_tables else {}
        super().__init__({
            #: The queues offer ``entry``, until ``take``.
            "entry_valid": In(1),
            "entry": In(QueueEntry()),
            #: For one cycle, once it is checked: ``target`` and ``acceptable`` count.
            "verdict": Out(1),
            #: Where it goes.
            "target": Out(range(len(targets(config)))),
            #: The register behind it is empty, and it is not held.
            "acceptable": Out(1),
            #: With ``verdict``, where ``acceptable``: it goes there. Otherwise it is forgotten.
            "take": In(1),
            #: A bit per :class:`Target`: its register is empty.
            "target_free": Out(len(targets(config))),
            **holds,
            #: Commands that failed a check.
            "reject": Out(stream.Signature(layouts.completion)),
            #: Commands that passed, by target.
            "admin_cmd": Out(stream.Signature(layouts.admin_command)),
            "read_cmd": Out(stream.Signature(layouts.block_command)),
            "write_cmd": Out(stream.Signature(layouts.block_command)),
            **infer,
            "trim_cmd": Out(stream.Signature(layouts.block_command)),
            **tensor,
        })

    def elaborate(self, platform):
        m = Module()
        config, entry, sqe = self.config, self.entry, self.entry.sqe
        layouts = Layouts.of(config)
        prp1, prp2 = layouts.host_address(sqe.prp1), layouts.host_address(sqe.prp2)
        is_admin, is_rw, is_flush, is_block, is_infer, known = (
            Signal(name=s) for s in ("is_admin", "is_rw", "is_flush", "is_block", "is_infer", "known"))
        number = {t: k for k, t in enumerate(targets(config))}
        ports = {t: getattr(self, _PORTS[t]) for t in number}
        admin_codes: list[int] = [AdminOpcode.IDENTIFY]
        io_codes: list[int] = []  # of no namespace
        if Target.INFER in number:
            admin_codes += [AdminOpcode.TABLE_DELETE, AdminOpcode.TABLE_CREATE]
            io_codes += [Opcode.INFER, Opcode.LOOKUP]
        if config.mlp.graph:
            admin_codes.append(AdminOpcode.PROGRAM_LOAD)
        if Target.TENSOR in number:
            admin_codes.append(TENSOR_LOAD)
            io_codes.append(TENSOR_RUN)

        # A PRP1 that is not beat-aligned is caught here for reads and writes; elsewhere the PRP walker catches it.
        flags_bad, nsid_bad, lba_bad, size_bad, prp_bad = (
            Signal(name=s) for s in ("flags_bad", "nsid_bad", "lba_bad", "size_bad", "prp_bad"))
        end = Signal(33)
        low = config.beat_bytes.bit_length() - 1
        nlb = sqe.cdw12[:16]
        status = Signal(11)
        held = Signal()  # the target was chosen while inference was held back
        target, free = self.target, self.target_free
        m.d.comb += [
            self.acceptable.eq(free.bit_select(target, 1) & ~held),
            free.eq(Cat(~p.valid & ~self.hold_infer if t == Target.INFER else ~p.valid for t, p in ports.items())),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    is_admin.eq(entry.qid == 0),
                    is_rw.eq((sqe.opcode == Opcode.READ) | (sqe.opcode == Opcode.WRITE)),
                    is_flush.eq(sqe.opcode == Opcode.FLUSH),
                    is_infer.eq(reduce(or_, (sqe.opcode == c for c in io_codes)) if io_codes else 0),
                    end.eq(sqe.cdw10 + nlb + 1),
                ]
                with m.If(self.entry_valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    is_block.eq(is_rw | is_flush | (sqe.opcode == Opcode.DSM)),
                    known.eq(Mux(is_admin, Cat(sqe.opcode == c for c in admin_codes).any(),
                                 is_rw | is_flush | is_infer | (sqe.opcode == Opcode.DSM))),
                    flags_bad.eq(Cat(sqe.fuse, sqe.psdt).any()),
                    nsid_bad.eq(~is_admin & ~is_infer & (sqe.nsid != NSID) & ~(is_flush & (sqe.nsid == NSID_ALL))),
                    lba_bad.eq(~is_admin & is_rw & (sqe.cdw11.any() | (end > config.lbas))),
                    size_bad.eq(~is_admin & is_rw & (nlb >= config.host.mdts_pages)),
                    prp_bad.eq(~is_admin & is_rw & sqe.prp1[:low].any()),
                ]
                m.next = "TARGET"
            with m.State("TARGET"):
                m.d.sync += [
                    target.eq(number[Target.REJECT]),
                    status.eq(0),
                    held.eq(0),
                ]
                with m.If(~known):
                    m.d.sync += status.eq(Status.INVALID_OPCODE)
                with m.Elif(flags_bad):
                    m.d.sync += status.eq(Status.INVALID_FIELD)
                with m.Elif(nsid_bad):
                    m.d.sync += status.eq(Status.INVALID_NAMESPACE)
                with m.Elif(lba_bad):
                    m.d.sync += status.eq(Status.LBA_OUT_OF_RANGE)
                with m.Elif(size_bad):
                    m.d.sync += status.eq(Status.INVALID_FIELD)
                with m.Elif(prp_bad):
                    m.d.sync += status.eq(Status.INVALID_PRP_OFFSET)
                if Target.TENSOR in number:
                    with m.Elif(Mux(is_admin, sqe.opcode == TENSOR_LOAD, sqe.opcode == TENSOR_RUN)):
                        m.d.sync += target.eq(number[Target.TENSOR])
                with m.Elif(is_admin):
                    m.d.sync += target.eq(number[Target.ADMIN])
                with m.Elif(is_block):
                    trim, read, write = (Const(number[t], len(target)) for t in (Target.TRIM, Target.READ, Target.WRITE))
                    m.d.sync += target.eq(Mux(sqe.opcode == Opcode.DSM, trim, Mux(sqe.opcode == Opcode.READ, read, write)))
                if Target.INFER in number:
                    with m.Elif((sqe.opcode == Opcode.INFER) & ~self.program_loaded & ~self.hold_infer):
                        # Not while a program is being loaded: the command then waits for what comes of it.
                        m.d.sync += status.eq(Status.NO_PROGRAM)
                    with m.Else():
                        m.d.sync += [
                            target.eq(number[Target.INFER]),
                            held.eq(self.hold_infer),
                        ]
                m.next = "VERDICT"
            with m.State("VERDICT"):
                m.d.comb += self.verdict.eq(1)
                m.next = "IDLE"

        for port in ports.values():
            with m.If(port.valid & port.ready):
                m.d.sync += port.valid.eq(0)
        every = {"opcode": sqe.opcode, "qid": entry.qid, "cid": sqe.cid, "prp1": prp1, "prp2": prp2}

        def give(target: Target, **own: ValueLike) -> None:
            """The command to its register: of the fields there what every command has, and its ``own``."""
            port, fields = ports[target], every | own
            with m.Case(number[target]):
                m.d.sync += [
                    port.valid.eq(1),
                    *(port.payload[name].eq(fields[name]) for name in port.payload.shape().members if name in fields),
                ]

        with m.If(self.take):
            with m.Switch(target):
                give(Target.REJECT, status=status, dw0=0, dw1=0)
                give(Target.ADMIN, cdw10=sqe.cdw10)
                for t in (Target.READ, Target.WRITE):
                    give(t, slba=sqe.cdw10, nlb=nlb)
                give(Target.TRIM, opcode=Opcode.DSM, nlb=sqe.cdw10[:8], deallocate=sqe.cdw11[2])
                out_addr = layouts.host_address(Cat(sqe.cdw14, sqe.cdw15))
                if Target.TENSOR in number:
                    give(Target.TENSOR, load=is_admin, words=sqe.cdw10, offset=Mux(is_admin, sqe.cdw12, sqe.cdw11),
                         out_addr=out_addr)
                if Target.INFER in number:
                    give(Target.INFER, words=sqe.cdw10, batch=sqe.cdw11[:16], weighted=sqe.cdw11[16],
                         tables=sqe.cdw12[:8], dense=sqe.cdw12[16:], out_addr=out_addr)
        return m
