"""Grey PNG images of 8 or 16 bits, with or without transparency, whole in memory (the format can't be read in part)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError
from ..domain import UNKNOWN
from .base import Encoding, Origin, Scene, SceneInfo, Writer, new_file

__all__ = ["PngScene", "png_writer"]

_TYPES = {"L": "uint8", "LA": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "uint16"}  # by Pillow's mode


class PngScene(Scene):
    """A grey PNG; fully transparent pixels are missing."""

    def __init__(self, path: Path, domain: str | None, nodata: float | None, db_scale: float):
        from PIL import Image

        if domain == "complex":
            raise DataError(str(path), domain, "a PNG holds no complex values: must be amplitude, intensity or db")
        try:
            with Image.open(path, formats=["PNG"]) as image:
                mode = image.mode
                if mode not in _TYPES:
                    raise DataError(f"{path} mode", mode, "must be grey, 8 or 16 bits: a colour picture holds no "
                                    "SAR values")
                whole = np.asarray(image).astype(_TYPES[mode])
        except (OSError, SyntaxError, Image.DecompressionBombError) as e:
            raise DataError("input", str(path), f"must be a whole PNG file ({e})") from e
        self.alpha = whole[..., 1] if mode == "LA" else None
        self.pixels = whole[..., 0] if mode == "LA" else whole
        if self.alpha is not None:
            self.origin = Origin(mask=True, alpha=True)
        rows, columns = self.pixels.shape
        self.info = SceneInfo(path, (rows, columns), 1, domain or UNKNOWN, _TYPES[mode], nodata, db_scale)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.pixels[rows]

    def read_values(self, rows: slice, band: int = 0) -> tuple[np.ndarray, np.ndarray]:
        values, missing = super().read_values(rows, band)
        return values, missing if self.alpha is None else missing | (self.alpha[rows] == 0)

    def mask(self, rows: slice) -> np.ndarray:
        assert self.alpha is not None
        return self.alpha[rows]

    def close(self) -> None:
        del self.pixels


class _PngWriter(Writer):
    def __init__(self, scene: SceneInfo, encoding: Encoding):
        self.scene, self.encoding = scene, encoding
        self.values = np.zeros(scene.shape, encoding.dtype)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.values[row : row + len(intensity)] = self.encoding.encode(intensity, str(self.scene.path), band)


@contextmanager
def png_writer(scene: Scene, path: Path, encoding: Encoding, overwrite: bool) -> Iterator[Writer]:
    """See :func:`nearflash.sar.io.open_writer`; the type must be uint8 or uint16. 8 bits keep a scene's transparency."""
    from PIL import Image

    if encoding.dtype not in (np.uint8, np.uint16):
        raise ConfigError("out_dtype", str(encoding.dtype),
                          "must be uint8 or uint16 for a PNG (values are rounded and clipped)")
    if scene.bands != 1:
        raise ConfigError("output", str(path), f"must be .tif: the scene has {scene.bands} bands, a PNG holds one")
    with new_file(path, overwrite=overwrite) as part:
        writer = _PngWriter(scene.info, encoding)
        yield writer
        image = Image.fromarray(writer.values)
        if scene.origin.alpha and encoding.dtype == np.uint8:
            image.putalpha(Image.fromarray(scene.mask(slice(0, scene.shape[0]))))
        with part.open("wb") as file:
            image.save(file, "PNG")
