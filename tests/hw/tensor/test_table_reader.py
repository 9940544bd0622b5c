import random

import pytest
from nearflash_hw.tensor.table_reader import TableReader
from nearflash_sim.bench import reused, simulate
from nearflash_sim.models import MemoryModel

AT = 0x1C0


@pytest.mark.parametrize("beat", [8, 16])
def test_every_code_once_table_after_table(beat):
    """Two tables; a read of the first fails, which is said of it alone."""
    dut, failing, rng = reused(TableReader, beat), [AT + 64], random.Random(beat)
    memory = MemoryModel(beat, latency=4, stall=0.3, seed=1, fail=lambda a: a in failing and bool(failing.pop()))
    tables, got, errors = [rng.randbytes(256) for _ in range(2)], [], []

    async def process(ctx):
        for table in tables:
            memory.write(AT, table)
            ctx.set(dut.address, AT)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            given, done = {}, 0
            while not done:
                *_, en, index, code, done, error = await ctx.tick().sample(dut.o.en, dut.o.index, dut.o.code, dut.done,
                                                                          dut.error)
                if en:
                    assert index not in given
                    given[index] = code
            got.append(given)
            errors.append(error)

    simulate(dut, [process, memory.read_port(dut.mem_read)], until=lambda: len(errors) == 2, max_cycles=3000)
    assert got == [dict(enumerate(table)) for table in tables]
    assert errors == [1, 0]
    assert memory.pending == 0
