import numpy as np
import pytest
from nearflash.contract.tensor import Descriptor, Op, TensorConfig
from nearflash.contract.tensor_image import pack_tensor
from nearflash.reference.tensor.epilogue import Scale, epilogue
from nearflash_hw.tensor.add import Addition
from operator_bench import Job, cycles_on_axi, run

SMALL = TensorConfig(rows=16, columns=16, lanes=2, max_channels=64)  # a beat of 8 is four groups, or two of 16 bits
WHOLE = TensorConfig(rows=16, columns=16, lanes=8, max_channels=64)  # one, or two beats a group
AT = {"x": 0x1000, "r": 0x4000, "y": 0x8000}


def codes(rng, shape, wide):
    """One time in three from the corners alone."""
    top = 32767 if wide else 127
    values = rng.choice([-top, -1, 0, 1, top], shape) if rng.random() < 1 / 3 else rng.integers(-top, top + 1, shape)
    return values.astype(np.int16 if wide else np.int8)


def random_add(rng, shape, x16, y16, r16, beat, lookup=False):
    """``r16`` None: no residual."""
    x = codes(rng, shape, x16)
    residual = None if r16 is None else codes(rng, shape, r16)
    top = 32767 if y16 else 127
    scales = {"mult": int(rng.integers(1 << 14, 1 << 16)), "shift": int(rng.integers(8, 24)),
              "residual_mult": int(rng.integers(1 << 14, 1 << 16)), "residual_shift": int(rng.integers(8, 24))}
    frac, offset = int(rng.integers(0, 15)), int(rng.integers(-5000, 5000))
    low, high = int(rng.choice([-top, 0, -top // 3])), int(rng.choice([top, top // 2]))
    h, w, c = shape
    d = Descriptor(Op.ADD, x=AT["x"], y=AT["y"], x16=x16, y16=y16, low=low, high=high, frac=frac, offset=offset,
                   in_height=h, in_width=w, in_channels=c, out_height=h, out_width=w, out_channels=c, lookup=lookup,
                   mult=scales["mult"], shift=scales["shift"])
    image = {AT["x"]: pack_tensor(x, beat)}
    if residual is not None:
        for name in ("residual_mult", "residual_shift"):
            d[name] = scales[name]
        d["residual"], d["r"], d["r16"] = 1, AT["r"], r16
        image[AT["r"]] = pack_tensor(residual, beat)
    table = codes(rng, 256, False) if lookup else None
    y = epilogue(x, Scale(d["mult"], d["shift"]), low, high, residual=residual,
                 residual_scale=Scale(d["residual_mult"], d["residual_shift"]), offset=offset, frac=frac, table=table)
    return Job(d, image, y.astype(np.int16 if y16 else np.int8), table)


@pytest.mark.parametrize(("config", "beat", "stall"), [(SMALL, 8, 0.2), (WHOLE, 8, 0.3)])
def test_sums_of_all_widths(config, beat, stall):
    """Every combination of 8 and 16 bits, with and without a residual, one after the other on shapes whose channels fill
    no group, no beat, or one more than that; failed transfers, each said once, of all ports."""
    rng = np.random.default_rng(config.lanes)
    shapes = [(1, 1, 1), (2, 3, 5), (1, 7, 8), (3, 2, 9), (1, 3, 17), (2, 2, 16)]
    jobs = [random_add(rng, shapes[n % len(shapes)], x16, y16, r16, beat)
            for n, (x16, y16, r16) in enumerate((x, y, r) for x in (0, 1) for y in (0, 1) for r in (0, 1, None))]
    jobs.append(random_add(rng, (2, 3, 11), 1, 0, 0, beat, lookup=True))
    jobs += [random_add(rng, (1, 2, 9), 0, 0, 0, beat).failing(AT[port] + 8) for port in AT]
    run(Addition, [*jobs, random_add(rng, (1, 2, 9), 0, 0, 0, beat)], config, beat, stall)


def test_more_than_the_buffers():
    """Rows of several bursts, of which the last is a piece."""
    rng = np.random.default_rng(3)
    jobs = [random_add(rng, (2, 7, 40), 0, 1, 1, 8), random_add(rng, (2, 21, 8), 0, 0, None, 8)]
    run(Addition, jobs, WHOLE, 8, 0.1)


def test_cycles_against_the_bound():
    """What the bus lets through, from AXI memory to AXI memory, but for the way there and back."""
    job = random_add(np.random.default_rng(5), (2, 16, 48), 1, 1, 0, 8)
    cycles, reads, writes = cycles_on_axi(Addition, job, WHOLE, 8)
    assert reads == 2 * 16 * 6 * 3
    assert cycles <= max(reads, writes) + 100
