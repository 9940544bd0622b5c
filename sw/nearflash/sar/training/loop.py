"""The training loop: one process or many (torchrun), resumable bit for bit on the same machine and thread count."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ...contract.errors import ConfigError, DataError
from ...whole import whole_file
from ..heap import keep_large_blocks
from ..models import build
from .config import TrainConfig
from .data import MOVED, Images, sample_batch
from .observed import Observations

__all__ = ["Trainer", "loss_of", "moved_apart", "native_bf16", "rate_of", "speckle_kept", "unlikelihood"]

EVEN_PIXELS = 512  # fewer say too little of what an estimate follows
EDGE = 24  # pixels of an estimate that see the edge of their crop too well to be compared with those of another crop
DARKEST = 0.02  # amplitude to which an observation's likelihood is looked at: one sample of 0 mustn't count without bound
UNLIKELIHOOD_WEIGHT = 0.2  # brings its slope near that of the root mean square error


def native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than fp32 there (tensor cores; AMX on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def rate_of(config: TrainConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to ``final_rate`` of it."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    floor = config.final_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def highest_near(image: Tensor) -> Tensor:
    """Highest value within three pixels of each."""
    return F.max_pool2d(F.max_pool2d(image, (7, 1), 1, (3, 0)), (1, 7), 1, (0, 3))


def speckle_kept(noisy: Tensor, estimate: Tensor, clean: Tensor, scale: Tensor) -> Tensor:
    """How much of its speckle a sample's estimate follows in constant areas: ``[N]``, 0 where there are none.

    The mean of (x/c - 1)(e/c - 1), x the noisy, c the clean and e the estimated intensity, over pixels whose clean
    neighbours within three pixels are equal to 0.1 % of amplitude. Where an estimate follows bright speckle the ratio image
    x/e varies less than speckle; the error itself hardly shows it, as few pixels are that bright.
    """
    even = -highest_near(-clean) > 0.999 * highest_near(clean)
    even &= clean > 0.02 * scale  # not where nearly all was cut off
    safe = torch.where(even, clean, torch.ones_like(clean))
    product = ((noisy / safe).square() - 1) * ((estimate / safe).square().clamp(max=4.0) - 1)
    pixels = even.sum(dim=(1, 2, 3))
    return (product * even).sum(dim=(1, 2, 3)) / pixels.clamp(min=1) * (pixels >= EVEN_PIXELS)


def unlikelihood(estimate: Tensor, scored: Tensor) -> Tensor:
    """How unlikely intensity estimates make a second observation of the ground, in nats a look: ``[N]``.

    The negative logarithm of the gamma density, log R + I/R of estimate R and observation I, less what R = I would have; of
    half a look (one part of a complex image) and of L looks alike but for a factor.
    """
    r, i = estimate.square() + DARKEST**2, scored.square() + DARKEST**2
    return (torch.log(r) + i / r).mean(dim=(1, 2, 3)) - (torch.log(i) + 1).mean(dim=(1, 2, 3))


def moved_apart(estimate: Tensor, moved: Tensor, scale: Tensor, by: tuple[int, int]) -> Tensor:
    """Root mean square difference of estimates of a crop and of the one ``by`` (rows, columns) further, where they overlap
    and lie :data:`EDGE` pixels inside both, relative to the brighter of estimate and scale: ``[N]``."""
    height, width = estimate.shape[2:]
    rows, columns = slice(EDGE + by[0], height - EDGE), slice(EDGE + by[1], width - EDGE)
    a, s = estimate[..., rows, columns], scale[..., rows, columns]
    b = moved[..., EDGE : height - EDGE - by[0], EDGE : width - EDGE - by[1]]
    return (((a - b) / torch.maximum(a.detach(), s)).square().mean(dim=(1, 2, 3)) + 1e-8).sqrt()


def loss_of(config: TrainConfig, estimate: Tensor, clean: Tensor, scale: Tensor, noisy: Tensor,
            second: Tensor | None = None) -> Tensor:
    """Error relative to the area's brightness ``scale``, and to the target itself where that is brighter; and
    :func:`speckle_kept`, as far as the recipe weighs it. All ``[N, 1, H, W]``. Samples whose ``clean`` is a ``second``
    observation (bool ``[N]``) count by its :func:`unlikelihood`."""
    mse = ((estimate - clean) / torch.maximum(clean, scale)).square().mean(dim=(1, 2, 3))
    each = (mse + 1e-8).sqrt() if config.loss == "rmse" else mse
    if config.ratio_weight:
        each = each + config.ratio_weight * speckle_kept(noisy, estimate, clean, scale).abs()
    if second is not None and second.any():
        each = torch.where(second, UNLIKELIHOOD_WEIGHT * unlikelihood(estimate, clean), each)
    return each.mean()


class Trainer:
    """A run: network, its moving average, optimiser, position.

    Args:
        config: the recipe.
        images: training images; never those of a test or validation set. None where every sample is of ``observations``.
        folder: receives ``checkpoint.pt`` (everything to go on from) and ``log.jsonl``; created.
        device: "cpu", "cuda"; under torchrun each process takes its own card.
        observations: what the recipe's self-supervised share is drawn from.

    Raises:
        ConfigError: the batch doesn't divide by the number of processes; the recipe has tones, but ``images`` no colours,
            or a self-supervised share, but no observations, or the reverse; or the folder holds another run's checkpoint.
        DataError: a checkpoint that can't be read.
    """

    def __init__(self, config: TrainConfig, images: Images | None, folder: Path, device: str = "cpu",
                 observations: Observations | None = None) -> None:
        self.config, self.images, self.folder, self.observations = config, images, folder, observations
        self.ranks = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        if config.batch % self.ranks:
            raise ConfigError("train.batch", config.batch, f"a multiple of the {self.ranks} processes")
        if images is not None and config.tones and not images.colours:
            raise ConfigError("train.tones", config.tones, "0, or Images(..., colours=True)")
        if images is None and config.self_supervised < 1:
            raise ConfigError("train.self_supervised", config.self_supervised, "1 where there are no clean images")
        if (observations is None) != (config.self_supervised == 0):
            raise ConfigError("train.self_supervised", config.self_supervised, "above 0 with observations, else 0")
        card = f":{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else ""
        self.device = torch.device(device + card)
        torch.manual_seed(config.seed)
        self.net = self.new_net()
        self.ema = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98),
                                           weight_decay=config.weight_decay, fused=True)
        self.step = 0
        self.seconds = 0.0
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and native_bf16(self.device))
        self.model: nn.Module = self.net
        if self.ranks > 1:
            self.model = nn.parallel.DistributedDataParallel(
                self.net, device_ids=[self.device.index] if self.device.type == "cuda" else None)
        folder.mkdir(parents=True, exist_ok=True)
        keep_large_blocks()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def new_net(self) -> nn.Module:
        net = build(self.config.model, **self.config.options).to(self.device)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return False
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            config = TrainConfig.from_dict(state["config"])
        except ConfigError:
            raise
        except Exception as e:
            raise DataError("checkpoint", str(self.checkpoint), f"a checkpoint of `nearflash sar train` ({e})") from e
        if config != self.config:
            changed = [k for k, v in config.to_dict().items() if self.config.to_dict()[k] != v]
            raise ConfigError("train.recipe", ", ".join(changed), f"as in {self.checkpoint}, or another --out folder")
        self.net.load_state_dict(state["net"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Begin with these weights, all of the network's (:func:`nearflash.sar.models.grow`)."""
        self.net.load_state_dict(state)
        self.ema = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def save(self) -> None:
        if self.rank:
            return
        state = {"config": self.config.to_dict(), "net": self.net.state_dict(), "ema": self.ema,
                 "optimizer": self.optimizer.state_dict(), "step": self.step, "seconds": self.seconds}
        with whole_file(self.checkpoint) as part:
            torch.save(state, part)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def train_step(self) -> float:
        """One optimiser step; returns the loss, averaged over processes."""
        config = self.config
        share = config.batch // self.ranks
        batch = sample_batch(self.images, config, self.step, range(self.rank * share, (self.rank + 1) * share),
                             self.observations)
        noisy, clean, looks, scale, second = (t.to(self.device) for t in batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_of(config, self.step)
        if config.moved_weight:
            loss = self._moved_loss(noisy, clean, looks, scale, second)
        else:
            with self.autocast():
                estimate = self.model(noisy, looks)
            loss = loss_of(config, estimate.float(), clean, scale, noisy, second)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))  # forgets the random start quickly
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                self.ema[key].lerp_(value, 1 - decay)
        value = loss.detach()
        if self.ranks > 1:
            dist.all_reduce(value)
            value /= self.ranks
        return float(value)

    def _moved_loss(self, noisy: Tensor, clean: Tensor, looks: Tensor, scale: Tensor, second: Tensor) -> Tensor:
        """Of two crops of every sample, the second some pixels further, and of what moving changes."""
        crop = self.config.crop
        down, right = (int(n) for n in np.random.default_rng([self.config.seed, self.step]).integers(0, MOVED + 1, 2))

        def both(image: Tensor) -> Tensor:
            return torch.cat([image[..., :crop, :crop], image[..., down : down + crop, right : right + crop]])

        noisy, clean, scale = both(noisy), both(clean), both(scale)
        with self.autocast():
            estimate = self.model(noisy, torch.cat([looks, looks])).float()
        first, moved = estimate.chunk(2)
        apart = moved_apart(first, moved, scale.chunk(2)[0], (down, right)).mean()
        loss = loss_of(self.config, estimate, clean, scale, noisy, torch.cat([second, second]))
        return loss + self.config.moved_weight * apart

    def averaged(self) -> nn.Module:
        """The network with the moving average's weights, for validation and shipping."""
        net = self.new_net()
        net.load_state_dict(self.ema)
        return net.eval()

    def result(self, initial: dict[str, Tensor] | None = None) -> nn.Module:
        """The network to ship: the average, mixed with ``initial_share`` of the weights that training started from.

        What was tuned for new conditions keeps most of what it knew: M. Wortsman et al., "Robust fine-tuning of zero-shot
        models", CVPR 2022. Raises ConfigError when the recipe keeps a share and there are no ``initial`` weights.
        """
        net, share = self.averaged(), self.config.initial_share
        if share and initial is None:
            raise ConfigError("train.initial_share", share, "0, or weights to start from (--init)")
        if share and initial is not None:
            with torch.no_grad():
                for key, value in net.state_dict().items():
                    value.lerp_(initial[key].to(value.device), share)
        return net

    def run(self, on_step: Callable[[int, float], None] = lambda step, loss: None,
            validate: Callable[[nn.Module], dict[str, float]] | None = None) -> None:
        """To the last step. Each validation is a line of ``log.jsonl``: step, loss (mean since the last), scores, hours."""
        losses: list[float] = []
        started = time.monotonic() - self.seconds
        while self.step < self.config.steps:
            losses.append(self.train_step())
            on_step(self.step, losses[-1])
            if not math.isfinite(losses[-1]):
                raise DataError("loss", losses[-1], f"a finite number (step {self.step}); lower learning_rate")
            last = self.step == self.config.steps
            self.seconds = time.monotonic() - started
            if self.rank == 0 and (last or self.step % self.config.validate_every == 0):
                line = {"step": self.step, "loss": sum(losses) / len(losses), "hours": self.seconds / 3600}
                line |= validate(self.averaged()) if validate else {}
                losses.clear()
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
            if last or self.step % self.config.checkpoint_every == 0:
                self.save()
