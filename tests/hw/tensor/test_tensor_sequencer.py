"""Programs descriptor by descriptor, with stand-ins for the operators and the host."""

import random
from collections import deque
from dataclasses import dataclass, field

from amaranth.hdl import Value
from nearflash.contract import Status
from nearflash.contract.tensor import CRC_WORD, DESCRIPTOR_BYTES, Descriptor, Op, TensorConfig, pack_program
from nearflash_hw.tensor.sequencer import TensorSequencer
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate
from nearflash_sim.bench.payload import reader
from nearflash_sim.models import MemoryModel

BEAT, SIZE = 8, 1 << 16
CONFIG = TensorConfig(rows=4, columns=8, pixels=16, lanes=2, input_bytes=8192, weight_bytes=8192, max_channels=64,
                      dram_bytes=SIZE, operators=("add", "layernorm"))
PROGRAM, INPUT, MIDDLE, OUTPUT, TABLE = SIZE - 3 * DESCRIPTOR_BYTES, 0x1000, 0x2000, 0x3000, 0x4000
INPUT_BYTES, OUTPUT_BYTES = 512, 128
STEADY = 4  # cycles for which a descriptor holds before its operator starts
SIZES = {"in_height": 2, "in_width": 4, "in_channels": 5, "out_height": 2, "out_width": 4, "out_channels": 5}


def descriptors():
    """Of two operators, as contract.tensor.check accepts them; the last has a table."""
    return [
        Descriptor(Op.LAYERNORM, **SIZES, x=INPUT, y=MIDDLE, low=-127, high=127, entries=TABLE + 256, eps_low=1),
        Descriptor(Op.ADD, **SIZES, x=MIDDLE, r=INPUT, y=OUTPUT, residual=1, low=-5, high=99, mult=40000, shift=17,
                   residual_mult=3, residual_shift=2, lookup=1, table=TABLE)]


def program(**changes):
    """The program's bytes; ``changes``: fields of the second descriptor."""
    header = Descriptor(Op.PROGRAM, x=INPUT, input_bytes=INPUT_BYTES, y=OUTPUT, output_bytes=OUTPUT_BYTES)
    given = descriptors()
    for name, value in changes.items():
        given[1][name] = value
    return pack_program(header, given)


@dataclass
class Run:
    """A command and what must come of it: its status, dw0 and dw1, how many operators begin and how many transfers the host
    is asked for; ``host``: what it answers to them."""

    outcome: tuple[int, int, int] = (0, 0, 0)
    starts: int = 2
    transfers: int = 2
    raw: bytes = field(default_factory=program)
    at: int = PROGRAM
    input_bytes: int = INPUT_BYTES
    host: tuple[int, ...] = (0, 0)
    broken: int = 0  # the operator, counted from 1, that fails
    unread: int | None = None  # address of a beat that can't be read


def play(runs, stall):
    """Outcomes, and of each command the operators started and the transfers asked of the host."""
    dut, rng = reused(TensorSequencer, CONFIG, BEAT), random.Random(stall)
    current, table = runs[0], rng.randbytes(256)
    memory = MemoryModel(BEAT, latency=6, stall=stall, seed=1, fail=lambda a: a == current.unread)
    memory.write(TABLE, table)
    commands, outcomes = StreamSource(dut.i, []), StreamSink(dut.o, stall, 2)
    answers, dones = StreamSource(dut.transferred, [], stall, 3), StreamSource(dut.done, [], 0.9, 4)
    transfers = StreamSink(dut.transfer, stall, 5, lambda t: answers.items.append(current.host[t["output"]]))
    started, codes, log = [], {}, []

    async def operators(ctx):
        history = deque(maxlen=STEADY + 1)
        entry = reader(dut.table.shape())
        async for *_, busy, ends, start, now, put in ctx.tick().sample(
                dut.busy, dut.o.valid, dut.start, Value.cast(dut.descriptor), Value.cast(dut.table)):
            assert busy or not (ends or start or put & 1)
            history.append(now)
            if put & 1:
                code = entry(put)
                assert code["index"] not in codes
                codes[code["index"]] = code["code"]
            if not dones.drained:
                assert now == history[0], "the descriptor changed while its operator works"
                assert not start
            elif start:
                raw = current.raw[DESCRIPTOR_BYTES * (len(started) + 1):][:4 * CRC_WORD]
                assert {bits & (1 << 32 * CRC_WORD) - 1 for bits in history} == {int.from_bytes(raw, "little")}
                op = raw[0]
                assert start == 1 << op
                # The table of this descriptor and no other's.
                assert codes == (dict(enumerate(table)) if op == Op.ADD else {})
                codes.clear()
                started.append(op)
                dones.items.append({"error": int(len(started) == current.broken)})

    async def host(ctx):
        nonlocal current
        for n, given in enumerate(runs):
            current = given
            memory.write(PROGRAM, current.raw)
            started.clear()
            codes.clear()
            transfers.items.clear()
            assert not ctx.get(dut.busy)
            commands.items.append({"program": current.at, "input_bytes": current.input_bytes})
            await ctx.tick()
            while len(outcomes.items) == n:
                await ctx.tick()
            await ctx.tick()
            assert memory.pending == 0
            log.append(([*started], transfers.items[:]))

    simulate(dut, [host, operators, commands, outcomes, answers, dones, transfers, memory.read_port(dut.mem_read)],
             until=lambda: len(log) == len(runs), max_cycles=5000 * len(runs))
    assert answers.drained
    assert dones.drained
    return outcomes.items, log


def check(runs, stall=0.0):
    outcomes, log = play(runs, stall)
    transfers = [{"output": 0, "address": INPUT, "bytes": INPUT_BYTES},
                 {"output": 1, "address": OUTPUT, "bytes": OUTPUT_BYTES}]
    for n, (run, got, (started, asked)) in enumerate(zip(runs, outcomes, log, strict=True)):
        assert (got["status"], got["dw0"], got["dw1"]) == run.outcome, n
        assert started == [Op.LAYERNORM, Op.ADD][:run.starts], n
        assert asked == transfers[:run.transfers], n


def test_a_program_from_its_input_to_its_output():
    check([Run()], 0.3)


def test_what_is_refused_begins_nothing_more():
    """By its place, its length, its header, a descriptor that is not whole, one that disagrees with itself, its input."""
    span, bad, refused = Status.BAD_TENSOR_SPAN, Status.BAD_DESCRIPTOR, Status.DATA_TRANSFER_ERROR
    torn, headless = bytearray(program()), bytearray(program())
    torn[2 * DESCRIPTOR_BYTES + 9] ^= 1
    headless[4 * CRC_WORD] ^= 1
    check([
        Run((span, 11, 0), 0, 0, at=PROGRAM + 8), Run((span, 11, 0), 0, 0, at=SIZE - 64),
        Run((span, 10, 0), 0, 0, input_bytes=INPUT_BYTES - 64),
        Run((bad, 0, CRC_WORD), 0, 0, raw=bytes(headless)),
        Run((bad, 2, CRC_WORD), 1, 1, raw=bytes(torn)),
        Run((bad, 2, 10), 1, 1, raw=program(out_channels=6)),  # word 10: the channels
        Run((refused, 0, 0), 0, 1, host=(refused, 0))])


def test_a_failed_read_or_write_ends_the_program_and_names_its_descriptor():
    """And the next one runs, as far as its output, for which the host has no room."""
    unread, refused = Status.UNRECOVERED_READ, Status.DATA_TRANSFER_ERROR
    check([
        Run((unread, 0, 0), 0, 0, unread=PROGRAM), Run((unread, 2, 0), 1, 1, unread=TABLE + 128),
        Run((unread, 1, 0), 0, 1, unread=PROGRAM + DESCRIPTOR_BYTES + 64), Run((unread, 1, 0), 1, 1, broken=1),
        Run((refused, 0, 0), host=(0, refused))])
