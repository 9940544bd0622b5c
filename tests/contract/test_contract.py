"""The contract: configurations validated once with field, value and limit; formats against independently packed bytes."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearflash.contract import PRESETS, ConfigError, DataError, DeviceConfig, MlpConfig, Node, RowFormat, TableSpec, cores
from nearflash.contract import program as pg
from nearflash.contract.boards import find_board
from nearflash.contract.nvme import CQE, SQE_BYTES, Opcode, sqe
from nearflash.contract.registers import Field, Register, counters, doorbell, queue_register, register_map
from nearflash.contract.table import DESCRIPTOR_WORDS, Extent, PoolMode, magic_divide

GRAPH = (
    Node("dense", "dense", 7), Node("emb", "tables", 16, tables=(0, 1)),
    Node("bot", "fc", 8, ("dense",), relu=True, kr=4, kc=2),
    Node("dot", "dot", 3, ("bot", "emb"), dim=8),
    Node("top", "fc", 5, ("bot", "dot"), kr=2, kc=4, kc_split=(4, 1), decomposed=True, scan="column", weights="dram"),
    Node("out", "fc", 1, ("top",)),
)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_round_trip_through_toml(name):
    c = DeviceConfig.preset(name)
    assert DeviceConfig.from_toml(c.to_toml()) == c
    with_graph = replace(c, mlp=MlpConfig(GRAPH, act_bits=16, n_batch=2))
    again = DeviceConfig.from_toml(with_graph.to_toml())
    assert again == with_graph
    assert again.design_id != c.design_id


def test_paper_timing():
    # RM-SSD: C_EV = ceil((60 * EV / page + 140) * 20) cycles
    for dies in (1, 2, 4):
        c = DeviceConfig.preset("paper", dies=dies)
        for ev in (128, 256, 4096):
            assert c.read_cycles_per_vector(ev) == -(-(60 * ev + 140 * 4096) * 20 // 4096)
    # inferences per second at the flash-bound ceiling, RMC1, D = 1, 2, 4, and RMC2
    for dies, rmc1, rmc2 in ((1, 441, 72), (2, 881, 145), (4, 1762, 290)):
        c = DeviceConfig.preset("paper", dies=dies)
        assert 200e6 / (640 * c.ceiling_cycles_per_lookup(128)) == pytest.approx(rmc1, abs=1)
        assert 200e6 / (3840 * c.ceiling_cycles_per_lookup(256)) == pytest.approx(rmc2, abs=1)


@pytest.mark.parametrize(("field", "value"), [
    ("channels", 3), ("channels", 0), ("channels", 32), ("dies", True), ("page_bytes", 100), ("page_bytes", 4096.0),
    ("oob_bytes", 20), ("t_read_ns", 0), ("pages", -4), ("blocks", "many"),
])
def test_bad_flash_names_field_value_and_limit(field, value):
    with pytest.raises(ConfigError) as e:
        DeviceConfig.preset("paper", **{field: value})
    assert e.value.field == f"flash.{field}"
    assert e.value.value == value
    assert repr(value) in str(e.value)
    assert "must be" in str(e.value)


@pytest.mark.parametrize(("text", "field"), [
    ("preset = 'nope'", "preset"), ("colour = 1", "colour"), ("[flash]\nchanels = 4", "flash.chanels"),
    ("beat_bytes = 12", "beat_bytes"), ("clock_mhz = 0", "clock_mhz"), ("[lookup]\ntags = 100", "lookup.tags"),
    ("[lookup]\nformats = []", "lookup.formats"), ("[lookup]\nformats = ['fp8']", "lookup.formats"),
    ("[lookup]\nformats = ['int8', 'fp32']", "lookup.formats"), ("[lookup]\nmodes = ['sum', 'sum']", "lookup.modes"),
    ("[host]\nqueue_pairs = 1", "host.queue_pairs"), ("[mlp]\nact_bits = 4", "mlp.act_bits"), ("x = = 1", "toml"),
    ("[[mlp.graph]]\nname = 'a'\nkind = 'conv'\nwidth = 4", "mlp.graph[a].kind"),
])
def test_bad_toml_names_the_field(text, field):
    with pytest.raises(ConfigError) as e:
        DeviceConfig.from_toml(text)
    assert e.value.field == field


@pytest.mark.parametrize(("text", "field"), [
    ("clock_mhz = true", "clock_mhz"), ("clock_mhz = 'fast'", "clock_mhz"), ("clock_mhz = nan", "clock_mhz"),
    ("clock_mhz = inf", "clock_mhz"), ("clock_mhz = [200]", "clock_mhz"), ("beat_bytes = 16.0", "beat_bytes"),
    ("name = 3", "name"), ('name = "a\\nb"', "name"), ("flash = 3", "flash"), ("mlp = []", "mlp"), ("preset = 3", "preset"),
    ("preset = ['tiny']", "preset"), ("flash = { dies = true }", "flash.dies"),
    ("flash = { t_read_ns = 1e3 }", "flash.t_read_ns"),
    ("flash = { t_read_ns = 99999999999999999999 }", "flash.t_read_ns"),
    ("flash = { t_read_ns = 2000000000 }", "flash.t_read_ns"), ("host = { max_batch = '4' }", "host.max_batch"),
    ("lookup = { map_cache_lines = 1073741824 }", "lookup.map_cache_lines"), ("mlp = { graph = 'x' }", "mlp.graph"),
    ("mlp = { graph = [3] }", "mlp.graph[0]"), ("mlp = { graph = [{}] }", "mlp.graph[0].name"),
    ("mlp = { packed = 1 }", "mlp.packed"), ("mlp = { primitive = [] }", "mlp.primitive"),
    ("mlp = { graph = [{ name = 'a', kind = 'dense', width = 4.0 }] }", "mlp.graph[0].width"),
    ("mlp = { graph = [{ name = 'a', kind = 'fc', width = 4, inputs = 'a' }] }", "mlp.graph[0].inputs"),
    ("mlp = { graph = [{ name = 'a', kind = 'tables', width = 4, tables = ['x'] }] }", "mlp.graph[0].tables"),
    ("beat_bytes = " + "9" * 5000, "toml"), ("x = " + "[" * 3000, "toml"),
])
def test_wrong_types_name_file_and_field(text, field, tmp_path):
    path = tmp_path / "device.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as e:
        DeviceConfig.from_toml(path)
    assert e.value.field == field
    assert str(e.value).startswith(f"{path}: {field} = ")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("field", "value", "limit"), [
    ("block_reads", 1, "must be from 2 to 64"), ("block_reads", 65, "must be from 2 to 64"),
    ("read_slots", 0, "must be an integer of at least 1"), ("read_slots", 17, "must be at most 16"),
    ("page_slots", 17, "must be at most 16")])
def test_what_block_io_has_in_flight_is_bounded(field, value, limit):
    c = DeviceConfig.preset("tiny")
    with pytest.raises(ConfigError, match=f"host.{field} = {value}: {limit}"):
        replace(c, host=replace(c.host, **{field: value}))


def test_names_survive_toml_and_do_not_change_the_design():
    c = replace(DeviceConfig.preset("tiny"), name='[/b] \U0001f600 "q"')
    assert DeviceConfig.from_toml(c.to_toml()) == c
    assert c.design_id == DeviceConfig.preset("tiny").design_id
    assert replace(c, clock_mhz=100).design_id == c.design_id
    assert replace(c, clock_mhz=101).design_id != c.design_id


def test_a_page_window_is_part_of_a_design_that_has_one():
    """And of no other: what is kept of devices without it (their design_id, their hand-off files) stays as it is."""
    off = DeviceConfig.preset("tiny")
    assert "page_window" not in off.to_dict()["lookup"]
    assert off.with_page_window(0) == off
    on = off.with_page_window(16)
    assert (on.lookup.page_window, on.flash.t_ccs_ns, on.flash.t_read_ns) == (16, 200, off.flash.t_read_ns)
    assert on.design_id not in (off.design_id, off.with_page_window(17).design_id)
    assert DeviceConfig.from_toml(on.to_toml()) == on
    assert DeviceConfig.preset("tlc").with_page_window(4).flash.t_ccs_ns == 300


def test_planes_are_part_of_a_design_that_has_them():
    off = DeviceConfig.preset("tiny", dies=2)
    assert "planes" not in off.to_dict()["flash"]
    on = DeviceConfig.preset("tiny", dies=2, planes=2)
    assert on.design_id != off.design_id
    assert DeviceConfig.from_toml(on.to_toml()) == on
    assert on.flash.ppn_bits == off.flash.ppn_bits  # the same flash, its blocks over more places
    assert (on.flash.channel_planes, on.flash.plane_blocks, off.flash.plane_blocks) == (4, 4, 8)
    assert off.flash.plane_names == ("die0", "die1")
    assert on.flash.plane_names == ("die0_plane0", "die1_plane0", "die0_plane1", "die1_plane1")
    assert {f"channel1_{plane}_busy" for plane in on.flash.plane_names} < set(counters(on))
    assert on.ceiling_cycles_per_lookup(32) == off.ceiling_cycles_per_lookup(32) / 2


@pytest.mark.parametrize(("planes", "flash", "says"), [
    (0, {}, "must be an integer of at least 1"), (3, {}, "must be a power of two of at most 4"),
    (8, {}, "must be a power of two of at most 4"), (4, {"blocks": 2}, r"must be at most flash.blocks .2."),
    (4, {"dies": 8}, "must be at most 2 with 8 dies: 16 planes a channel"), (True, {}, "must be an integer")])
def test_planes_have_limits(planes, flash, says):
    with pytest.raises(ConfigError, match=f"flash.planes = {planes}: {says}"):
        DeviceConfig.preset("tiny", planes=planes, **flash)


def test_the_longest_queue_first_is_part_of_a_design_that_has_it_and_needs_two_dies():
    off = DeviceConfig.preset("tiny", dies=2)
    assert "longest_queue_first" not in off.to_dict()["lookup"]
    on = replace(off, lookup=replace(off.lookup, longest_queue_first=True))
    assert on.design_id != off.design_id
    assert DeviceConfig.from_toml(on.to_toml()) == on
    with pytest.raises(ConfigError, match=r"lookup\.longest_queue_first = True: needs flash\.dies of at least 2"):
        replace(on, flash=replace(on.flash, dies=1))
    with pytest.raises(ConfigError, match=r"lookup\.longest_queue_first = 1"):
        replace(on, lookup=replace(on.lookup, longest_queue_first=1))


def test_lines_of_the_map_at_once_are_part_of_a_design_that_has_them():
    off = DeviceConfig.preset("tiny")
    assert "map_misses" not in off.to_dict()["lookup"]
    on = replace(off, lookup=replace(off.lookup, map_misses=4))
    assert len({on.design_id, off.design_id, replace(on, lookup=replace(on.lookup, map_misses=8)).design_id}) == 3
    assert DeviceConfig.from_toml(on.to_toml()) == on


@pytest.mark.parametrize(("misses", "says"), [
    (0, "must be an integer of at least 1"), (3, "must be a power of two of at most 8"),
    (16, "must be a power of two of at most 8"), (True, "must be an integer")])
def test_lines_of_the_map_at_once_have_limits(misses, says):
    c = DeviceConfig.preset("tiny")
    with pytest.raises(ConfigError, match=f"lookup.map_misses = {misses}: {says}"):
        replace(c, lookup=replace(c.lookup, map_misses=misses))


@pytest.mark.parametrize(("window", "ccs", "says"), [
    (-1, 200, "must be an integer of at least 0"), (4097, 200, "must be from 0 .off. to 4096 reads"),
    (8, 0, "needs flash.t_ccs_ns of at least 1"), (True, 200, "lookup.page_window = True")])
def test_a_page_window_has_limits_and_needs_a_change_read_column(window, ccs, says):
    c = DeviceConfig.preset("tiny", t_ccs_ns=ccs)
    with pytest.raises(ConfigError, match=f"lookup.page_window.*{says}" if ccs == 0 or window < 0 else says):
        replace(c, lookup=replace(c.lookup, page_window=window))


@pytest.mark.parametrize(("change", "field"), [
    (dict(index=2, kr=129), "kr"), (dict(index=2, kc=3), "kc"), (dict(index=2, scan="diagonal"), "scan"),
    (dict(index=2, inputs=("ghost",)), "inputs"),
    (dict(index=2, weight_bits=4), "weight_bits"), (dict(index=3, width=4), "width"), (dict(index=3, dim=3), "dim"),
    (dict(index=4, kc_split=(1,)), "kc_split"), (dict(index=1, tables=(0, 2)), "tables"),
    (dict(index=2, name="emb"), "name"),
])
def test_bad_graph_is_refused(change, field):
    i = change.pop("index")
    graph = (*GRAPH[:i], replace(GRAPH[i], **change), *GRAPH[i + 1 :])
    with pytest.raises(ConfigError) as e:
        replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(graph))
    assert field in e.value.field


def test_layout_regions_do_not_overlap():
    for name in PRESETS:
        c = DeviceConfig.preset(name)
        lay = c.layout
        sizes = [c.flash.total_pages * c.flash.page_bytes, c.flash.total_pages * c.flash.oob_bytes,
                 c.flash.channels * c.flash.dies * c.flash.blocks * 8, c.lbas * 4, 16, 0]
        starts = [lay.flash, lay.oob, lay.block_state, lay.map, lay.superblock, lay.weights, lay.end]
        for start, size, following in zip(starts, sizes, starts[1:], strict=False):
            assert start % 4096 == 0
            assert start + size <= following


def test_the_dram_a_device_takes_is_within_its_port_and_its_boards_memory():
    c = DeviceConfig.preset("paper")
    assert replace(c, flash=replace(c.flash, channels=16, dies=16, blocks=1024, pages=512)).layout.end < 1 << 40
    with pytest.raises(ConfigError, match=r"flash = '268435456 pages of 4096 B': .* \d{13} bytes: its port reaches 2\*\*40"):
        replace(c, flash=replace(c.flash, channels=16, dies=16, blocks=2048, pages=512))
    four = DeviceConfig.preset("paper", dies=4)
    for board, mib in (("pynq-z1", 512), ("pynq-z2", 512)):
        find_board(board).check_memory(c)
        with pytest.raises(ConfigError, match=rf"needs 1,041 MiB .*: {board} has {mib} MiB"):
            find_board(board).check_memory(four)
    tlc = DeviceConfig.preset("tlc")
    for board, mib in (("zcu104", "2,048"), ("kv260", "4,096"), ("xc7a200t", "4,096")):
        find_board(board).check_memory(four)
        with pytest.raises(ConfigError, match=f"needs 8,322 MiB .*: {board} has {mib} MiB"):
            find_board(board).check_memory(tlc)
    find_board("xcvu9p").check_memory(tlc)


def test_a_boards_memory_holds_exactly_its_size():
    c = DeviceConfig.preset("paper")
    board = find_board("pynq-z2")
    replace(board, dram_bytes=c.layout.end).check_memory(c)
    with pytest.raises(ConfigError, match="needs"):
        replace(board, dram_bytes=c.layout.end - 1).check_memory(c)


@pytest.mark.parametrize(("entries", "ok"), [(1, False), (2, True), (3, False), (4096, True), (8192, False)])
def test_queue_entries(entries, ok):
    c = DeviceConfig.preset("paper")
    if ok:
        assert replace(c, host=replace(c.host, queue_entries=entries)).host.queue_entries == entries
    else:
        with pytest.raises(ConfigError, match=f"host.queue_entries = {entries}: must be a power of two from 2"):
            replace(c, host=replace(c.host, queue_entries=entries))


def test_cores_and_program_records():
    c = replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(GRAPH))
    got = [(k.node, k.inputs, k.rows, k.columns, k.kr, k.kc, k.steps) for k in cores(GRAPH)]
    assert got == [("bot", ("dense",), 8, 7, 4, 2, 8), ("top", ("bot",), 5, 8, 2, 4, 6), ("top", ("dot",), 5, 3, 2, 1, 9),
                   ("out", ("top",), 1, 5, 1, 1, 5)]
    # core 0: 8 words of 8 bytes = 4 units; core 3: 5 words of 1 byte, padded to beats of 8 bytes: 40 bytes = 3 units
    assert pg.expected_records(c) == {0: 4, 3: 3, pg.EPILOGUE + 2: 8, pg.EPILOGUE + 4: 5, pg.EPILOGUE + 5: 1,
                                      pg.INTERACTION + 3: 1, pg.DENSE_QUANT: 1, pg.LOGIT_FORMAT: 1}
    assert pg.dram_weight_address(c, cores(GRAPH)[1]) == c.layout.weights
    assert pg.dram_weight_address(c, cores(GRAPH)[2]) == c.layout.weights + 4096
    assert c.layout.end >= c.layout.weights + 2 * 4096
    assert pg.record(3, b"abc") == struct.pack("<IIQ", 3, 1, 0) + b"abc" + bytes(13)


@given(st.integers(1, 4096), st.integers(0, 2**31 - 1))
def test_magic_divide(divisor, n):
    magic, shift = magic_divide(divisor)
    assert shift < 64
    for v in (n, n - n % divisor, max(0, n - n % divisor - 1), 2**31 - 1):
        assert (v * magic) >> shift == v // divisor


def test_table_descriptor_words():
    c = DeviceConfig.preset("paper")
    t = TableSpec(1000, 32, RowFormat.INT8, lsb_exp=-37, quant_mult=40000, quant_shift=-3,
                  extents=(Extent(0, 5, 8), Extent(8, 100, 4)))
    t.validate(c)
    w = np.frombuffer(t.descriptor(c), "<i4")
    assert len(w) == DESCRIPTOR_WORDS
    # 40 bytes a row in 16-byte beats: stride 3; 85 rows fit a page, 12 pages fill whole stripes over 4 dies: 84 rows each
    assert w[:5].tolist() == [1000, 32, 2, 3, 84]
    assert w[7:12].tolist() == [-37, 40000, -3, 2, 12]
    assert w[16:24].tolist() == [0, 5, 8, 0, 8, 100, 4, 0]


@pytest.mark.parametrize("change", [
    dict(rows=0), dict(dim=6), dict(dim=2048), dict(extents=()), dict(extents=(Extent(0, 0, 1),)), dict(headroom=17),
    dict(extents=(Extent(0, 60000, 40),)), dict(extents=(Extent(1, 0, 40),)), dict(quant_mult=1 << 16), dict(lsb_exp=200),
    dict(page_rows=33),
])
def test_bad_tables_are_refused(change):
    c = DeviceConfig.preset("paper")
    good = TableSpec(1000, 32, extents=(Extent(0, 0, 40),))
    good.validate(c)
    with pytest.raises(DataError):
        replace(good, **change).validate(c)


def test_a_table_the_device_was_not_generated_for_is_refused_by_name():
    c = DeviceConfig.preset("paper")
    some = replace(c, lookup=replace(c.lookup, formats=("fp32", "int8"), modes=("sum",)))
    good = TableSpec(1000, 32, extents=(Extent(0, 0, 40),))
    good.validate(some)
    with pytest.raises(DataError, match=r"table.format = 'fp16': .* lookup.formats = fp32, int8"):
        replace(good, format=RowFormat.FP16).validate(some)
    with pytest.raises(DataError, match=r"table.mode = 'mean': .* lookup.modes = sum"):
        replace(good, mode=PoolMode.MEAN).validate(some)


@pytest.mark.parametrize(("rows", "dies", "per_page", "pages"), [
    (25, 1, 7, 4), (25, 4, 2, 13), (3, 4, 1, 3), (2048, 4, 32, 64), (2000, 4, 32, 63), (1 << 20, 1, 32, 1 << 15)])
def test_tables_spread_over_all_dies(rows, dies, per_page, pages):
    c, t = DeviceConfig.preset("paper", dies=dies), TableSpec(rows, 32)
    assert (t.rows_per_page(c), t.pages(c)) == (per_page, pages)


def test_nvme_formats():
    e = sqe(Opcode.READ, 0x1234, nsid=1, prp1=0x1000, prp2=0x2000, cdw10=7, cdw12=3)
    assert len(e) == SQE_BYTES
    assert (e[0], e[2] | e[3] << 8, e[4], e[24:32], e[32:40], e[40], e[48]) == (
        2, 0x1234, 1, struct.pack("<Q", 0x1000), struct.pack("<Q", 0x2000), 7, 3)
    assert CQE.itemsize == 16
    assert CQE.fields["sf"][1] == 14
    for op in Opcode:
        if op >= 0x80:
            assert op & 3 == 3  # data in both directions


def test_registers_do_not_overlap():
    c = DeviceConfig.preset("paper")
    c = replace(c, host=replace(c.host, queue_pairs=8))
    registers = {r.name: r.offset for r in register_map(c)}
    offsets = list(registers.values())
    for q in range(8):
        for name in ("sq_base_lo", "sq_base_hi", "cq_base_lo", "cq_base_hi", "size"):
            assert registers[f"queue{q}_{name}"] == queue_register(q, name)
        assert (registers[f"sq{q}_tail"], registers[f"cq{q}_head"]) == (doorbell(q, False), doorbell(q, True))
    assert len(set(offsets)) == len(offsets) == len(registers)
    assert all(o % 4 == 0 and o < 1 << 13 for o in offsets)
    assert len(set(counters(c))) == len(counters(c))


@pytest.mark.parametrize("fields", [
    (Field("a", 0, 8, "rw", ""), Field("b", 7, 1, "ro", "")), (Field("a", 30, 3, "rw", ""),),
    (Field("a", 0, 2, "rw", "", 4),)])
def test_fields_that_do_not_fit_are_refused(fields):
    with pytest.raises(ValueError, match="register x: field"):
        Register("x", 0, "", fields)


def test_registers_as_the_specification_has_them():
    """NVM Express Base Specification 2.0, section 3.1.3: offsets, and what the fields of CAP, CC and CSTS begin with."""
    registers = {r.name: r for r in register_map(DeviceConfig.preset("tiny"))}
    assert [registers[n].offset for n in ("cap_lo", "cap_hi", "vs", "intms", "cc", "csts")] == [0, 4, 8, 0xC, 0x14, 0x1C]
    places = {(r, f.name): (f.lsb, f.width) for r in ("cap_lo", "cap_hi", "cc", "csts") for f in registers[r].fields}
    assert places == {
        ("cap_lo", "mqes"): (0, 16), ("cap_lo", "cqr"): (16, 1), ("cap_lo", "ams"): (17, 2), ("cap_lo", "to"): (24, 8),
        ("cap_hi", "dstrd"): (0, 4), ("cap_hi", "nssrs"): (4, 1), ("cap_hi", "css"): (5, 8), ("cap_hi", "mpsmin"): (16, 4),
        ("cap_hi", "mpsmax"): (20, 4), ("cc", "en"): (0, 1), ("cc", "css"): (4, 3), ("cc", "mps"): (7, 4),
        ("cc", "ams"): (11, 3), ("cc", "shn"): (14, 2), ("cc", "iosqes"): (16, 4), ("cc", "iocqes"): (20, 4),
        ("csts", "rdy"): (0, 1), ("csts", "cfs"): (1, 1)}
