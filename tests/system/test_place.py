"""Placed rows answer as before, bit by bit; and ``nearflash place`` as a user calls it."""

import json

import numpy as np
import pytest
import torch
from device_bench import open_device
from nearflash.models import RecModel
from nearflash.quantize import QuantizeOptions, compile_model
from nearflash.reference.model import IntegerModel
from nearflash.runtime.placement import Placement
from nearflash.training import SHIPPED, load_checkpoint
from nearflash_sim.small.models import CASES, configured
from test_device_models import queries


def test_a_device_answers_placed_rows_like_the_rows_as_they_were():
    """The model's rows in another order on the device, the queries as ever: every logit is that of the integer model of the
    rows as they were."""
    name, rng = "cat", np.random.default_rng(0)
    spec = CASES[name].spec
    seen = [queries(spec, 32, rng) for _ in range(3)]
    plain = RecModel(spec, seed=0)
    placement = Placement(tuple(rng.permutation(t.rows) for t in spec.tables))
    moved = RecModel(spec, seed=0)
    for t, table in enumerate(moved.embeddings):
        table.weight.data = torch.from_numpy(placement.table(t, table.weight.detach().numpy()))
    compiled = compile_model(plain, configured(name), seen, QuantizeOptions())
    placed = compile_model(moved, configured(name), [(d, placement.bags(b)) for d, b in seen], QuantizeOptions())
    assert any((a != b).any() for a, b in zip(compiled.rows, placed.rows, strict=True))
    dense, bags = queries(spec, 24, rng)
    want = IntegerModel(compiled).logits(dense, bags)[1].astype(np.float32)
    with open_device(configured(name)) as device:
        device.load(placed, preload=True, placement=placement)
        assert (device.infer(dense, bags, batch=7).view(np.uint32) == want.view(np.uint32)).all()
        assert (device.result(device.submit(dense, bags)).view(np.uint32) == want.view(np.uint32)).all()
        device.load(compiled, preload=True)
        assert (device.infer(dense, bags).view(np.uint32) == want.view(np.uint32)).all(), "the mapping is still there"


@pytest.fixture
def ratings(tmp_path):
    """400 ratings of 30 movies by 40 users, in which a few movies are rated by most."""
    rng = np.random.default_rng(0)
    (tmp_path / "movies.dat").write_text("".join(f"{m:03d}::M{m} (1990)::G|H\n" for m in range(30)))
    (tmp_path / "ratings.dat").write_text("".join(
        f"{t % 40}::{min(29, rng.geometric(0.2) - 1):03d}::9::{1_360_000_000 + t}\n" for t in range(400)))
    return tmp_path


def test_place_evaluate_and_the_guards(nearflash, ratings):
    placed, mapping, out = (ratings / n for n in ("placed.npz", "mapping.npz", "new/p.json"))
    r = nearflash("place", "--dataset", ratings, "--dies", 2, "-o", placed, "--mapping", mapping, "--json", out,
                  "--cache-mib", 0.125)
    assert r.returncode == 0, r.stderr
    e = json.loads(out.read_text())
    orders = {row["order"]: row for row in e["orders"]}
    assert list(orders) == ["striped", "none", "frequency", "co-access", "both"]
    assert (e["learnt_queries"], e["measured_queries"]) == (200, 200)
    assert all(row["as_generated"]["cell_reads_per_lookup"] == 1 for row in orders.values())
    assert orders["co-access"]["modelled_not_in_rtl"]["cell_reads_ratio"] > 1.2  # what is used at all shares pages
    assert orders["striped"]["as_generated"]["queries_per_second_ratio"] == 1
    assert "MODELLED, NOT IN RTL" in r.stdout

    read = Placement.load(mapping)
    assert read.digest == e["mapping_digest"]
    before, _ = load_checkpoint(SHIPPED)
    after, about = load_checkpoint(placed)
    assert about["placement"] == read.digest
    for t, (a, b) in enumerate(zip(before.embeddings, after.embeddings, strict=True)):
        asked = np.arange(0, len(a.weight), 97)
        assert (b.weight[read.indices(t, asked)] == a.weight[asked]).all()

    args = ("evaluate", "--dataset", ratings, "--checkpoint", placed, "--dies", 2, "--batch", 8, "--json", "-")
    r = nearflash(*args, "--placement", mapping)
    assert r.returncode == 0, r.stderr
    assert "rows placed by mapping.npz" in json.loads(r.stdout)["source"]

    other = ratings / "other.npz"
    Placement(tuple(np.arange(len(p)) for p in read.positions)).save(other)
    for bad, says in (
            (args, "--placement = None: must be given: the checkpoint's rows were placed by mapping"),
            ((*args, "--placement", other), "must be the mapping that the checkpoint was placed by"),
            (("run", "--checkpoint", placed), "--placement = None: must be given"),
            (("run", "--checkpoint", placed, "--placement", other), "must be the mapping that the checkpoint was placed by"),
            (("run", "--checkpoint", SHIPPED, "--placement", mapping), "the checkpoint's rows were not placed"),
            (("run", "--placement", mapping), "has no effect without --checkpoint"),
            (("place", "--dataset", ratings, "--checkpoint", placed), "the checkpoint's rows were placed already")):
        r = nearflash(*bad)
        assert (r.returncode, r.stdout) == (2, "")
        assert says in r.stderr
        assert r.stderr.count("\n") == 1


@pytest.mark.parametrize(("args", "says"), [
    ((), "--dataset = None: must be given, or --histogram"), (("--dataset", "no"), "no/movies.dat"),
    (("--dataset", "no", "--method", "hot"), "--method = 'hot': must be one of none, frequency, co-access, both"),
    (("--histogram", "a", "b", "--method", "both"), "a histogram holds no co-access"),
    (("--histogram", "no.txt", "no.txt"), "no.txt: file = "), (("--dataset", "no", "--drift", "0.1"), "can't be combined"),
    (("--dataset", "no", "-o", "x.npz"), "--mapping = None: must be given with --out"),
    (("--dataset", "no", "-o", "x.pt", "--mapping", "m.npz"), "--out = 'x.pt': must end in .npz"),
    (("--dataset", "no", "--cache-mib", "-1"), "cache_mib = -1.0: must be from 0"),
    (("--dataset", "no", "--batch", "257"), "--batch = 257: must be at most 256"),
    (("--dataset", "no", "--cache-mib", "0", "--cache-unit", "row"), "has no effect without --cache-mib")])
def test_bad_input_is_one_line(nearflash, args, says):
    r = nearflash("place", *args)
    assert (r.returncode, r.stdout) == (2, "")
    assert says in r.stderr
    assert r.stderr.count("\n") == 1


def test_a_histogram_places_by_frequency(nearflash, tmp_path):
    """Hot rows that a histogram's first year had stay hot: at equal memory, fewer cell reads than striped."""
    shares = ("(0, 1]: {}\n(1, 64]: {}\n(64+: 0.000\n[0, 1, 64]\n")
    text = ("x.pt\nAvg # of indices: 1000\nAvg # of unique cols: 300\nAvg col size: 1.6\nHistogram of col sizes:\n"
            + shares.format(0.98, 0.02) + "Ratio of index distribution at different column sizes:\n"
            + shares.format(0.6, 0.4))
    (tmp_path / "h.txt").write_text(text)
    r = nearflash("place", "--histogram", tmp_path / "h.txt", tmp_path / "h.txt", "--model", "rmc3", "--rows", 20000,
                  "--queries", 40, "--drift", 0, "--json", "-", "--mapping", tmp_path / "m.npz")
    assert r.returncode == 0, r.stderr
    orders = {row["order"]: row["modelled_not_in_rtl"] for row in json.loads(r.stdout)["orders"]}
    assert list(orders) == ["striped", "none", "frequency"]
    assert orders["frequency"]["cell_reads_ratio"] > 1.5
    assert len(Placement.load(tmp_path / "m.npz").positions) == 10
    r = nearflash("place", "--histogram", tmp_path / "h.txt", tmp_path / "h.txt", "--model", "rmc3", "--rows", 20000,
                  "--queries", 10, "--cache-mib", 0, "--json", "-")
    striped = json.loads(r.stdout)["orders"][0]
    assert "modelled_not_in_rtl" not in striped, "a page window alone is the device's"
    assert striped["as_generated"]["cell_reads_per_lookup"] == 1 > striped["with_additions"]["cell_reads_per_lookup"]
