import numpy as np
import pytest
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.contract.tensor_image import pack_depthwise, pack_entries, pack_tensor
from nearflash.reference.tensor.epilogue import Scale, epilogue
from nearflash.reference.tensor.window import depthwise
from nearflash_hw.tensor.depthwise import DepthwiseConvolution
from operator_bench import Job, run

# Far below TensorConfig.validate's limits. Half a word is a block, which leaves in two parts; a whole one is.
HALF = TensorConfig(rows=4, columns=16, pixels=16, lanes=4, depthwise=8, input_bytes=4096, max_channels=64)
WHOLE = TensorConfig(rows=4, columns=8, pixels=16, lanes=8, depthwise=8, input_bytes=4096, max_channels=64)
AT = {"x": 0x1000, "y": 0x8000, "weights": 0x18000, "entries": 0x20000}


def random_depthwise(rng, size, kernel, out, tile, beat, stride=1, pad=(0, 0), pad_value=0, wide=0, lookup=0):
    h, w, c = size

    def codes(*shape):
        return rng.choice([-127, 127], shape) if rng.random() < 1 / 3 else rng.integers(-127, 128, shape)

    x, weights = codes(*size).astype(np.int8), codes(*kernel, c).astype(np.int8)
    bias, mult, shift = rng.integers(-(1 << 16), 1 << 16, c), rng.integers(1 << 15, 1 << 16, c), rng.integers(16, 24, c)
    top = 32767 if wide else 127
    d = Descriptor(Op.DEPTHWISE, **AT, y16=wide, low=-top, high=top, frac=3, offset=5, lookup=lookup, in_height=h,
                   in_width=w, in_channels=c, out_height=out[0], out_width=out[1], out_channels=c, kernel_h=kernel[0],
                   kernel_w=kernel[1], stride=stride, pad_top=pad[0], pad_left=pad[1], pad_value=pad_value,
                   tile_rows=tile[0], tile_columns=tile[1])
    table = rng.integers(-127, 128, 256).astype(np.int8) if lookup else None
    y = epilogue(depthwise(x, weights, stride, pad, out, pad_value), Scale(mult, shift), -top, top, bias=bias, offset=5,
                 frac=3, table=table)
    return Job(d, {AT["x"]: pack_tensor(x, beat), AT["weights"]: pack_depthwise(weights, beat),
                   AT["entries"]: pack_entries(bias, mult, shift)}, y.astype(np.int16 if wide else np.int8), table)


SHAPES = [
    # 3x3 with padding, tiles and blocks that don't divide
    dict(size=(5, 6, 19), kernel=(3, 3), out=(5, 6), tile=(2, 4), pad=(1, 1), pad_value=-127),
    # one pixel, one tap, one channel: every step is the first and the last
    dict(size=(1, 1, 1), kernel=(1, 1), out=(1, 1), tile=(1, 1)),
    # tiles of a pixel: an accumulator is used again at once
    dict(size=(2, 3, 9), kernel=(3, 2), out=(2, 3), tile=(1, 1), pad=(2, 1), pad_value=7),
    # stride 2, padding on two sides, 16 bits out
    dict(size=(6, 7, 8), kernel=(3, 3), out=(3, 4), tile=(2, 3), stride=2, pad=(1, 1), wide=1),
    # kernel rows of two passes, of three and of one tap
    dict(size=(4, 9, 24), kernel=(2, 8), out=(3, 5), tile=(2, 4), pad=(0, 3), lookup=1),
    dict(size=(2, 6, 10), kernel=(2, 4), out=(2, 6), tile=(1, 5), pad=(1, 3), pad_value=-3),
    # a stride beyond the kernel
    dict(size=(5, 9, 12), kernel=(1, 2), out=(2, 3), tile=(2, 2), stride=4)]


@pytest.mark.parametrize(("config", "shapes", "stall"), [(HALF, SHAPES, 0.3), (WHOLE, SHAPES[:4], 0.0)])
def test_output_is_the_models(config, shapes, stall):
    """One after the other: nothing of one is left when the next begins. Failed transfers are said once."""
    rng = np.random.default_rng(config.lanes)
    jobs = [random_depthwise(rng, beat=8, **shape) for shape in shapes]
    small = dict(size=(2, 2, 9), kernel=(1, 1), out=(2, 2), tile=(2, 2))
    jobs += [random_depthwise(rng, beat=8, **small).failing(AT[port] + 8) for port in AT]
    run(DepthwiseConvolution, [*jobs, random_depthwise(rng, beat=8, **small)], config, 8, stall)


def test_cycles_against_the_bound():
    """A kernel row's pass takes a cycle for each of the tile's input columns. Planning and the first tile come before, the
    last codes after."""
    job = random_depthwise(np.random.default_rng(5), (6, 8, 32), (3, 3), (6, 8), (2, 8), 8, pad=(1, 1))
    tiles, blocks, passes = 3, 4, 3
    steady = tiles * blocks * passes * (2 * 10 + 1)
    assert run(DepthwiseConvolution, [job], WHOLE, 8)[0] <= steady + 100 + 4 * 10 * 4 + 80
