import pytest
from nearflash.contract.tensor import TensorConfig
from nearflash_hw.tensor.tiles import TileWalk
from nearflash_sim.bench import StreamSink, reused, simulate

CONFIG = TensorConfig(rows=4, columns=8, pixels=64, lanes=2, input_bytes=8192)


def surface(at, pixel, width, spread, tile):
    row = pixel * width
    return {"at": at, "pixel": pixel, "row": row, "right": spread * pixel, "down": spread * row,
            "tile_right": tile[1] * spread * pixel, "tile_down": tile[0] * spread * row}


@pytest.mark.parametrize(("out", "tile", "stride", "kernel", "pad", "blocks", "group"), [
    ((5, 7), (2, 3), 1, (3, 3), (1, 1), 3, 3), ((4, 4), (2, 2), 2, (3, 2), (2, 0), 5, 2),
    ((1, 9), (1, 9), 1, (1, 1), (0, 0), 1, 1), ((3, 2), (5, 8), 4, (4, 8), (0, 7), 2, 1)])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_every_tile_of_every_group(out, tile, stride, kernel, pad, blocks, group, stall):
    dut = reused(TileWalk, CONFIG)
    words, width, side = 3, out[1] * stride, 2
    plan = {"x": surface(1 << 20, 24, width, stride, tile), "y": surface(5000, 8, side * out[1], side, tile),
            "r": surface(90000, 16, side * out[1], side, tile), "out_height": out[0], "out_width": out[1],
            "tile_rows": tile[0], "tile_columns": tile[1], "tile_iy": tile[0] * stride, "tile_ix": tile[1] * stride,
            "kernel_h": kernel[0], "kernel_w": kernel[1], "stride": stride, "pad_top": pad[0], "pad_left": pad[1],
            "words": words, "kernel_words": kernel[1] * words, "blocks": blocks, "group": group}
    expected = []
    for begin in range(0, blocks, group):
        for oy in range(0, out[0], tile[0]):
            for ox in range(0, out[1], tile[1]):
                rows, columns = min(tile[0], out[0] - oy), min(tile[1], out[1] - ox)
                reach = (columns - 1) * stride + kernel[1]
                group_end = oy + rows == out[0] and ox + columns == out[1]
                expected.append({
                    "rows": rows, "columns": columns, "x": (1 << 20) + 24 * stride * (oy * width + ox),
                    "y": 5000 + 8 * side * (oy * side * out[1] + ox), "r": 90000 + 16 * side * (oy * side * out[1] + ox),
                    "iy": oy * stride - pad[0], "ix": ox * stride - pad[1], "in_rows": (rows - 1) * stride + kernel[0],
                    "in_columns": reach, "line": reach * words, "down": stride * reach * words,
                    "skip": (reach - kernel[1]) * words + 1, "blocks": min(group, blocks - begin),
                    "first": int(not expected), "group_begin": int(oy == ox == 0), "group_end": int(group_end),
                    "end": int(group_end and begin + group >= blocks)})
    sink, busy = StreamSink(dut.o, stall, 1), []

    async def start(ctx):
        ctx.set(dut.plan, plan)
        for turn in (1, 2):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            while len(sink.items) < turn * len(expected):
                await ctx.tick()
            await ctx.tick()
            busy.append(ctx.get(dut.busy))

    simulate(dut, [start, sink], until=lambda: len(busy) == 2, max_cycles=3000)
    assert sink.items == 2 * expected
    assert busy == [0, 0]
