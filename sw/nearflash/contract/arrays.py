"""Arrays as callers hand them in, and as files hold them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError
from .reading import check_zip, reading

__all__ = ["as_array", "check_finite", "read_arrays"]


def as_array(x: Any) -> np.ndarray:
    """NumPy's view of an array, list, or torch tensor (which need not be importable); bfloat16, which NumPy lacks, as
    float32, exactly. Raises :class:`DataError` for a tensor that is no plain array of numbers."""
    if not hasattr(x, "detach"):
        return np.asarray(x)
    try:
        t = x.detach().cpu()
        return np.asarray(t.float() if str(t.dtype) == "torch.bfloat16" else t)
    except (TypeError, RuntimeError, NotImplementedError) as e:
        raise DataError("tensor", f"{x.dtype}, {x.layout}", "must be a dense tensor of numbers that NumPy knows") from e


def check_finite(x: np.ndarray, name: str) -> None:
    """Raise :class:`DataError` for the first element of ``x`` that is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        at = bad[0].tolist()
        raise DataError(f"{name}{at}", float(x[tuple(at)]), "must be finite")


def read_arrays(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file by name, no pickles, checksums compared. Raises :class:`DataError` naming the file for what
    is damaged or none (``what``: what it should be)."""
    check_zip(path, what)
    with reading(path, what), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of old files
        with np.load(path, allow_pickle=False) as z:
            return {k: np.asarray(z[k]) for k in z.files}
