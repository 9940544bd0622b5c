"""Training: the samples, resuming bit for bit, two processes against one, the command."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from nearflash.contract.errors import ConfigError, DataError
from nearflash.sar.models import build, grow
from nearflash.sar.network import Network, load, read_weights, write_weights
from nearflash.sar.training.config import RECIPES, TrainConfig
from nearflash.sar.training.data import (
    MOVED,
    Images,
    clip_dark,
    cut_dark,
    flat_scene,
    point_targets,
    sample,
    sample_batch,
    with_even_areas,
    with_texture,
)
from nearflash.sar.training.loop import Trainer, loss_of, rate_of, speckle_kept
from nearflash.sar.training.observed import Observations
from nearflash.sar.training.validate import Validation
from PIL import Image

SMALL = dict(model="tiny", steps=6, batch=4, crop=32, warmup=2, checkpoint_every=3, validate_every=3, precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(3):
        blocks = rng.integers(0, 256, (8, 10), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((12, 12), np.uint8))).save(path / f"{i}.png")
    Image.new("L", (96, 96), 200).save(path / "12003.png")
    return path


@pytest.fixture(scope="module")
def images(folder):
    return Images([folder], colours=True)


def test_excluded_image(images):
    assert len(images) == 3


def test_other_greys_are_made_of_the_colours(tmp_path):
    Image.new("RGB", (40, 40), (255, 51, 0)).save(tmp_path / "plain.png")
    images = Images([tmp_path], colours=True)
    eye = {float(images.crop(np.random.default_rng(i), 32, 1.0)[0, 0]) for i in range(5)}
    assert eye == {(round(0.299 * 255 + 0.587 * 51) + 1) / 256}  # ITU-R 601 luma
    other = [images.crop(np.random.default_rng(i), 32, 1.0, tones=1.0) for i in range(60)]
    values = np.array([crop[0, 0] for crop in other])
    assert all((crop == crop[0, 0]).all() and crop.dtype == np.float32 for crop in other)
    assert ((values >= 1 / 256) & (values <= 1)).all()
    assert values.min() < 0.15 < 0.85 < values.max()
    Image.new("RGB", (40, 40), (255, 255, 255)).save(tmp_path / "plain.png")
    with pytest.raises(ConfigError, match=r"train\.tones = 0\.5.*colours"):
        Trainer(TrainConfig(**SMALL, tones=0.5), Images([tmp_path]), tmp_path)
    white = Images([tmp_path], colours=True)
    assert {float(white.crop(np.random.default_rng(i), 32, 1.0, tones=1.0)[0, 0]) for i in range(60)} == {1 / 256, 1.0}
    assert len({float(images.crop(np.random.default_rng(i), 32, 1.0, tones=0.5)[0, 0]) for i in range(40)} & eye) == 1


def test_samples_depend_on_their_place_alone(images):
    config = TrainConfig(**SMALL, correlated=0.5, targets=0.5, flat=0.3, tones=0.5, even=0.5, texture=0.5, resampled=0.3)
    whole = sample_batch(images, config, 5, range(4))
    halves = [sample_batch(images, config, 5, r) for r in (range(2), range(2, 4))]
    for a, *b in zip(whole, *halves, strict=True):
        assert torch.equal(a, torch.cat(b))
    assert not torch.equal(whole[0], sample_batch(images, config, 6, range(4))[0])
    assert not torch.equal(whole[0][0], whole[0][1])


def test_sample_statistics(images):
    """Noisy over clean intensity is unit-mean speckle, whatever the augmentation."""
    config = TrainConfig(**SMALL, correlated=0.5, gain=1.0, flat=0.5, targets=0.0)
    ratios = []
    for i in range(200):
        noisy, clean, _, _ = sample(images, config, np.random.default_rng(i))
        assert noisy.shape == clean.shape == (32, 32)
        ratios.append(np.mean((noisy / clean) ** 2))
    assert abs(np.mean(ratios) - 1) < 0.02


def test_dark_clipping_keeps_the_mean_power():
    rng = np.random.default_rng(4)
    clean = np.full((400, 400), 0.4, np.float32)
    noisy, target = clip_dark(np.sqrt(rng.standard_exponential(clean.shape)) * clean, clean, 0.2)
    assert (noisy == 0).mean() > 0.2
    assert abs(np.mean(noisy**2) / target[0, 0] ** 2 - 1) < 0.02
    assert len(np.unique(noisy)) <= 256


def test_a_cut_dark_end_keeps_the_mean_power_and_the_levels_above():
    rng = np.random.default_rng(5)
    clean = np.full((400, 400), 0.4, np.float32)
    before = np.sqrt(rng.standard_exponential(clean.shape, dtype=np.float32)) * clean
    noisy, target = cut_dark(before, clean, 0.2)
    assert (noisy == 0).mean() == pytest.approx(1 - np.exp(-0.25), abs=0.005)  # Rayleigh: P(a < t) = 1 - exp(-t^2 / c^2)
    np.testing.assert_array_equal(noisy[noisy > 0], before[before >= 0.2])
    assert np.mean(noisy.astype(float) ** 2) == pytest.approx(float(target[0, 0]) ** 2, rel=0.01)


def test_contrast_and_gain_scale_the_scene_and_what_errors_count_by(images):
    plain, other = (TrainConfig(**SMALL, flat=0.0, targets=0.0, correlated=0.0, gain=share, gain_range=2.0, contrast=share)
                    for share in (0.0, 1.0))
    spreads = []
    for i in range(30):
        # The crop is drawn first: both samples show the same one
        clean, scale = sample(images, plain, np.random.default_rng(i))[1::2]
        changed, by = sample(images, other, np.random.default_rng(i))[1::2]
        np.testing.assert_array_equal(scale, 1)
        np.testing.assert_allclose(changed, clean * by, rtol=1e-5)
        assert np.exp(-3) <= by.min() <= by.max() <= np.exp(3)
        assert len(np.unique(by)) <= 4
        spreads.append(by.max() / by.min())
    assert max(spreads) > 2
    assert max(spreads) <= np.exp(2) * 1.001
    wide = replace(other, contrast_range=2.5, gain=0.0)
    spreads = [np.ptp(np.log(sample(images, wide, np.random.default_rng(i))[3])) for i in range(30)]
    assert 2.2 < max(spreads) <= 5


def test_scenes():
    rng = np.random.default_rng(2)
    for _ in range(20):
        assert len(np.unique(flat_scene(rng, 32))) <= 4
        assert 1.5 < np.abs(point_targets(rng, 32)).max() < 8 * 40


def test_even_areas_are_constant_and_near_the_photograph(images):
    photograph = images.crop(np.random.default_rng(0), 64, 1.0)
    shares = []
    for seed in range(40):
        scene = with_even_areas(np.random.default_rng(seed), photograph)
        changed = scene != photograph
        values = np.unique(scene[changed])
        assert len(values) <= 4  # an area is one value
        assert (np.abs(np.log(values / photograph.mean())) < 2).all()
        shares.append(changed.mean())
    assert min(shares) == 0  # some stay whole
    assert max(shares) > 0.95
    assert 0.4 < np.mean(shares) < 0.8


def test_texture_goes_up_and_down_about_the_scene():
    even, shares, slow = np.full((96, 96), 0.5, np.float32), [], []
    for seed in range(60):
        scene = with_texture(np.random.default_rng(seed), even)
        assert scene.dtype == np.float32
        assert 0.5 * 0.3 - 1e-6 <= scene.min() <= scene.max() <= 0.5 * 1.7 + 1e-6
        changed = scene != 0.5
        shares.append(changed.mean())
        if changed.mean() > 0.95:
            assert scene.mean() == pytest.approx(0.5, rel=0.15)
            power = np.abs(np.fft.fft2(scene - scene.mean())) ** 2
            frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
            slow.append(power[frequency < 1 / 40].sum() / power.sum())
    assert min(shares) == 0  # some stay plain
    assert 0.4 < np.mean(shares) < 0.8
    assert len(slow) >= 5
    assert np.median(slow) < 0.05  # periods of 2.5 to 16 pixels
    dark = with_texture(np.random.default_rng(1), np.full((96, 96), 1 / 256, np.float32))
    assert dark.min() == np.float32(1 / 256)


@pytest.mark.parametrize("looks", [1, 4])
def test_resampled_scenes_keep_their_mean_and_have_alike_neighbours(images, looks):
    config = TrainConfig(**SMALL | dict(crop=128), looks=(looks,), flat=1.0, correlated=0.0, targets=0.0, gain=0.0,
                         resampled=1.0)
    means, neighbours, told = [], [], []
    for seed in range(40):
        noisy, clean, given, _ = sample(images, config, np.random.default_rng(seed))
        assert noisy.shape == clean.shape == (128, 128)
        ratio = (noisy / clean).astype(float) ** 2
        means.append(ratio.mean())
        neighbours.append(np.corrcoef(ratio[:, 1:].ravel(), ratio[:, :-1].ravel())[0, 1])
        told.append(given / looks)
    assert np.mean(means) == pytest.approx(1, abs=0.01)
    assert 0.3 < np.mean(neighbours) < 0.8  # white speckle: 0
    assert 1 <= min(told) < max(told) <= 2.25


def test_loss_is_relative_to_scale_and_bright_targets():
    config = TrainConfig(**SMALL)
    clean = torch.full((1, 1, 2, 2), 0.5)
    estimate = clean + 0.1
    one = torch.ones(1, 1, 2, 2)
    noisy = clean
    assert float(loss_of(config, estimate, clean, one, noisy)) == pytest.approx(0.1, rel=1e-3)
    assert float(loss_of(config, 3 * estimate, 3 * clean, 3 * one, 3 * noisy)) == pytest.approx(0.1, rel=1e-3)
    assert float(loss_of(config, clean + 50, clean + 49.5, one, noisy)) == pytest.approx(0.01, rel=1e-2)
    halves = torch.tensor([[[[1.0, 1.0], [0.5, 0.5]]]])  # clean 0.5: an error of 0.1 is 0.1 above and 0.2 below
    assert float(loss_of(config, estimate, clean, halves, noisy)) == pytest.approx(((0.01 + 0.04) / 2) ** 0.5, rel=1e-3)


def test_speckle_that_an_estimate_follows_in_even_areas_counts():
    """Against an estimate c (1 + a (x/c - 1)): a times the speckle's variance, 1 at a single look."""
    rng = np.random.default_rng(6)
    clean = np.full((1, 1, 96, 192), 0.3, np.float32)
    clean[..., 96:] = rng.uniform(0.2, 1, (1, 1, 96, 96))  # a textured half: what follows there is no fault
    speckle = rng.standard_exponential(clean.shape, dtype=np.float32)
    followed = np.where(np.arange(192) < 96, 0.1, 0.5)
    c, x, e = (torch.from_numpy(np.sqrt(i).astype(np.float32) * clean)
               for i in (np.ones_like(clean), speckle, 1 + followed * (speckle - 1)))
    one = torch.ones_like(c)
    assert float(speckle_kept(x, e, c, one)) == pytest.approx(0.1, rel=0.06)
    assert float(speckle_kept(x, c, c, one)) == 0
    assert float(speckle_kept(x, 1.1 * c, c, one)) == pytest.approx(0, abs=0.01)  # brighter, but independent
    assert float(speckle_kept(x[..., 96:], e[..., 96:], c[..., 96:], one[..., 96:])) == 0  # no even area
    assert float(speckle_kept(x, e, c, 100 * one)) == 0  # all but nothing, beside its surroundings
    plain, weighed = (loss_of(TrainConfig(**SMALL, ratio_weight=w), e, c, one, x) for w in (0.0, 0.5))
    assert float(weighed - plain) == pytest.approx(0.5 * float(speckle_kept(x, e, c, one)), rel=1e-4)


def test_schedule():
    config = TrainConfig(steps=1000, warmup=100, learning_rate=1e-3, final_rate=0.01)
    assert rate_of(config, 0) == pytest.approx(1e-5)
    assert rate_of(config, 100) == pytest.approx(1e-3)
    assert rate_of(config, 550) == pytest.approx(0.5 * (1e-3 + 1e-5))
    assert rate_of(config, 1000) == pytest.approx(1e-5)


def test_resume_is_bit_for_bit(images, tmp_path):
    config = TrainConfig(**SMALL)
    whole = Trainer(config, images, tmp_path / "whole")
    whole.run()
    first = Trainer(config, images, tmp_path / "parts")
    for _ in range(3):
        first.train_step()
    first.save()
    second = Trainer(config, images, tmp_path / "parts")
    assert second.resume()
    assert second.step == 3
    second.run()
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[key]), key
        assert torch.equal(whole.ema[key], second.ema[key]), key


def test_a_share_of_the_initial_weights_stays(images, tmp_path):
    trainer = Trainer(TrainConfig(**SMALL, initial_share=0.25), images, tmp_path)
    initial = {k: v + 1 for k, v in trainer.net.state_dict().items()}
    trainer.train_step()
    mixed, trained = trainer.result(initial).state_dict(), trainer.averaged().state_dict()
    for key, value in mixed.items():
        np.testing.assert_allclose(value, 0.75 * trained[key] + 0.25 * initial[key], atol=1e-6)
    with pytest.raises(ConfigError, match="--init"):
        trainer.result()


def test_resume_refuses_another_recipe(images, tmp_path):
    Trainer(TrainConfig(**SMALL), images, tmp_path).save()
    with pytest.raises(ConfigError, match="learning_rate"):
        Trainer(TrainConfig(**SMALL, learning_rate=1e-4), images, tmp_path).resume()
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="checkpoint"):
        Trainer(TrainConfig(**SMALL), images, tmp_path).resume()


def test_training_learns(images, tmp_path):
    config = TrainConfig(**SMALL | dict(steps=60, warmup=5, learning_rate=3e-3, ema=0.9))
    validation = Validation(images, looks=(1,), crop=96)
    trainer = Trainer(config, images, tmp_path)
    before = validation(trainer.averaged(), trainer.device, trainer.autocast)["psnr_L1_db"]
    trainer.run()
    after = validation(trainer.averaged(), trainer.device, trainer.autocast)["psnr_L1_db"]
    assert after > before + 2


def test_a_deeper_network_goes_on_from_a_shallower_one(images, folder, tmp_path):
    start, deeper = tmp_path / "start.npz", dict(encoder=[1, 1, 2, 1, 2], decoder=[2, 1, 1, 1])
    trainer = Trainer(TrainConfig(**SMALL), images, tmp_path / "run")
    trainer.train_step()
    write_weights(start, trainer.net, {"model": "tiny", "options": {}})
    grown = build("tiny", **deeper)
    grown.load_state_dict(grow(grown, trainer.net.state_dict()))
    noisy, looks = torch.rand(2, 1, 64, 32), torch.tensor([1.0, 4.0])
    with torch.no_grad():
        assert torch.equal(grown(noisy, looks), trainer.net(noisy, looks))
    with pytest.raises(RuntimeError, match="stem"):
        grow(build("tiny", features="log"), trainer.net.state_dict())
    with pytest.raises(RuntimeError, match="unknown"):
        grow(build("tiny"), grown.state_dict())
    with pytest.raises(RuntimeError, match="missing"):
        grow(grown, {k: v for k, v in trainer.net.state_dict().items() if k != "stem.bias"})
    # The command, whose result keeps a share of what it started from
    recipe = tmp_path / "recipe.toml"
    options = ", ".join(f"{k} = {v}" for k, v in deeper.items())
    recipe.write_text(f"options = {{ {options} }}\ninitial_share = 0.5\n"
                      + "".join(f"{k} = {json.dumps(v)}\n" for k, v in SMALL.items()))
    subprocess.run([sys.executable, "-m", "nearflash", "sar", "train", str(folder), "--recipe", str(recipe),
                    "--threads", "1", "--init", str(start), "-o", str(tmp_path / "out")],
                   check=True, timeout=300, capture_output=True)
    assert load("tiny", tmp_path / "out" / "weights.npz").meta["options"] == deeper
    mixed = read_weights(tmp_path / "out" / "weights.npz")[1]
    trained = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["ema"]
    for key, value in read_weights(start)[1].items():
        torch.testing.assert_close(mixed[key], (trained[key] + value) / 2)


def test_two_processes_equal_one(folder, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in SMALL.items()))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    weights = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]):
        out = tmp_path / f"run{len(launcher)}"
        subprocess.run([sys.executable, *launcher, "-m", "nearflash", "sar", "train", str(folder), "--recipe", str(recipe),
                        "--device", "cpu", "--validate", str(folder), "-o", str(out), "--json", str(out / "out.json")],
                       check=True, env=env, timeout=300, capture_output=True)
        weights.append(read_weights(out / "weights.npz")[1])
        result = json.loads((out / "out.json").read_text())
        assert result["validation"]["step"] == 6
        assert (out / "curves.png").stat().st_size > 0
        assert len((out / "log.jsonl").read_text().splitlines()) == 2
    for key, value in weights[0].items():  # equal but for the order of the sums over the batch
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=2e-5)


def test_configurations(tmp_path):
    for recipe in RECIPES.glob("*.toml"):
        assert TrainConfig.load(recipe.stem).model
    with pytest.raises(ConfigError, match=r"train\.recipe = 'nothing'"):
        TrainConfig.load("nothing")
    with pytest.raises(ConfigError, match=r"train\.stepz"):
        TrainConfig.from_dict({"stepz": 3})
    for field, value in (("steps", 0), ("crop", 40), ("looks", [0.5]), ("gain", 2), ("gain_range", -1), ("contrast", 2),
                         ("contrast_range", 4), ("texture", 1.1),
                         ("cut", -0.1), ("initial_share", 1.0), ("bandwidth", [0.0, 1.0]), ("ema", 1.0), ("loss", "l1"),
                         ("even", 2), ("resampled", -1), ("tones", 1.5), ("ratio_weight", 11), ("precision", "fp8"),
                         ("learning_rate", 0.0), ("max_scale", 9.0)):
        with pytest.raises(ConfigError, match=rf"train\.{field}"):
            TrainConfig.from_dict({field: value})
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(ConfigError, match="readable TOML"):
        TrainConfig.load(bad)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_takes_a_step(images, tmp_path, recipe):
    config = TrainConfig.load(recipe)
    config = replace(config, batch=2, crop=96 if config.moved_weight else 32)
    own = None
    if config.self_supervised:
        z = np.random.default_rng(3).standard_normal((96, 96, 2), dtype=np.float32).view(np.complex64)[..., 0]
        own = Observations([z], [], config.crop + MOVED)
    trainer = Trainer(config, images, tmp_path, observations=own)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items()}
    assert 0 < trainer.train_step() < 1
    assert any(not torch.equal(v, before[k]) for k, v in trainer.net.state_dict().items())


def test_bad_images(tmp_path):
    with pytest.raises(DataError, match="a folder"):
        Images([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="a folder with"):
        Images([tmp_path])
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"x\.png"):
        Images([tmp_path])


def test_weights_round_trip(images, tmp_path):
    trainer = Trainer(TrainConfig(**SMALL), images, tmp_path)
    trainer.train_step()
    path = tmp_path / "w.npz"
    write_weights(path, trainer.averaged(), {"model": "tiny", "options": {}})
    network = load("tiny", path)
    assert isinstance(network, Network)
    noisy = np.random.default_rng(0).gamma(1, 1, (2, 32, 64)).astype(np.float32)
    out = network.despeckle(noisy, 1)
    assert out.shape == noisy.shape
    np.testing.assert_array_equal(out, network.despeckle(noisy, 1))
    np.testing.assert_allclose(network.despeckle(noisy[1], 1), out[1], rtol=0.05, atol=0.02)


def test_weights_refused(images, tmp_path):
    trainer = Trainer(TrainConfig(**SMALL), images, tmp_path)
    path = tmp_path / "w.npz"
    write_weights(path, trainer.net, {"model": "tiny", "options": {}})
    from nearflash.contract.errors import ModelError
    with pytest.raises(ModelError, match="weights of base"):
        load("base", path)
    write_weights(path, trainer.net, {"model": "tiny", "options": {"widths": [16, 32, 32, 64, 128]}})
    with pytest.raises(ModelError, match="weights that fit tiny"):
        load("tiny", path)
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b""):
        path.write_bytes(part)
        with pytest.raises(DataError, match=r"w\.npz"):
            load("tiny", path)
    with pytest.raises(DataError, match="nowhere"):
        load("tiny", tmp_path / "nowhere.npz")
    with pytest.raises(ConfigError, match=r"model = .resnet."):
        load("resnet")
    write_weights(path, trainer.net, {"model": "tiny", "options": {}})
    network = load("tiny", path)
    for shape in ((33, 32), (0, 32), (32,)):
        with pytest.raises(DataError, match="shape"):
            network.despeckle(np.ones(shape, np.float32), 1)
    with pytest.raises(DataError, match="looks"):
        network.despeckle(np.ones((32, 32), np.float32), 0)
