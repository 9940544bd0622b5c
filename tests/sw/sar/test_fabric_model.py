"""Despecklers on the integer model of the fabric: the calibrations that ship, and what is refused."""

import numpy as np
import pytest
from nearflash.contract import ConfigError, DataError, ModelError
from nearflash.offload import Calibration
from nearflash.sar import network
from nearflash.sar.fabric import CROP, calibration_file, samples, towns
from nearflash.sar.level import level
from nearflash.sar.methods import load_method
from nearflash.sar.models import build
from nearflash.sar.speckle import speckled
from nearflash.sar.training.goals import RESPONSES
from PIL import Image


def test_tiny_on_the_fabric_stays_close_to_floating_point():
    y, x = np.mgrid[:64, :64] / 64
    scene = (0.2 + 0.5 * ((x + y) % 0.5 > 0.25) * x) ** 2
    noisy = speckled(scene, 1, np.random.default_rng(5)).astype(np.float32)
    plain, fabric = (np.sqrt(load_method("tiny", device=d)(noisy, 1.0)) for d in ("cpu", "fabric-model"))
    assert np.sqrt(np.mean((plain - fabric) ** 2)) < 0.01
    assert np.mean(fabric) == pytest.approx(np.mean(plain), rel=0.01)
    assert not np.array_equal(plain, fabric)


@pytest.mark.parametrize("name", ["base", "tiny"])
def test_shipped_calibrations_belong_to_shipped_weights(name):
    weights = network.WEIGHTS / f"{name}.npz"
    assert Calibration.read(calibration_file(weights)).note == network.load(name).sha256


def test_weights_without_their_calibration_are_refused(tmp_path):
    path = tmp_path / "mine.npz"
    network.write_weights(path, build("tiny"), {"model": "tiny", "options": {}})
    with pytest.raises(ModelError, match="nearflash sar calibrate"):
        network.load("tiny", path, "fabric-model")
    Calibration({}, "another").save(calibration_file(path))
    with pytest.raises(DataError, match="of these weights"):
        network.load("tiny", path, "fabric-model")
    with pytest.raises(ConfigError, match="fabric-board"):
        network.load("tiny", None, "fabric-board")


def test_samples_are_spread_over_the_folder(tmp_path):
    for k, size in enumerate([(300, 260), (255, 400), (256, 256), (400, 300)]):
        Image.new("L", size, 40 * k + 50).save(tmp_path / f"{k}.png")
    taken = list(samples(tmp_path, 3))
    assert [float(looks) for _, looks in taken] == [1, 4, 1]
    assert [round(float(a.square().mean().sqrt()) * 255 / 10) for a, _ in taken] == [5, 13, 17]  # 50, 130, 170
    with pytest.raises(DataError, match="images = 4"):
        list(samples(tmp_path, 4))


def test_towns_are_what_a_network_is_given():
    """Bright enough to need their level divided out, and then no brighter, about their targets, than that leaves them."""
    taken = list(towns(1))
    assert [float(looks) for _, looks in taken] == [1] * len(RESPONSES)
    for amplitude, looks in taken:
        seen = amplitude[0, 0].numpy()
        assert seen.shape == (CROP, CROP)
        assert seen.max() > 1.5
        assert level(seen, float(looks)).mean() < 1.05
