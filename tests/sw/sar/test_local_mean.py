"""The local mean that despeckled images keep, against the definition written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from nearflash.sar.local_mean import BLOCK, BOX, CORRELATION, EXPECTED_BIAS, LIMIT, REACH, keep_local_mean


def exponential(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_exponential(shape).astype(np.float32)


def gain_in_the_middle(before: np.ndarray, after: np.ndarray) -> float:
    """Of the cell in the middle of an image far larger than REACH, in float64 by the definition."""
    rows, columns = (n // BLOCK for n in before.shape)
    cells = [np.array([[image[r * BLOCK : (r + 1) * BLOCK, c * BLOCK : (c + 1) * BLOCK].mean(dtype=float)
                        for c in range(columns)] for r in range(rows)]) for image in (before, after)]
    total = np.zeros(2)
    for r in range(-BOX + 1, BOX):
        for c in range(-BOX + 1, BOX):
            weight = (BOX - abs(r)) * (BOX - abs(c))  # a box on a box is a pyramid
            at = rows // 2 + r, columns // 2 + c
            brightness = max(cells[1][at], cells[1][at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2].mean())
            total += [weight * image[at] / brightness for image in cells]
    return total[0] / total[1]


def test_equals_its_definition() -> None:
    before, smooth = exponential((132, 148)), 1 + 0.5 * np.sin(np.arange(148) / 9, dtype=np.float32)
    before, after = 1.03 * before * smooth, np.broadcast_to(smooth, before.shape).astype(np.float32)
    gain = keep_local_mean(before, after) / after
    # Pixels 1 and 2 of a cell are an eighth of the way to the next one's middle
    rows, columns = (n // BLOCK // 2 * BLOCK for n in before.shape)
    middle = gain[rows + 1 : rows + 3, columns + 1 : columns + 3].mean()
    assert middle == pytest.approx(gain_in_the_middle(before, after), abs=5e-4)
    assert abs(middle - 1.03) > 5e-3  # the speckle's own mean is in it


def test_the_gain_follows_a_slope_without_steps() -> None:
    slope = np.broadcast_to(np.linspace(0.95, 1.05, 160, dtype=np.float32), (200, 160))
    inside = slice(REACH, -REACH)  # at the border the mirrored half of the slope goes the other way
    for before in (slope, slope.T):
        gain = keep_local_mean(before, np.ones(before.shape, np.float32))
        np.testing.assert_allclose(gain[inside, inside], before[inside, inside], atol=1e-5)


@pytest.mark.parametrize("looks", [1, 4, 100, np.inf])
def test_few_looks_are_trusted_less(looks: float) -> None:
    after = np.ones((200, 200), np.float32)
    noise = CORRELATION / (looks * (1.5 * BOX * BLOCK) ** 2)
    gain = 1 + 0.05 * EXPECTED_BIAS**2 / (EXPECTED_BIAS**2 + noise)
    np.testing.assert_allclose(keep_local_mean(np.float32(1.05) * after, after, looks), gain, rtol=1e-5)
    more = 1 + 0.05 * 0.1**2 / (0.1**2 + noise)
    np.testing.assert_allclose(keep_local_mean(np.float32(1.05) * after, after, looks, 0.1), more, rtol=1e-5)


def test_where_no_bias_is_expected_nothing_changes() -> None:
    before, after = exponential((64, 64)), exponential((64, 64), 1)
    np.testing.assert_array_equal(keep_local_mean(before, after, 1, 0), after)


def test_a_bias_goes_and_hardly_any_speckle_comes() -> None:
    errors = {1.0: [], 0.97: []}
    for bias, found in errors.items():
        for seed in range(12):
            out = keep_local_mean(exponential((256, 256), seed), np.full((256, 256), bias, np.float32), 1)
            found.append(out.mean(dtype=float) - 1)
            assert out.std() < 0.024  # as of 1,700 looks and more
    assert abs(np.mean(errors[1.0])) < 0.002
    assert abs(np.mean(errors[0.97])) < 0.005  # nine tenths of it are gone, at a single look
    many = keep_local_mean(exponential((256, 256)) * 0 + 1, np.full((256, 256), 0.97, np.float32), 100)
    assert many.mean() == pytest.approx(1, abs=0.001)


def test_a_damped_target_lights_up_nothing_and_a_bright_field_no_dark_one() -> None:
    before = np.ones((160, 160), np.float32)
    before[80, 80] = 1e4
    after = before.copy()
    after[80, 80] = 5e3
    gain = keep_local_mean(before, after) / after
    assert 1 <= gain.min() <= gain.max() < 1.02
    step = np.ones((160, 160), np.float32)
    step[:, 80:] = 1000
    biased = step.copy()
    biased[:, 80:] *= 0.95
    assert keep_local_mean(step, biased)[:, : 80 - REACH].max() == pytest.approx(1, abs=1e-5)
    assert keep_local_mean(step, biased)[80, 40] < 1.015


def test_limits_and_zeros() -> None:
    one = np.ones((40, 40), np.float32)
    np.testing.assert_allclose(keep_local_mean(5 * one, one), LIMIT, rtol=1e-6)
    np.testing.assert_allclose(keep_local_mean(one, 5 * one), 5 / LIMIT, rtol=1e-6)
    np.testing.assert_array_equal(keep_local_mean(one, 0 * one), 0)
    np.testing.assert_array_equal(keep_local_mean(0 * one, 0 * one), 0)
    np.testing.assert_allclose(keep_local_mean(0 * one, one), 1 / LIMIT, rtol=1e-6)
    huge = np.float32(1e30)
    np.testing.assert_allclose(keep_local_mean(huge * one, huge * one), huge, rtol=1e-6)


def test_nothing_beyond_reach_counts() -> None:
    before, after = exponential((240, 240)), np.ones((240, 240), np.float32)
    other = before.copy()
    other[:, 180:] *= 3
    a, b = keep_local_mean(before, after), keep_local_mean(other, after)
    np.testing.assert_array_equal(a[:, : 180 - REACH], b[:, : 180 - REACH])
    assert (a[:, 180 - REACH + 4 * BLOCK] != b[:, 180 - REACH + 4 * BLOCK]).any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 70), (41, 58)])
def test_any_size(shape: tuple[int, int]) -> None:
    before, after = exponential(shape), np.ones(shape, np.float32)
    out = keep_local_mean(before, after, 4)
    assert (out.shape, out.dtype) == (shape, np.float32)
    assert ((out >= 1 / LIMIT) & (out <= LIMIT)).all()


def test_images_of_a_batch_are_on_their_own() -> None:
    before, after = exponential((3, 64, 96)), 1 + 0.1 * exponential((3, 64, 96), 1)
    batch = keep_local_mean(before, after, 2)
    for i in range(3):
        np.testing.assert_allclose(batch[i], keep_local_mean(before[i], after[i], 2), rtol=1e-6)


def test_networks_do_it() -> None:
    pytest.importorskip("torch")
    from nearflash.sar import network
    from nearflash.sar.methods import load_method

    noisy = exponential((96, 96))
    plain = network.load("tiny").despeckle(noisy, 1)
    out = load_method("tiny")(noisy, 1)
    np.testing.assert_array_equal(out, keep_local_mean(noisy, plain, 1))
    assert not np.array_equal(out, plain)
