import numpy as np
import pytest
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.contract.tensor_image import pack_tensor
from nearflash.reference.tensor.epilogue import Scale, epilogue
from nearflash.reference.tensor.window import pool
from nearflash_hw.tensor.pool import Pooling
from operator_bench import Job, run

SMALL = TensorConfig(rows=16, columns=16, lanes=2, max_channels=64)
WHOLE = TensorConfig(rows=16, columns=16, lanes=8, max_channels=64)
AT = {"x": 0x1000, "y": 0x20000}


def random_pool(rng, out, side, channels, x16, y16, beat):
    h, w = out
    top = 32767 if x16 else 127
    shape = (side * h, side * w, channels)
    x = rng.choice([-top, top], shape) if rng.random() < 1 / 3 else rng.integers(-top, top + 1, shape)
    limit = 32767 if y16 else 127
    d = Descriptor(Op.POOL, **AT, x16=x16, y16=y16, low=-limit, high=limit, frac=int(rng.integers(0, 9)),
                   offset=int(rng.integers(-500, 500)), in_height=side * h, in_width=side * w, in_channels=channels,
                   out_height=h, out_width=w, out_channels=channels, kernel_h=side, kernel_w=side, stride=side,
                   mult=int(rng.integers(1 << 15, 1 << 16)), shift=int(rng.integers(14, 24)))
    y = epilogue(pool(x, side), Scale(d["mult"], d["shift"]), -limit, limit, offset=d["offset"], frac=d["frac"])
    return Job(d, {AT["x"]: pack_tensor(x.astype(np.int16 if x16 else np.int8), beat)},
               y.astype(np.int16 if y16 else np.int8))


@pytest.mark.parametrize(("config", "stall"), [(SMALL, 0.2), (WHOLE, 0.3)])
def test_sums_of_squares(config, stall):
    """Sides of 1 to 8, all widths, pixels of one group (each is added to the sum before it), two, three and more;
    failed transfers, each said once."""
    rng = np.random.default_rng(config.lanes)
    lanes = config.lanes
    shapes = [((1, 1), 1, 1), ((2, 3), 2, lanes), ((1, 2), 3, lanes + 1), ((2, 1), 4, 3 * lanes), ((1, 1), 8, 5),
              ((3, 2), 1, 2 * lanes), ((1, 2), 5, 4 * lanes - 1), ((2, 2), 2, 33)]
    jobs = [random_pool(rng, out, side, c, n & 1, n >> 1 & 1, 8) for n, (out, side, c) in enumerate(shapes)]
    jobs += [random_pool(rng, (1, 2), 2, 9, 0, 0, 8).failing(AT[port] + 8) for port in AT]
    run(Pooling, [*jobs, random_pool(rng, (1, 2), 2, 9, 0, 0, 8)], config, 8, stall)


def test_cycles_against_the_bound():
    """Every pixel is read once, a beat a cycle, but for the way there and back."""
    job = random_pool(np.random.default_rng(5), (2, 6), 4, 24, 0, 0, 8)
    assert run(Pooling, [job], WHOLE, 8)[0] <= 8 * 24 * 3 + 80
