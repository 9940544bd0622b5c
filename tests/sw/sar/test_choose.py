"""What the values of an image are: by the user, the product, the type, or their statistics, in files and arrays alike."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("scipy")
rasterio = pytest.importorskip("rasterio")
from nearflash.contract import DataError  # noqa: E402
from nearflash.sar import despeckle  # noqa: E402
from nearflash.sar.choose import DomainError, choose_domain, judge  # noqa: E402
from nearflash.sar.declared import declared_domain  # noqa: E402
from nearflash.sar.io import open_scene, read_array  # noqa: E402
from scipy.ndimage import gaussian_filter, zoom  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
RNG = np.random.default_rng(11)


def speckle(shape: tuple[int, int], looks: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


def in_domain(intensity: np.ndarray, domain: str) -> np.ndarray:
    values = {"intensity": intensity, "amplitude": np.sqrt(intensity), "db": 10 * np.log10(intensity)}[domain]
    return values.astype(np.float32)


@pytest.mark.parametrize(("words", "domain"), [
    (["Sigma0_VV"], "intensity"), (["sigma0"], "intensity"), (["Gamma0_VH", "m2/m2"], "intensity"),
    (["beta nought"], "intensity"), (["Sigma0_VV_db"], "db"), (["VV", "dB"], "db"), (["sigma0", "decibel"], "db"),
    (["Amplitude_VV"], "amplitude"), (["Intensity_HH"], "intensity"), (["DN"], "amplitude"), (["VV"], None),
    (["dbl"], None), (["bandwidth"], None), ([], None),
    (["Amplitude_VV", "Intensity_VV"], None), (["beta0 amplitude"], "amplitude"), (["power"], "intensity"),
])
def test_what_words_say(words, domain):
    found = declared_domain(words)
    assert (found and found[0]) == domain


@pytest.mark.parametrize("domain", ["intensity", "amplitude", "db"])
@pytest.mark.parametrize("looks", [1, 4, 16])
@pytest.mark.parametrize("level", [1e-3, 0.05, 4e4])
def test_statistics_tell_the_domain_of_speckle(domain, looks, level):
    (first, sure), *_ = judge([in_domain(level * speckle((160, 160), looks, seed=looks), domain)])
    assert first == domain
    assert sure > 0.95


def test_what_was_cut_off_tells_nothing():
    """A quick-look's bright end is its largest number, its dark end 0: neither leaves speckle its skewness."""
    single = speckle((160, 160), 1)
    for cut in (np.minimum(np.sqrt(single), 1.4), np.minimum(single, 2)):
        assert judge([cut.astype(np.float32)]) == []
    # Of 8 bits with the lowest tenth stored as 0, as intensity: no amplitude varies that much
    eight = np.minimum(np.rint(80 * np.sqrt(single)), 255)
    dark = np.where(eight < 70, 0, eight) ** 2
    assert dark.std() > 0.9 * dark.mean()
    assert "amplitude" not in dict(judge([dark.astype(np.float32)]))


@pytest.mark.parametrize("domain", ["intensity", "amplitude", "db"])
def test_statistics_hold_on_fields_and_a_map_grid(domain):
    fields = np.kron(RNG.lognormal(0, 1, (6, 6)), np.ones((64, 64)))
    (first, sure), *_ = judge([in_domain(fields * speckle(fields.shape, 4), domain)])
    assert first == domain
    assert sure > 0.95
    # Interpolated: intensity there can't be told from textured amplitude, the others can
    (first, sure), *_ = judge([zoom(in_domain(speckle((200, 200), 4), domain), 1.8, order=1)])
    assert first == domain
    assert (sure > 0.95) == (domain != "intensity")


@pytest.mark.parametrize("scale", [1, 2, 3, 6])
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("looks", [1, 4])
def test_textured_amplitude_is_not_taken_for_intensity(scale, strength, looks):
    field = gaussian_filter(np.random.default_rng(scale).normal(size=(256, 256)), scale)
    ground = np.exp(strength * field / field.std())
    found = judge([np.sqrt(ground * speckle(ground.shape, looks))])
    assert not found or found[0][0] == "amplitude" or found[0][1] < 0.95


def test_a_town_and_a_flat_picture_tell_nothing():
    rough = np.exp(gaussian_filter(RNG.normal(size=(200, 200)), 1) * 4)
    for values in (np.sqrt(rough * speckle(rough.shape, 1)), np.full((99, 99), 3.0),
                   np.ones((5, 5)), RNG.normal(size=(200, 200)) * 1e-3 + 0.5):
        found = judge([values])
        assert not found or found[0][1] < 0.95
        with pytest.raises(DomainError, match=r"--domain amplitude or --domain intensity"):
            choose_domain(None, (), "float32", [values], field="a.tif")


def test_negative_values():
    noise = 0.02
    dark = (0.05 * speckle((160, 160), 4) + 0 * noise).astype(np.float32)
    assert judge([dark - np.float32(0.02)])[0][0] == "intensity"
    assert judge([in_domain(0.05 * speckle((160, 160), 4), "db")])[0][0] == "db"
    # Decibel times 10 is no decibel
    with pytest.raises(DomainError, match="db-scale 10"):
        choose_domain(None, (), "float32", [10 * in_domain(1e-3 * speckle((160, 160), 4), "db")], field="a.tif")
    assert judge([10 * in_domain(1e-3 * speckle((160, 160), 4), "db")], 10.0)[0][0] == "db"


def test_the_order_of_the_rule():
    amplitude = in_domain(speckle((160, 160), 4), "amplitude")
    choice = choose_domain("intensity", ("Amplitude_VV",), "float32", [amplitude], field="a")
    assert (choice.domain, choice.source) == ("intensity", "user")
    assert "look like amplitude" in choice.doubt  # a wrong domain shows
    choice = choose_domain(None, ("Intensity_VV",), "float32", [amplitude], field="a")
    assert (choice.domain, choice.source) == ("intensity", "product")
    assert "look like amplitude" in choice.doubt
    assert choose_domain(None, ("Amplitude_VV",), "float32", [amplitude], field="a").doubt == ""
    choice = choose_domain(None, (), "uint16", [np.rint(amplitude * 200)], field="a")
    assert (choice.domain, choice.source) == ("amplitude", "type")
    choice = choose_domain(None, (), "float32", [amplitude], field="a")
    assert (choice.domain, choice.source) == ("amplitude", "test")
    assert 0.95 <= choice.confidence < 1
    # Backscatter below 0 is in decibel, whatever the band is called
    decibel = in_domain(0.05 * speckle((160, 160), 4), "db")
    choice = choose_domain(None, ("Sigma0_VV",), "float32", [decibel], field="a")
    assert (choice.domain, choice.source) == ("db", "product")
    assert choose_domain(None, (), "complex64", [], field="a").domain == "complex"
    with pytest.raises(DataError, match="domain complex"):
        choose_domain("db", (), "complex64", [], field="a")
    with pytest.raises(DataError, match="no valid pixel"):
        choose_domain(None, (), "float32", [np.full((4, 4), np.nan)], field="a")


def test_files_and_arrays_go_by_one_rule(tmp_path):
    xarray = pytest.importorskip("xarray")
    truth = 0.05
    intensity = truth * speckle((160, 160), 4)
    kinds = {"declared": ("intensity", "Sigma0_VV"), "told by values": ("amplitude", "VV"), "decibel": ("db", "VV")}
    for domain, description in kinds.values():
        values = in_domain(intensity, domain)
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=1, height=160, width=160, dtype="float32") as d:
            d.write(values, 1)
            d.set_band_description(1, description)
        got, info = read_array(tmp_path / "a.tif")
        assert info.domain == domain
        assert got.mean() == pytest.approx(truth, rel=0.02)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image = xarray.DataArray(values, dims=("y", "x"), attrs={"long_name": description})
            out = despeckle(image, method="lee", looks=4)
            plain = despeckle(values, method="lee", looks=4)
        np.testing.assert_array_equal(out.values, plain)
        back = {"intensity": plain, "amplitude": plain**2, "db": 10 ** (plain / 10)}[domain]
        assert back.mean() == pytest.approx(truth, rel=0.02)


def test_a_decision_by_statistics_is_said(tmp_path):
    values = in_domain(speckle((160, 160), 4), "amplitude")
    np.save(tmp_path / "a.npy", values)
    with open_scene(tmp_path / "a.npy") as scene:
        assert any("taken for amplitude" in note and "%" in note for note in scene.info.notes)
    with pytest.warns(UserWarning, match="taken for amplitude"):
        despeckle(values, method="none")
    np.save(tmp_path / "flat.npy", np.ones((64, 64), np.float32))
    for make in (lambda: open_scene(tmp_path / "flat.npy"), lambda: despeckle(np.ones((64, 64), np.float32))):
        with pytest.raises(DomainError, match=r"--domain amplitude or --domain intensity.*domain='amplitude'"):
            make()
