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
from nearflash.sar.network import Network, load, read_weights, write_weights
from nearflash.sar.training.config import RECIPES, TrainConfig
from nearflash.sar.training.data import Images, clip_dark, cut_dark, flat_scene, point_targets, sample, sample_batch
from nearflash.sar.training.loop import Trainer, loss_of, rate_of
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
    return Images([folder])


def test_excluded_image(images):
    assert len(images) == 3


def test_samples_depend_on_their_place_alone(images):
    config = TrainConfig(**SMALL, correlated=0.5, targets=0.5, flat=0.3)
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


def test_scenes():
    rng = np.random.default_rng(2)
    for _ in range(20):
        assert len(np.unique(flat_scene(rng, 32))) <= 4
        assert 1.5 < np.abs(point_targets(rng, 32)).max() < 8 * 40


def test_loss_is_relative_to_scale_and_bright_targets():
    config = TrainConfig(**SMALL)
    clean = torch.full((1, 1, 2, 2), 0.5)
    estimate = clean + 0.1
    one = torch.ones(1, 1, 2, 2)
    assert float(loss_of(config, estimate, clean, one)) == pytest.approx(0.1, rel=1e-3)
    assert float(loss_of(config, 3 * estimate, 3 * clean, 3 * one)) == pytest.approx(0.1, rel=1e-3)
    assert float(loss_of(config, clean + 50, clean + 49.5, one)) == pytest.approx(0.01, rel=1e-2)
    halves = torch.tensor([[[[1.0, 1.0], [0.5, 0.5]]]])  # clean 0.5: an error of 0.1 is 0.1 above and 0.2 below
    assert float(loss_of(config, estimate, clean, halves)) == pytest.approx(((0.01 + 0.04) / 2) ** 0.5, rel=1e-3)


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
                         ("cut", -0.1), ("initial_share", 1.0), ("bandwidth", [0.0, 1.0]), ("ema", 1.0), ("loss", "l1"),
                         ("precision", "fp8"), ("learning_rate", 0.0), ("max_scale", 9.0)):
        with pytest.raises(ConfigError, match=rf"train\.{field}"):
            TrainConfig.from_dict({field: value})
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(ConfigError, match="readable TOML"):
        TrainConfig.load(bad)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_takes_a_step(images, tmp_path, recipe):
    config = replace(TrainConfig.load(recipe), batch=2, crop=32)
    trainer = Trainer(config, images, tmp_path)
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
