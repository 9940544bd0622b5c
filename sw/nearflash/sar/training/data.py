"""Fresh training samples: a crop, a scale, a speckle realisation, all drawn from (seed, step, position in the batch).

A sample depends on nothing else, so a run that resumes, or one spread over several processes, sees the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import scipy.special
import torch
from PIL import Image, UnidentifiedImageError

from ...contract.errors import DataError
from ..speckle import SystemResponse, speckled
from .cities import city_echoes
from .config import TrainConfig
from .observed import Observations

__all__ = ["MOVED", "Images", "sample_batch"]

#: Pixels by which a crop can move where a recipe weighs what that changes: every phase of three halvings of the resolution
MOVED = 8

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


#: Noisy amplitude, clean amplitude, looks, brightness by which the last's error counts
Sample = tuple[np.ndarray, np.ndarray, float, np.ndarray]


class Images:
    """Images of some folders, in memory, 8 bits a pixel: ``images`` in grey, ``colours`` in RGB.

    Args:
        folders: searched without descending, names in order.
        exclude: file stems to leave out (an image that a test set contains).
        colours: whether ``colours`` are kept, three times the memory; ``crop`` with ``tones`` needs them.

    Raises:
        DataError: no folder, no image in one, or a file that isn't an image.
    """

    def __init__(self, folders: list[Path], exclude: tuple[str, ...] = ("12003",), colours: bool = False) -> None:
        self.images: list[Image.Image] = []
        self.colours: list[Image.Image] = []
        for folder in folders:
            if not folder.is_dir():
                raise DataError("images", str(folder), "a folder")
            names = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.stem not in exclude)
            if not names:
                raise DataError("images", str(folder), f"a folder with {', '.join(SUFFIXES)} files")
            for name in names:
                try:
                    image = Image.open(name)
                    self.images.append(image.convert("L"))
                    if colours:
                        self.colours.append(image.convert("RGB"))
                except (UnidentifiedImageError, OSError) as e:
                    raise DataError("images", str(name), f"a readable image ({e})") from e

    def __len__(self) -> int:
        return len(self.images)

    def crop(self, rng: np.random.Generator, size: int, max_scale: float, tones: float = 0.0) -> np.ndarray:
        """A random crop ``[size, size]`` of amplitude (g + 1)/256, flipped and turned at random.

        With the probability ``tones`` its grey isn't the eye's: colours weigh at random, bent by a power of 0.67 to 1.5, a
        quarter as negatives. Few photographs show more scenes that way.
        """
        k = rng.integers(len(self.images))
        toned = tones > 0 and rng.random() < tones
        image = self.colours[k] if toned else self.images[k]
        scale = rng.uniform(1, max_scale) if rng.random() < 0.5 else 1.0
        side = min(size * scale, *image.size)
        x, y = (rng.uniform(0, n - side) for n in image.size)
        if side == size:
            x, y = int(x), int(y)
        resized = image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
        pixels = np.rot90(np.asarray(resized), rng.integers(4))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if toned:
            share = np.clip(pixels @ rng.dirichlet(np.ones(3)) / 255, 0, 1)  # white by rounding is more
            share = 1 - share if rng.random() < 0.25 else share
            pixels = 255 * share ** np.exp(rng.uniform(-0.4, 0.4))
        return (pixels.astype(np.float32) + 1) / 256


def areas(rng: np.random.Generator, size: int, draw: Callable[[], float]) -> np.ndarray:
    """A value, or two to four of them parted by straight edges: float32 ``[size, size]``."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    scene = np.full((size, size), draw(), np.float32)
    for _ in range(rng.integers(4)):
        angle = rng.uniform(0, 2 * np.pi)
        side = np.cos(angle) * x + np.sin(angle) * y > rng.uniform(-0.4, 0.4)
        scene[side] = draw()
    return scene


def some_areas(rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    """Of one to four areas parted by straight edges each with the probability 0.6: bool ``[size, size]``."""
    part = areas(rng, size, count().__next__)
    for value in np.unique(part):
        if rng.random() < 0.6:
            yield part == value


def flat_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """Amplitude of fields, water, shadows: constant in each."""
    return areas(rng, size, lambda: rng.uniform(0.05, 1))


def with_even_areas(rng: np.random.Generator, clean: np.ndarray) -> np.ndarray:
    """A photograph parted by straight edges, some of its areas made constant, near their mean: fields beside towns."""
    scene = clean.copy()
    for here in some_areas(rng, len(clean)):
        scene[here] = clean[here].mean() * np.exp(rng.uniform(-0.5, 0.5))
    return scene


def with_texture(rng: np.random.Generator, clean: np.ndarray) -> np.ndarray:
    """Some areas of a scene under a periodic texture: plough lines, swell, rows of vines, cloth.

    Stripes of 2.5 to 16 pixels, bent by some periods, sine to nearly square, of contrast 0.1 to 0.7; a third of
    them crossed by others. Photographs have few, and speckle hides them from anything that doesn't know they go on.
    """
    size = len(clean)
    y, x = np.mgrid[:size, :size].astype(np.float32)

    def stripes() -> np.ndarray:
        bend = Image.fromarray(rng.standard_normal((5, 5)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2.5), np.log(16)))
        along = np.cos(angle) * x + np.sin(angle) * y
        wave = np.sin(2 * np.pi * (along / period + rng.uniform(0, 3) * np.asarray(bend) + rng.random()))
        sharp = np.exp(rng.uniform(-2, 1.5))
        return np.tanh(sharp * wave) / np.tanh(sharp)

    scene = clean.copy()
    for here in some_areas(rng, size):
        texture = stripes() * stripes() if rng.random() < 0.33 else stripes()
        scene[here] = np.maximum(clean * (1 + rng.uniform(0.1, 0.7) * texture), 1 / 256)[here]
    return scene


def point_targets(rng: np.random.Generator, size: int) -> np.ndarray:
    """Complex echoes of a few bright scatterers, amplitude 2 to 40, spread by a Gaussian point response."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    total = np.zeros((size, size), np.complex64)
    for _ in range(rng.integers(1, 9)):
        cy, cx = rng.uniform(0, size, 2)
        width = rng.uniform(0.4, 1.0)
        peak = np.exp(rng.uniform(np.log(2), np.log(40)))
        total += (peak * np.exp(2j * np.pi * rng.random())
                  * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))).astype(np.complex64)
    return total


def clip_dark(noisy: np.ndarray, clean: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """A single-look amplitude image as quick-looks store it: ``offset`` subtracted, cut at zero, 256 levels up to 1.5.

    Returns it with the clean amplitude whose square is its mean: for Rayleigh amplitude c s of unit mean power,
    E[max(c s - o, 0)^2] = c^2 (exp(-t^2) - sqrt(pi) t erfc(t)), t = o / c.
    """
    t = offset / clean
    power = np.exp(-(t**2)) - np.sqrt(np.pi) * t * scipy.special.erfc(t)
    levels = np.clip(np.round((noisy - offset) * (255 / 1.5)), 0, 255) * (1.5 / 255)
    return levels.astype(np.float32), (clean * np.sqrt(np.maximum(power, 1e-8))).astype(np.float32)


def cut_dark(noisy: np.ndarray, clean: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """A single-look amplitude image of which all below ``threshold`` was stored as 0.

    Returns it with the clean amplitude whose square is its mean: c^2 (1 + t^2) exp(-t^2), t = threshold / c, of Rayleigh
    amplitude of mean power c^2.
    """
    t2 = (threshold / clean) ** 2
    power = (1 + t2) * np.exp(-t2)
    return np.where(noisy < threshold, np.float32(0), noisy), (clean * np.sqrt(np.maximum(power, 1e-8))).astype(np.float32)


def counted(noisy: np.ndarray, clean: np.ndarray, levels: float) -> tuple[np.ndarray, np.ndarray]:
    """An amplitude image stored as whole numbers, ``levels`` of them to an amplitude of 1, and the clean amplitude whose
    square is its mean: rounding adds the variance 1/12 of a level where the signal spans some levels."""
    step = np.float32(1 / levels)
    return np.rint(noisy / step).astype(np.float32) * step, np.sqrt(clean**2 + step**2 / 12)


def acquisition(images: Images, config: TrainConfig, rng: np.random.Generator, size: int) -> Sample:
    """A scene of ``size`` pixels on a side as the radar gives it."""
    clean = flat_scene(rng, size) if rng.random() < config.flat else images.crop(rng, size, config.max_scale, config.tones)
    if config.texture and rng.random() < config.texture:
        clean = with_texture(rng, clean)
    if config.even and rng.random() < config.even:
        clean = with_even_areas(rng, clean)
    scale = np.ones((size, size), np.float32)
    if config.contrast and rng.random() < config.contrast:
        scale = areas(rng, size, lambda: np.exp(rng.uniform(-config.contrast_range, config.contrast_range)))
        clean = clean * scale
    looks = float(rng.choice(config.looks))
    response = None
    if rng.random() < config.correlated:
        looks = min(looks, 4.0)  # each look is a Fourier transform
        low, high = config.bandwidth
        response = SystemResponse((rng.uniform(low, high), rng.uniform(low, high)),
                                  (rng.uniform(0.54, 1), rng.uniform(0.54, 1)))
    targets = None
    if config.cities and rng.random() < config.cities:
        looks = min(looks, 4.0)
        targets = city_echoes(rng, size, response)
    elif rng.random() < config.targets:
        looks = min(looks, 4.0)
        targets = point_targets(rng, size)
    gain = np.float32(np.exp(rng.uniform(-config.gain_range, config.gain_range)) if rng.random() < config.gain else 1.0)
    noisy = np.sqrt(speckled(clean**2, looks, rng, response, targets))
    if targets is not None:
        clean = np.sqrt(clean**2 + np.abs(targets) ** 2)
    elif config.clipped and looks == 1 and rng.random() < config.clipped:
        noisy, clean = clip_dark(noisy, clean, rng.uniform(0.02, 0.25))
    elif config.cut and looks == 1 and rng.random() < config.cut:
        noisy, clean = cut_dark(noisy, clean, rng.uniform(0.02, 0.3))
    elif config.counts and looks == 1 and rng.random() < config.counts:
        noisy, clean = counted(noisy, clean, np.exp(rng.uniform(np.log(8), np.log(60))))
    return noisy * gain, clean * gain, looks, scale * gain


def resampled(images: Images, config: TrainConfig, rng: np.random.Generator, size: int) -> Sample:
    """A scene on a map's grid, as terrain-corrected products are: intensity interpolated to pixels up to 2.2 times smaller.

    Interpolation averages neighbours: of white speckle, bilinear makes 2.25 times as many looks, over all phases of the two
    grids. A user gives the product's looks or those of the pixels: the network is told anything between.
    """
    side = size / rng.uniform(1, 2.2)
    noisy, clean, looks, scale = acquisition(images, config, rng, int(side) + 2)
    x, y = rng.uniform(0, 1, 2)
    kind = Image.Resampling.BILINEAR if rng.random() < 0.5 else Image.Resampling.BICUBIC

    def on_grid(intensity: np.ndarray, kind: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(intensity, np.float32))
        return np.asarray(image.resize((size, size), kind, box=(x, y, x + side, y + side)))

    return (np.sqrt(np.maximum(on_grid(noisy**2, kind), 0)), np.sqrt(on_grid(clean**2)), looks * rng.uniform(1, 2.25),
            on_grid(scale))


def sample(images: Images, config: TrainConfig, rng: np.random.Generator) -> Sample:
    size = config.crop + (MOVED if config.moved_weight else 0)
    if config.resampled and rng.random() < config.resampled:
        return resampled(images, config, rng, size)
    return acquisition(images, config, rng, size)


def sample_batch(images: Images | None, config: TrainConfig, step: int, positions: range,
                 observations: Observations | None = None) -> tuple[torch.Tensor, ...]:
    """Samples ``positions`` of the global batch of ``step``.

    Returns:
        noisy and clean amplitude ``[n, 1, size, size]`` float32, looks ``[n]``, scale ``[n, 1, size, size]``, and whether
        the clean one is a second observation instead, bool ``[n]``. ``size`` is the recipe's crop, and :data:`MOVED` more
        where it weighs moving.
    """
    drawn, second = [], []
    for i in positions:
        rng = np.random.default_rng([config.seed, step, i])
        second.append(observations is not None and rng.random() < config.self_supervised)
        if second[-1]:
            assert observations is not None
            seen, scored, looks = observations.crop(rng, config.crop + (MOVED if config.moved_weight else 0))
            drawn.append((seen, scored, looks, np.ones_like(seen)))
        else:
            assert images is not None
            drawn.append(sample(images, config, rng))
    noisy, clean, scale = (torch.from_numpy(np.ascontiguousarray(np.stack([d[i] for d in drawn])))[:, None]
                           for i in (0, 1, 3))
    return noisy, clean, torch.tensor([d[2] for d in drawn], dtype=torch.float32), scale, torch.tensor(second)
