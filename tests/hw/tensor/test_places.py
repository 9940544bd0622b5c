import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.places import Places
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

ROWS, LANES = 4, 2
CONFIG = TensorConfig(rows=ROWS, columns=8, pixels=16, lanes=LANES)


@pytest.mark.parametrize(("channels", "side", "wide", "group"), [
    (8, 1, 0, 2), (7, 1, 1, 1), (3, 2, 0, 4), (5, 2, 1, 3), (1, 3, 0, 2), (6, 1, 0, 9)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_channels_rows_and_squares(channels, side, wide, group, stall):
    """Against the definition: output channel block b of the square's pixel (i, j) lies at pixel (side y + i, side x + j)."""
    dut = reused(Places, CONFIG, "y")
    pixel, width = 64, 5  # wider than it has to be; output pixels a row
    row, per_group = pixel * width * side, -(-channels // ROWS)
    blocks = side * side * per_group
    corners = [(0, 0, 2, 3), (0, 3, 2, 2), (2, 0, 1, 3), (2, 3, 1, 2)]  # tiles: y, x, rows, columns
    tiles, expected = [], []
    for begin in range(0, blocks, group):
        count = min(group, blocks - begin)
        for k, (oy, ox, h, w) in enumerate(corners):
            end = k == len(corners) - 1
            tiles.append({"y": 1000 + oy * side * row + ox * side * pixel, "rows": h, "columns": w, "blocks": count,
                          "first": int(begin == k == 0), "group_end": int(end), "end": int(end and begin + count == blocks)})
            for b in range(begin, begin + count):
                i, j, first = b // per_group // side, b // per_group % side, b % per_group * ROWS
                for c in range(first, first + ROWS, LANES):
                    at = 1000 + i * row + j * pixel + (c << wide)
                    rest = {"count": min(max(channels - c, 0), LANES), "last": int(channels - c <= LANES), "end": 0}
                    expected += [{"address": at + side * ((oy + y) * row + (ox + x) * pixel), **rest}
                                 for y in range(h) for x in range(w)]
    expected[-1]["end"] = 1
    sink, source = StreamSink(dut.o, stall, 1), StreamSource(dut.tile, [], stall, 2)

    async def plan(ctx):
        ctx.set(dut.plan, {"y": {"pixel": pixel, "row": row, "right": side * pixel, "down": side * row, "wide": wide},
                           "channels": channels, "shuffle": side})
        source.items += tiles

    def existing(items):
        return [i if i["count"] else i | {"address": 0} for i in items]

    simulate(dut, [plan, source, sink], until=lambda: len(sink.items) >= len(expected), max_cycles=6000)
    assert existing(sink.items) == existing(expected)
    assert source.drained
