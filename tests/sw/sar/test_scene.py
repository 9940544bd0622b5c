"""Tiles, missing pixels, looks and the stream, with methods made here whose results are known by other means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from nearflash.contract import ConfigError, DataError, ModelError
from nearflash.sar.homogeneous import EvenWindows
from nearflash.sar.io import SceneInfo
from nearflash.sar.io.base import Scene, Writer
from nearflash.sar.looks import estimate_looks, local_looks
from nearflash.sar.methods import Method
from nearflash.sar.missing import fill_missing, interior_constants
from nearflash.sar.scene import despeckle_stream, require_valid
from nearflash.sar.statistics import survey
from nearflash.sar.tiles import RAMP, lerp, plan_axis, ramp
from scipy.ndimage import gaussian_filter, uniform_filter


class Memory(Scene):
    """A scene in memory that notes which rows were asked for."""

    def __init__(self, values: np.ndarray, domain: str = "intensity", nodata: float | None = None):
        self.values, self.reads = values, []
        self.info = SceneInfo(Path("memory"), values.shape, 1, domain, str(values.dtype), nodata)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        self.reads.append((rows.start, rows.stop))
        return self.values[rows]

    def close(self) -> None:
        pass


class Collect(Writer):
    def __init__(self, shape: tuple[int, int]):
        self.image = np.full(shape, -1, np.float32)
        self.next_row = 0

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        assert row == self.next_row, "rows must come in order, each once"
        self.image[row : row + len(intensity)] = intensity
        self.next_row = row + len(intensity)


def method(apply, margin: int = 0, multiple: int = 1, scene_scale: bool = False) -> Method:
    return Method("test", margin, multiple, scene_scale, apply)


IDENTITY = method(lambda intensity, looks: intensity)
BOX = method(lambda intensity, looks: uniform_filter(intensity, 7, mode="reflect"), margin=3)


def run(values: np.ndarray, m: Method, looks: float | str = 4.0, **options):
    scene = Memory(values)
    out = Collect(values.shape)
    report = despeckle_stream(scene, out, m, looks, **options)
    assert out.next_row == values.shape[0]
    return out.image, report


def speckle(shape: tuple[int, int], looks: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


# Tiles


@pytest.mark.parametrize("length", [1, 2, 31, 63, 64, 65, 80, 100, 127, 128, 129, 500, 1001])
@pytest.mark.parametrize(("tile", "margin", "multiple"), [(64, 0, 1), (82, 16, 1), (90, 9, 32), (70, 8, 1)])
def test_weights_of_all_tiles_sum_to_one_and_spare_the_margins(length, tile, margin, multiple):
    axis = plan_axis(length, tile, margin, multiple)
    total = np.zeros(length)
    for k, start in enumerate(axis.starts):
        assert 0 <= start <= start + axis.window <= length
        weight = np.ones(axis.window)
        if k > 0:
            a = axis.ramps[k - 1] - start
            assert a >= margin
            weight[:a] = 0
            weight[a : a + RAMP] = ramp()
        if k < len(axis.ramps):
            a = axis.ramps[k] - start
            assert a + RAMP + margin <= axis.window
            weight[a + RAMP :] = 0
            weight[a : a + RAMP] *= 1 - ramp()
        total[start : start + axis.window] += weight
    np.testing.assert_array_equal(total, 1)
    if len(axis.starts) > 1:
        assert axis.window % multiple == 0


def test_ramp_is_a_raised_cosine():
    expected = np.sin(np.pi / 2 * (np.arange(RAMP) + 0.5) / RAMP) ** 2  # = (1 - cos) / 2
    np.testing.assert_allclose(ramp(), expected, atol=2**-12)
    np.testing.assert_array_equal(ramp() + ramp()[::-1], 1)
    x = speckle((5, RAMP), 1)
    np.testing.assert_array_equal(lerp(x, x, ramp()), x)


def test_a_tile_smaller_than_its_margins_is_refused():
    with pytest.raises(ConfigError, match="at least 114"):
        plan_axis(1000, 113, 32)
    assert plan_axis(1000, 114, 32).window == 114


# The stream


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 5), (63, 64), (200, 130), (131, 333)])
def test_identity_is_exact_at_any_size(shape):
    values = speckle(shape, 1)
    got, report = run(values, IDENTITY, tile=56)
    np.testing.assert_array_equal(got, values)
    assert report.mean_in == report.mean_out == pytest.approx(values.mean(dtype=float))
    assert report.valid_pixels == values.size


@pytest.mark.parametrize("shape", [(1, 1), (50, 3), (200, 130), (131, 333)])
@pytest.mark.parametrize("tile", [56, 64, 512])
def test_a_filter_gives_the_same_with_and_without_tiles(shape, tile):
    values = speckle(shape, 2)
    got, _ = run(values, BOX, tile=tile)
    # SciPy's running sum depends on where it starts, in the last bits
    np.testing.assert_allclose(got, uniform_filter(values, 7, mode="reflect"), rtol=2e-5)


def test_the_same_bits_each_time_and_for_every_batching_of_rows():
    values = speckle((150, 170), 1)
    first, _ = run(values, BOX, tile=64)
    again, _ = run(values, BOX, tile=64)
    np.testing.assert_array_equal(first, again)


def test_no_seam_where_tiles_disagree():
    """Each tile gets a random gain: the result must not jump by more than a step of the ramp between any two pixels."""
    rng = np.random.default_rng(1)
    values = 1 + 1e-5 * speckle((300, 300), 1)  # what is constant would pass unchanged
    got, _ = run(values, method(lambda i, looks: i * np.float32(rng.uniform(0.5, 1.5))), tile=64)
    step = np.diff(ramp()).max() * 1.0 * 1.01
    assert np.abs(np.diff(got, axis=0)).max() <= step
    assert np.abs(np.diff(got, axis=1)).max() <= step
    assert np.ptp(got) > 0.3


def test_tiles_have_the_methods_multiple_and_are_cropped_back():
    shapes = set()

    def note(intensity: np.ndarray, looks: float) -> np.ndarray:
        shapes.add(intensity.shape)
        assert (intensity > 0).all()
        assert looks == 4
        return intensity

    values = speckle((37, 150), 1)
    got, _ = run(values, method(note, margin=8, multiple=32), tile=90)
    np.testing.assert_array_equal(got, values)
    assert shapes == {(64, 96)}


def test_rows_are_read_once_in_order_beside_the_survey():
    scene = Memory(speckle((400, 30), 1))
    despeckle_stream(scene, Collect((400, 30)), IDENTITY, 1.0, tile=64)
    survey_reads = Memory(scene.values)
    survey(survey_reads, looks=False)
    stream = scene.reads[len(survey_reads.reads) :]
    assert [a for a, _ in stream[1:]] == [b for _, b in stream[:-1]]
    assert (stream[0][0], stream[-1][1]) == (0, 400)
    assert max(b - a for a, b in stream) <= 64


def test_progress_reaches_the_end_and_never_goes_back():
    seen = []
    run(speckle((200, 200), 1), IDENTITY, tile=64, progress=lambda done, rows: seen.append((done, rows)))
    assert seen == sorted(seen)
    assert seen[-1] == (200, 200)
    assert len(seen) > 10


def test_a_method_that_misbehaves_is_named():
    values = speckle((20, 20), 1)
    with pytest.raises(ModelError, match="shape"):
        run(values, method(lambda i, looks: i[:5]))
    with pytest.raises(ModelError, match="finite"):
        run(values, method(lambda i, looks: i * np.nan))


@pytest.mark.parametrize("looks", [0, -1, float("nan"), float("inf"), "many"])
def test_impossible_looks(looks):
    with pytest.raises(ConfigError, match="looks"):
        run(np.ones((4, 4), np.float32), IDENTITY, looks)


def test_unknown_match_mean():
    with pytest.raises(ConfigError, match="none, local, global"):
        run(np.ones((4, 4), np.float32), IDENTITY, match_mean="yes")


# Missing pixels and zeros


def test_missing_pixels_stay_and_do_not_bleed():
    values = speckle((200, 220), 4)
    hole = np.zeros(values.shape, bool)
    hole[60:150, 40:170] = True
    hole[::17, ::13] = True
    holed = np.where(hole, np.nan, values)
    got, report = run(holed, BOX, tile=64)
    np.testing.assert_array_equal(np.isnan(got), hole)
    assert report.valid_pixels == (~hole).sum()
    # Beside the hole the mean of 49 pixels is within 6 sigma of 1, as everywhere: no darkening, no brightening. The mirror
    # counts pixels twice, so sigma is up to sqrt(2) times 1 / sqrt(4 * 49).
    assert np.abs(got[~hole] - 1).max() < 6 * 1.5 / 14
    edge = got[57:60, 60:150]
    assert edge.mean() == pytest.approx(1, abs=0.06)


def test_tiles_without_a_valid_pixel_are_not_computed():
    calls = []

    def count(intensity: np.ndarray, looks: float) -> np.ndarray:
        calls.append(intensity.shape)
        return intensity

    values = np.full((300, 300), np.nan, np.float32)
    values[10, 10] = 2.5
    got, _ = run(values, method(count), tile=64)
    assert len(calls) == 1
    np.testing.assert_array_equal(got, values)


def test_fill_mirrors_at_the_nearest_valid_pixel():
    row = np.array([[1, 2, 3, 4, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan]], np.float32)
    # The nearest valid pixel is in column 3: column 4 shows column 2, column 6 column 0, and there the image ends
    np.testing.assert_array_equal(fill_missing(row), [[1, 2, 3, 4, 3, 2, 1, 1, 1, 1]])
    np.testing.assert_array_equal(fill_missing(row.T), fill_missing(row).T)
    lonely = np.full((3, 3), np.nan, np.float32)
    lonely[1, 1] = 7
    np.testing.assert_array_equal(fill_missing(lonely), 7)


def test_all_zero_scene_gives_zeros():
    got, report = run(np.zeros((100, 100), np.float32), BOX, looks="auto", tile=56)
    np.testing.assert_array_equal(got, 0)
    assert (report.looks, report.looks_source) == (1.0, "assumed")
    assert report.mean_in == report.mean_out == 0


def test_zeros_among_zeros_stay_and_the_method_sees_none():
    values = speckle((100, 100), 4)
    values[:, :40] = 0
    values[50, 70] = 0

    def log_mean(intensity: np.ndarray, looks: float) -> np.ndarray:
        return np.exp(uniform_filter(np.log(intensity.astype(np.float64)), 5)).astype(np.float32)

    got, _ = run(values, method(log_mean, margin=2))
    assert (got[:, :37] == 0).all()
    assert np.isfinite(got).all()
    assert got[50, 70] > 0
    even = interior_constants(values)
    assert even[:, :37].all()
    assert not even[:, 37:].any()
    same, _ = run(values, IDENTITY)
    np.testing.assert_array_equal(same, values)


def test_a_value_among_equal_ones_stays():
    values = speckle((120, 130), 1)
    values[30:70, 40:90] = 6.5  # saturated
    values[60:, 50] = np.nan
    expected = np.zeros(values.shape, bool)
    for i, j in np.argwhere(~np.isnan(values)):
        near = values[max(0, i - 3) : i + 4, max(0, j - 3) : j + 4]
        expected[i, j] = (near[~np.isnan(near)] == values[i, j]).all()
    assert expected[33, 43]
    np.testing.assert_array_equal(interior_constants(values), expected)
    got, _ = run(values, method(lambda i, looks: 2 * i), tile=64)
    np.testing.assert_array_equal(got[expected], 6.5)
    valid = ~expected & ~np.isnan(values)
    np.testing.assert_allclose(got[valid], 2 * values[valid], rtol=1e-6)
    for shape in ((1, 1), (1, 9), (9, 1), (2, 2)):
        assert interior_constants(np.full(shape, 3, np.float32)).all()


def test_all_missing_is_refused():
    _, report = run(np.full((5, 5), np.nan, np.float32), IDENTITY)
    assert report.valid_pixels == 0
    with pytest.raises(DataError, match=r"scene\.tif.*valid pixel"):
        require_valid([report], "scene.tif")


# Scale, means, ratio


@pytest.mark.parametrize("brightness", [1e-8, 1.0, 1e9])
def test_networks_see_a_median_amplitude_of_0_4(brightness):
    seen = []

    def note(intensity: np.ndarray, looks: float) -> np.ndarray:
        seen.append(np.median(np.sqrt(intensity)))
        return intensity

    values = speckle((100, 100), 4) * np.float32(brightness)
    values[:20] = np.nan
    got, _ = run(values, method(note, scene_scale=True))
    assert seen[0] == pytest.approx(0.4, rel=0.05)  # the tile's median, with the mirrored fill
    np.testing.assert_allclose(got, values, rtol=1e-6)


def test_one_scale_for_the_whole_scene():
    factors = set()
    values = np.ones((200, 100), np.float32)
    values[100:] = 50
    values[0, 0] = 1.5

    def note(intensity: np.ndarray, looks: float) -> np.ndarray:
        factors.update(np.unique(intensity).tolist())
        return intensity

    run(values, method(note, scene_scale=True), tile=56)
    assert len(factors) == 3


def test_constant_scene():
    got, report = run(np.full((70, 70), 9.0, np.float32), method(lambda i, looks: i, scene_scale=True), "auto")
    np.testing.assert_allclose(got, 9, rtol=1e-6)
    assert report.looks_source == "assumed"


def test_match_mean():
    values = speckle((200, 200), 4)
    values[:, 100:] *= 20
    dim = method(lambda i, looks: np.where(i > 5, 0.97, 0.93).astype(np.float32) * gaussian_filter(i, 1), margin=5)
    plain, report = run(values, dim)
    assert report.mean_out / report.mean_in < 0.975
    flat, report = run(values, dim, match_mean="global", tile=64)
    assert report.mean_out == pytest.approx(report.mean_in, rel=1e-6)
    assert flat.mean(dtype=float) == pytest.approx(values.mean(dtype=float), rel=1e-4)
    np.testing.assert_allclose(flat / plain, report.gain, rtol=1e-4)
    local, report = run(values, dim, match_mean="local", tile=144)
    for part in (np.s_[:, :60], np.s_[:, 140:]):
        assert local[part].mean() == pytest.approx(values[part].mean(), rel=0.02)


def test_local_match_does_not_light_up_around_a_damped_target():
    values = speckle((150, 150), 4)
    values[75, 75] = 1e5
    got, _ = run(values, method(lambda i, looks: np.minimum(i, 10)), match_mean="local")
    assert (got / np.minimum(values, 10)).max() <= 1.1 + 1e-6


@pytest.mark.parametrize("match", ["none", "global"])
def test_ratio_image(match):
    values = speckle((130, 90), 4)
    values[:10] = np.nan
    values[-20:] = 0
    out, ratio = Collect(values.shape), Collect(values.shape)
    despeckle_stream(Memory(values), out, BOX, 4, tile=56, ratio=ratio, match_mean=match)
    expected = values[10:-24] / out.image[10:-24]
    np.testing.assert_allclose(ratio.image[10:-24], expected, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(ratio.image), np.isnan(values))
    assert (ratio.image[-10:] == 1).all()


# Looks


@pytest.mark.parametrize("looks", [1, 4, 16])
@pytest.mark.parametrize("size", [100, 400])
def test_looks_of_simulated_speckle(looks, size):
    estimate = estimate_looks([speckle((size, size), looks, seed=size)])
    assert estimate.looks == pytest.approx(looks, rel=0.25)
    assert estimate.low < looks < estimate.high
    assert estimate.even


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_looks_of_a_scene_with_fields_edges_and_targets(looks):
    rng = np.random.default_rng(5)
    clean = np.kron(rng.lognormal(0, 1, (12, 12)), np.ones((50, 50)))
    clean[:, :150] *= np.exp(gaussian_filter(rng.normal(size=(600, 150)), 1) * 3)  # woods, a town
    clean.flat[rng.integers(0, clean.size, 300)] *= 1000
    scene = Memory((clean * speckle(clean.shape, looks)).astype(np.float32))
    assert survey(scene).looks == pytest.approx(looks, rel=0.25)


def test_local_looks_against_the_likelihood_equation():
    from scipy.optimize import brentq
    from scipy.special import digamma

    block = speckle((9, 9), 3, seed=2).astype(float)
    spread = np.log(block.mean()) - np.log(block).mean()
    solved = brentq(lambda k: np.log(k) - digamma(k) - spread, 0.01, 1000)
    assert local_looks(block)[0] == pytest.approx(solved * (1 - 3 / 81), rel=0.016)  # the closed form is within 1.5 %


def test_looks_are_given_estimated_or_assumed():
    values = speckle((100, 100), 4)
    assert run(values, IDENTITY, 2)[1].looks_source == "given"
    report = run(values, IDENTITY, "auto")[1]
    assert report.looks_source == "estimated"
    assert report.looks == pytest.approx(4, rel=0.25)
    tiny = run(np.ones((3, 3), np.float32), IDENTITY, "auto")[1]
    assert (tiny.looks, tiny.looks_source) == (1.0, "assumed")


def test_even_windows_choose_the_even_ones():
    before, after = speckle((320, 320), 4), speckle((320, 320), 100, seed=1)
    before[32:], after[32:] = before[32:] * (1 + np.arange(320) % 7), after[32:] * (1 + np.arange(320) % 7)
    before[32:] *= np.linspace(1, 30, 320)
    windows = EvenWindows()
    windows.add(before, after)
    enl_in, enl_out = windows.looks()
    assert enl_in == pytest.approx(4, rel=0.25)
    assert enl_out == pytest.approx(100, rel=0.25)
    assert EvenWindows().looks() == (None, None)


# Memory


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from nearflash.sar.files import Job, Settings, despeckle_file
from nearflash.sar.methods import load_method
job = Job(Path(sys.argv[1]), Path(sys.argv[2]), Settings("lee", 4.0, "amplitude"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
despeckle_file(job, load_method("lee"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_memory_does_not_grow_with_the_height(tmp_path, suffix):
    pytest.importorskip("resource")
    pytest.importorskip("rasterio")
    from nearflash.sar.io import open_scene, open_writer

    row = (np.sqrt(speckle((1, 500), 4)) * 100).astype(np.float32)
    grown = {}
    for height in (1000, 12000):
        np.save(tmp_path / "a.npy", np.broadcast_to(row, (height, 500)))
        source = tmp_path / f"a{suffix}"
        if suffix == ".tif":
            with open_scene(tmp_path / "a.npy") as scene, open_writer(scene, source, overwrite=True) as writer:
                for r in range(0, height, 500):
                    writer.write(scene.read(slice(r, r + 500)), r)
        done = subprocess.run([sys.executable, "-c", MEMORY, str(source), str(tmp_path / f"out{height}{suffix}")],
                              capture_output=True, text=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        grown[height] = float(done.stdout)
    # The survey's sample grows until 32 bands of rows: 2.3 MB here. The higher image alone has 22 MB more.
    assert grown[12000] < grown[1000] + 12, grown


def test_a_real_scene_keeps_its_mean_and_its_missing_pixels(shared_data):
    path = shared_data / "real_sar" / "pyrosar_s1_VV_db.tif"
    pytest.importorskip("rasterio")
    from nearflash.sar.io import open_scene

    with open_scene(path, "db") as scene:
        out = Collect(scene.shape)
        report = despeckle_stream(scene, out, BOX, "auto", tile=64)
        whole = scene.read(slice(0, scene.shape[0]))
    assert report.looks == pytest.approx(4.4, rel=0.4)  # the product's nominal looks; multilooked and resampled since
    assert report.mean_out == pytest.approx(report.mean_in, rel=0.01)
    np.testing.assert_allclose(out.image, uniform_filter(whole, 7, mode="reflect"), rtol=1e-4)
