"""Training beyond clean photographs: pairs of observations, towns, low counts, crops that move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from nearflash.cli.sar_train import stack_of, train
from nearflash.contract.errors import ConfigError, DataError
from nearflash.sar import io
from nearflash.sar.io import read_complex
from nearflash.sar.network import load
from nearflash.sar.peaks import peaks_kept, strong_peaks
from nearflash.sar.speckle import SystemResponse
from nearflash.sar.statistics import MEDIAN_AMPLITUDE
from nearflash.sar.training.cities import BRIGHTEST, city_echoes
from nearflash.sar.training.config import TrainConfig
from nearflash.sar.training.data import MOVED, Images, counted, sample_batch
from nearflash.sar.training.goals import Goals
from nearflash.sar.training.loop import EDGE, Trainer, loss_of, moved_apart, unlikelihood
from nearflash.sar.training.observed import HALF_LOOK, Observations
from PIL import Image
from typer.testing import CliRunner

RNG = np.random.default_rng(8)
SMALL: dict[str, Any] = dict(model="tiny", steps=2, batch=2, crop=96, warmup=1, checkpoint_every=2, validate_every=2,
                             precision="fp32")


def complex_image(shape: tuple[int, int] = (120, 130)) -> np.ndarray:
    z = RNG.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    z[:, shape[1] // 2 :] *= 5
    return 300 * z


def test_the_parts_of_a_complex_image_are_seen_and_scored_both_ways():
    image = complex_image()
    pairs = Observations([image], [], 104).pairs
    assert [p[2] for p in pairs] == [HALF_LOOK, HALF_LOOK]
    scale = np.median(np.abs(image)) / MEDIAN_AMPLITUDE
    (a, b, _), (c, d, _) = pairs
    np.testing.assert_array_equal(a, d)
    np.testing.assert_array_equal(b, c)
    np.testing.assert_allclose(a**2 + b**2, 2 * np.abs(image / scale) ** 2, rtol=1e-4)
    half = slice(None), slice(70, None)
    assert abs(np.corrcoef(a[half].ravel(), b[half].ravel())[0, 1]) < 0.03
    assert np.mean(a[half] ** 2) == pytest.approx(np.mean(np.abs(image[half] / scale) ** 2), rel=0.1)


def test_dates_are_brought_to_the_same_brightness_about_every_pixel():
    ground = np.ones((100, 110), np.float32)
    ground[:, 60:] = 9
    first, second = (ground * RNG.gamma(4, 1 / 4, ground.shape).astype(np.float32) for _ in range(2))
    second[:50] *= 3  # it has rained there
    pairs = Observations([], [(np.stack([first, second]), 4.0)], 64).pairs
    assert [p[2] for p in pairs] == [4.0, 4.0]
    seen, scored, _ = pairs[0]
    for part in (np.s_[10:40, 10:50], np.s_[60:90, 10:50], np.s_[10:40, 70:100], np.s_[60:90, 70:100]):
        assert np.mean(scored[part] ** 2) == pytest.approx(np.mean(seen[part] ** 2), rel=0.05)
    assert np.median(seen) == pytest.approx(MEDIAN_AMPLITUDE, rel=1e-5)


def test_crops_are_the_same_part_of_both():
    real = 1 + np.arange(70 * 200, dtype=np.float32).reshape(70, 200)
    pairs = Observations([real + 2j * real], [], 104)  # mirrored to the crop's height
    corners = set()
    for k in range(20):
        seen, scored, looks = pairs.crop(np.random.default_rng(k), 104)
        assert seen.shape == scored.shape == (104, 104)
        assert looks == HALF_LOOK
        ratio = scored[0, 0] / seen[0, 0]
        assert ratio == pytest.approx(2) or ratio == pytest.approx(0.5)
        np.testing.assert_allclose(scored, ratio * seen, rtol=1e-5)
        steps = np.abs(np.diff(seen, axis=1) / np.diff(seen, axis=1)[0, 0])
        np.testing.assert_allclose(steps, 1, rtol=2e-2)  # neighbours stay neighbours
        corners.add(tuple(np.sign([seen[0, 1] - seen[0, 0], seen[-1, 0] - seen[0, 0]])))
    assert len(corners) >= 3  # mirrored both ways


@pytest.mark.parametrize(("image", "words"), [
    (np.ones((100, 100), np.float32), "complex"),
    (np.ones((100, 40), np.complex64), "at least 64"),
    (np.zeros((100, 100), np.complex64), "median of 0"),
    (np.full((100, 100), np.nan, np.complex64), "NaN"),
])
def test_images_that_teach_nothing_are_refused(image, words):
    with pytest.raises(DataError, match=words):
        Observations([image], [], 64)


def test_a_stack_needs_two_dates():
    with pytest.raises(DataError, match="two dates"):
        Observations([], [(np.ones((1, 100, 100), np.float32), 1.0)], 64)


def test_the_truth_is_the_least_unlikely_estimate():
    truth = torch.full((1, 1, 200, 200), 0.6)
    half_looks = torch.from_numpy(RNG.standard_normal((1, 1, 200, 200)).astype(np.float32)).abs() * truth
    by = [float(unlikelihood(truth * f, half_looks)) for f in (0.9, 0.97, 1.0, 1.03, 1.1)]
    assert by[2] == min(by)
    assert by[0] > by[1] + 1e-3
    assert by[4] > by[3] + 1e-3


def test_a_second_observation_counts_by_its_likelihood_and_others_as_ever():
    config = TrainConfig(**SMALL)
    a, b = torch.rand(2, 1, 96, 96) + 0.1, torch.rand(2, 1, 96, 96) + 0.1
    one = torch.ones_like(a)
    plain = loss_of(config, a, b, one, b)
    assert torch.equal(loss_of(config, a, b, one, b, torch.tensor([False, False])), plain)
    mixed = loss_of(config, a, b, one, b, torch.tensor([True, False]))
    second = loss_of(config, a[1:], b[1:], one[1:], b[1:])
    assert float(mixed) == pytest.approx(float(0.2 * unlikelihood(a, b)[0] + second) / 2, rel=1e-5)


def test_what_moves_with_the_image_costs_nothing():
    image = torch.rand(2, 1, 104, 104)
    first, moved = image[..., :96, :96], image[..., 3:99, 5:101]
    one = torch.ones_like(first)
    assert float(moved_apart(first, moved, one, (3, 5)).max()) == pytest.approx(1e-4, rel=1e-3)  # the root's floor
    edge = moved.clone()
    edge[..., :EDGE, :] = 0
    assert float(moved_apart(first, edge, one, (3, 5)).max()) == pytest.approx(1e-4, rel=1e-3)
    assert float(moved_apart(first, moved + 0.1, one, (3, 5)).max()) == pytest.approx(0.1, rel=1e-3)
    assert float(moved_apart(first, moved, one, (3, 4)).max()) > 0.1


def test_towns_keep_their_scatterers_whatever_the_system_makes_of_them():
    shares, widest = [], []
    for seed in range(20):
        plain, seen = (city_echoes(np.random.default_rng(seed), 128, r)
                       for r in (None, SystemResponse((0.5, 0.5), (0.75, 0.75))))
        assert plain.dtype == seen.dtype == np.complex64
        shares.append((plain != 0).mean())
        # of unit peak response: the response's energy is that of all its pixels, 4/b^2 of a rectangular one's and more
        widest.append(np.sum(np.abs(seen) ** 2) / np.sum(np.abs(plain) ** 2))
        assert np.abs(plain).max() < 4 * BRIGHTEST
    assert 0.003 < np.median(shares) < 0.2
    assert max(shares) > 0.02
    # energy of a response of unit peak: 1 / (b^2 taper factor), here (0.5 0.75^2 / (0.75^2 + 0.25^2 / 2))^-2 = 4.5
    assert np.median(widest) == pytest.approx(4.5, rel=0.2)


def test_counts_keep_the_mean_power():
    clean = np.full((300, 300), 0.4, np.float32)
    noisy = np.sqrt(RNG.standard_exponential(clean.shape, dtype=np.float32)) * clean
    levels, target = counted(noisy, clean, 5.0)
    assert len(np.unique(levels)) < 25
    np.testing.assert_allclose(levels * 5, np.rint(levels * 5), atol=1e-4)
    assert np.mean(levels.astype(float) ** 2) == pytest.approx(float(target[0, 0]) ** 2, rel=0.01)


def test_strong_peaks():
    image = RNG.gamma(4, 1 / 4, (60, 60)).astype(np.float32)
    image[20, 20], image[20, 22], image[40, 10], image[50, 50] = 100, 90, 25, 60
    assert [tuple(p) for p in np.argwhere(strong_peaks(image))] == [(20, 20), (50, 50)]  # one beside a higher, one too low
    np.testing.assert_allclose(peaks_kept(image, image / 2), [0.5, 0.5])
    dark = np.where(image < 1.5, 0, image)  # stored as 0: speckle alone stands out of that
    assert np.median(dark[:15, :15]) == 0
    assert strong_peaks(dark[:15, :15]).sum() == 0


def test_the_goals_see_what_they_are_to_see():
    photograph = np.asarray(RNG.random((272, 272)), np.float32) * 0.2 + 0.3
    slc = (0.2 * RNG.standard_exponential((128, 128))).astype(np.float32)
    copied = Goals([photograph], {"slc": slc})(lambda amplitude, looks: amplitude)
    assert copied["peaks_L1_median"] == copied["peaks_L4_tenth"] == copied["town_L1_mean_kept"] == 1
    assert copied["moved_rms"] == 0
    assert copied["slc_ratio_variance"] == pytest.approx(0, abs=1e-9)
    flat = Goals([photograph], {"slc": slc})(lambda amplitude, looks: np.full_like(amplitude, np.sqrt(0.2)))
    assert flat["peaks_L1_median"] < 0.1
    assert flat["slc_ratio_variance"] == pytest.approx(1, abs=0.15)
    assert flat["slc_mean_kept"] == pytest.approx(1, abs=0.05)

    def phased(amplitude, looks):
        return amplitude.mean() * (1 + 0.1 * (np.indices(amplitude.shape).sum(0) % 4 == 0)).astype(np.float32)

    assert Goals([photograph], {})(phased)["moved_rms"] > 0.03


def test_training_on_ones_own_images_alone(tmp_path):
    images = Observations([complex_image()], [], 96 + MOVED)
    config = TrainConfig(**SMALL, self_supervised=1.0, moved_weight=0.5)
    noisy, scored, looks, scale, second = sample_batch(None, config, 0, range(2), images)
    assert noisy.shape == scored.shape == scale.shape == (2, 1, 104, 104)
    assert second.all()
    assert looks.tolist() == [HALF_LOOK, HALF_LOOK]
    trainer = Trainer(config, None, tmp_path, observations=images)
    assert np.isfinite(trainer.train_step())
    with pytest.raises(ConfigError, match="self_supervised"):
        Trainer(config, None, tmp_path)
    with pytest.raises(ConfigError, match="self_supervised"):
        Trainer(replace(config, self_supervised=0.5), None, tmp_path, observations=images)
    with pytest.raises(ConfigError, match="moved_weight"):
        replace(config, crop=64)


def test_unseen_speckle_is_not_followed(tmp_path):
    """After some steps on an even complex image the estimate varies less than what it sees, about the image's mean."""
    z = RNG.standard_normal((128, 128, 2), dtype=np.float32).view(np.complex64)[..., 0]
    images = Observations([z], [], 96)
    config = replace(TrainConfig(**SMALL), steps=40, learning_rate=2e-3, ema=0.8, self_supervised=1.0)
    trainer = Trainer(config, None, tmp_path, observations=images)
    trainer.run()
    seen = torch.from_numpy(images.pairs[0][0])[None, None]
    with torch.no_grad():
        out = trainer.averaged()(seen, torch.tensor([HALF_LOOK]))[0, 0, 16:-16, 16:-16].square()
    power = float(seen.square().mean())
    assert float(out.mean()) == pytest.approx(power, rel=0.25)
    assert float(out.std() / out.mean()) < 0.3  # of what is seen: 1.4


def test_the_command_trains_on_files(tmp_path, monkeypatch):
    np.save(tmp_path / "slc.npy", complex_image())
    (tmp_path / "dates").mkdir()
    for k in range(2):
        np.save(tmp_path / "dates" / f"{k}.npy", np.sqrt(RNG.gamma(4, 1 / 4, (110, 110))).astype(np.float32))
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.fromarray(RNG.integers(0, 256, (280, 280), dtype=np.uint8)).save(photographs / "a.png")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("self_supervised = 1.0\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in SMALL.items()))
    command = ["--recipe", str(recipe), "--threads", "1"]
    own = ["--self-supervised", str(tmp_path / "slc.npy"), "--dates", str(tmp_path / "dates"), "--dates-looks", "4"]
    read: list[Path] = []
    monkeypatch.setattr(io, "read_complex", lambda path: read.append(path) or read_complex(path))
    app = typer.Typer()
    app.command()(train)
    done = CliRunner().invoke(app, [*command, *own, "--validate", str(photographs), "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert read == [tmp_path / "slc.npy"]  # once, though it is trained on and scored
    meta = load("tiny", tmp_path / "run" / "weights.npz").meta
    assert meta["images"] == 0
    assert {"psnr_L1_db", "peaks_L1_median", "moved_rms", "slc_ratio_mean"} <= meta["validation"].keys()
    np.save(tmp_path / "dates" / "1.npy", np.sqrt(RNG.gamma(4, 1 / 4, (110, 111))).astype(np.float32))
    with pytest.raises(DataError, match=r"1\.npy shape"):
        stack_of(tmp_path / "dates")
    (tmp_path / "dates" / "1.npy").unlink()
    failed = CliRunner().invoke(app, [*command, *own, "-o", str(tmp_path / "again")])
    assert isinstance(failed.exception, DataError)
    assert "at least two images" in str(failed.exception)


def test_two_views_of_a_sample_are_trained_on(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(RNG.integers(0, 256, (140, 140), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    images = Images([tmp_path])
    config = TrainConfig(**SMALL, cities=0.5, counts=1.0, moved_weight=1.0)
    assert sample_batch(images, config, 0, range(2))[0].shape == (2, 1, 104, 104)
    assert np.isfinite(Trainer(config, images, tmp_path / "run").train_step())
