"""A training run in one page of TOML."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import tomllib

from ...contract.errors import ConfigError

__all__ = ["RECIPES", "TrainConfig"]

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the trained weights, beside the images.

    Shares are probabilities per sample. Crops are squares of ``crop`` pixels cut out of ``crop * s`` pixels, s uniform in
    1 .. ``max_scale`` (half of the samples: 1), reduced by area-weighted cubic interpolation.
    """

    model: str = "base"
    options: dict[str, Any] = field(default_factory=dict)   # changes to the model's preset
    seed: int = 1
    steps: int = 20_000
    batch: int = 8                  # global: over all processes
    crop: int = 128                 # pixels, a multiple of 32
    max_scale: float = 2.0
    tones: float = 0.0              # share of photographs in other greys
    looks: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 2, 3, 4, 4, 6, 16)
    correlated: float = 0.3         # share with a system response
    resampled: float = 0.0          # share interpolated to a finer grid
    bandwidth: tuple[float, float] = (0.4, 1.0)
    gain: float = 0.3               # share with amplitude scaled by exp(uniform(-gain_range, gain_range))
    gain_range: float = 1.0
    contrast: float = 0.0           # share with two to four areas, each scaled by exp(uniform(-range, range))
    contrast_range: float = 1.0     # that range
    targets: float = 0.1            # share with bright point targets
    clipped: float = 0.0            # share of single-look samples cut off at the dark end and rounded to 8 bits
    cut: float = 0.0                # share of single-look samples whose dark end was stored as 0
    flat: float = 0.05              # share of piecewise constant scenes
    texture: float = 0.0            # share with stripes in some areas of the scene
    even: float = 0.0               # share with some areas of the scene made constant
    cities: float = 0.0             # share with a town's scatterers, or strewn with points, in place of point targets
    counts: float = 0.0             # share of single-look samples stored as small whole numbers
    self_supervised: float = 0.0    # share of pairs of observations (Observations) instead of clean images
    moved_weight: float = 0.0       # of the difference between a crop's estimate and that of one moved by some pixels
    learning_rate: float = 8e-4
    warmup: int = 300               # steps
    final_rate: float = 0.002       # of the learning rate, where the cosine ends
    weight_decay: float = 1e-4
    clip: float = 1.0               # gradient norm
    ema: float = 0.999
    initial_share: float = 0.0      # of the weights started from (--init) in the result, the rest are the trained ones
    loss: str = "rmse"              # "rmse": root of each crop's mean square error; "mse"
    ratio_weight: float = 0.0       # of the correlation between speckle and estimate in constant areas
    precision: str = "auto"         # "bf16", "fp32"; auto: bf16 where the processor multiplies it natively
    checkpoint_every: int = 500     # steps
    validate_every: int = 2000      # steps

    def __post_init__(self) -> None:
        def need(name: str, ok: bool, limit: str) -> None:
            if not ok:
                raise ConfigError(f"train.{name}", getattr(self, name), limit)

        for name in ("steps", "batch", "checkpoint_every", "validate_every"):
            need(name, getattr(self, name) >= 1, "at least 1")
        need("crop", self.crop >= 32 and self.crop % 32 == 0, "a multiple of 32")
        need("max_scale", 1 <= self.max_scale <= 4, "1 to 4")
        need("looks", len(self.looks) > 0 and all(n >= 1 and n == int(n) for n in self.looks), "whole numbers from 1")
        for name in ("correlated", "gain", "contrast", "targets", "clipped", "cut", "flat", "texture", "even",
                     "resampled", "tones", "cities", "counts", "self_supervised"):
            need(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        need("gain_range", 0 <= self.gain_range <= 3, "0 to 3")
        need("contrast_range", 0 <= self.contrast_range <= 3, "0 to 3")
        need("bandwidth", 0 < self.bandwidth[0] <= self.bandwidth[1] <= 1, "0 < low <= high <= 1")
        need("learning_rate", 0 < self.learning_rate < 1, "above 0, below 1")
        need("ema", 0 <= self.ema < 1, "0 to below 1")
        need("initial_share", 0 <= self.initial_share < 1, "0 to below 1")
        need("ratio_weight", 0 <= self.ratio_weight <= 10, "0 to 10")
        need("moved_weight", 0 <= self.moved_weight <= 10 and (self.moved_weight == 0 or self.crop >= 96),
             "0 to 10, and 0 for crops below 96 pixels")
        need("loss", self.loss in ("rmse", "mse"), "rmse or mse")
        need("precision", self.precision in ("auto", "bf16", "fp32"), "auto, bf16 or fp32")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Raises ConfigError for unknown fields and values out of range."""
        known = {f.name: f for f in fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f"train.{key}", values[key], f"a field: {', '.join(known)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    @classmethod
    def load(cls, source: str | Path) -> TrainConfig:
        """A recipe that ships (a name in :data:`RECIPES`), or a TOML file.

        Raises:
            ConfigError: no such recipe, or a bad field.
        """
        path = Path(source)
        if not path.suffix:
            path = RECIPES / f"{source}.toml"
            if not path.exists():
                names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
                raise ConfigError("train.recipe", str(source), f"a TOML file, or one of {names}")
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as e:
            raise ConfigError("train.recipe", str(source), f"a readable TOML file ({e})") from e
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
