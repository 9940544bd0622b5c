"""NumPy .npy files: real [H, W], complex [H, W] or real [H, W, 2] (real and imaginary part)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...contract import ConfigError, DataError
from ..domain import UNKNOWN
from .base import Encoding, Scene, SceneInfo, Writer, new_file

__all__ = ["NpyScene", "npy_writer"]


class NpyScene(Scene):
    """A .npy file, mapped into memory rows by rows, so that a scene larger than memory can be read."""

    def __init__(self, path: Path, domain: str | None, nodata: float | None, db_scale: float):
        values = _map(path)
        pairs = domain == "complex" and values.dtype.kind != "c"
        if values.ndim != (3 if pairs else 2) or (pairs and values.shape[2] != 2) or 0 in values.shape:
            raise DataError(f"{path} shape", tuple(values.shape), "must be [H, W] with at least one pixel, "
                            "or [H, W, 2] with domain complex")
        rows, columns = values.shape[:2]
        self.info = SceneInfo(path, (rows, columns), 1, domain or UNKNOWN, str(values.dtype), nodata, db_scale)

    def raw(self, rows: slice, band: int = 0) -> np.ndarray:
        # Mapped anew each time: the pages read do not stay in the process's memory
        return np.array(_map(self.info.path)[rows])

    def close(self) -> None:
        """Nothing is held open between reads."""


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise DataError("input", str(path), f"must be a whole .npy file of numbers ({e})") from e


class _NpyWriter(Writer):
    def __init__(self, scene: SceneInfo, part: Path, encoding: Encoding):
        self.scene, self.encoding = scene, encoding
        # Plain writes, not a memory map: on a full disk a map kills the process, a write raises
        self.file = part.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(encoding.dtype), "fortran_order": False, "shape": scene.shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.start = self.file.tell()

    def write(self, intensity: np.ndarray, row: int, band: int = 0) -> None:
        values = self.encoding.encode(intensity, str(self.scene.path), band)
        self.file.seek(self.start + row * self.scene.shape[1] * values.dtype.itemsize)
        self.file.write(np.ascontiguousarray(values).data)


@contextmanager
def npy_writer(scene: Scene, path: Path, encoding: Encoding, overwrite: bool) -> Iterator[Writer]:
    """See :func:`nearflash.sar.io.open_writer`."""
    if scene.bands != 1:
        raise ConfigError("output", str(path), f"must be .tif: the scene has {scene.bands} bands, a .npy file holds one")
    with new_file(path, overwrite=overwrite) as part:
        writer = _NpyWriter(scene.info, part, encoding)
        with writer.file:
            yield writer
