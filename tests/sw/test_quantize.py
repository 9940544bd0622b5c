"""Multipliers, table bytes against torch's own operators, calibration, and the parameter image's layout."""

import math
import struct
from dataclasses import replace

import model_cases
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nearflash.contract import DataError, DeviceConfig, ModelError, Node, RowFormat, cores
from nearflash.contract.program import expected_records
from nearflash.models import RecModel, build
from nearflash.quantize import Calibrator, CompiledModel, compile_model, encode_rows
from nearflash.quantize.image import weight_words
from nearflash.quantize.scales import multiplier
from nearflash.quantize.tables import largest_magnitude


@given(st.floats(2.0**-46, 2.0**15))
def test_multiplier_is_nearest(ratio):
    mult, shift = multiplier(ratio, "x")
    assert 1 << 15 <= mult < 1 << 16
    assert 0 <= shift <= 62
    assert abs(mult * 2.0**-shift - ratio) <= ratio * 2.0**-16


def test_multiplier_corners():
    assert multiplier(1.0, "x") == (1 << 15, 15)
    assert multiplier(2 - 2.0**-20, "x") == (1 << 15, 14)  # rounds up to a power of two
    assert multiplier(65535.0, "x") == (65535, 0)
    assert multiplier(2.0**-62, "x") == (1, 62)
    assert multiplier(2.0**-70, "x") == (0, 62)
    assert multiplier(2.0**100, "x", low=-128, high=127) == (1 << 15, -85)
    for bad in (2.0**16, 0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ModelError):
            multiplier(bad, "x")


@pytest.mark.parametrize("seed", range(3))
def test_int8_rows_are_fbgemms(seed):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(200, 32, generator=g) * torch.logspace(-6, 4, 200)[:, None]
    w[0], w[1, :16] = 0.25, 0.0  # a constant row, a row with a zero minimum
    want = torch.ops.quantized.embedding_bag_byte_prepack(w).numpy()
    assert np.array_equal(encode_rows(w.numpy(), RowFormat.INT8), want)


def test_fp16_and_fp32_rows():
    w = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    assert encode_rows(w, RowFormat.FP32).tobytes() == w.tobytes()
    assert encode_rows(w, RowFormat.FP16).tobytes() == torch.tensor(w).half().numpy().tobytes()
    assert largest_magnitude(encode_rows(w, RowFormat.FP32), RowFormat.FP32, 8) == np.abs(w).max()
    q = encode_rows(w, RowFormat.INT8)
    tail = np.ascontiguousarray(q[:, 8:]).view("<f4")
    assert largest_magnitude(q, RowFormat.INT8, 8) == pytest.approx(
        max((tail[:, 0].astype(np.float64) * 255).max(), np.abs(tail[:, 1]).max()))


@pytest.mark.parametrize(("value", "format"), [(np.nan, RowFormat.FP32), (np.inf, RowFormat.INT8), (70000, RowFormat.FP16),
                                               (-np.inf, RowFormat.FP16)])
def test_bad_rows_are_named(value, format):
    w = np.zeros((6, 4), np.float32)
    w[4, 2] = value
    with pytest.raises(DataError, match=r"t\[4, 2\]"):
        encode_rows(w, format, "t")


@pytest.mark.parametrize("scan", ["row", "column"])
@pytest.mark.parametrize(("bits", "kr", "kc", "beat"), [(8, 2, 4, 16), (16, 4, 2, 8), (8, 1, 1, 8), (8, 8, 4, 16)])
def test_weight_word_order(scan, bits, kr, kc, beat):
    node = Node("f", "fc", 5, ("t",), kr=kr, kc=kc, scan=scan, weight_bits=bits)
    core = cores((Node("t", "tables", 7, tables=(0,)), node))[0]
    w = np.arange(1, 36).reshape(5, 7) * (-1) ** np.arange(35).reshape(5, 7)
    image = weight_words(core, w, beat)
    rb, cb = -(-5 // kr), -(-7 // kc)
    word = max(beat, kr * kc * bits // 8)
    assert len(image) == rb * cb * word
    for step in range(rb * cb):  # the contract's sentence, element by element
        r, c = (step // cb, step % cb) if scan == "row" else (step % rb, step // rb)
        for i in range(kr):
            for j in range(kc):
                at = step * word + (i * kc + j) * bits // 8
                value = int.from_bytes(image[at : at + bits // 8], "little", signed=True)
                row, col = r * kr + i, c * kc + j
                assert value == (w[row, col] if row < 5 and col < 7 else 0)


@pytest.mark.parametrize("name", sorted(model_cases.SPECS))
def test_image_holds_what_the_device_expects(name):
    _, c = model_cases.compiled(name)
    at, found = 0, {}
    while at < len(c.image):
        target, units, address = struct.unpack_from("<IIQ", c.image, at)
        assert target not in found
        assert address == 0
        found[target] = units
        at += 16 + 16 * units
    assert at == len(c.image)
    assert found == expected_records(c.config)


@pytest.mark.parametrize("name", sorted(model_cases.SPECS))
def test_save_and_load(name, tmp_path):
    _, c = model_cases.compiled(name)
    path = tmp_path / "m.npz"
    c.save(path)
    d = CompiledModel.load(path)
    assert (d.config, d.tables, d.image, d.dense_quant, d.meta) == (c.config, c.tables, c.image, c.dense_quant, c.meta)
    assert all(np.array_equal(a, b) for a, b in zip(c.rows, d.rows, strict=True))
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            CompiledModel.load(path)


def test_calibration_methods():
    spec = model_cases.SPECS["cat"]
    model = RecModel(spec)
    limits = {}
    for method in ("max", "percentile", "mse"):
        c = Calibrator(method, 99.0)
        c.observe(model, [model_cases.queries(spec, 64, seed=i) for i in range(3)])
        limits[method] = c.limit(["dense"])
    values = np.abs(np.concatenate([model_cases.queries(spec, 64, seed=i)[0].ravel() for i in range(3)]))
    assert limits["max"] == values.max()
    assert limits["percentile"] == pytest.approx(np.percentile(values, 99))

    def error(clip):
        q = np.clip(np.rint(values * 127 / clip), -127, 127) * clip / 127
        return np.square(q - values).sum()

    assert error(limits["mse"]) <= error(limits["max"])
    assert limits["percentile"] < limits["mse"] <= limits["max"]
    with pytest.raises(DataError, match="method"):
        Calibrator("median")
    with pytest.raises(DataError, match="batch"):
        Calibrator().observe(model, [])


def test_scales_of_a_dot_are_shared_and_tables_of_a_cat_are_not():
    _, c = model_cases.compiled("dot")
    assert len({(t.quant_mult, t.quant_shift) for t in c.tables}) == 1
    _, c = model_cases.compiled("cat")
    assert len({(t.quant_mult, t.quant_shift) for t in c.tables}) == 3


def test_nan_and_foreign_configs_are_refused():
    spec = model_cases.SPECS["cat"]
    model, c = model_cases.compiled("cat")
    batches = [model_cases.queries(spec, 8)]
    with torch.no_grad():
        model.linears["top1"].weight[2, 3] = float("nan")
    with pytest.raises(DataError, match=r"linears\.top1\.weight"):
        compile_model(model, c.config, batches)
    model = RecModel(spec)
    with torch.no_grad():
        model.embeddings[1].weight[2, 3] = float("inf")
    with pytest.raises(DataError, match=r"embeddings\.1"):
        compile_model(model, c.config, batches)
    with pytest.raises(ModelError, match="compiled for"):
        compile_model(RecModel(model_cases.SPECS["wide"]), c.config, batches)
    small = replace(c.config, lookup=replace(c.config.lookup, max_bag=4))
    with pytest.raises(ModelError, match=r"tables\[0\]"):
        compile_model(RecModel(spec), small, batches)


def test_extreme_parameters_stay_in_range():
    """Zero rows, huge biases, dead tables: every integer stays in its field, and the biases survive."""
    spec = model_cases.SPECS["cat"]
    config = model_cases.compiled("cat")[1].config
    model = RecModel(spec)
    with torch.no_grad():
        model.linears["bot0"].weight[3] = 0
        model.linears["bot0"].bias[3] = 0
        model.linears["top0"].weight[2] *= 1e-12
        model.linears["top0"].bias[2] = 1e3
        model.embeddings[2].weight.zero_()
        model.linears["top2"].weight.zero_()
        model.linears["top2"].bias.fill_(-3.25)
    c = compile_model(model, config, [model_cases.queries(spec, 16)])
    for p in c.params.fc.values():
        assert ((p.mult >= 0) & (p.mult < 1 << 16)).all()
        assert ((p.shift >= 0) & (p.shift <= 62)).all()
        assert (np.abs(p.weight.astype(int)) <= 127).all()
    from nearflash.reference.model import IntegerModel
    logits = IntegerModel(c).logits(*model_cases.queries(spec, 4))[1]
    assert np.allclose(logits, -3.25, rtol=1e-4)


def test_sixteen_bits_are_closer():
    from nearflash.reference.model import distance
    spec = model_cases.SPECS["cat"]
    data = model_cases.calibration(spec)  # no clipping, so rounding is all there is
    base = DeviceConfig.preset("tiny")
    errors = [distance(*model_cases.compiled("cat", base, weight_bits=b, act_bits=b), data).mean_error for b in (8, 16)]
    assert errors[1] < errors[0] / 50


def test_models_without_dense_features_calibrate():
    calibrator, model = Calibrator(), build("ncf", rows=20)
    calibrator.observe(model, [(None, [(np.arange(3), np.arange(3))] * 4)])
    assert calibrator.limit(["top0"]) > 0
