"""The one rule by which the domain of values is settled, for files and arrays alike.

In this order: what the user says; what the product says (:mod:`nearflash.sar.declared`); whole numbers without a sign are
digital numbers, amplitude; else a test of the values, which decides with a stated confidence or refuses.

The test. Of fully developed speckle (intensity Gamma distributed) every domain has a skewness of its own on even ground:
twice the coefficient of variation for intensity, 1 to 1.21 times for amplitude (a Nakagami distribution), and negative for
decibel (log-Gamma), where the deviation in dB says how much. Averaging and interpolation change skewness and variation
alike, so resampled products keep the relation. Texture raises it: windows with structure are left out, and where no even
ground is left the test refuses. Moments of the Gamma family: C. Oliver, S. Quegan, "Understanding Synthetic Aperture Radar
Images", 2004, section 4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..contract import DataError
from .declared import declared_domain
from .domain import check_domain
from .even import Moments, even_moments

__all__ = ["CONFIDENT", "DomainChoice", "DomainError", "choose_domain", "judge"]

CONFIDENT = 0.95  # below this the test refuses
CONTRADICTS = 0.99  # from this on what the product says is doubted aloud
MOST_CONFIDENT = 0.999  # the model itself is no surer than that
WINDOWS = 8  # least number of even windows
SYSTEMATIC = 0.15  # of skewness over variation: what even land differs from the model by
FARTHEST = 3.0  # deviations from the nearest domain's skewness: farther away it is none of them
UNEVEN = 1.8  # median unevenness above which the windows hold more than speckle
# Texture raises the skewness, so textured amplitude can look like intensity, but nothing looks like amplitude that isn't:
# intensity is believed on ground that is as even as speckle of an ordinary oversampling leaves it
UNEVEN_INTENSITY, UNSURE = 1.1, 0.9
MOST_VARIATION = 0.8  # of amplitude, deviation over mean: of a single look 0.52, and no speckle has fewer
SATURATED = 0.005  # share of the values that are the highest: what is cut off has another skewness
DB_DEVIATION = (0.3, 10.0)  # dB: of 200 looks and of half a look
DB_MEDIAN = 60.0  # dB, either sign: backscatter and digital numbers are both within it
NEGATIVE_SHARE = 1e-3


class DomainError(DataError):
    """Nothing says what the values mean, and they don't tell either."""


@dataclass(frozen=True)
class DomainChoice:
    """``source``: user, product, type or test; ``reason``: in words; ``confidence``: of a test, else None; ``doubt``: what
    speaks against the choice, or empty."""

    domain: str
    source: str
    reason: str
    confidence: float | None = None
    doubt: str = ""


def choose_domain(user: str | None, words: tuple[str, ...], dtype: str, sample: list[np.ndarray], *, field: str,
                  db_scale: float = 1.0) -> DomainChoice:
    """The domain of values of ``dtype``, of which ``sample`` holds some (real [H, W] each, NaN missing).

    Args:
        user: domain given, or None.
        words: what the product says of its values.
        field: what the values are called in errors and commands.

    Raises :class:`DomainError`, which names the two most likely choices, where nothing decides; :class:`DataError` for a
    domain that the type can't be of, and for a sample without a number where one is needed.
    """
    if np.dtype(dtype).kind == "c":
        if user not in (None, "complex"):
            raise DataError(f"{field} type", dtype, f"must be a real number for domain {user}; complex data need "
                            "domain complex")
        return DomainChoice("complex", "type" if user is None else "user", "complex values")
    if user is not None:
        check_domain(user)
        return DomainChoice(user, "user", "as given", doubt="" if user == "complex" else _doubt(user, sample, db_scale))
    declared = declared_domain(words)
    if declared is not None:
        domain, word = declared
        if domain == "intensity" and _mostly_negative(sample):
            return DomainChoice("db", "product", f"{word!r}, and most values are negative")
        return DomainChoice(domain, "product", repr(word), doubt=_doubt(domain, sample, db_scale))
    if not any(np.isfinite(s).any() for s in sample):
        raise DataError(field, "no valid pixel", "must have at least one pixel that is neither NaN nor nodata")
    found = judge(sample, db_scale)
    if np.dtype(dtype).kind in "ub":
        doubt = ""
        if found and found[0][0] != "amplitude" and found[0][1] >= CONTRADICTS and np.dtype(dtype).itemsize > 1:
            doubt = f"the even windows look like {found[0][0]} ({found[0][1]:.1%})"
        return DomainChoice("amplitude", "type", f"digital numbers ({dtype})", doubt=doubt)
    if found and found[0][1] >= CONFIDENT:
        return DomainChoice(found[0][0], "test", "skewness of even windows", found[0][1])
    first, second = _likely(sample, found)
    raise DomainError(f"{field} domain", "unknown", f"must be told: nothing in it says what its values are, and their "
                      f"statistics don't decide. Choose --domain {first} or --domain {second} "
                      f"(in Python domain={first!r} or domain={second!r}); for decibel times 10 add --db-scale 10")


def judge(sample: list[np.ndarray], db_scale: float = 1.0) -> list[tuple[str, float]]:
    """Domains with their probabilities, the likeliest first; empty where the values can't tell."""
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    if not len(values):
        return []
    median, lowest = float(np.median(values)), float(values.min())
    if float((values == values.max()).mean()) > SATURATED:
        return []
    moments = even_moments(sample)
    if len(moments) < WINDOWS:
        return []
    deviation = float(np.median(moments.deviation)) / db_scale
    may_be_db = DB_DEVIATION[0] <= deviation <= DB_DEVIATION[1] and abs(median) <= DB_MEDIAN * db_scale
    if median < -db_scale:  # backscatter is small: only decibel is far below 0
        return [("db", MOST_CONFIDENT)] if may_be_db else []
    unevenness = float(np.median(moments.unevenness))
    if unevenness > UNEVEN:
        return []
    signed = float((values < 0).mean()) > NEGATIVE_SHARE
    # Noise removal subtracts a constant: the lowest value shows how much
    variation = moments.deviation / (moments.mean - min(lowest, 0.0))
    expected = {"intensity": 2 * variation}
    if not signed and float(np.median(variation)) <= MOST_VARIATION:
        expected["amplitude"] = _amplitude_skewness(variation)
    if may_be_db:
        expected["db"] = -moments.deviation / db_scale * math.log(10) / 10
    distances = {name: _distance(moments, skewness) for name, skewness in expected.items()}
    nearest = min(distances.values())
    if nearest > FARTHEST:
        return []
    weights = {name: math.exp(0.5 * (nearest**2 - d**2)) for name, d in distances.items()}
    total = sum(weights.values())
    most = {"intensity": UNSURE if unevenness > UNEVEN_INTENSITY else MOST_CONFIDENT}
    found = [(name, min(w / total, most.get(name, MOST_CONFIDENT))) for name, w in weights.items()]
    return sorted(found, key=lambda pair: -pair[1])


def _distance(moments: Moments, expected: np.ndarray) -> float:
    """How many deviations the mean skewness is from the expected one."""
    difference = moments.skewness - expected
    error = float(difference.std()) / math.sqrt(len(difference))
    spread = float(np.median(moments.deviation / np.maximum(np.abs(moments.mean), moments.deviation)))
    systematic = SYSTEMATIC * max(spread, float(np.median(np.abs(expected))) / 2)
    return abs(float(difference.mean())) / math.hypot(error, systematic)


def _amplitude_skewness(variation: np.ndarray) -> np.ndarray:
    """Of a Nakagami distribution by its coefficient of variation: 0.631 at a single look's 0.523, as many looks go to 1
    times the variation."""
    return variation * (1 + 0.207 * np.minimum(variation / 0.523, 1) ** 2)


def _mostly_negative(sample: list[np.ndarray]) -> bool:
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    return bool(len(values)) and float(np.median(values)) < 0


def _doubt(domain: str, sample: list[np.ndarray], db_scale: float) -> str:
    found = judge(sample, db_scale)
    if found and found[0][0] != domain and found[0][1] >= CONTRADICTS:
        return f"the even windows look like {found[0][0]} ({found[0][1]:.1%})"
    return ""


def _likely(sample: list[np.ndarray], found: list[tuple[str, float]]) -> tuple[str, str]:
    """Two domains to choose from."""
    if len(found) > 1:
        first, second = sorted(name for name, _ in found[:2])
        return first, second
    values = np.concatenate([s[np.isfinite(s)] for s in sample]) if sample else np.empty(0)
    signed = bool(len(values)) and float((values < 0).mean()) > NEGATIVE_SHARE
    return ("db", "intensity") if signed else ("amplitude", "intensity")
