"""Grey PNG images of 8 or 16 bits, whole in memory (the format can't be read in part)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError
from .base import Scene, SceneInfo, Writer, encode, new_file

__all__ = ["PngScene", "png_writer"]

_TYPES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "uint16"}  # by Pillow's mode


class PngScene(Scene):
    """A grey PNG."""

    def __init__(self, path: Path, domain: str | None, nodata: float | None, db_scale: float):
        from PIL import Image

        if domain == "complex":
            raise DataError(str(path), domain, "a PNG holds no complex values: must be amplitude, intensity or db")
        try:
            with Image.open(path, formats=["PNG"]) as image:
                mode = image.mode
                if mode not in _TYPES:
                    raise DataError(f"{path} mode", mode, "must be grey, 8 or 16 bits, without transparency")
                self.values = np.asarray(image).astype(_TYPES[mode])
        except (OSError, SyntaxError, Image.DecompressionBombError) as e:
            raise DataError("input", str(path), f"must be a whole PNG file ({e})") from e
        rows, columns = self.values.shape
        self.info = SceneInfo(path, (rows, columns), 1, domain or "amplitude", _TYPES[mode], nodata, db_scale)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        return self.values[rows]

    def close(self) -> None:
        del self.values


class _PngWriter(Writer):
    def __init__(self, scene: SceneInfo, domain: str, dtype: np.dtype):
        self.scene, self.domain = scene, domain
        self.values = np.zeros(scene.shape, dtype)

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        self.values[row : row + len(intensity)] = encode(
            intensity, self.domain, self.values.dtype, nodata=self.scene.nodata, db_scale=self.scene.db_scale,
            field=str(self.scene.path))


@contextmanager
def png_writer(scene: Scene, path: Path, domain: str, dtype: np.dtype, overwrite: bool) -> Iterator[Writer]:
    """See :func:`nearflash.sar.io.open_writer`; ``dtype`` must be uint8 or uint16."""
    from PIL import Image

    if dtype not in (np.uint8, np.uint16):
        raise ConfigError("out_dtype", str(dtype), "must be uint8 or uint16 for a PNG (values are rounded and clipped)")
    if scene.bands != 1:
        raise ConfigError("output", str(path), f"must be .tif: the scene has {scene.bands} bands, a PNG holds one")
    with new_file(path, overwrite=overwrite) as part:
        writer = _PngWriter(scene.info, domain, dtype)
        yield writer
        with part.open("wb") as file:
            Image.fromarray(writer.values).save(file, "PNG")
