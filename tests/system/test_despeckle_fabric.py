"""Despeckling on the simulated device, from the command line: the bytes of the integer model, and what is refused."""

import json

import numpy as np
import pytest
from nearflash.cli.app import app
from nearflash.cli.fabric import Watch
from nearflash.contract import CommandError, ConfigError, Status
from nearflash.contract.tensor import DESCRIPTOR_BYTES, Op
from nearflash.sar import despeckle
from nearflash.sar.methods import load_method
from PIL import Image
from small_despeckler import TENSORS, write_despeckler
from typer.testing import CliRunner

IMAGE = np.random.default_rng(4).gamma(4, 1 / 4, (32, 32)).astype(np.float32)  # intensity
NOISY = np.sqrt(np.random.default_rng(4).gamma(4, 1 / 4, (24, 30))).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_despeckler(tmp_path_factory.mktemp("small"))


@pytest.fixture
def method(files):
    found = load_method("tiny", device="fabric", checkpoint=files[0], config=files[1])
    yield found
    found.close()


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def on(device, files):
    return ["--device", device, "--config", files[1], "--checkpoint", files[0]]


def test_the_simulated_device_writes_the_integer_models_bytes(files, tmp_path):
    np.save(tmp_path / "a.npy", NOISY)
    np.save(tmp_path / "b.npy", 2 * NOISY[::-1])
    outputs = {}
    for device in ("fabric", "fabric-model", "cpu"):
        options = on(device, files) if device != "cpu" else ["--checkpoint", files[0]]
        run("despeckle", tmp_path / "a.npy", tmp_path / "b.npy", "-o", tmp_path / device, "--method", "tiny", "--domain",
            "amplitude", "--looks", 4, *options, "--json", tmp_path / "report.json")
        outputs[device] = [(tmp_path / device / name).read_bytes() for name in ("a.npy", "b.npy")]
        report = json.loads((tmp_path / "report.json").read_text())
        assert ("fabric" in report) == (device == "fabric")
        if device == "fabric":
            assert report["fabric"]["config"] == "tensors"
            assert report["fabric"]["design_id"] == f"{TENSORS.design_id:#010x}"
            assert report["fabric"]["cycles"] > 20_000
    assert outputs["fabric"] == outputs["fabric-model"]
    assert outputs["fabric"][0] != outputs["cpu"][0]
    assert outputs["fabric"][0] != outputs["fabric"][1]


def test_scores_and_comparisons_are_the_same_on_both(files, tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray((NOISY * 60).clip(0, 255).astype(np.uint8)).save(tmp_path / "set" / "a.png")
    np.save(tmp_path / "a.npy", NOISY)
    scores, figures = [], []
    for device in ("fabric", "fabric-model"):
        run("sar", "evaluate", "--set", tmp_path / "set", "--seeds", 1, "--method", "tiny", *on(device, files), "--json",
            tmp_path / "score.json")
        found = json.loads((tmp_path / "score.json").read_text())
        assert found["device"] == device
        scores.append((found["psnr_db"], found["ssim"]))
        run("sar", "compare", tmp_path / "a.npy", "--domain", "amplitude", "--looks", 4, "--methods", "tiny,lee", "-o",
            tmp_path / "compare.png", *on(device, files), "--json", tmp_path / "compare.json")
        found = json.loads((tmp_path / "compare.json").read_text())["methods"]["tiny"]
        figures.append({k: v for k, v in found.items() if "second" not in k})
    assert scores[0] == scores[1]
    assert figures[0] == figures[1]
    assert figures[0]["ratio_mean"] > 0


@pytest.mark.parametrize(("options", "message"), [
    (["--config", "{config}"], "--config.*has no effect without --device fabric or fabric-model"),
    (["--device", "fabric-model", "--overlay", "a.bit"], "--overlay.*has no effect without --device fabric"),
    (["--device", "fabric", "--overlay", "a.bit", "--config", "{config}"], "--config.*can't be combined with --overlay"),
    (["--device", "fabric", "--cluster", "dask"], "--cluster.*a device serves one process"),
    (["--device", "fabric", "--config", "{plain}"], r"tensor\.rows = 0"),
    (["--device", "fabric", "--config", "{missing}"], "missing.toml"),
    (["--device", "fabrics"], "device = 'fabrics': must be cpu, cuda, fabric-model or fabric")])
def test_options_that_mean_nothing_are_refused(files, tmp_path, options, message):
    np.save(tmp_path / "a.npy", NOISY)
    (tmp_path / "plain.toml").write_text('preset = "tiny"\n')
    given = [o.format(config=files[1], plain=tmp_path / "plain.toml", missing=tmp_path / "missing.toml") for o in options]
    result = CliRunner().invoke(app, ["despeckle", str(tmp_path / "a.npy"), "-o", str(tmp_path / "out.npy"), "--method",
                                      "tiny", "--checkpoint", str(files[0]), *given])
    with pytest.raises((ConfigError, OSError, ValueError), match=message):
        raise result.exception
    assert not (tmp_path / "out.npy").exists()


def test_a_filter_and_a_function_call_have_no_fabric(files):
    with pytest.raises(ConfigError, match=r"config.*only networks run on a fabric"):
        load_method("lee", config=files[1])
    with pytest.raises(ConfigError, match=r"config.*only a fabric has one"):
        load_method("tiny", config=files[1])
    with pytest.raises(ConfigError, match=r"device = 'fabric': .*load_method"):
        despeckle(NOISY, domain="amplitude", looks=4, method="tiny", device="fabric")


def test_an_image_beyond_the_buffers_is_refused_and_the_next_one_done(files, method, tmp_path):
    """Tensors of 160 x 160 pixels take more than the tensor region."""
    np.save(tmp_path / "large.npy", np.tile(NOISY, (6, 5)))
    np.save(tmp_path / "small.npy", NOISY)
    result = run("despeckle", tmp_path / "large.npy", tmp_path / "small.npy", "-o", tmp_path / "out", "--method", "tiny",
                 "--domain", "amplitude", "--looks", 4, *on("fabric", files), "--json", tmp_path / "report.json", code=1)
    large, small = json.loads((tmp_path / "report.json").read_text())["files"]
    assert "ModelError" in large["error"]
    assert "must fit the tensor region of 262144 bytes" in large["error"]
    assert small["error"] is None
    assert "large.npy" in result.output
    want = despeckle(NOISY, domain="amplitude", looks=4, method=method)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "small.npy"), want)


def test_time_is_announced_and_progress_goes_on_within_a_tile(method, monkeypatch, capsys):
    monkeypatch.setattr("nearflash.runtime.nvme._TOLD", 5000)
    monkeypatch.setattr("nearflash.cli.fabric.LONG_S", 0.0)
    shares: list[float] = []
    watch = Watch(method, shares.append)
    watch.expect(2)
    method(IMAGE, 4.0)
    first = len(shares)
    assert first > 5
    assert 0.3 < max(shares) <= 0.5
    method(IMAGE, 4.0)
    assert shares == sorted(shares)
    assert shares[first] == pytest.approx(0.5, abs=0.05)
    assert max(shares) > 0.8
    said = capsys.readouterr()
    cycles = method.offloaded.predicted_cycles(next(iter(method.offloaded._compiled.values())).programs[0])
    assert f"{cycles / 1e6:.2f} M cycles a tile predicted, 2 to do: about" in " ".join((said.out + said.err).split())


def test_a_program_corrupted_in_memory_is_named_and_loaded_again(method):
    want = method(IMAGE, 4.0)
    module = method.offloaded
    (program,) = next(iter(module._compiled.values())).programs
    number = next(n for n, o in enumerate(program.operators, 1) if o.op == Op.LAYERNORM)
    at = number * DESCRIPTOR_BYTES
    broken = bytearray(program.image[at : at + DESCRIPTOR_BYTES])
    broken[40] ^= 4
    module.fabric.device.load_tensors(program.base + at, bytes(broken))
    with pytest.raises(CommandError, match=f"descriptor {number}: layer_norm in encoder.2.0.norm1") as e:
        method(IMAGE, 4.0)
    assert (e.value.status, e.value.dw0, e.value.dw1) == (Status.BAD_DESCRIPTOR, number, 31)
    assert e.value.__cause__ is not None
    np.testing.assert_array_equal(method(IMAGE, 4.0), want)
