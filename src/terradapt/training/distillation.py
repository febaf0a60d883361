"""Distillation as an objective: hard labels plus DIST from any teacher, with cached logits."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from terradapt import checkpoint
from terradapt.checkpoint import Meta
from terradapt.config import DistillConfig, RunConfig
from terradapt.data import Dataset
from terradapt.errors import CheckpointError, ConfigError, OutputError
from terradapt.losses.distill import dist
from terradapt.models.contract import SegmentationModel
from terradapt.predictors.torch import DTYPES, normalize
from terradapt.training.objectives import Batch, Logs, Supervised


class LogitCache:
    """Teacher logits on disk, one float16 file per crop; filled by any number of runs.

    A crop is a function of (seed, epoch, index), so its logits hold for every student that trains
    with the same data, augmentation and seed. A run that stopped leaves whole files only.

    Args:
        folder: Where to keep them; made when missing.
        limit: Bytes after which nothing more is added.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.limit = limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.held = sum(f.stat().st_size for f in folder.glob("*.npy"))
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot keep teacher logits ({error.strerror})",
                "give another objective.distill.cache folder, or none",
            ) from error

    def get(self, keys: list[int]) -> Tensor | None:
        """Return the logits (B, K, H, W) of crops, or None when one is missing."""
        paths = [self._path(k) for k in keys]
        if not all(p.is_file() for p in paths):
            return None
        try:
            return torch.from_numpy(np.stack([np.load(p) for p in paths])).float()
        except (OSError, ValueError):
            return None

    def put(self, keys: list[int], logits: Tensor) -> None:
        """Keep the logits (B, K, H, W) of crops while there is room."""
        for key, values in zip(keys, logits.half().cpu().numpy(), strict=True):
            path = self._path(key)
            if path.exists() or self.held + values.nbytes > self.limit:
                continue
            part = path.with_suffix(f".{os.getpid()}.part")
            try:
                with part.open("wb") as file:
                    np.save(file, values)
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                self.limit = 0.0  # the disk is full: go on without
                return
            self.held += values.nbytes

    def _path(self, key: int) -> Path:
        return self.folder / f"{key:09d}.npy"


class Distilled:
    """Hard-label loss plus DIST against a frozen teacher (ARAFNet Eqs 6-8).

    Args:
        config: Temperature and weights.
        supervised: The hard-label loss.
        teacher: In evaluation mode; it never gets a gradient.
        meta: What the teacher's checkpoint says of it.
        cache: Kept logits, or None.
    """

    def __init__(
        self,
        config: DistillConfig,
        supervised: Supervised,
        teacher: SegmentationModel,
        meta: Meta,
        cache: LogitCache | None = None,
    ) -> None:
        self.config = config
        self.supervised = supervised
        self.teacher = teacher.eval().requires_grad_(False)
        self.meta = meta
        self.cache = cache

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms; ``pixels`` (B, C, H, W) uint8 is what the teacher sees."""
        config = self.config
        prediction = model(batch["image"])
        hard, logs = self.supervised.compare(prediction, batch["mask"])
        soft = dist(
            prediction.logits,
            self.teacher_logits(batch),
            batch["mask"],
            temperature=config.temperature,
            beta=config.beta,
            gamma=config.gamma,
            t_squared=config.t_squared,
        )
        loss = config.hard * hard + config.soft * soft
        return loss, {**logs, "loss": loss.detach(), "hard": hard.detach(), "soft": soft.detach()}

    @torch.no_grad()
    def teacher_logits(self, batch: Batch) -> Tensor:
        """Return the teacher's logits (B, K, H, W), from the cache where it has them."""
        keys = batch["key"].tolist()
        if self.cache is not None and (kept := self.cache.get(keys)) is not None:
            return kept.to(batch["pixels"].device)
        image = normalize(batch["pixels"], self.meta.spec)
        dtype, device = DTYPES[self.config.precision], image.device.type
        with torch.autocast(device, dtype, enabled=self.config.precision != "fp32"):
            logits: Tensor = self.teacher(image).logits.float()
        if self.cache is not None:
            self.cache.put(keys, logits)
            logits = logits.half().float()  # the same whether it was kept before or not
        return logits


def build_distilled(
    config: RunConfig, dataset: Dataset, supervised: Supervised, device: torch.device
) -> Distilled:
    """Load the teacher and fit it to the run.

    Raises:
        ConfigError: No teacher is named, or it reads other bands.
        CheckpointError: The teacher cannot be loaded, or has other classes.
    """
    distill = config.objective.distill
    if distill.teacher is None:
        raise ConfigError(
            "distillation needs a teacher",
            "add objective.distill.teacher=RUN/checkpoint.safetensors",
        )
    teacher, meta = checkpoint.load(distill.teacher, device=device)
    _check_teacher(distill.teacher, meta, config, dataset)
    cache = None
    if distill.cache is not None:
        folder = Path(distill.cache) / fingerprint(config, dataset, distill.teacher)
        cache = LogitCache(folder, distill.cache_gb * 1e9)
    return Distilled(distill, supervised, teacher, meta, cache)


def fingerprint(config: RunConfig, dataset: Dataset, teacher: str) -> str:
    """Return a name for all that teacher logits depend on, 16 hex digits."""
    with Path(teacher).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {
        "teacher": weights,
        "precision": config.objective.distill.precision,
        "data": config.data.model_dump(mode="json", exclude={"workers"}),
        "augment": config.augment.model_dump(mode="json"),
        "train": [config.train.seed, config.train.batch, config.train.accumulate],
        "steps": config.train.steps_per_epoch,
        "items": [str(i.image) for i in dataset.split("train")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check_teacher(path: str, meta: Meta, config: RunConfig, dataset: Dataset) -> None:
    if meta.classes.names != dataset.classes.names:
        raise CheckpointError(
            f"{path}: the teacher has the classes {', '.join(meta.classes.names)}; "
            f"{dataset.root} has {', '.join(dataset.classes.names)}",
            "train the teacher on the same classes, in the same order",
        )
    if meta.spec.bands != config.data.bands:
        raise ConfigError(
            f"{path}: the teacher reads the bands {meta.spec.bands}, not {config.data.bands}",
            "set data.bands to the teacher's",
        )
