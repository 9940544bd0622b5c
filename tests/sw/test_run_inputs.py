"""What ``nearflash run`` reads before it builds anything: models, their options, and real queries for them."""

import numpy as np
import pytest
import test_loaders
import torch
from nearflash.cli.run import RunOptions, _load_model, _queries
from nearflash.contract import DataError, ModelError
from nearflash.models import ModelSpec, RecModel, TableShape
from nearflash.training import Recipe, save_checkpoint
from test_training import clicks


def criteo_model(path):
    """A dlrm checkpoint for Criteo's 26 tables and 13 features."""
    g = torch.Generator().manual_seed(1)
    tables = [torch.randn(30 + t, 8, generator=g) for t in range(26)]
    torch.save(test_loaders.dlrm_sd((tables, test_loaders.mlp_weights((13, 8), 1),
                                     test_loaders.mlp_weights((8 + 27 * 26 // 2, 1), 2))), path)
    return path


def movie_model(path, likes=30):
    """A torchrec checkpoint for MovieTweetings' tables (users, movies, genres, liked movies) and 7 features."""
    tables = [torch.ones(rows, 8) for rows in (100, 30, 4, likes)]
    torch.save(test_loaders.torchrec_sd((tables, test_loaders.mlp_weights((7, 8), 1),
                                         test_loaders.mlp_weights((8 + 5 * 4 // 2, 4, 1), 2))), path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "movies.dat").write_text("".join(f"{m:03d}::M{m} (1999)::G{m % 3}|H\n" for m in range(30)))
    (tmp_path / "ratings.dat").write_text("".join(f"{t % 40}::{t % 30:03d}::9::{10**9 + t}\n" for t in range(900)))
    return tmp_path


def test_criteo_replays_on_a_dlrm_checkpoint(tmp_path):
    o = RunOptions(checkpoint=criteo_model(tmp_path / "m.pt"), dataset=clicks(tmp_path / "c", [i % 2 for i in range(100)]))
    model, about = _load_model(o)
    calibration, run, source = _queries(o, model, about)
    assert (len(calibration), len(run), about) == (80, 10, {})
    assert "10 held-out queries" in source
    assert run.labels.tolist() == [i % 2 for i in range(90, 100)]
    assert [t.lookups for t in model.spec.tables] == [1] * 26
    assert all(int(i.max()) < t.rows for (i, _), t in zip(run.bags, model.spec.tables, strict=True))


def test_lookups_come_from_the_data_or_are_checked_against_it(folder):
    path = movie_model(folder / "m.pt")

    def lookups(given):
        o = RunOptions(checkpoint=path, dataset=folder, lookups=given, queries=20)
        model, about = _load_model(o)
        _, run, _ = _queries(o, model, about)
        assert len(run) == 20
        return [t.lookups for t in model.spec.tables], list(run.largest_bags)

    assert lookups(None) == ([1, 1, 2, 20], [1, 1, 2, 20])
    assert lookups("3") == ([3, 3, 3, 3], [1, 1, 2, 3])
    assert lookups("1,1,2,7") == ([1, 1, 2, 7], [1, 1, 2, 7])
    for given, text in (("1", r"--lookups of table 2 = 1: a query has 2"), ("1,2", "one per table"),
                        ("1_0", "decimal digits"), ("0", "from 1 to 65535"), ("1,1,2,x", "decimal digits")):
        with pytest.raises((DataError, ModelError), match=text):
            lookups(given)
    o = RunOptions(checkpoint=movie_model(folder / "small.pt", likes=5), dataset=folder)
    model, about = _load_model(o)
    with pytest.raises(DataError, match="index for table 3"):
        _queries(o, model, about)


def test_options_of_foreign_checkpoints_are_for_them(tmp_path, capsys):
    for o in (RunOptions(model="ncf", lookups="3"), RunOptions(tables="a,b"), RunOptions(round_to_fp32=True),
              RunOptions(interaction="cat")):
        with pytest.raises(DataError, match="is for a dlrm or torchrec --checkpoint"):
            _load_model(o)
    p = test_loaders.parts("dot")
    sd = test_loaders.renamed(test_loaders.torchrec_sd(p), ("user", "item", "genre"))
    torch.save(sd, tmp_path / "m.pt")
    model, _ = _load_model(RunOptions(checkpoint=tmp_path / "m.pt", tables="user,item,genre", lookups="4,5,6"))
    assert [(t.rows, t.lookups) for t in model.spec.tables] == [(20, 4), (30, 5), (11, 6)]
    assert "user, item, genre" in capsys.readouterr().out


def test_a_trained_checkpoint_is_read_under_any_name(tmp_path):
    spec = ModelSpec("small", (TableShape(5, 4), TableShape(6, 4)), 3, (4,), (2, 1), "dot")
    save_checkpoint(tmp_path / "x.npz", RecModel(spec), Recipe(), {"test_auc": 0.5})
    (tmp_path / "x.npz").rename(tmp_path / "mine.pt")
    model, about = _load_model(RunOptions(checkpoint=tmp_path / "mine.pt"))
    assert (model.spec, about["scores"]) == (spec, {"test_auc": 0.5})
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="not a nearflash checkpoint"):
        _load_model(RunOptions(checkpoint=tmp_path / "other.npz"))
