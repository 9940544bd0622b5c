import numpy as np
import pytest
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.contract.tensor_image import pack_entries, pack_tensor
from nearflash.reference.tensor.norm import layer_norm
from nearflash_hw.tensor.layer_norm import LayerNormalisation
from operator_bench import Job, run

# Far below TensorConfig.validate's limits. Half a buffer holds 4 pixels of 64 channels, or 16 of 64
FEW = TensorConfig(rows=2, columns=16, pixels=16, lanes=2, input_bytes=4096, max_channels=64)
WHOLE = TensorConfig(rows=8, columns=8, pixels=16, lanes=8, input_bytes=4096, max_channels=256)
AT = {"x": 0x1000, "y": 0x8000, "entries": 0x20000}


def random_norm(rng, shape, wide, beat, eps=None, flat=False):
    h, w, c = shape
    top = 32767 if wide else 127
    x = rng.choice([-top, -1, 0, top], shape) if rng.random() < 1 / 3 else rng.integers(-top, top + 1, shape)
    if flat:  # no variance at all
        x[:] = x[..., :1]
    gain, shift = rng.integers(-32767, 32768, c), rng.integers(12, 24, c)
    bias = rng.integers(-(1 << 20), 1 << 20, c)
    eps = int(rng.integers(1, 1 << int(rng.integers(1, 16)))) if eps is None else eps  # codes count for more
    low = int(rng.choice([-127, 0]))
    d = Descriptor(Op.LAYERNORM, **AT, x16=wide, low=low, high=127, eps_low=eps & 0xFFFFFFFF, eps_high=eps >> 32,
                   in_height=h, in_width=w, in_channels=c, out_height=h, out_width=w, out_channels=c)
    raw = pack_tensor(x.astype(np.int16 if wide else np.int8), beat)
    return Job(d, {AT["x"]: raw, AT["entries"]: pack_entries(bias, gain, shift)},
               layer_norm(x, gain, bias, shift, eps, low, 127))


@pytest.mark.parametrize(("config", "stall"), [(FEW, 0.2), (WHOLE, 0.3)])
def test_output_is_the_models(config, stall):
    """Pixels of one channel and of all, groups and tiles that don't divide, the least and the greatest eps, no variance,
    failed transfers, each said once, one after the other."""
    rng = np.random.default_rng(config.lanes)
    jobs = [random_norm(rng, (1, 3, 1), 1, 8), random_norm(rng, (2, 5, 9), 0, 8), random_norm(rng, (1, 2, 64), 1, 8, eps=1),
            random_norm(rng, (3, 3, 8), 1, 8), random_norm(rng, (1, 9, 5), 1, 8, eps=1, flat=True),
            random_norm(rng, (1, 4, 33), 0, 8, eps=(1 << 48) - 1), random_norm(rng, (2, 9, 17), 1, 8),
            random_norm(rng, (1, 1, 16), 0, 8)]
    jobs += [random_norm(rng, (1, 2, 9), 1, 8).failing(AT[port] + 8) for port in AT]
    run(LayerNormalisation, [*jobs, random_norm(rng, (1, 2, 9), 1, 8)], config, 8, stall)


def test_what_lies_behind_the_channels_does_not_count():
    rng = np.random.default_rng(2)
    job = random_norm(rng, (1, 3, 5), 0, 8, eps=1)
    raw = np.frombuffer(job.image[AT["x"]], np.int8).reshape(3, 8).copy()
    raw[:, 5:] = 77
    job.image[AT["x"]] = raw.tobytes()
    run(LayerNormalisation, [job], WHOLE, 8)


def test_cycles_against_the_bound():
    """A beat a cycle of 16-bit pixels of 96 channels, but for the first tile in and the last one out."""
    job = random_norm(np.random.default_rng(5), (1, 96, 96), 1, 8)
    assert run(LayerNormalisation, [job], WHOLE, 8)[0] <= 96 * 24 + 350
