# amaranth: UnusedElaboratable=no
import pytest
from nearflash_hw.primitives.clear_walk import ClearWalk
from nearflash_sim.bench import simulate


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_every_address_once_and_then_never_again(bits):
    dut, seen = ClearWalk(bits), []

    async def watch(ctx):
        async for _, _, busy, at in ctx.tick().sample(dut.busy, dut.at):
            seen.append(at if busy else None)

    simulate(dut, [watch], until=lambda: len(seen) == 3 << bits, max_cycles=4 << bits)
    assert seen[:1 << bits] == list(range(1 << bits))
    assert set(seen[1 << bits:]) == {None}
