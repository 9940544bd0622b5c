"""How the compiler cuts a convolution: against a count, tile by tile, of what is read and multiplied."""

import numpy as np
import pytest
from nearflash.contract import ModelError
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.offload.tile import plan_tile

CONFIG = TensorConfig(rows=8, columns=16, pixels=64, lanes=8, depthwise=16)
BEAT = 8


def conv(op=Op.CONV, size=(32, 32), channels=96, outputs=96, kernel=1, stride=1, shuffle=0):
    out = [(n + 2 * (kernel // 2) - kernel) // stride + 1 for n in size]
    return Descriptor(op, in_height=size[0], in_width=size[1], in_channels=channels, out_height=out[0], out_width=out[1],
                      out_channels=channels if op == Op.DEPTHWISE else outputs, kernel_h=kernel, kernel_w=kernel,
                      stride=stride, pad_top=kernel // 2, pad_left=kernel // 2, shuffle=shuffle)


def walked(d, rows, columns):
    """Of each tile: output pixels, and input pixels that lie in memory."""
    found = []
    for top in range(0, d["out_height"], rows):
        for left in range(0, d["out_width"], columns):
            ys = range(top, min(top + rows, d["out_height"]))
            xs = range(left, min(left + columns, d["out_width"]))
            reach = [sorted({n * d["stride"] + k - pad for n in line for k in range(kernel)}) for line, kernel, pad in (
                (ys, d["kernel_h"], d["pad_top"]), (xs, d["kernel_w"], d["pad_left"]))]
            inside = [sum(lines[0] <= n <= lines[-1] for n in range(size)) for lines, size in zip(
                reach, (d["in_height"], d["in_width"]), strict=True)]
            found.append((len(ys) * len(xs), inside[0] * inside[1]))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_is_what_the_tiles_see(seed):
    rng = np.random.default_rng(seed)
    kernel, side = int(rng.choice([1, 3, 4])), int(rng.choice([1, 2]))
    d = conv(size=tuple(int(n) for n in rng.integers(4, 40, 2)), channels=int(rng.integers(1, 130)),
             outputs=int(rng.integers(1, 130)), kernel=kernel, stride=int(rng.integers(1, 4)), shuffle=side)
    plan = plan_tile(d, CONFIG, BEAT)
    tiles = walked(d, plan.rows, plan.columns)
    blocks = side**2 * -(-d["out_channels"] // CONFIG.rows)
    block = kernel**2 * -(-d["in_channels"] // CONFIG.columns) * CONFIG.rows * CONFIG.columns
    pixels = sum(n for _, n in tiles) * -(-d["in_channels"] // BEAT) * BEAT
    if plan.group_blocks:
        assert plan.read_bytes == pixels * -(-blocks // plan.group_blocks) + blocks * block
        assert plan.group_blocks * block <= CONFIG.weight_bytes // 2
    else:
        assert plan.read_bytes == pixels + len(tiles) * blocks * block
    steps = blocks * block // (CONFIG.rows * CONFIG.columns)
    assert plan.cycles >= max(sum(n for n, _ in tiles) * steps, plan.read_bytes // BEAT)


@pytest.mark.parametrize(("size", "channels", "outputs"), [
    ((32, 32), 96, 96), ((32, 32), 192, 96), ((16, 16), 160, 320), ((16, 16), 320, 160), ((8, 8), 192, 384),
    ((8, 16), 64, 64)])
def test_linear_layers_never_wait_for_weights(size, channels, outputs):
    """A weight word takes 16 cycles to come and is held for a tile's pixels; with narrow images a tile of one line isn't
    enough. Nothing else takes long: estimates are within a twentieth of the array's time and the first tile's."""
    d = conv(size=size, channels=channels, outputs=outputs)
    plan = plan_tile(d, CONFIG, BEAT)
    assert min(n for n, _ in walked(d, plan.rows, plan.columns)) > 16
    array = size[0] * size[1] * -(-channels // 16) * -(-outputs // 8)
    assert plan.cycles <= 1.05 * array + plan.rows * plan.columns * (-(-channels // BEAT) + 1)


def test_small_images_are_cut_so_that_their_input_comes_meanwhile():
    plan = plan_tile(conv(size=(8, 8), channels=192, outputs=192), CONFIG, BEAT)
    assert plan.rows * plan.columns == 32


def test_depthwise_tiles_balance_reading_and_computing():
    """All tiles that fit: none takes fewer cycles by a count of passes and beats."""
    d = conv(Op.DEPTHWISE, channels=192, kernel=3)
    plan = plan_tile(d, CONFIG, BEAT)

    def cycles(rows, columns):
        tiles = walked(d, rows, columns)
        passes = sum((columns + 2) * rows + 1 for _ in tiles) * 3 * 192 // 16
        return max(passes, sum(n for _, n in tiles) * 192 // BEAT)

    fitting = [(r, c) for r in (1, 2, 4, 8, 16, 32) for c in (1, 2, 4, 8, 16, 32)
               if r * c <= 64 and (r + 2) * (c + 2) * 192 <= CONFIG.input_bytes // 2]
    assert cycles(plan.rows, plan.columns) <= 1.1 * min(cycles(*f) for f in fitting)


def test_a_window_that_fits_no_buffer_is_named():
    with pytest.raises(ModelError, match="in_channels"):
        plan_tile(conv(channels=1024, kernel=8, size=(16, 16)), CONFIG, BEAT)
