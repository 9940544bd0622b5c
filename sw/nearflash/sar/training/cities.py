"""Towns as a radar sees them, and ground full of points: what photographs never show.

A town is clutter with blocks of scatterers in it: points whose radar cross-section has a heavy tail, rows of them along
streets (the corners between walls and ground), and bright lines where walls lie over the ground before them (layover). All
of it passes the system's response, so that every point has the shape and the side lobes that the sensor gives it.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ..speckle import SystemResponse, speckled

__all__ = ["city_echoes", "simulated_town"]

#: Amplitude of the weakest and the brightest scatterers, relative to a scene whose median is about 0.4
WEAKEST, BRIGHTEST = 0.3, 20.0
GROUND = 0.16  # a town's mean intensity without scatterers: of that median amplitude


def city_echoes(rng: np.random.Generator, size: int, response: SystemResponse | None) -> np.ndarray:
    """Complex echoes of a town, or of ground strewn with points, of unit peak response: complex64 ``[size, size]``."""
    scatterers = np.zeros((size, size), np.complex64)
    if rng.random() < 0.35:  # rocks, orchards, debris: points alone, of one kind, over everything
        _points(rng, scatterers, rng.uniform(0.002, 0.06), np.exp(rng.uniform(np.log(0.3), np.log(2))), rng.uniform(2, 6))
    else:
        for _ in range(rng.integers(1, 5)):
            _block(rng, scatterers)
        _points(rng, scatterers, rng.uniform(0, 0.003), 1.0, 1.5)
    if response is None:
        return scatterers
    transfer = response.transfer((size, size))
    echoes = scipy.fft.ifft2(scipy.fft.fft2(scatterers) * (transfer / transfer.mean()))
    return np.asarray(echoes, np.complex64)


def simulated_town(rng: np.random.Generator, size: int, looks: float, response: SystemResponse) -> np.ndarray:
    """Intensity ``[size, size]`` of even ground with :func:`city_echoes`, with speckle of ``looks``, as a sensor sees it."""
    echoes = city_echoes(rng, size, response)
    return speckled(np.full((size, size), GROUND), looks, rng, response, echoes)


def _amplitudes(rng: np.random.Generator, count: int, weakest: float, tail: float) -> np.ndarray:
    """Of ``count`` scatterers, Pareto with the exponent ``tail`` (the smaller the more spread), any phase: complex64."""
    amplitude = np.minimum(weakest * (1 + rng.pareto(tail, count)), BRIGHTEST)
    return (amplitude * np.exp(2j * np.pi * rng.random(count))).astype(np.complex64)


def _points(rng: np.random.Generator, scene: np.ndarray, density: float, weakest: float, tail: float) -> None:
    """A share ``density`` of all pixels become scatterers."""
    count = rng.poisson(density * scene.size)
    rows, columns = rng.integers(0, len(scene), (2, count))
    np.add.at(scene, (rows, columns), _amplitudes(rng, count, weakest, tail))


def _block(rng: np.random.Generator, scene: np.ndarray) -> None:
    """A quarter of a town: parallel streets at any angle, their fronts bright lines or rows of corners, points between."""
    size = len(scene)
    centre, reach = rng.uniform(0, size, 2), rng.uniform(0.15, 0.6) * size
    angle, spacing, length = rng.uniform(0, np.pi), rng.uniform(5, 20), rng.uniform(4, 25)
    along, across = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    weakest = np.exp(rng.uniform(np.log(WEAKEST), np.log(3)))
    tail = rng.uniform(1.2, 3)
    for offset in np.arange(-reach, reach, spacing):
        for start in np.arange(-reach, reach, 1.3 * length):
            if rng.random() < 0.5:
                continue
            steps = np.arange(0, length * rng.uniform(0.4, 1), rng.choice([1.0, 1.0, 2.0, 3.5]))
            jitter = rng.normal(0, 0.2, (2, len(steps)))
            place = centre[:, None] + across[:, None] * offset + along[:, None] * (start + steps) + jitter
            rows, columns = np.rint(place).astype(int)
            inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
            np.add.at(scene, (rows[inside], columns[inside]), _amplitudes(rng, int(inside.sum()), weakest, tail))
    count = rng.poisson(rng.uniform(0.002, 0.03) * (2 * reach) ** 2)
    rows, columns = np.rint(centre[:, None] + rng.uniform(-reach, reach, (2, count))).astype(int)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    np.add.at(scene, (rows[inside], columns[inside]), _amplitudes(rng, int(inside.sum()), weakest, tail))
