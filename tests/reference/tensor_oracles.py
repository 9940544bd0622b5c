"""Independent formulations of the tensor engine's operators: PyTorch's own layers in float64 (which hold these integers
exactly), Python's integers, and fractions. Nothing here is taken from nearflash."""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F


def rescale(value, mult, shift, bits):
    """round-half-up of value * mult / 2**shift, symmetric limits; plain integers."""
    top = 2 ** (bits - 1) - 1
    return max(-top, min(top, math.floor(Fraction(int(value) * int(mult), 2 ** int(shift)) + Fraction(1, 2) * (shift > 0))))


def conv(x, w, stride, pad, out, pad_value, groups=1):
    """x [H, W, C], w [O, kh, kw, C / groups]: torch's convolution of the padded image, [out_h, out_w, O]."""
    kh, kw = w.shape[1:3]
    below = max(0, (out[0] - 1) * stride + kh - pad[0] - x.shape[0])
    right = max(0, (out[1] - 1) * stride + kw - pad[1] - x.shape[1])
    image = torch.tensor(x, dtype=torch.float64).permute(2, 0, 1)[None]
    image = F.pad(image, (pad[1], right, pad[0], below), value=pad_value)
    y = F.conv2d(image, torch.tensor(w, dtype=torch.float64).permute(0, 3, 1, 2), stride=stride, groups=groups)
    return y[0, :, : out[0], : out[1]].permute(1, 2, 0).long()


def transposed(x, w, stride, padding, output_padding):
    """x [H, W, C], w [C, O, kh, kw]: torch's transposed convolution, [out_h, out_w, O]."""
    image = torch.tensor(x, dtype=torch.float64).permute(2, 0, 1)[None]
    y = F.conv_transpose2d(image, torch.tensor(w, dtype=torch.float64), None, stride, padding, output_padding)
    return y[0].permute(1, 2, 0).round().long()


def tabled(function, before, after):
    """Codes of a function of -127 to 127 times ``before``, in steps of ``after``, by the C library's erf and tanh."""
    def gelu(x):
        return x * (1 + math.erf(x / math.sqrt(2))) / 2

    out = [{"gelu": gelu, "tanh": math.tanh}[function](q * before) / after for q in range(-127, 128)]
    return [max(-127.0, min(127.0, v)) for v in out]


def pool(x, side):
    return (F.avg_pool2d(torch.tensor(x, dtype=torch.float64).permute(2, 0, 1)[None], side)[0] * side * side
            ).round().long().permute(1, 2, 0)


def finish(acc, bias, mult, shift, residual, residual_mult, residual_shift, offset, frac, low, high, table):
    """The epilogue, element by element, on nested lists [pixel][channel]."""
    out = []
    for p, pixel in enumerate(acc):
        row = []
        for c, a in enumerate(pixel):
            total = Fraction(rescale(a + bias[c], mult[c], shift[c], 24) + offset)
            if residual is not None:
                total += rescale(residual[p][c], residual_mult, residual_shift, 24)
            y = math.floor(total / 2**frac + (Fraction(1, 2) if frac else 0))
            y = max(low, min(high, y))
            row.append(table[y + 128] if table is not None else y)
        out.append(row)
    return out


def norm(x, gain, bias, shift, eps, low, high):
    """LayerNorm of one pixel, a list of codes, by the definition's exact integers and math.isqrt."""
    c = len(x)
    spread = c * sum(v * v for v in x) - sum(x) ** 2 + eps
    k = 0
    while spread >= Fraction(2) ** (24 + k):
        k += 2
    while spread < Fraction(2) ** (22 + k):
        k -= 2
    mantissa = math.floor(spread / Fraction(2) ** k)
    recip = min(2**31 // math.isqrt(mantissa << 8), 65535)
    out = []
    for i, v in enumerate(x):
        z = rescale(c * v - sum(x), recip, 17 + k // 2, 16)
        y = math.floor(Fraction(z * gain[i] + bias[i], 2 ** shift[i]) + (Fraction(1, 2) if shift[i] else 0))
        out.append(max(low, min(high, y)))
    return out


def attend(q, k, v, heads, score, value, low, high):
    """softmax(q k^T) v in Python's integers; q [T][C], k and v [keys][C] lists; score and value (mult, shift)."""
    d = len(q[0]) // heads
    out = [[0] * len(q[0]) for _ in q]
    for h in range(heads):
        span = range(h * d, (h + 1) * d)
        for t, row in enumerate(q):
            s = [sum(row[c] * key[c] for c in span) for key in k]
            e = []
            for one in s:
                u = rescale(max(s) - one, *score, 13)
                step = round(127 * 256 * 2.0 ** (-(u % 256) / 256))
                e.append(math.floor(Fraction(step, 2 ** (u // 256)) + (Fraction(1, 2) if u >= 256 else 0)))
            total = sum(e)
            m = total.bit_length()
            r = min(2 ** (15 + m) // total, 65535) * value[0] // 65536
            for c in span:
                y = rescale(sum(a * b[c] for a, b in zip(e, v, strict=True)), r, m + value[1], 24)
                out[t][c] = max(low, min(high, y))
    return out
