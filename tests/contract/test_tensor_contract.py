"""The tensor engine's contract: configurations, descriptors and their refusals, images against bytes laid out by hand."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import ConfigError, DeviceConfig, TensorConfig
from nearflash.contract import tensor as t
from nearflash.contract.tensor_image import (
    pack_depthwise,
    pack_entries,
    pack_tensor,
    pack_weights,
    unpack_tensor,
    unpack_weights,
)

ENGINE = TensorConfig(rows=16, columns=16, dram_bytes=1 << 20)
BEAT = 16


def conv(**changes):
    fields = dict(in_height=6, in_width=5, in_channels=3, out_channels=20, out_height=6, out_width=5, kernel_h=3, kernel_w=3,
                  stride=1, pad_top=1, pad_left=1, pad_value=-127, low=-127, high=127, tile_rows=3, tile_columns=5, x=0x1000,
                  y=0x2000, weights=0x4000, entries=0x8000, number=1)
    return t.Descriptor(t.Op.CONV, **(fields | changes))


def test_a_device_has_an_engine_only_if_its_configuration_says_so():
    plain = DeviceConfig.preset("paper")
    with_engine = replace(plain, tensor=ENGINE)
    assert plain.layout.end == plain.layout.tensor
    assert with_engine.layout.end == with_engine.layout.tensor + (1 << 20)
    assert with_engine.design_id != plain.design_id
    assert replace(plain, tensor=TensorConfig(pixels=32)).design_id == plain.design_id  # of no engine
    assert DeviceConfig.from_toml(with_engine.to_toml()) == with_engine


@pytest.mark.parametrize(("name", "value"), [("rows", 3), ("rows", 128), ("columns", 4), ("columns", 8), ("rows", 1),
                                             ("columns", 128), ("pixels", 8), ("lanes", 32), ("depthwise", 3),
                                             ("depthwise", 8), ("depthwise", 32), ("input_bytes", 5000),
                                             ("weight_bytes", 4096), ("input_bytes", 1 << 21), ("max_channels", 32),
                                             ("max_keys", 2048), ("dram_bytes", 5000)])
def test_impossible_engines_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"tensor\.{name}"):
        replace(DeviceConfig.preset("paper"), tensor=replace(ENGINE, **{name: value}))


def test_limits_of_operators_that_an_engine_lacks_do_not_bind_it():
    array = replace(ENGINE, columns=32, max_keys=64, depthwise=8)
    with pytest.raises(ConfigError, match=r"tensor\.depthwise"):
        array.validate(BEAT)
    with pytest.raises(ConfigError, match=r"tensor\.max_keys"):
        replace(array, depthwise=32).validate(BEAT)
    replace(array, operators=("conv", "pool")).validate(BEAT)


def test_descriptor_bits_lie_where_the_layout_says():
    raw = t.pack(conv(offset=-5, frac=12, shuffle=2))
    w = struct.unpack("<32I", raw)
    assert w[0] == 1 | 1 << 8 | 1 << 24
    assert (w[2], w[5], w[6], w[7]) == (0x1000, 0x2000, 0x4000, 0x8000)
    assert (w[9], w[10], w[11]) == (6 | 5 << 16, 3 | 20 << 16, 6 | 5 << 16)
    assert w[12] == 3 | 3 << 4 | 1 << 8 | 1 << 12 | 1 << 16 | 2 << 20 | 0x81 << 24
    assert w[13] == (-127 & 0xFFFF) | 127 << 16
    assert (w[14], w[15]) == (12 << 24, -5 & 0xFFFFFFFF)
    assert w[31] == zlib.crc32(raw[:124])
    assert t.unpack(raw, 1) == conv(offset=-5, frac=12, shuffle=2)


def test_fields_do_not_overlap():
    taken = {}
    for f in t.FIELDS:
        for bit in range(f.lsb, f.lsb + f.bits):
            assert bit < 32
            assert (f.word, bit) not in taken, (f.name, taken[f.word, bit])
            taken[f.word, bit] = f.name
    assert {name for used in t.USES.values() for name in used} <= {f.name for f in t.FIELDS}


def test_any_flipped_bit_is_noticed():
    raw = t.pack(conv())
    for bit in range(len(raw) * 8):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(t.DescriptorError, match=r"descriptor\[1\]\.crc"):
            t.unpack(bytes(broken), 1)


def resealed(d, word, value):
    words = list(struct.unpack("<32I", t.pack(d)))
    words[word] = value
    body = struct.pack("<31I", *words[:31])
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(("word", "value", "field"), [
    (0, 9 | 1 << 8 | 1 << 24, "op"), (0, 1 | 1 << 8 | 2 << 24, "version"), (0, 1 | 2 << 8 | 1 << 24, "number"),
    (0, 0 | 1 << 8 | 1 << 24, "number"), (29, 1, "word29"), (1, 1, "x16"), (16, 1, "heads"), (14, 15 << 24, "frac"),
    (12, 9, "kernel_h"), (13, 0x8000, "low")])
def test_sealed_nonsense_is_refused_by_name(word, value, field):
    with pytest.raises(t.DescriptorError, match=rf"descriptor\[1\]\.{field}") as e:
        t.unpack(resealed(conv(), word, value), 1)
    assert (e.value.number, e.value.word) == (1, word)


@pytest.mark.parametrize(("changes", "field"), [
    ({"x": 0x1001}, "x"), ({"y": 1 << 20}, "y"), ({"weights": (1 << 20) - 64}, "weights"), ({"in_height": 0}, "in_height"),
    ({"in_channels": 2000}, "in_channels"), ({"out_channels": 257, "shuffle": 2}, "out_channels"), ({"stride": 0}, "stride"),
    ({"out_height": 16384, "shuffle": 4}, "out_height"), ({"out_width": 32768, "shuffle": 2}, "out_width"),
    ({"tile_rows": 0}, "tile_rows"), ({"tile_columns": 0}, "tile_columns"), ({"tile_rows": 13}, "tile_rows"),
    ({"in_channels": 800, "entries": 0x9000}, "tile_rows"), ({"group_blocks": 8}, "group_blocks"),
    ({"x": 0x2380}, "x"), ({"residual": 1, "r": 0x2000}, "r"), ({"weights": 0x2300}, "weights"),
    ({"table": 0x1F40, "lookup": 1}, "table"),
    ({"pad_top": 3}, "pad_top"), ({"out_height": 8}, "out_height"), ({"out_width": 10}, "out_width"),
    ({"low": 100, "high": 7}, "low"), ({"high": 200}, "high"), ({"lookup": 1, "y16": 1, "table": 64}, "lookup")])
def test_descriptors_that_do_not_agree_are_refused(changes, field):
    t.check(conv(), ENGINE, BEAT)
    with pytest.raises(t.DescriptorError, match=rf"descriptor\[1\]\.{field} "):
        t.check(conv(**changes), ENGINE, BEAT)


@pytest.mark.parametrize("changes", [
    {"tile_rows": 12}, {"tile_rows": 64, "tile_columns": 1}, {"group_blocks": 7}, {"out_channels": 256, "shuffle": 2},
    {"in_channels": 896, "tile_rows": 1, "tile_columns": 4}, {"x": 0x23C0}, {"x": 0x2000 - 30 * 16 - 32}])
def test_limits_are_reached(changes):
    """Tiles, groups and neighbours as large or as close as they may be: y takes 0x3C0 bytes."""
    away = {"weights": 0x20000, "entries": 0xC000}
    away |= {"y": 0x60000} if "shuffle" in changes else {"x": 0x60000} if "in_channels" in changes else {}
    t.check(conv(**(away | changes)), ENGINE, BEAT)


@pytest.mark.parametrize(("op", "changes", "field"), [
    (t.Op.POOL, {"kernel_h": 2, "kernel_w": 2, "stride": 2, "out_height": 3, "out_width": 2}, "out_width"),
    (t.Op.POOL, {"kernel_h": 2, "kernel_w": 2, "stride": 1, "out_height": 3, "out_width": 2}, "stride"),
    (t.Op.ADD, {"out_height": 7, "out_width": 5}, "out_height"),
    (t.Op.LAYERNORM, {"out_height": 6, "out_width": 5}, "eps_low"),
    (t.Op.ATTENTION, {"out_height": 6, "out_width": 5, "heads": 2, "head_dim": 15, "keys": 4, "value_mult": 1 << 15},
     "heads"),
    (t.Op.ATTENTION, {"out_height": 6, "out_width": 5, "heads": 4, "head_dim": 8, "keys": 4, "value_mult": 1 << 15},
     "head_dim"),
    (t.Op.ATTENTION, {"out_height": 6, "out_width": 5, "heads": 2, "head_dim": 16, "keys": 0, "value_mult": 1 << 15},
     "keys"),
    (t.Op.ATTENTION, {"out_height": 6, "out_width": 5, "heads": 1, "head_dim": 32, "keys": 513, "value_mult": 1 << 15},
     "keys"),
    (t.Op.ATTENTION, {"out_height": 6, "out_width": 5, "heads": 2, "head_dim": 16, "keys": 3, "value_mult": 7},
     "value_mult"),
    (t.Op.DEPTHWISE, {"out_height": 6, "out_width": 5, "in_channels": 160, "out_channels": 160, "kernel_h": 8,
                      "kernel_w": 8, "stride": 1, "tile_rows": 1, "tile_columns": 1}, "kernel_h")])
def test_other_operators_refuse_too(op, changes, field):
    fields = dict(in_height=6, in_width=5, in_channels=32, out_channels=32, low=-127, high=127, y=0x1000, number=2)
    with pytest.raises(t.DescriptorError, match=rf"descriptor\[2\]\.{field} "):
        t.check(t.Descriptor(op, **(fields | changes)), ENGINE, BEAT)


def test_weight_words_hold_a_step_each():
    w = np.arange(20 * 9 * 11, dtype=np.int64).reshape(20, 3, 3, 11).astype(np.int8)
    array = replace(ENGINE, columns=8)
    raw = np.frombuffer(pack_weights(w, array), np.int8)
    words = raw.reshape(2, 9, 2, 16, 8)  # output block, tap, channel block, row, column
    for o, i, j, c in ((0, 0, 0, 0), (17, 2, 1, 10), (19, 1, 2, 7)):
        assert words[o // 16, 3 * i + j, c // 8, o % 16, c % 8] == w[o, i, j, c]
    assert not words[1, :, :, 4:].any()
    assert not words[:, :, 1, :, 3:].any()
    assert (unpack_weights(raw, w.shape, array) == w).all()


def test_groups_of_a_shuffle_take_whole_blocks():
    w = np.arange(4 * 20 * 3, dtype=np.int64).reshape(80, 1, 1, 3).astype(np.int8)
    raw = np.frombuffer(pack_weights(w, ENGINE, 4), np.int8)
    words = raw.reshape(4, 2, 1, 16, 16)  # group, block, step, row, column
    for group in range(4):
        assert (words[group, 0, 0, :, :3] == w[20 * group:20 * group + 16, 0, 0]).all()
        assert (words[group, 1, 0, :4, :3] == w[20 * group + 16:20 * group + 20, 0, 0]).all()
        assert not words[group, 1, 0, 4:].any()
    assert (unpack_weights(raw, w.shape, ENGINE, 4) == w).all()
    d = conv(in_channels=3, out_channels=20, kernel_h=1, kernel_w=1, shuffle=2, pad_top=0, pad_left=0)
    assert t.spans(d, ENGINE, BEAT)["weights"] == (0x4000, len(raw))
    assert t.spans(d, ENGINE, BEAT)["entries"] == (0x8000, 80 * 16)


def test_tensors_are_padded_to_beats():
    x = np.arange(-12, 12, dtype=np.int16).reshape(2, 2, 6)
    raw = pack_tensor(x, BEAT)
    assert raw == b"".join(struct.pack("<6h", *x[i, j]) + bytes(4) for i in range(2) for j in range(2))
    assert (unpack_tensor(np.frombuffer(raw, np.uint8), x.shape, True, BEAT) == x).all()
    assert pack_depthwise(x[:1].astype(np.int8), 8) == b"".join(struct.pack("<6b", *x[0, j]) + bytes(2) for j in range(2))
    assert pack_entries(np.array([-3]), np.array([65535]), np.array([62])) == struct.pack("<qiI", -3, 65535, 62)
