"""Where the dispatcher of a device with a tensor engine sends the commands for it, one of a device without, and one of a
device without a lookup engine."""

from dataclasses import replace

from nearflash.contract import AdminOpcode, DeviceConfig, Opcode, Status
from nearflash.contract.tensor import TENSOR_LOAD, TENSOR_RUN, TensorConfig
from nearflash_hw.controller.dispatch import Dispatcher, Target, targets
from nearflash_sim.bench import reused, simulate

PLAIN = DeviceConfig.preset("tiny")
TENSORS = replace(PLAIN, tensor=TensorConfig(rows=4, columns=8, lanes=2, depthwise=8, dram_bytes=1 << 16))
ALONE, NEITHER = (replace(c, lookup=replace(c.lookup, max_tables=0)) for c in (TENSORS, PLAIN))
FIELDS = {"nsid": 7, "prp1": 0x1234_5678_9ABC, "prp2": 0x40, "cdw10": 0x89ABCDEF, "cdw11": 0x1111_2222,
          "cdw12": 0x3333_4444, "cdw14": 0x5555_6660, "cdw15": 0x12}


def verdicts(config, entries, **fields):
    """For each (queue, opcode, flags), with :data:`FIELDS` but for ``fields``: target, and the payload left there."""
    dut, found = reused(Dispatcher, config), []

    async def process(ctx):
        for queue, opcode, fuse in entries:
            for name, value in {**FIELDS, **fields, "opcode": opcode, "fuse": fuse, "cid": 99}.items():
                ctx.set(dut.entry.sqe[name], value)
            ctx.set(dut.entry.qid, queue)
            ctx.set(dut.entry_valid, 1)
            while not ctx.get(dut.verdict):
                await ctx.tick()
            number = ctx.get(dut.target)
            target = targets(config)[number]
            assert ctx.get(dut.acceptable)
            ctx.set(dut.take, 1)
            await ctx.tick()
            ctx.set(dut.take, 0)
            ctx.set(dut.entry_valid, 0)
            port = dut.reject if target == Target.REJECT else getattr(dut, f"{target.name.lower()}_cmd")
            assert ctx.get(port.valid)
            busy = ctx.get(dut.target_free)
            assert busy == (1 << len(targets(config))) - 1 & ~(1 << number)
            names = dict(port.payload.shape()).keys()
            found.append((target, {n: ctx.get(port.payload[n]) for n in names}))
            ctx.set(port.ready, 1)
            await ctx.tick()
            ctx.set(port.ready, 0)

    simulate(dut, [process], until=lambda: len(found) == len(entries), max_cycles=40 * len(entries))
    return found


def test_commands_for_the_engine():
    load, run, wrong_queue, wrong_queue2, flags, lookup, identify = verdicts(TENSORS, [
        (0, TENSOR_LOAD, 0), (2, TENSOR_RUN, 0), (1, TENSOR_LOAD, 0), (0, TENSOR_RUN, 0), (1, TENSOR_RUN, 1),
        (1, Opcode.LOOKUP, 0), (0, AdminOpcode.IDENTIFY, 0)])
    beyond = 1 << PLAIN.bus.address_bits
    prp1 = FIELDS["prp1"] % beyond | beyond
    common = {"cid": 99, "prp1": prp1, "prp2": 0x40, "words": 0x89ABCDEF, "out_addr": 0x12_5555_6660}
    assert load == (Target.TENSOR, common | {"load": 1, "qid": 0, "offset": 0x3333_4444})
    assert run == (Target.TENSOR, common | {"load": 0, "qid": 2, "offset": 0x1111_2222})
    for verdict in (wrong_queue, wrong_queue2):
        assert (verdict[0], verdict[1]["status"]) == (Target.REJECT, Status.INVALID_OPCODE)
    assert (flags[0], flags[1]["status"]) == (Target.REJECT, Status.INVALID_FIELD)
    assert (lookup[0], identify[0]) == (Target.INFER, Target.ADMIN)


def test_a_device_without_one_knows_neither():
    for target, payload in verdicts(PLAIN, [(0, TENSOR_LOAD, 0), (1, TENSOR_RUN, 0)]):
        assert (target, payload["status"]) == (Target.REJECT, Status.INVALID_OPCODE)


def test_a_device_without_a_lookup_engine_knows_no_queries():
    queries = [(0, AdminOpcode.TABLE_CREATE, 0), (0, AdminOpcode.TABLE_DELETE, 0), (0, AdminOpcode.PROGRAM_LOAD, 0),
               (1, Opcode.INFER, 0), (2, Opcode.LOOKUP, 0)]
    goes_on = [(0, AdminOpcode.IDENTIFY, 0), (0, TENSOR_LOAD, 0), (1, TENSOR_RUN, 0)]
    found = verdicts(ALONE, queries + goes_on)
    assert [(target, payload["status"]) for target, payload in found[:5]] == [(Target.REJECT, Status.INVALID_OPCODE)] * 5
    assert [target for target, _ in found[5:]] == [Target.ADMIN, Target.TENSOR, Target.TENSOR]
    found = verdicts(NEITHER, [*queries, *goes_on])
    assert [target for target, _ in found] == [Target.REJECT] * 5 + [Target.ADMIN] + [Target.REJECT] * 2
    assert {payload["status"] for target, payload in found if target == Target.REJECT} == {Status.INVALID_OPCODE}


def test_block_commands_go_where_they_go_with_every_engine():
    """Whatever a target's number is."""
    commands = [(1, Opcode.FLUSH, 0), (1, Opcode.DSM, 0)]
    for config in (PLAIN, TENSORS, ALONE, NEITHER):
        found = verdicts(config, commands, nsid=1)
        assert [target for target, _ in found] == [Target.WRITE, Target.TRIM]
        assert [payload["cid"] for _, payload in found] == [99, 99]
