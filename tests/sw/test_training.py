"""Training on a small made-up data set, checkpoints good and bad."""

from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import DataError, ModelError
from nearflash.models import ModelSpec, TableShape
from nearflash.reference.metrics import auc
from nearflash.training import (
    SHIPPED,
    Recipe,
    is_trained,
    load_checkpoint,
    load_dataset,
    predict,
    replay,
    save_checkpoint,
    train,
)

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
    good = SHIPPED
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
    model, about = load_checkpoint(SHIPPED)
    recipe = Recipe.from_dict(about["recipe"])
    _, _, test_q, _ = load_dataset(shared_data / "movietweetings", recipe)
    score = auc(test_q.labels, predict(model, test_q))
    assert score == pytest.approx(about["scores"]["test_auc"], abs=1e-4)
    assert score > 0.78


def clicks(path, labels):
    """A Criteo file of ``labels``; features and categories count up from the line's number."""
    line = "\t".join(["{}"] * 14 + ["{:x}"] * 26) + "\n"
    path.write_text("".join(line.format(y, *range(i, i + 13), *range(i, i + 26)) for i, y in enumerate(labels)))
    return path


TINY = Recipe("criteo", dim=4, bottom=(4,), top=(4, 1), rows=50, epochs=1, batch=256, interaction="cat")


@pytest.mark.parametrize(("lines", "epochs", "batch"), [(20, 1, 256), (21, 2, 256), (400, 5, 160), (30, 10, 256)])
def test_any_number_of_steps_trains(lines, epochs, batch, tmp_path):
    path = clicks(tmp_path / "c", [i % 2 for i in range(lines)])
    _, scores = train(path, replace(TINY, epochs=epochs, batch=batch))
    assert scores["train_queries"] == int(0.8 * lines)
    assert 0 <= scores["test_auc"] <= 1


def test_too_few_queries_are_refused_before_training(tmp_path):
    for lines in (1, 2, 19):
        path = clicks(tmp_path / "c", [i % 2 for i in range(lines)])
        with pytest.raises(DataError, match=f"queries = {lines}: training needs at least 20") as e:
            train(path, TINY)
        assert str(path) in str(e.value)


def test_labels_of_one_class_train_and_load_again(tmp_path):
    path = clicks(tmp_path / "c", [i % 2 for i in range(80)] + [0] * 20)
    model, scores = train(path, TINY)
    assert scores["valid_auc"] is None
    save_checkpoint(tmp_path / "c.npz", model, TINY, scores)
    assert load_checkpoint(tmp_path / "c.npz")[1]["scores"] == scores


def test_real_queries_replay_on_any_model(folder, tmp_path):
    path = clicks(tmp_path / "c", [i % 2 for i in range(50)])
    tables = tuple(TableShape(3 + t, 4) for t in range(26))
    _, test = replay(path, ModelSpec("m", tables, 13, (4,), (1,)), None)
    assert len(test) == 5
    assert [i.tolist() for i, _ in test.bags] == [[(45 + t + k) % (3 + t) for k in range(5)] for t in range(26)]
    with pytest.raises(DataError, match="tables = 25: the data set has 26"):
        replay(path, ModelSpec("m", tables[:25], 13, (4,), (1,)), None)
    with pytest.raises(DataError, match="dense features = 12"):
        replay(path, ModelSpec("m", tables, 12, (4,), (1,)), None)

    def of(rows):
        return ModelSpec("m", tuple(TableShape(r, 4) for r in rows), 7, (4,), (1,))

    _, test = replay(folder, of((100, 30, 4, 30)), None, history=3)  # users, movies, genres, liked movies
    assert test.largest_bags == (1, 1, 2, 3)
    with pytest.raises(DataError, match=r"index for table 3.*below the table's 9 rows"):
        replay(folder, of((100, 30, 4, 9)), None)


def test_a_trained_checkpoint_is_known_by_its_content(tmp_path):
    good = SHIPPED
    (tmp_path / "mine.pt").write_bytes(good.read_bytes())
    assert is_trained(tmp_path / "mine.pt")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert not is_trained(tmp_path / "other.npz")
    (tmp_path / "text").write_text("x")
    assert not is_trained(tmp_path / "text")


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"lookups"', '"look"', "unknown"), ('"epochs": ', '"epochs": 0.', "epochs"), ('"recipe"', '"recipes"', "recipe"),
    ('"scores": {', '"scores": {"a": true, ', "scores.a"), ('"rows": ', '"rows": 19', r"shape.*must be \(19"),
])
def test_what_a_checkpoint_says_of_itself_is_checked(old, new, message, tmp_path):
    good = SHIPPED
    with np.load(good) as z:
        text = z["about"].tobytes().decode()
    assert old in text
    rewrite(good, tmp_path / "bad.npz", about=np.frombuffer(text.replace(old, new, 1).encode(), np.uint8))
    with pytest.raises((DataError, ModelError), match=message) as e:
        load_checkpoint(tmp_path / "bad.npz")
    assert str(tmp_path / "bad.npz") in str(e.value)


def test_parameters_are_fp32(tmp_path):
    rewrite(SHIPPED, tmp_path / "bad.npz",
            **{"linears.bot0.bias": np.zeros(64)})
    with pytest.raises(ModelError, match="float64"):
        load_checkpoint(tmp_path / "bad.npz")
