"""Distillation as an objective: hard labels plus a frozen teacher's logits, which may be cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terradapt import checkpoint, hub
from terradapt.classes import IGNORE
from terradapt.config import DistillConfig, RunConfig
from terradapt.data import Dataset, input_spec
from terradapt.errors import CheckpointError, ConfigError, OutputError
from terradapt.files import digest, replacing
from terradapt.losses.distill import cwd, dist, kl
from terradapt.meta import Meta, read_meta
from terradapt.models.contract import SegmentationModel
from terradapt.predictors.torch import DTYPES, normalize_tensor
from terradapt.training.consistency import part
from terradapt.training.objectives import Batch, Logs, Supervised

LARGEST = 6e4  # float16 ends at 65504


class LogitCache:
    """Teacher logits on disk, one float16 file per crop; filled by any number of runs.

    A crop is a function of (seed, epoch, index), so its logits hold for every student that trains
    with the same data, augmentation and seed. A run that stopped leaves whole files only; a file
    that is damaged all the same is dropped and made again.

    Args:
        root: Folder of all caches; made when missing.
        name: Folder below it, of one :func:`fingerprint`.
        limit: Bytes of all caches below ``root`` after which nothing more is added.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, root: Path, name: str, limit: float) -> None:
        self.folder = root / name
        self.limit = limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.held = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot keep teacher logits ({error.strerror})",
                "give another objective.distill.cache folder, or none",
            ) from error

    def get(self, keys: list[int]) -> Tensor | None:
        """Return the logits (B, K, H, W) of crops, or None when one is missing."""
        found = [self._read(self._path(k)) for k in keys]
        whole = [f for f in found if f is not None]
        if len(whole) < len(keys):
            return None
        return torch.from_numpy(np.stack(whole)).float()

    def put(self, keys: list[int], logits: Tensor) -> None:
        """Keep the logits (B, K, H, W) of crops while there is room."""
        for key, values in zip(keys, logits.half().cpu().numpy(), strict=True):
            path = self._path(key)
            if path.exists() or self.held + values.nbytes > self.limit:
                continue
            try:
                with replacing(path, durable=False) as part:
                    np.save(part, values)
            except OutputError:
                self.limit = 0.0  # the disk is full: go on without
                return
            self.held += path.stat().st_size

    def _read(self, path: Path) -> NDArray[np.float16] | None:
        try:
            values: NDArray[np.float16] = np.load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            self.held -= path.stat().st_size
            path.unlink()
            return None
        return values

    def _path(self, key: int) -> Path:
        return self.folder / f"{key:09d}.npy"


class Distilled:
    """Hard-label loss plus DIST, KL or CWD against a frozen teacher (ARAFNet Eqs 6-8).

    Args:
        config: Temperature and weights.
        supervised: The hard-label loss.
        teacher: In evaluation mode; it never gets a gradient.
        meta: What the teacher's checkpoint says of it.
        cache: Kept logits, or None.
        shared: The student's ids of the teacher's classes, where they are not the same; the
            others are compared with nothing.
        seen: Which of the crop's channels the teacher sees; all when None.
    """

    def __init__(
        self,
        config: DistillConfig,
        supervised: Supervised,
        teacher: SegmentationModel,
        meta: Meta,
        cache: LogitCache | None = None,
        shared: Sequence[int] | None = None,
        seen: Sequence[int] | None = None,
    ) -> None:
        self.seen = None if seen is None else list(seen)
        self.shared = None if shared is None else list(shared)
        self.config = config
        self.supervised = supervised
        self.teacher = teacher.eval().requires_grad_(False)
        self.meta = meta
        self.cache = cache

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms; ``pixels`` (B, C, H, W) uint8 is what the teacher sees.

        Where the batch brings ``unlabelled`` crops, the teacher's word on them is all there is.
        """
        if "unlabelled" not in batch:
            prediction, more = model(batch["image"]), {}
        else:
            count = len(batch["image"])
            whole = model(torch.cat([batch["image"], batch["weak"]]))
            prediction = part(whole, slice(count))
            logits = self._asked(batch["unlabelled"])
            known = torch.where(batch["known"], 0, IGNORE)
            more = {"unlabelled": self._compared(whole.logits[count:], logits, known)}
        hard, logs = self.supervised.compare(prediction, batch)
        soft = self._soft(prediction.logits, self.teacher_logits(batch), batch["mask"])
        loss = self.config.hard * hard + self.config.soft * (soft + sum(more.values()))
        told = {"hard": hard, "soft": soft, **more}
        return loss, {**logs, "loss": loss.detach(), **{k: v.detach() for k, v in told.items()}}

    def _soft(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        if self.config.where != "labelled":
            spoken = (mask == IGNORE) | (self.config.where == "all")
            mask = torch.where(spoken, 0, IGNORE)
        return self._compared(student, teacher, mask)

    def _compared(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        config, t, squared = self.config, self.config.temperature, self.config.t_squared
        if self.shared is not None:
            student = student[:, self.shared]
        if config.loss != "dist":
            compare = kl if config.loss == "kl" else cwd
            return compare(student, teacher, mask, temperature=t, t_squared=squared)
        weights = {"beta": config.beta, "gamma": config.gamma}
        return dist(student, teacher, mask, temperature=t, t_squared=squared, **weights)

    @torch.no_grad()
    def teacher_logits(self, batch: Batch) -> Tensor:
        """Return the teacher's logits (B, K, H, W), from the cache where it has them.

        They are rounded to float16, the cache's form, with a cache or without: a run is the same
        in both cases, bit for bit.
        """
        keys = batch["key"].tolist() if self.cache is not None else []
        if self.cache is not None and (kept := self.cache.get(keys)) is not None:
            return kept.to(batch["pixels"].device)
        logits = self._asked(batch["pixels"])
        if self.cache is not None:
            self.cache.put(keys, logits.half())
        return logits

    @torch.no_grad()
    def _asked(self, pixels: Tensor) -> Tensor:
        whole = self.seen is None or len(self.seen) == pixels.shape[1]
        seen = pixels if whole else pixels[:, self.seen]
        image = normalize_tensor(seen, self.meta.spec)
        image = image.contiguous(memory_format=torch.channels_last)
        dtype, device = DTYPES[self.config.precision], image.device.type
        with torch.autocast(device, dtype, enabled=self.config.precision != "fp32"):
            logits: Tensor = self.teacher(image).logits
        return logits.float().clamp(-LARGEST, LARGEST).half().float()


def pinned_teacher(config: RunConfig) -> RunConfig:
    """Name the revision of a teacher on the hub, so that the run can be repeated."""
    teacher = config.objective.distill.teacher
    if config.objective.name != "distill" or teacher is None or not hub.is_address(teacher):
        return config
    return config.with_values({"objective.distill.teacher": hub.pinned(teacher)})


def settle_teacher(config: RunConfig, dataset: Dataset) -> tuple[RunConfig, str]:
    """Replace ``objective.distill.where=auto`` by what the data say.

    A model that is corrected speaks for ground of which nothing is known, so that it forgets
    nothing. Older labels say that better: what is wrong with a model is wrong beside its
    corrections too.

    Returns:
        The config without ``auto``, and a sentence on what was found; "" where nothing was asked.
    """
    objective = config.objective
    if objective.name != "distill" or objective.distill.where != "auto":
        return config, ""
    older = any(item.label is not None for item in dataset.split("train"))
    if dataset.corrections is not None and older:
        told = "teacher   none: older labels say what is not to be forgotten"
        return config.with_values({"objective.name": "supervised"}), told
    told = "teacher   the old model, where nothing is labelled"
    return config.with_values({"objective.distill.where": "unlabelled"}), told


def build_distilled(
    config: RunConfig, dataset: Dataset, supervised: Supervised, device: torch.device
) -> Distilled:
    """Load the teacher and fit it to the run.

    Raises:
        ConfigError: No teacher is named, or it reads other bands or another stretch.
        CheckpointError: The teacher cannot be loaded, or has other classes.
    """
    distill = config.objective.distill
    named = distill.teacher or config.train.start
    if named is None:
        raise ConfigError(
            "distillation needs a teacher",
            "add objective.distill.teacher=RUN/checkpoint.safetensors, or train.start=...",
        )
    path = hub.local(named)
    shared = _check_teacher(path, read_meta(path), config, dataset)
    teacher, meta = checkpoint.load(path, device=device)
    cache = None
    if distill.cache is not None:
        name = fingerprint(config, dataset, path)
        cache = LogitCache(Path(distill.cache), name, distill.cache_gb * 1e9)
    seen = [config.channels.index(channel) for channel in meta.spec.channels]
    teacher = teacher.to(memory_format=torch.channels_last)
    return Distilled(distill, supervised, teacher, meta, cache, shared, seen)


def fingerprint(config: RunConfig, dataset: Dataset, teacher: str | Path) -> str:
    """Return a name for all that teacher logits depend on, 16 hex digits."""
    parts = {
        "teacher": digest(teacher),
        "precision": config.objective.distill.precision,
        "data": config.data.model_dump(mode="json", exclude={"workers"}),
        "augment": config.augment.model_dump(mode="json"),
        "train": [config.train.seed, config.train.batch, config.train.accumulate],
        "steps": config.train.steps_per_epoch,
        "items": [str(i.image) for i in dataset.split("train")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check_teacher(
    path: Path, meta: Meta, config: RunConfig, dataset: Dataset
) -> tuple[int, ...] | None:
    """Return the student's ids of the teacher's classes; None where they are the same."""
    place = {name.casefold(): i for i, name in enumerate(dataset.classes.names)}
    shared = tuple(place.get(name.casefold(), -1) for name in meta.classes.names)
    same = meta.classes.names == dataset.classes.names
    if not same and (min(shared) < 0 or config.objective.distill.loss != "kl"):
        raise CheckpointError(
            f"{path}: the teacher has the classes {', '.join(meta.classes.names)}; "
            f"{dataset.root} has {', '.join(dataset.classes.names)}",
            "train the teacher on the same classes, in the same order; a student with loss=kl may "
            "have more",
        )
    if not set(meta.spec.channels[len(meta.spec.bands) :]) <= set(config.channels):
        own = f"data.context={meta.spec.context} encoder.film={str(meta.spec.film).lower()}"
        raise ConfigError(
            f"{path}: the teacher sees more than the student: the ground around, or the scale",
            f"set {own}",
        )
    if meta.spec.bands != config.data.bands:
        raise ConfigError(
            f"{path}: the teacher reads the bands {meta.spec.bands}, not {config.data.bands}",
            "set data.bands to the teacher's",
        )
    stretch = input_spec(dataset, config.data).stretch
    if meta.spec.stretch != stretch:
        raise ConfigError(
            f"{path}: the teacher stretches pixels by {meta.spec.stretch}, this run by {stretch}",
            "set data.stretch to the teacher's",
        )
    return None if same else shared
