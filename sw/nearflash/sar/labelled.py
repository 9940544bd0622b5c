"""xarray's images, in memory or lazy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..contract import DataError
from .declared import declared_domain
from .memory import ArrayScene, Options, despeckle_array, despeckle_settled, result_type
from .missing import EVEN_RADIUS
from .settle import settle
from .statistics import SAMPLE_PIXELS, survey
from .tiles import RAMP

__all__ = ["despeckle_dataset", "despeckle_labelled"]

#: Names of rows and columns, the first pair that an array has.
AXES = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("northing", "easting"), ("azimuth_time", "slant_range_time"),
        ("azimuth_time", "ground_range"), ("azimuth", "range"), ("line", "pixel"), ("line", "sample"), ("row", "column"),
        ("row", "col"), ("rows", "columns"))
MARKS = ("_FillValue", "missing_value", "nodata", "nodatavals")
WORDS = ("units", "long_name", "standard_name", "description", "domain")
PATCH = 288  # pixels on a side of what is sampled of a lazy array
PATCHES = 6  # along each axis


def despeckle_dataset(dataset: Any, options: Options) -> Any:
    """Every variable of a Dataset that is an image, the others as they are.

    Raises :class:`DataError` where no variable is one.
    """
    names = [str(name) for name, variable in dataset.data_vars.items() if _is_image(variable)]
    if not names:
        raise DataError("image variables", list(map(str, dataset.data_vars)), "must hold one with rows and columns, numbers "
                        "and not flags or angles")
    return dataset.assign({name: despeckle_labelled(dataset[name], options) for name in names})


def _is_image(variable: Any) -> bool:
    """Rows and columns of numbers, which are neither flags nor angles nor lengths."""
    if variable.ndim < 2 or variable.dtype.kind not in "fuic" or _axes(variable, strict=True) is None:
        return False
    attributes = {k.lower(): str(v).lower() for k, v in variable.attrs.items()}
    if "flag_values" in attributes or "flag_meanings" in attributes:
        return False
    unit = attributes.get("units", "")
    return not unit.startswith(("degree", "radian", "deg", "rad")) and unit not in ("m", "metre", "meter", "s")


def _axes(image: Any, strict: bool = False) -> tuple[str, str] | None:
    """The dimensions that are rows and columns; with ``strict`` None where no names tell."""
    lower = {str(d).lower(): d for d in image.dims}
    for rows, columns in AXES:
        if rows in lower and columns in lower:
            return lower[rows], lower[columns]
    return None if strict and image.ndim > 2 else tuple(image.dims[-2:])


def despeckle_labelled(image: Any, options: Options) -> Any:
    """A DataArray, its planes one by one."""
    axes = _axes(image) if image.ndim >= 2 else None
    if axes is None or 0 in image.shape:
        raise DataError("image shape", tuple(image.shape), "must have at least one row and one column")
    ordered = image.transpose(..., *axes)
    marks = _marks(image)
    if options.nodata is None and marks:
        options = replace(options, nodata=marks[0])
    words = tuple(str(image.attrs[k]) for k in WORDS if k in image.attrs) + ((str(image.name),) if image.name else ())
    name = str(image.name or "image")
    if isinstance(options.looks, np.ndarray) and options.looks.shape == image.shape:
        looks = image.copy(data=options.looks).transpose(..., *axes).values
        options = replace(options, looks=looks.reshape(-1, *looks.shape[-2:]))
    if ordered.chunks is not None:
        data = _lazy(ordered.data, options, name, words, marks)
    else:
        values = np.asarray(ordered.values)
        planes = values.reshape(-1, *values.shape[-2:])
        data = despeckle_array(planes, options, None, name, words, tuple(marks)).reshape(values.shape)
    result = ordered.copy(data=data).transpose(*image.dims)
    before = declared_domain(words)
    if options.out_domain and (before is None or before[0] != options.out_domain):
        for key in WORDS:
            if key in result.attrs and declared_domain([str(result.attrs[key])]) is not None:
                del result.attrs[key]
        result.attrs["units" if options.out_domain == "db" else "domain"] = \
            "dB" if options.out_domain == "db" else options.out_domain
    return result


def _marks(image: Any) -> list[float]:
    """The values that mark missing pixels by attributes and encoding."""
    found: list[float] = []
    for place in (image.attrs, image.encoding):
        for key in MARKS:
            for value in np.ravel(place.get(key, ())):
                try:
                    number = float(value)
                except (TypeError, ValueError):
                    continue
                if not np.isnan(number) and number not in found:
                    found.append(number)
    return found


def _lazy(data: Any, options: Options, name: str, words: tuple[str, ...], marks: list[float]) -> Any:
    """dask's array [..., H, W] despeckled chunk by chunk, each with as much of its neighbours as the method looks at."""
    import dask.array as da
    from dask.delayed import delayed

    if isinstance(options.looks, np.ndarray) and options.looks.ndim:
        raise DataError("looks", options.looks.shape, "must be a number or auto for a lazy array")
    settled = delayed(_settled_facts, pure=True)(_patches(data), options, name, words, tuple(marks))
    depth = max(options.method.margin, EVEN_RADIUS) + RAMP
    depths = {axis: depth if axis >= data.ndim - 2 else 0 for axis in range(data.ndim)}
    dtype = result_type(data.dtype)
    return da.map_overlap(_chunk, data, depth=depths, boundary="none", dtype=dtype,
                          meta=np.empty((0,) * data.ndim, dtype), settled=settled, options=options)


def _patches(data: Any) -> list[Any]:
    """Squares of the first and middle plane of a lazy array, evenly spread."""
    while data.ndim > 2:
        data = data[data.shape[0] // 2]
    height, width = data.shape
    side = min(PATCH, max(8, int((SAMPLE_PIXELS / PATCHES**2) ** 0.5)))

    def starts(length: int) -> list[int]:
        count = min(PATCHES, -(-length // side))
        return [k * max(0, length - side) // max(1, count - 1) for k in range(count)]

    return [data[a : a + side, b : b + side] for a in starts(height) for b in starts(width)]


def _settled_facts(patches: list[np.ndarray], options: Options, name: str, words: tuple[str, ...],
                   marks: tuple[float, ...]) -> Any:
    """What a sample says of the whole: the scene's info and statistics."""
    height, width = (min(p.shape[k] for p in patches) for k in (0, 1))
    planes = np.stack([np.asarray(p)[:height, :width] for p in patches])
    # A border is cut by chunks, so it can't be told from dark ground there: undeclared fills can
    scene = ArrayScene(planes, options, None, name, words, marks)
    settle(scene, options.domain, borders=options.borders, negatives=options.negatives)
    scene.info = replace(scene.info, border=None)
    tall = ArrayScene(planes.reshape(1, -1, width), options, None, name)
    tall.info = replace(scene.info, shape=tall.info.shape, bands=1)
    return scene.info, survey(tall, looks=options.looks == "auto")


def _chunk(block: np.ndarray, settled: Any, options: Options) -> np.ndarray:
    info, facts = settled
    planes = block.reshape(-1, *block.shape[-2:])
    scene = ArrayScene(planes, options, None, str(info.path))
    scene.info = replace(info, shape=planes.shape[1:3], bands=len(planes))
    return despeckle_settled(scene, options, options.looks, facts, may_be_empty=True).reshape(block.shape)
