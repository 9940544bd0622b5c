import numpy as np
import pytest
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.contract.tensor_image import pack_tensor
from nearflash.reference.tensor.attention import attention
from nearflash.reference.tensor.epilogue import Scale
from nearflash_hw.tensor.attention import Attention
from operator_bench import Job, run

# Far below TensorConfig.validate's limits. Words of more columns than a head has channels, and blocks that leave in one
# part; tiles of 4 tokens up to 16 keys, 2 up to 32, 1 beyond. Then blocks of two parts, and tiles of 16 tokens.
TALL = TensorConfig(rows=4, columns=16, pixels=8, lanes=4, weight_bytes=2048, max_keys=64, max_channels=64)
WIDE = TensorConfig(rows=8, columns=8, pixels=32, lanes=4, weight_bytes=4096, max_keys=256, max_channels=128)
AT = {"x": 0x1000, "y": 0x8000, "r": 0x10000, "v": 0x18000}


def random_attention(rng, size, keys, heads, head_dim, beat, score_shift=None, extreme=False):
    """``score_shift``: the smaller, the more keys beside the best one count for nothing. ``extreme``: the largest scores
    there are, of both signs."""
    h, w = size
    c = heads * head_dim

    def codes(n):
        return (rng.choice([-127, 127], (n, c)) if rng.random() < 1 / 4 else rng.integers(-127, 128, (n, c))).astype(np.int8)

    q, k, v = codes(h * w), codes(keys), codes(keys)
    if extreme:
        q[:], k[:], k[::2] = 127, 127, -127
    score = (int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(14, 26)) if score_shift is None else score_shift)
    value = (int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(12, 17)))
    low, high = int(rng.choice([-127, -100])), int(rng.choice([127, 90]))
    d = Descriptor(Op.ATTENTION, **AT, low=low, high=high, in_height=h, in_width=w, in_channels=c, out_height=h, out_width=w,
                   out_channels=c, heads=heads, head_dim=head_dim, keys=keys, score_mult=score[0], score_shift=score[1],
                   value_mult=value[0], value_shift=value[1])
    y = attention(q, k, v, heads, Scale(*score), Scale(*value), low, high).reshape(h, w, c)
    return Job(d, {AT["x"]: pack_tensor(q.reshape(h, w, c), beat), AT["r"]: pack_tensor(k[None], beat),
                   AT["v"]: pack_tensor(v[None], beat)}, y)


@pytest.mark.parametrize(("config", "stall"), [(TALL, 0.2), (WIDE, 0.0)])
def test_output_is_the_models(config, stall):
    """One key, one token, keys that fill no block, tiles of all sizes of which the last is a piece, heads of 8 to 128
    channels; failed transfers, each said once; one descriptor after the other."""
    rng = np.random.default_rng(config.rows)
    shapes = [((1, 1), 1, 1, 8), ((1, 5), 16, 2, 16), ((3, 3), 7, 1, 8), ((1, 3), 20, 2, 8), ((1, 2), 37, 1, 16),
              ((2, 2), 9, 3, 16)]
    jobs = [random_attention(rng, *shape, 8) for shape in (shapes if config is TALL else shapes[1:4])]
    jobs.append(random_attention(rng, (1, 4), 16, 1, 16, 8, score_shift=10))  # all but the best saturate
    jobs.append(random_attention(rng, (1, 4), 16, 1, 16, 8, score_shift=40))  # all count the same
    if config is WIDE:
        jobs.append(random_attention(rng, (1, 17), 12, 1, 80, 8))
        jobs.append(random_attention(rng, (1, 2), 5, 1, 128, 8, score_shift=23, extreme=True))
    jobs += [random_attention(rng, (1, 2), 3, 1, 16, 8).failing(AT[port] + 8) for port in AT]
    run(Attention, [*jobs, random_attention(rng, (1, 2), 3, 1, 16, 8)], config, 8, stall)


def test_cycles_against_the_bound():
    """The array never waits but for the first keys and the last tile's exponentials."""
    job = random_attention(np.random.default_rng(5), (1, 32), 64, 1, 16, 8)
    keys, values = 32 * 64 // 8 * 2, 2 * 32 * 2 * 64 // 8  # steps of 8 channels, of 8 keys
    first_keys, last_exponentials = 64 * 2 * 2 + 60, 16 * 32 + 60
    assert run(Attention, [job], WIDE, 8)[0] <= keys + values + first_keys + last_exponentials + 100
