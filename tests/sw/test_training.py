"""Training on a small made-up data set, checkpoints good and bad."""

from importlib.resources import files

import numpy as np
import pytest
from nearflash.contract import DataError, ModelError
from nearflash.reference.metrics import auc
from nearflash.training import Recipe, load_checkpoint, load_dataset, predict, save_checkpoint, train

SMALL = Recipe(dim=8, bottom=(8, 8), top=(8, 1), epochs=2, batch=64, history=4)


@pytest.fixture
def folder(tmp_path):
    """Ratings whose like depends on the movie alone, so a model can learn them."""
    rng = np.random.default_rng(0)
    (tmp_path / "movies.dat").write_text("".join(f"{m:03d}::M{m} (19{m + 10})::G{m % 3}|H\n" for m in range(30)))
    rows = []
    for t in range(1500):
        m = int(rng.integers(30))
        rating = (9 if m % 2 else 5) if rng.random() < 0.9 else int(rng.integers(1, 11))
        rows.append(f"{rng.integers(40)}::{m:03d}::{rating}::{1_360_000_000 + t}\n")
    (tmp_path / "ratings.dat").write_text("".join(rows))
    return tmp_path


def test_train_learns_and_is_deterministic(folder, tmp_path):
    seen = []
    model, scores = train(folder, SMALL, lambda *a: seen.append(a))
    assert len(seen) == SMALL.epochs
    assert scores["test_auc"] > 0.8
    again, scores2 = train(folder, SMALL)
    assert scores == scores2
    _, _, test_q, _ = load_dataset(folder, SMALL)
    assert np.array_equal(predict(model, test_q), predict(again, test_q))

    p = tmp_path / "c.npz"
    save_checkpoint(p, model, SMALL, scores)
    loaded, about = load_checkpoint(p)
    assert about["scores"] == scores
    assert np.array_equal(predict(model, test_q), predict(loaded, test_q))


def rewrite(path, out, **changes):
    with np.load(path) as z:
        arrays = {k: z[k] for k in z.files}
    arrays |= changes
    np.savez(out, **{k: v for k, v in arrays.items() if v is not None})


def test_bad_checkpoints_are_refused(tmp_path):
    good = files("nearflash") / "weights" / "movietweetings.npz"
    bad = tmp_path / "bad.npz"
    bad.write_bytes(good.read_bytes()[:100_000])
    with pytest.raises(DataError, match="not a nearflash checkpoint"):
        load_checkpoint(bad)
    key = "linears.bot0.weight"
    rewrite(good, bad, **{key: np.zeros((3, 3), np.float32)})
    with pytest.raises(ModelError, match=r"bot0.weight.*\(3, 3\)"):
        load_checkpoint(bad)
    rewrite(good, bad, **{key: None})
    with pytest.raises(ModelError, match="missing"):
        load_checkpoint(bad)
    rewrite(good, bad, **{key: np.full((64, 7), np.nan, np.float32)})
    with pytest.raises(DataError, match="NaN"):
        load_checkpoint(bad)
    rewrite(good, bad, surplus=np.zeros(1))
    with pytest.raises(ModelError, match="unknown parameter"):
        load_checkpoint(bad)


def test_shipped_checkpoint_scores_what_its_recipe_says(shared_data):
    model, about = load_checkpoint(files("nearflash") / "weights" / "movietweetings.npz")
    recipe = Recipe.from_dict(about["recipe"])
    _, _, test_q, _ = load_dataset(shared_data / "movietweetings", recipe)
    score = auc(test_q.labels, predict(model, test_q))
    assert score == pytest.approx(about["scores"]["test_auc"], abs=1e-4)
    assert score > 0.78
