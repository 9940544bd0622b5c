"""The evaluation protocol, computed again by hand, and its command."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from nearflash.cli.sar import sar
from nearflash.contract import ConfigError, DataError
from nearflash.sar import methods
from nearflash.sar.evaluate import CORRELATED, CleanImage, evaluate, load_images
from nearflash.sar.metrics import psnr, ssim
from PIL import Image
from typer.testing import CliRunner


def gray(seed: int, shape: tuple[int, int] = (24, 31)) -> np.ndarray:
    """Blocks of random gray, some of them black."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4))
    blocks[0, 0] = 0
    return np.kron(blocks, np.ones((8, 8)))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in (2, 1, 3):
        Image.fromarray(gray(k)).save(tmp_path / f"im{k}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def noisy_amplitude(image: np.ndarray, looks: int, seed: int, k: int) -> np.ndarray:
    rng = np.random.default_rng([seed, k])
    gamma = rng.standard_gamma(looks, image.shape, dtype=np.float32) / looks
    return np.sqrt(np.square(image / 255) * gamma)


def test_scores_are_means_over_images_and_seeds() -> None:
    images = [CleanImage(f"{k}.png", gray(k)) for k in range(3)]
    run = methods.Method("half", 0, 1, False, lambda z, looks: z / 4)  # amplitude halved: an easy method to do by hand
    result = evaluate(images, run, 2, seeds=4)

    def scores(clean: np.ndarray, noisy: np.ndarray) -> tuple[float, float, float]:
        out = np.clip(noisy / 2, 0, 1)
        return psnr(clean, out), ssim(clean, out), psnr(clean, noisy)

    table = np.array([[scores(i.gray / 255, noisy_amplitude(i.gray, 2, s, k)) for s in range(4)]
                      for k, i in enumerate(images)])
    assert result["psnr_db"] == pytest.approx(table[..., 0].mean(), abs=1e-4)
    assert result["ssim"] == pytest.approx(table[..., 1].mean(), abs=1e-5)
    assert result["noisy_psnr_db"] == pytest.approx(table[..., 2].mean(), abs=1e-4)
    assert result["dg_db"] == pytest.approx(table[..., 0].mean() - table[..., 2].mean(), abs=1e-4)
    assert [i["name"] for i in result["images"]] == ["0.png", "1.png", "2.png"]
    assert [i["psnr_db"] for i in result["images"]] == pytest.approx(table[..., 0].mean(1), abs=1e-4)
    assert result["psnr_db_seed_std"] == pytest.approx(table[..., 0].mean(0).std(), abs=1e-4)
    assert result["megapixels_per_second"] > 0
    json.dumps(result, allow_nan=False)


def test_only_the_output_is_clipped() -> None:
    white = [CleanImage("white.png", np.full((40, 40), 255, np.uint8))]
    result = evaluate(white, methods.load_method("none"), 1, seeds=2)
    assert result["psnr_db"] > result["noisy_psnr_db"] + 2  # a third of the pixels were above 1


def test_published_protocol_has_no_black() -> None:
    seen = []

    def keep(z: np.ndarray, looks: float) -> np.ndarray:
        seen.append(z.copy())
        return z

    black = [CleanImage("black.png", np.zeros((40, 40), np.uint8))]
    run = methods.Method("keep", 0, 1, False, keep)
    evaluate(black, run, 4, seeds=1, protocol="published")
    assert seen[-1].mean() == pytest.approx(1 / 256**2, rel=0.05)
    evaluate(black, run, 4, seeds=1)
    assert seen[-1].max() < 1e-37


def test_an_image_scores_the_same_alone() -> None:
    """Noise hangs on the image's place and the seed, not on what was drawn before."""
    images = [CleanImage(f"{k}.png", gray(k)) for k in range(3)]
    lee = methods.load_method("lee")
    assert evaluate(images, lee, 1, seeds=2)["images"][:1] == evaluate(images[:1], lee, 1, seeds=2)["images"]


def test_correlated_speckle_is_correlated() -> None:
    seen = []

    def keep(z: np.ndarray, looks: float) -> np.ndarray:
        seen.append(z.astype(np.float64))
        return z

    run = methods.Method("keep", 0, 1, False, keep)
    flat = [CleanImage("flat.png", np.full((256, 256), 100, np.uint8))]
    found = []
    for response in (None, CORRELATED):
        result = evaluate(flat, run, 1, seeds=1, response=response)
        z = seen[-1] / seen[-1].mean() - 1
        found.append((z[:, 1:] * z[:, :-1]).mean() / z.var())
    assert result["speckle"] == "correlated"
    assert abs(found[0]) < 0.02
    assert 0.1 < found[1] < 0.5


def test_set12_gets_its_extra_means() -> None:
    images = [CleanImage(f"{k:02}.png", gray(k)) for k in range(1, 13)]
    result = evaluate(images, methods.load_method("none"), 1, seeds=1)
    each = [i["psnr_db"] for i in result["images"]]
    assert result["psnr_db_without_04"] == pytest.approx(np.mean(each[:3] + each[4:]))
    assert result["psnr_db_first_10"] == pytest.approx(np.mean(each[:10]))
    assert "psnr_db_first_10" not in evaluate(images[:11], methods.load_method("none"), 1, seeds=1)


def test_loading(folder: Path) -> None:
    assert [i.name for i in load_images(folder)] == ["im1.png", "im2.png", "im3.png"]
    assert len(load_images(folder, 2)) == 2
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[..., 1] = 200
    Image.fromarray(rgb).save(folder / "a.png")
    assert load_images(folder)[0].gray[0, 0] == 117  # 200 * 0.587


@pytest.mark.parametrize(("make", "message"), [
    (lambda p: (p / "x.png").write_bytes((p / "im1.png").read_bytes()[:60]), "can't be read"),
    (lambda p: Image.fromarray(np.zeros((16, 16), np.uint16)).save(p / "x.png"), "8-bit"),
    (lambda p: Image.fromarray(np.zeros((10, 50), np.uint8)).save(p / "x.png"), "at least 11 x 11"),
])
def test_bad_images_are_named(folder: Path, make, message: str) -> None:
    make(folder)
    with pytest.raises(DataError, match=rf"x\.png.*{message}"):
        load_images(folder)


def test_bad_settings_are_named(tmp_path: Path) -> None:
    images, none = [CleanImage("a.png", gray(1))], methods.load_method("none")
    with pytest.raises(DataError, match="at least one image"):
        load_images(tmp_path)
    with pytest.raises(DataError, match="must be a folder"):
        load_images(tmp_path / "absent")
    with pytest.raises(ConfigError, match="project, published"):
        evaluate(images, none, 1, protocol="mine")
    with pytest.raises(ConfigError, match="seeds"):
        evaluate(images, none, 1, seeds=0)
    with pytest.raises(DataError, match="images"):
        evaluate([], none, 1)
    with pytest.raises(ConfigError, match="looks"):
        evaluate(images, none, -1)


def test_command(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "score.json"
    options = ["evaluate", "--set", str(folder), "--looks", "4", "--seeds", "2", "--method", "lee", "--json", str(out)]
    ran = CliRunner().invoke(sar, options, catch_exceptions=False)
    assert ran.exit_code == 0
    assert "PSNR" in ran.output
    result = json.loads(out.read_text())
    assert {"psnr_db", "ssim", "images", "noisy_psnr_db", "dg_db", "megapixels_per_second"} <= set(result)
    assert (result["looks"], result["seeds"], result["method"], result["images_count"]) == (4, 2, "lee", 3)
    again = CliRunner().invoke(sar, [*options, "--self-ensemble", "--images", "1"], catch_exceptions=False)
    assert again.exit_code == 0
    result = json.loads(out.read_text())
    assert (result["images_count"], result["self_ensemble"]) == (1, 8)


def test_network_is_identified_by_its_weights(tmp_path: Path) -> None:
    from nearflash.sar.models import build
    from nearflash.sar.network import write_weights

    file = tmp_path / "w.npz"
    write_weights(file, build("tiny"), {"model": "tiny", "options": {}})
    run = methods.load_method("tiny", checkpoint=file)
    assert (run.multiple, run.scene_scale) == (32, True)
    result = evaluate([CleanImage("a.png", gray(1))], run, 1, seeds=1)  # 24 x 31: padded to the multiple
    assert result["checkpoint_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["checkpoint"] == str(file)


def test_ordering_on_natural_images(shared_data: Path) -> None:
    """The order of the classical methods on photographs at 4 looks (published figures on Set12: noisy 17.99, Lee 25.06,
    NLM 26.68 dB)."""
    if not (shared_data / "bsds500" / "val").is_dir():
        pytest.skip("bsds500/val not found in the development data")
    images = [CleanImage(i.name, i.gray[100:260, 100:260]) for i in load_images(shared_data / "bsds500" / "val", 3)]
    score = {n: evaluate(images, methods.load_method(n), 4, seeds=1) for n in ("lee", "nlm")}
    assert score["lee"]["dg_db"] > 3
    assert score["nlm"]["psnr_db"] > score["lee"]["psnr_db"] + 0.3
    assert score["nlm"]["ssim"] > score["lee"]["ssim"]
