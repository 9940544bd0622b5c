"""``nearflash evaluate`` as a user calls it: figures against the flash's closed forms, bad input in one line."""

import json

import pytest

ONE_TABLE = """name = "one"
dense = 4
bottom = [8]
top = [1]
[[tables]]
rows = {rows}
dim = {dim}
lookups = {lookups}
"""


def described(folder, rows, dim, lookups):
    path = folder / "one.toml"
    path.write_text(ONE_TABLE.format(rows=rows, dim=dim, lookups=lookups))
    return path


def test_a_saturated_die_reads_a_vector_in_c_ev(nearflash, tmp_path):
    """128 B vectors on a channel of one die: 2,838 cycles each (RM-SSD), whatever else goes on beside them."""
    model, out = described(tmp_path, 100_000, 32, 40), tmp_path / "new" / "e.json"
    r = nearflash("evaluate", "--model", model, "--channels", 1, "--queries", 60, "--batch", 5, "--locality", 0, "--json",
                  out)
    assert r.returncode == 0, r.stderr
    e = json.loads(out.read_text())
    assert (e["queries"], e["lookups"], e["flash_reads_count"]) == (60, 2400, 2400)
    assert e["queries_per_second"] == pytest.approx(200e6 / (40 * 2838), rel=0.01)
    assert 0.99 < e["flash_ceiling_share"] < 1
    assert e["read_amplification_cells"] == 4096 / 128
    assert e["stages_per_query"]["busiest_die_us"] == pytest.approx(40 * 2838 / 200, rel=5e-3)
    assert e["latency_p50_us"] <= e["latency_p99_us"] <= 4.5 * 5 * 40 * 2838 / 200  # four commands in flight
    assert e["query_alone"]["lookups_us"] == pytest.approx(40 * 2838 / 200, rel=0.01)
    assert "queries/s" in r.stdout


def test_four_dies_are_evenly_loaded_by_pages_in_turn(nearflash, tmp_path):
    """4 KB vectors at depth 1: each lookup of a bag waits for its die, tR 14 us, and its channel, 6 us a page."""
    model = described(tmp_path, 64, 1024, 1)
    r = nearflash("evaluate", "--model", model, "--channels", 1, "--dies", 4, "--queries", 20, "--depth", 1,
                  "--lookups-only", "--json", "-")
    assert r.returncode == 0, r.stderr
    e = json.loads(r.stdout)
    assert e["command"] == "LOOKUP"
    assert 20 < e["query_alone"]["latency_us"] < 30
    assert e["query_alone"]["mlp_us"] == 0
    assert e["queries_per_second"] == pytest.approx(1e6 / e["latency_mean_us"], rel=0.1)
    assert sum(e["die_busy_share"]) * e["cycles"] == pytest.approx(20 * 4000, rel=0.01)


def test_a_row_cache_is_the_devices_and_compared(nearflash, tmp_path):
    """64 rows asked for by 200 lookups: with a large cache most come from there."""
    model = described(tmp_path, 64, 32, 20)
    args = ("evaluate", "--model", model, "--channels", 1, "--queries", 10, "--depth", 1, "--lookups-only")
    r = nearflash(*args, "--cache-mib", 1, "--json", tmp_path / "c.json")
    assert r.returncode == 0, r.stderr
    assert "MODELLED" not in r.stdout
    c = json.loads((tmp_path / "c.json").read_text())
    assert c["row_cache"] == {"lines": 8192, "ways": 8, "line_bytes": 128, "dram_bytes": 1 << 20}
    assert c["flash_reads_count"] < 120
    assert c["cache_hit_share"] > 0.4
    assert c["without_row_cache"]["flash_reads_per_lookup"] == 1
    assert c["queries_per_second"] > 1.5 * c["without_row_cache"]["queries_per_second"]
    plain = json.loads(nearflash(*args, "--json", "-").stdout)
    assert plain["queries_per_second"] == c["without_row_cache"]["queries_per_second"]
    assert not {"modelled_not_in_rtl", "row_cache"} & set(plain)
    assert c["design_id"] != plain["design_id"]


def test_what_is_modelled_is_said_and_compared(nearflash, tmp_path):
    model = described(tmp_path, 64, 32, 20)
    args = ("evaluate", "--model", model, "--channels", 1, "--queries", 10, "--depth", 1, "--lookups-only")
    r = nearflash(*args, "--cache-mib", 1, "--cache-unit", "page", "--json", tmp_path / "e.json")
    assert r.returncode == 0, r.stderr
    assert "MODELLED, NOT IN RTL" in r.stdout
    e = json.loads((tmp_path / "e.json").read_text())
    assert e["modelled_not_in_rtl"] == {"page_cache_mib": 1.0, "cache_bytes": 1 << 20}
    assert e["flash_reads_count"] <= 20  # the first query's: 64 rows lie in two pages
    assert e["without_modelled"]["flash_reads_per_lookup"] == 1
    assert e["queries_per_second_ratio"] == e["queries_per_second"] / e["without_modelled"]["queries_per_second"] > 1.5


def test_a_page_window_is_the_devices(nearflash, tmp_path):
    """Two pages of 32 rows, of which the die holds one from the query before: of a query's 20 lookups one or two are cell
    reads. It is part of the design, not modelled."""
    model = described(tmp_path, 64, 32, 20)
    args = ("evaluate", "--model", model, "--channels", 1, "--queries", 10, "--depth", 1, "--lookups-only", "--json", "-")
    on, off = (json.loads(nearflash(*args, *more).stdout) for more in (("--page-window", 32), ()))
    assert (on["page_window"], off["page_window"]) == (32, 0)
    assert "modelled_not_in_rtl" not in on
    assert on["design_id"] != off["design_id"]
    assert off["flash_reads_count"] == 200
    assert 10 <= on["flash_reads_count"] <= 21
    assert on["queries_per_second"] > 3 * off["queries_per_second"]


def test_block_io_meanwhile(nearflash, tmp_path):
    """Requests of 4 KB far apart beside lookups, and always two: latency by the flash's closed form, what they cost."""
    model, trace = described(tmp_path, 100_000, 32, 40), tmp_path / "usr_0.csv"
    trace.write_text("".join(f"{100 + i * 500},usr,0,{('Read', 'Write')[i % 8 == 7]},{i * 81920},4096,1\n"
                             for i in range(4000)))
    args = ("evaluate", "--model", model, "--channels", 1, "--dies", 4, "--queries", 40, "--lookups-only", "--block-trace",
            trace, "--json", "-")
    timed, queued = nearflash(*args, "--block-scale", 2), nearflash(*args, "--block-depth", 2)
    for r in (timed, queued):
        assert r.returncode == 0, r.stderr
    timed, queued = json.loads(timed.stdout), json.loads(queued.stdout)
    for e in (timed, queued):
        b = e["block_io"]
        assert b["source"] == "usr_0.csv"
        assert list(b["kinds"]) == ["read", "write"]
        for name, count, least in (("read", 3500, 20), ("write", 500, 206)):  # tR 14 us, 6 us on the bus; tPROG 200 us
            of = b["kinds"][name]
            assert of["requests_count"] + of["requests_left_count"] == count
            assert least < of["latency_p50_us"] <= of["latency_p99_us"]
        assert b["requests_count"] == sum(of["requests_count"] for of in b["kinds"].values())
        assert b["mb_per_second"] == pytest.approx(b["iops"] * 4096 / 1e6, rel=0.01)
        assert e["flash_reads_per_lookup"] == 1
        assert e["queries_per_second"] < e["without_block_io"]["queries_per_second"]
    # One every 100 us; two in flight, by Little's law.
    assert timed["block_io"]["iops"] == pytest.approx(10_000, rel=0.1)
    mean = sum(of["requests_count"] * of["latency_mean_us"] for of in queued["block_io"]["kinds"].values())
    assert queued["block_io"]["iops"] * mean / queued["block_io"]["requests_count"] == pytest.approx(2e6, rel=0.02)


def test_planes_are_the_devices(nearflash, tmp_path):
    model = described(tmp_path, 4096, 32, 40)
    args = ("evaluate", "--model", model, "--channels", 1, "--queries", 20, "--lookups-only", "--json", "-")
    one, two = (json.loads(nearflash(*args, "--planes", n).stdout) for n in (1, 2))
    assert (one["planes_per_die"], two["planes_per_die"]) == (1, 2)
    assert one["design_id"] == json.loads(nearflash(*args).stdout)["design_id"] != two["design_id"]
    assert len(two["die_busy_share"]) == 2
    assert 1.7 * one["queries_per_second"] < two["queries_per_second"] <= 2 * one["queries_per_second"] * 1.01


def test_timelines_and_their_difference(nearflash, tmp_path):
    model = described(tmp_path, 64, 32, 4)
    files = [tmp_path / f"{n}.pftrace" for n in ("a", "b", "c")]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        r = nearflash("evaluate", "--model", model, "--channels", 2, "--queries", 4, "--seed", seed, "--timeline", file)
        assert r.returncode == 0, r.stderr
        assert f"written to {file}" in r.stdout.replace("\n", "")
    r = nearflash("timeline", "diff", files[0], files[1])
    assert r.returncode == 0
    assert "no difference" in r.stdout
    r = nearflash("timeline", "diff", files[0], files[2], "--json", tmp_path / "d.json")
    assert r.returncode == 1
    d = json.loads((tmp_path / "d.json").read_text())
    assert not d["equal"]
    assert d["track"].startswith("channel")
    assert d["slice_before"] != d["slice_after"]
    r = nearflash("timeline", "diff", files[0], model)
    assert (r.returncode, r.stdout) == (2, "")
    assert "not a Perfetto trace" in r.stderr


def test_full_size_tables(nearflash):
    r = nearflash("evaluate", "--model", "rmc3", "--table-gb", 30, "--queries", 3, "--json", "-")
    assert r.returncode == 0, r.stderr
    e = json.loads(r.stdout)
    assert e["table_bytes"] == pytest.approx(30e9, rel=1e-6)
    assert e["lookups"] == 600


def test_tables_too_large_for_a_preset_are_cut_and_it_says_so(nearflash, tmp_path):
    """A tiny device has at most 2 x 2 dies of 65536 blocks of 8 pages of 512 B: 1.07 GB; RMC3's rows are 2.56 GB."""
    out = tmp_path / "e.json"
    r = nearflash("evaluate", "--preset", "tiny", "--model", "rmc3", "--queries", 2, "--lookups-only", "--json", out)
    assert r.returncode == 0, r.stderr
    assert "rows cut to 500,000 per table at most (rmc3 has 2,000,000)" in r.stdout
    assert json.loads(out.read_text())["table_bytes"] == 500_000 * 128 * 10
    r = nearflash("evaluate", "--preset", "tiny", "--model", "rmc3", "--rows", 2_000_000)
    assert r.returncode == 2
    assert "flash.blocks = 131072" in r.stderr


def test_real_queries_of_the_shipped_model(nearflash, tmp_path):
    """MovieTweetings by the shipped checkpoint: the last tenth of the ratings, in order, as `nearflash run` replays them."""
    (tmp_path / "movies.dat").write_text("".join(f"{m:03d}::M{m} (1990)::G|H\n" for m in range(30)))
    (tmp_path / "ratings.dat").write_text("".join(f"{t % 40}::{t % 30:03d}::9::{1_360_000_000 + t}\n" for t in range(400)))
    r = nearflash("evaluate", "--dataset", tmp_path, "--batch", 8, "--json", "-")
    assert r.returncode == 0, r.stderr
    e = json.loads(r.stdout)
    assert (e["queries"], e["model"]) == (40, "movietweetings-dlrm")
    assert e["repeats_in_command_share"] > 0.5


@pytest.mark.parametrize(("args", "says"), [
    (("--model", "rmc9"), "name = 'rmc9'"), (("--locality", -1), "locality = -1"), (("--channels", 3), "flash.channels = 3"),
    (("--batch", 257), "--batch = 257: must be at most 256"), (("--depth", 5), "--depth = 5: must be at most 4"),
    (("--plan", "no.toml"), "--plan = 'no.toml'"), (("--trace", "no.log"), "no.log: file = "),
    (("--trace", "no.pt.gz"), "no.pt.gz: file = "), (("--board", "pynq-z2"), "--board = 'pynq-z2': needs a --model"),
    (("--board", "pynq-z2", "--dies", 2), "can't be combined with --board"), (("--rows", 9, "--table-gb", 1), "--rows = 9"),
    (("--checkpoint", "x.npz"), "--checkpoint = 'x.npz': has no effect without --dataset"),
    (("--cache-mib", 5000), "cache_mib = 5000.0: must be from 0 (off) to 4096 MiB"),
    (("--cache-mib", 0.0001), "cache_mib = 0.0001: must hold at least 16 lines of 128 bytes"),
    (("--cache-mib", 1, "--cache-unit", "byte"), "cache_unit = 'byte': must be one of"),
    (("--page-window", -1), "lookup.page_window = -1: must be an integer of at least 0"),
    (("--page-window", 5000), "lookup.page_window = 5000: must be from 0 (off) to 4096 reads"),
    (("--planes", 3), "flash.planes = 3: must be a power of two of at most 4"),
    (("--planes", 4, "--dies", 8), "flash.planes = 4: must be at most 2 with 8 dies"),
    (("--planes", 2, "--plan", "x.toml"), "can't be combined with --plan"),
    (("--page-window", 8, "--plan", "x.toml"), "can't be combined with --plan"),
    (("--cache-unit", "page"), "has no effect without --cache-mib"), (("--mlp-share", 2), "share = 2.0: must be above 0"),
    (("--block-trace", "no.trace"), "no.trace: file = "), (("--block-depth", 2), "has no effect without --block-trace"),
    (("--block-trace", "x", "--block-depth", 2, "--block-scale", 3), "can't be combined with --block-depth"),
    (("--block-trace", "x", "--block-scale", 0), "--block-scale = 0.0: must be from"),
    (("--block-trace", "x", "--devices", "2"), "can't be combined with --devices"),
    (("--placement", "no.npz"), "no.npz: "),
    (("--table-gb", 4000, "--model", "rmc1"), "= "), (("--queries", 0), "'0'"),
])
def test_bad_input_is_one_line_and_exit_code_2(nearflash, args, says):
    r = nearflash("evaluate", *args)
    assert r.returncode == 2
    assert says in r.stderr
    assert r.stderr.count("\n") == 1
    assert not r.stdout


def test_streamed_weights_set_the_pace(nearflash, tmp_path):
    """A plan whose weights all come from DRAM: every query, a command of its own, waits for as many beats as they have, one
    a cycle, alone and in the stream; the host interface is that of the same device with its weights on chip."""
    from nearflash.compiler import PlanOptions, compile_device
    from nearflash.contract import DeviceConfig, cores
    from nearflash.models import ModelSpec

    model = tmp_path / "wide.toml"
    model.write_text(ONE_TABLE.format(rows=64, dim=32, lookups=1).replace("[8]", "[128, 128]").replace("[1]", "[128, 1]"))
    spec, alone = ModelSpec.from_toml(model), {}
    for name, room in (("dram", 0), ("onchip", 1 << 40)):
        device = compile_device(spec, DeviceConfig.preset("paper"), PlanOptions(onchip_bytes=room))
        plan = tmp_path / f"{name}.toml"
        plan.write_text(device.to_toml())
        r = nearflash("evaluate", "--model", model, "--plan", plan, "--queries", 12, "--json", "-")
        assert r.returncode == 0, r.stderr
        e = json.loads(r.stdout)
        alone[name] = e["query_alone"]
        assert sum(v for k, v in alone[name].items() if k != "latency_us") == pytest.approx(alone[name]["latency_us"])
        streamed = [c for c in cores(device.mlp.graph) if c.weights == "dram"]
        assert bool(streamed) == (name == "dram")
        beats = sum(c.steps * max(1, c.word_bytes // device.beat_bytes) for c in streamed)
        if name == "dram":
            assert beats > 2000
            assert beats <= alone[name]["mlp_us"] * 200 < 1.5 * beats
            assert 0.98 * 12 * beats <= e["cycles"] < 15 * beats  # a burst found late may share a few beats' cycles
    assert alone["dram"]["mlp_us"] > 2 * alone["onchip"]["mlp_us"]
    assert alone["dram"]["host_us"] == pytest.approx(alone["onchip"]["host_us"], abs=0.5)


def test_help_has_an_example(nearflash):
    r = nearflash("evaluate", "--help")
    assert "Example: nearflash evaluate" in " ".join(r.stdout.replace("│", "").split())
