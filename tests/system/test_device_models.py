"""Small models of every shape, end to end: from PyTorch to logits of the whole device, bit-exact to the integer model."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from device_bench import FILL, assert_same_bits, call, open_device
from nearflash.contract import AdminOpcode, CommandError, Opcode, Status, cores
from nearflash.contract.program import DENSE_QUANT, EPILOGUE, dram_weight_address
from nearflash.models import ModelSpec, RecModel
from nearflash.quantize import CompiledModel, QuantizeOptions, compile_model
from nearflash.reference.model import IntegerModel
from nearflash.runtime.module import DeviceModule
from nearflash.runtime.queries import normalize_bags, pack_batch
from nearflash_sim.small.models import CASES, configured

ADMIN, INFER = 0, 1


def queries(spec: ModelSpec, batch: int, rng: np.random.Generator, weighted: bool = False):
    """(dense, bags), bags of 0 to each table's lookups."""
    bags = []
    for t in spec.tables:
        lengths = rng.integers(0, t.lookups + 1, batch)
        bag = (rng.integers(0, t.rows, lengths.sum()), np.cumsum(lengths) - lengths)
        bags.append((*bag, rng.uniform(-1, 1, lengths.sum()).astype(np.float32)) if weighted else bag)
    return rng.standard_normal((batch, spec.dense)).astype(np.float32), bags


def compiled(name: str, seed: int = 0) -> tuple[RecModel, CompiledModel]:
    case = CASES[name]
    model = RecModel(case.spec, seed=seed)
    rng = np.random.default_rng(seed)
    batches = [queries(case.spec, 32, rng) for _ in range(3)]
    return model, compile_model(model, configured(name), batches, QuantizeOptions())


def dense_of(spec, dense):
    return dense if spec.dense else None


def test_the_cases_cover_what_they_are_for():
    nodes = {name: {n.name: n for n in configured(name).mlp.graph} for name in CASES}
    every = [n for graph in nodes.values() for n in graph.values()]
    assert {n.kind for n in every} == {"dense", "tables", "fc", "dot", "mul"}
    fc = [n for n in every if n.kind == "fc"]
    assert {n.weights for n in fc} == {"onchip", "dram"}
    assert {n.scan for n in fc} == {"row", "column"}
    assert {n.decomposed for n in fc} == {True, False}
    assert {n.weight_bits for n in fc} == {8, 16}
    assert {configured(n).mlp.n_batch for n in CASES} >= {1, 2, 4}
    assert {configured(n).mlp.buffered for n in CASES} == {1, 2}
    assert {(configured(n).flash.channels, configured(n).flash.dies) for n in CASES} == {(1, 1), (2, 2), (4, 1)}
    assert any(c.rows % c.kr for n in CASES for c in cores(configured(n).mlp.graph))
    assert any(c.columns % c.kc for n in CASES for c in cores(configured(n).mlp.graph))


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_integer_models(name):
    """Several models with other parameters and tables, one after the other on the same device; batches of 1 to many in
    flight at once, block I/O between them, slow memories."""
    spec = CASES[name].spec
    with open_device(configured(name)) as device:
        size = device.config.lba_bytes
        for seed in range(3):
            rng = np.random.default_rng(seed)
            stall = (0.0, 0.0, 0.3)[seed]
            for k, memory in enumerate((device.backend.device.host, device.backend.device.dram)):
                memory.set_timing(60, 10, stall, seed=k + 1)
            _, model = compiled(name, seed)
            device.load(model, preload=seed != 1)
            reference = IntegerModel(model)
            batches = [queries(spec, int(n), rng, weighted=n == 4) for n in (1, 13, 2, 4, 7, 1, 3)]
            tickets = [device.submit(dense_of(spec, dense), bags, include_last_offset=False) for dense, bags in batches]
            content = rng.bytes(6 * size)
            free = device.config.lbas - 60 + 10 * seed
            device.write(free, content)
            assert device.read(free, 6) == content
            assert tickets[-1].command.completion is None, "the block I/O came after the inference"
            for ticket, (dense, bags) in zip(tickets, batches, strict=True):
                assert_same_bits(device.result(ticket), reference.logits(dense, bags)[1])
        assert all(v > 0 for k, v in device.counters().items() if k.startswith("mlp_"))


@pytest.mark.parametrize("name", CASES)
def test_device_module_takes_the_models_place(name):
    """Torch in, torch out, any number of samples; close to the fp32 model, equal to the integers."""
    spec = CASES[name].spec
    model, c = compiled(name)
    dense, bags = queries(spec, 30, np.random.default_rng(5))
    x = torch.from_numpy(dense)
    b = [tuple(map(torch.from_numpy, bag)) for bag in bags]
    with open_device(configured(name)) as device:
        device.load(c)
        got = DeviceModule(device, batch=8, include_last_offset=False)(x if spec.dense else None, b)
        with torch.no_grad():
            exact = model(x, b)
        assert_same_bits(got.numpy(), IntegerModel(c).logits(dense, bags)[1])
        assert got.shape == exact.shape
        spread = float(exact.std()) or 1.0
        assert float((got - exact).abs().max()) < (0.02 if c.config.mlp.act_bits == 16 else 0.6) * spread


def test_weights_that_cannot_be_read_fail_the_inference():
    """No logits are written; the commands around it are answered."""
    spec = CASES["neumf-dram"].spec
    _, c = compiled("neumf-dram")
    dense, bags = queries(spec, 3, np.random.default_rng(5))
    want = IntegerModel(c).logits(dense, bags)[1]
    with open_device(c.config) as device:
        device.load(c)
        layout, dram = c.config.layout, device.backend.device.dram
        beat = c.config.beat_bytes
        last = dram_weight_address(c.config, cores(c.config.mlp.graph)[-1])
        for address in (layout.weights, layout.weights + 5 * beat, last):
            dram.inject_fault(address, beat, write=False)
            done, written = infer_raw(device, spec, dense_of(spec, dense), bags)
            assert done.status == Status.UNRECOVERED_READ
            assert written.count(FILL) == len(written)
            dram.clear_faults()
            done, written = infer_raw(device, spec, dense_of(spec, dense), bags)
            assert done.status == Status.SUCCESS
            assert_same_bits(np.frombuffer(written[: want.nbytes], np.float32).reshape(want.shape), want)


def test_lookups_and_inference_share_the_device():
    """LOOKUP and INFER commands mixed in one queue, each answered with its own kind of result."""
    spec = CASES["cat"].spec
    _, c = compiled("cat")
    rng = np.random.default_rng(6)
    with open_device(configured("cat")) as device:
        device.load(c)
        reference = IntegerModel(c)
        work = []
        for k in range(8):
            dense, bags = queries(spec, int(rng.integers(1, 6)), rng)
            if k % 2:
                work.append((device.submit(dense, bags), reference.logits(dense, bags)[1]))
            else:
                ticket = device._query(Opcode.LOOKUP, None, bags, None)
                work.append((ticket, np.concatenate(reference.pool(bags)[0], axis=1)))
        for ticket, want in work:
            assert_same_bits(device.result(ticket), want)


def test_largest_batch():
    spec = CASES["wide-groups"].spec
    _, c = compiled("wide-groups")
    dense, bags = queries(spec, c.config.host.max_batch, np.random.default_rng(7))
    with open_device(c.config) as device:
        device.load(c)
        assert_same_bits(device.result(device.submit(dense, bags)), IntegerModel(c).logits(dense, bags)[1])


# -- bad input --------------------------------------------------------------------------------------------------------
def infer_raw(device, spec, dense, bags, **change):
    """(completion, output bytes) of an INFER whose fields may be wrong."""
    words, batch, _ = pack_batch(dense, normalize_bags(bags))
    query, out = device.driver.buffer(words.tobytes()), device.driver.buffer(4096)
    p1, p2, lists = device.driver.prp(query)
    fields = {"prp1": p1, "prp2": p2, "cdw10": words.size, "cdw11": batch, "cdw12": len(bags) | spec.dense << 16,
              "cdw14": out.address & 0xFFFFFFFF, "cdw15": out.address >> 32} | change
    done = call(device, INFER, Opcode.INFER, **fields)
    content = out.read()
    for b in (query, out, *lists):
        b.release()
    return done, content


def test_a_failed_batch_returns_nothing():
    """One bad index, count, weight, row or value anywhere: no logit of the batch is written, and the next batch works."""
    spec = CASES["cat"].spec
    _, c = compiled("cat")
    rng = np.random.default_rng(8)
    with open_device(c.config) as device:
        device.load(c)
        reference = IntegerModel(c)

        first = c.tables[0].rows_per_page(c.config)  # the rows of the first page will be damaged

        def alive():
            dense, bags = queries(spec, 3, rng)
            np.maximum(bags[0][0], first, out=bags[0][0])
            assert_same_bits(device.infer(dense, bags), reference.logits(dense, bags)[1])

        def one_of_each(batch=4):
            dense = rng.standard_normal((batch, spec.dense)).astype(np.float32)
            return dense, [(rng.integers(0, t.rows - 5, batch), np.arange(batch)) for t in spec.tables]

        def check(status, dense, bags, dw1=None, **change):
            done, out = infer_raw(device, spec, dense, bags, **change)
            assert done.status == status
            assert dw1 is None or done.dw1 == dw1
            assert out.count(FILL) == len(out), "a failed batch wrote to its output buffer"
            alive()

        dense, bags = one_of_each()
        bags[1][0][2] = spec.tables[1].rows
        check(Status.INDEX_OUT_OF_RANGE, dense, bags, 1)
        dense, bags = one_of_each()
        check(Status.BAD_BATCH, dense, bags, cdw12=2 | spec.dense << 16)
        check(Status.BAD_BATCH, dense, bags, cdw12=3 | (spec.dense + 1) << 16)
        check(Status.BAD_BATCH, dense, bags, cdw11=5)
        table = device.tables[0]
        before = device.read(table.extents[0].lba)
        device.write(table.extents[0].lba, struct.pack("<f", np.nan) + before[4:])
        bags[0][0][:] = 39
        bags[0][0][3] = 0  # the last sample
        check(Status.ROW_NOT_FINITE, dense, bags, 0)
        with pytest.raises(CommandError, match="ROW_NOT_FINITE"):
            device.infer(dense, bags)
        device.write(table.extents[0].lba, struct.pack("<f", 1e30) + before[4:])
        check(Status.POOL_OVERFLOW, dense, bags, 0)
        device.trim(table.extents[0].lba)
        check(Status.ROW_UNMAPPED, dense, bags, 0)
        device.write(table.extents[0].lba, before)
        device.delete_table(2)
        done, out = infer_raw(device, spec, dense, bags)
        assert (done.status, done.dw0) == (Status.UNKNOWN_TABLE, 2)
        assert out.count(FILL) == len(out)
        device.load(c)
        alive()


def damaged_images(c: CompiledModel):
    """(name, image, status, position of the record) of parameter images with one fault each."""
    image = c.image
    records, at = [], 0
    while at < len(image):
        units = struct.unpack_from("<II", image, at)[1]
        records.append(image[at : at + 16 + 16 * units])
        at += len(records[-1])
    target = [struct.unpack_from("<I", r)[0] for r in records]
    k = target.index(EPILOGUE + next(i for i, n in enumerate(c.config.mlp.graph) if n.kind == "fc"))
    join = b"".join
    bad = Status.BAD_PROGRAM

    def changed(i, record):
        return join([*records[:i], record, *records[i + 1 :]])

    yield "empty", b"", bad, 0
    yield "not whole units", image[:-4], bad, 0
    yield "cut off in a record", image[:-16], bad, len(records) - 1
    yield "without its last record", join(records[:-1]), bad, len(records) - 1
    yield "a record twice", join([*records, records[k]]), bad, len(records)
    yield "unknown target", changed(k, struct.pack("<I", 0x250) + records[k][4:]), bad, k
    yield "target of another width", changed(k, struct.pack("<I", DENSE_QUANT) + records[k][4:]), bad, k
    yield "a unit too few", changed(k, records[k][:4] + struct.pack("<I", len(records[k]) // 16 - 2) + records[k][8:-16]), \
        bad, k
    yield "huge length", changed(k, records[k][:4] + b"\xff\xff\xff\xff" + records[k][8:]), bad, k
    yield "wrong address", changed(k, records[k][:8] + struct.pack("<Q", 4096) + records[k][16:]), bad, k
    yield "other order", join(reversed(records)), Status.SUCCESS, 0


@pytest.mark.parametrize("name", ["cat", "neumf-dram"])
def test_bad_parameter_images(name):
    """Refused with the record at fault; the device then has no program, until a good one comes."""
    spec = CASES[name].spec
    _, c = compiled(name)
    dense, bags = queries(spec, 3, np.random.default_rng(9))
    want = IntegerModel(c).logits(dense, bags)[1]
    with open_device(c.config) as device:
        device.create_tables(dict(enumerate(zip(c.tables, c.rows, strict=True))), preload=True)
        done, _ = infer_raw(device, spec, dense_of(spec, dense), bags)
        assert done.status == Status.NO_PROGRAM, "inference before a program was loaded"
        for what, image, status, position in damaged_images(c):
            b = device.driver.buffer(image)
            p1, p2, lists = device.driver.prp(b)
            done = call(device, ADMIN, AdminOpcode.PROGRAM_LOAD, prp1=p1, prp2=p2, cdw10=len(image) // 4)
            assert (done.status, done.dw0) == (status, position), what
            for x in (b, *lists):
                x.release()
            if status != Status.SUCCESS:
                assert infer_raw(device, spec, dense_of(spec, dense), bags)[0].status == Status.NO_PROGRAM, what
                lookup = np.concatenate(device.lookup(bags), axis=1)
                assert_same_bits(lookup, np.concatenate(IntegerModel(c).pool(bags)[0], axis=1))
                device.load_program(c.image)
            assert_same_bits(device.infer(dense_of(spec, dense), bags, include_last_offset=False), want)
        done = call(device, ADMIN, AdminOpcode.PROGRAM_LOAD, prp1=1 << 40, cdw10=len(c.image) // 4)
        assert done.status == Status.DATA_TRANSFER_ERROR
        done = call(device, ADMIN, AdminOpcode.PROGRAM_LOAD, prp1=0x20004, cdw10=len(c.image) // 4)
        assert done.status == Status.INVALID_PRP_OFFSET
        assert infer_raw(device, spec, dense_of(spec, dense), bags)[0].status == Status.NO_PROGRAM
        device.load_program(c.image)
        device.reset()
        assert_same_bits(device.infer(dense_of(spec, dense), bags, include_last_offset=False), want)
