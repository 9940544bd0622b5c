"""Random operators of the tensor engine: each compares the integer model with the oracle on one random shape."""

import numpy as np
import tensor_oracles as oracle
import torch
from nearflash.offload.ops import TABLES
from nearflash.offload.scales import table_codes
from nearflash.offload.transposed import as_convolution
from nearflash.reference import tensor


def codes(rng, shape, bits=8):
    """Random codes; one time in four from the corners alone."""
    top = 2 ** (bits - 1) - 1
    if rng.random() < 0.25:
        return rng.choice([-top, -1, 0, 1, top], shape)
    return rng.integers(-top, top + 1, shape)


def scales(rng, count, size):
    """Multipliers and shifts that bring accumulators of about ``size`` to about 8 bits, now and then anything."""
    mult = rng.integers(1 << 15, 1 << 16, count)
    shift = np.full(count, max(0, 16 + int(np.log2(size + 1)) - int(rng.integers(5, 16))))
    if rng.random() < 0.1:
        mult, shift = rng.integers(0, 1 << 16, count), rng.integers(0, 63, count)
    return mult, shift


def finished(rng, acc, size):
    """The epilogue of ``acc`` [H, W, C], with a residual or a table now and then."""
    c = acc.shape[2]
    mult, shift = scales(rng, c, size)
    bias = rng.integers(-(1 << 20), 1 << 20, c)
    residual = codes(rng, acc.shape, int(rng.choice([8, 16]))) if rng.random() < 0.5 else None
    wide = rng.random() < 0.3
    table = None if wide or rng.random() < 0.7 else codes(rng, 256)
    top = 32767 if wide else 127
    low, high = (0 if rng.random() < 0.3 else -top), top
    frac, offset = int(rng.integers(0, 15)), int(rng.integers(-5000, 5000))
    rm, rs = (int(v[0]) for v in scales(rng, 1, 128))
    got = tensor.epilogue(acc, tensor.Scale(mult, shift), low, high, bias=bias, residual=residual,
                          residual_scale=tensor.Scale(rm, rs), offset=offset, frac=frac, table=table)
    want = oracle.finish(acc.reshape(-1, c).tolist(), bias.tolist(), mult.tolist(), shift.tolist(),
                         None if residual is None else residual.reshape(-1, c).tolist(), rm, rs, offset, frac, low, high,
                         None if table is None else table.tolist())
    assert got.reshape(-1, c).tolist() == want


def window(rng):
    kernel, stride = (int(rng.integers(1, 6)), int(rng.integers(1, 6))), int(rng.integers(1, 4))
    pad = tuple(int(rng.integers(0, k)) for k in kernel)
    size = tuple(int(rng.integers(max(1, k - p), 12)) for k, p in zip(kernel, pad, strict=True))
    least = [(n + p - k) // stride + 1 for n, p, k in zip(size, pad, kernel, strict=True)]
    most = [(n + p - 1) // stride + 1 for n, p in zip(size, pad, strict=True)]
    out = tuple(int(rng.integers(max(1, a), max(1, a, b) + 1)) for a, b in zip(least, most, strict=True))
    return kernel, stride, pad, size, out


def check_conv(rng):
    kernel, stride, pad, size, out = window(rng)
    c, o = int(rng.integers(1, 40 if kernel[0] > 1 else 1300)), int(rng.integers(1, 12))
    x, w, value = codes(rng, (*size, c)), codes(rng, (o, *kernel, c)), int(rng.choice([0, -127]))
    acc = tensor.convolve(x, w, stride, pad, out, value)
    assert acc.tolist() == oracle.conv(x, w, stride, pad, out, value).tolist()
    finished(rng, acc[:3, :3], 127 * 127 * (c * kernel[0] * kernel[1]) ** 0.5)


def transposed_shape(rng):
    """(input size, kernel, stride, padding, output padding) of a transposed convolution whose output the stride divides."""
    while True:
        stride = int(rng.integers(1, 5))
        size, kernel = (tuple(int(v) for v in rng.integers(1, 8, 2)) for _ in range(2))
        pad = tuple(int(rng.integers(0, k)) for k in kernel)
        # torch takes less than the stride; what the kernel leaves out altogether is bias alone
        more = tuple((2 * p - k) % stride for p, k in zip(pad, kernel, strict=True))
        if all((n - 1) * stride - 2 * p + k + m > 0 for n, p, k, m in zip(size, pad, kernel, more, strict=True)):
            return size, kernel, stride, pad, more


def check_transposed(rng):
    size, kernel, stride, pad, more = transposed_shape(rng)
    if rng.random() < 0.3:
        kernel, pad, more = (stride, stride), (0, 0), (0, 0)
    c, o = int(rng.integers(1, 20)), int(rng.integers(1, 6))
    x, w = codes(rng, (*size, c)), codes(rng, (c, o, *kernel))
    want = oracle.transposed(x, w, stride, pad, more)
    spread, before = as_convolution(w, stride, pad)
    if kernel == (stride, stride) and pad == (0, 0):
        assert spread.shape[1:3] == (1, 1)
    out = (want.shape[0] // stride, want.shape[1] // stride)
    assert all(n - 1 < i + b for n, i, b in zip(out, size, before, strict=True))  # as the engine asks
    acc = tensor.convolve(x, spread, 1, before, out)
    shuffled = torch.pixel_shuffle(torch.tensor(acc).permute(2, 0, 1)[None], stride)[0].permute(1, 2, 0)
    assert shuffled.tolist() == want.tolist()


def check_table(rng):
    function, name = [(f, str(op).split(".")[1]) for op, f in TABLES.items()][int(rng.integers(0, len(TABLES)))]
    before, after = (float(v) for v in 2 ** rng.uniform(-12, 0, 2))
    exact = np.array(oracle.tabled(name, before, after))
    assert np.abs(table_codes(function, before, after)[1:] - exact).max() <= 0.5 + 1e-9


def check_depthwise(rng):
    kernel, stride, pad, size, out = window(rng)
    c = int(rng.integers(1, 24))
    x, w, value = codes(rng, (*size, c)), codes(rng, (*kernel, c)), int(rng.choice([0, -127]))
    acc = tensor.depthwise(x, w, stride, pad, out, value)
    assert acc.tolist() == oracle.conv(x, w.transpose(2, 0, 1)[..., None], stride, pad, out, value, groups=c).tolist()
    finished(rng, acc[:3, :3], 127 * 127 * 3)


def check_pool(rng):
    side = int(rng.integers(1, 9))
    x = codes(rng, (side * int(rng.integers(1, 4)), side * int(rng.integers(1, 4)), int(rng.integers(1, 9))),
              int(rng.choice([8, 16])))
    acc = tensor.pool(x, side)
    assert acc.tolist() == oracle.pool(x, side).tolist()
    finished(rng, acc, 127 * side)


def check_add(rng):
    finished(rng, codes(rng, (int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 20))),
                        int(rng.choice([8, 16]))), 127)


def check_layer_norm(rng):
    c, bits = int(rng.integers(1, 300)), int(rng.choice([8, 16]))
    x = codes(rng, (int(rng.integers(1, 4)), c), bits)
    if rng.random() < 0.2:
        x = np.full_like(x, x[0, 0])  # no variance at all
    gain, shift = rng.integers(-32767, 32768, c), rng.integers(12, 24, c)
    bias, eps = rng.integers(-(1 << 20), 1 << 20, c), int(rng.integers(1, 1 << int(rng.integers(1, 47))))
    low = int(rng.choice([-127, 0]))
    got = tensor.layer_norm(x, gain, bias, shift, eps, low, 127)
    assert got.tolist() == [oracle.norm(r, gain.tolist(), bias.tolist(), shift.tolist(), eps, low, 127) for r in x.tolist()]


def check_attention(rng):
    heads, d, tokens = int(rng.integers(1, 4)), int(rng.integers(1, 33)), int(rng.integers(1, 5))
    if rng.random() < 0.1:
        d = int(rng.integers(33, 129))
    keys = int(rng.integers(1, 80))
    q, k, v = (codes(rng, (n, heads * d)) for n in (tokens, keys, keys))
    score = (int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(14, 30)))
    value = (int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(11, 18)))
    got = tensor.attention(q, k, v, heads, tensor.Scale(*score), tensor.Scale(*value), -127, 127)
    assert got.tolist() == oracle.attend(q.tolist(), k.tolist(), v.tolist(), heads, score, value, -127, 127)


CHECKS = {"conv": check_conv, "transposed": check_transposed, "table": check_table, "depthwise": check_depthwise,
          "pool": check_pool, "add": check_add, "layer_norm": check_layer_norm, "attention": check_attention}
