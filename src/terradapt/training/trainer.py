"""Trainer: one loop for every objective; a resumed run equals an unbroken one.

Every random number comes from (seed, step) or (seed, epoch, index). The state of a run is the
weights, AdamW's moments and the step, all in ``last.safetensors``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from terradapt import checkpoint
from terradapt import data as datasets
from terradapt.config import RunConfig
from terradapt.data.sampling import CropDataset
from terradapt.data.vector_labels import strangers
from terradapt.errors import CheckpointError, ConfigError, one_of
from terradapt.meta import Meta, code_commit, read_meta
from terradapt.models import build, resolve
from terradapt.models.encoder import HUB
from terradapt.predictors.torch import normalize_tensor
from terradapt.progress import Advance, Show, Track, duration_text, silent
from terradapt.training.aligning import align_labels
from terradapt.training.arithmetic import (
    settle_precision,
    settle_threads,
    spare_depthwise,
    using_threads,
)
from terradapt.training.building import build_objective
from terradapt.training.calibrating import SAMPLED, calibrate_best
from terradapt.training.consistency import averaged
from terradapt.training.distillation import pinned_teacher, settle_teacher
from terradapt.training.loading import run_loader, unlabelled_crops
from terradapt.training.opening import narrow, opening
from terradapt.training.optim import (
    Average,
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_rates,
)
from terradapt.training.pace import Clock, Pace
from terradapt.training.pretrained import check_origin, settle_weights, with_weights
from terradapt.training.run import Run
from terradapt.training.starting import open_start
from terradapt.training.stopping import StoppedError, stop_signals
from terradapt.training.suiting import (
    input_spec_for,
    require_batch,
    require_divisible,
    require_labels,
    require_multiple,
    with_channels,
)
from terradapt.training.validating import Validator
from terradapt.weights import cached_only, weights_origin

_LONG, _FIRST_MAP = 5400.0, 1200.0  # s after which a shorter run is named, and how long it takes


class Trainer:
    """Trains one model on one dataset.

    Args:
        config: The whole run.
        dataset: What :func:`terradapt.data.open_dataset` returned.
        folder: The run's folder.
        resume: Go on from ``last.safetensors`` when it is there.

    Raises:
        DataError: No training image, or no labelled pixel in the split ``train`` or ``val``.
        OutputError: The folder holds another run, or cannot be written.
        ConfigError: Resumed with another config, or another start.
        CheckpointError: The checkpoint to start from cannot be read or does not fit.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: datasets.Dataset,
        folder: str | Path,
        *,
        resume: bool = False,
    ) -> None:
        require_labels(dataset, "train")
        if dataset.splits.get("val"):
            require_labels(dataset, "val")
        alignment = None
        if config.data.align == "auto":
            dataset, alignment = align_labels(dataset)
        self.dataset = dataset
        self.alignment = alignment
        self.run = Run(folder)
        self.run.check(dataset, config)
        self.start = open_start(config, self.run, resume)
        if self.start is not None:
            config = self.start.config(config, dataset)
        self.notes: list[str] = []
        self.warnings: list[str] = []
        config = self._settled(config, resume)
        self.config = config
        AcceleratorState._reset_state()  # runs of one process may differ in precision
        self.accelerator = Accelerator(
            mixed_precision="no" if config.train.precision == "fp32" else config.train.precision,
            cpu=not torch.cuda.is_available(),
        )
        require_divisible(config.train.batch, self.accelerator.num_processes)
        self.spec = input_spec_for(dataset, config)
        if self.start is not None:
            self.spec = self.start.spec(self.spec)
        if too_narrow := narrow(config, self.spec):
            self.warnings.append(too_narrow)
        self.crops = CropDataset(dataset, "train", config, self.spec)
        self.unlabelled, told_of = unlabelled_crops(dataset, config, self.spec)
        self.notes += told_of
        above = dataset.corrections
        lost = strangers(above.path, above.form, dataset.items) if above else ""
        self.notes += [lost] if lost else []
        self.steps_per_epoch = math.ceil(len(self.crops) / self.crops_per_step)
        self.total_steps = self.steps_per_epoch * config.train.epochs
        self.threads = torch.get_num_threads()
        if self.accelerator.device.type == "cpu":
            self._share_cores(resume)
        self._build(goes_on=resume and self.run.last.is_file())
        self.step = 0
        self.best = -math.inf
        self.loss: float | None = None
        self.miou: float | None = None
        self._stop = self._due = self._said = False
        self._bar: Track = silent
        self._show: Callable[[int], None] = lambda steps: None
        self.pace = self._paced()
        self._begin(resume)

    def _settled(self, config: RunConfig, resume: bool) -> RunConfig:
        """Replace what depends on the data, this machine or what is held; keep what to tell."""
        config = pinned_teacher(config.model_copy(update={"model": resolve(with_channels(config))}))
        held = self.run.held() if resume else None
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        classes = len(self.dataset.classes)
        config, computed = settle_precision(config, classes, held=held, processes=processes)
        config, spoken = settle_teacher(config, self.dataset)
        config, warned = settle_weights(config, classes, self.run, resume)
        moved = ""
        if config.data.align == "auto":
            moved = str(self.alignment or "no label surely lies beside its image: none moved")
        self.notes += [told for told in (computed, spoken, moved) if told]
        self.warnings += [warned] if warned else []
        return config

    def _begin(self, resume: bool) -> None:
        """Open the folder; go on with its state, or log how the run begins."""
        if self._open_run(resume):
            self._restore()
        elif self.accelerator.is_main_process:
            if resume:
                self.run.rewind_log(-1)  # it was killed before it had a state
            if self.start is not None:
                classes = self.dataset.classes
                self.run.log({"event": "start", "step": 0, **self.start.told(classes)})
            if self.alignment is not None:
                self.run.log({"event": "alignment", "step": 0, **asdict(self.alignment)})

    def _share_cores(self, resume: bool) -> None:
        last = self.run.last
        stored = read_meta(last).progress if resume and last.is_file() else {}
        threads, told = settle_threads(stored.get("threads"))
        self.threads = threads
        self.notes += [told] if told else []

    @property
    def crops_per_step(self) -> int:
        """Crops of one optimiser step, over all devices and accumulated batches."""
        return self.config.train.batch * self.config.train.accumulate

    def fit(
        self,
        progress: Advance | None = None,
        *,
        bar: Track = silent,
        say: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Train to the end; return the best metrics, with the ``split`` that they are of.

        Args:
            progress: Called with 1 after each step.
            bar: Shows the phases: the steps, within them each validation, and the calibration.
            say: Called with a sentence: how long it will take, that it is about to stop.

        Raises:
            KeyboardInterrupt: After Ctrl-C or a termination, with the state saved.
        """
        left = self.total_steps - self.step
        with (
            bar(left, f"train {self.config.name}", "steps") as show,
            stop_signals(self.stop, say),
            using_threads(self.threads),
        ):
            self._show = partial(self._tell, show, say)
            self._bar = bar
            if self._due:
                self._validate(self.step // self.steps_per_epoch)
                self._save_last()
            batches = self.batches()
            clock = Clock(self.crops_per_step)
            while self.step < self.total_steps:
                started = time.monotonic()
                logs = self._optimize([next(batches) for _ in range(self.config.train.accumulate)])
                self.step += 1
                self.pace.stepped(time.monotonic() - started, self.step)
                if progress:
                    progress(1)
                told = clock.lap(logs)
                if told or self.accelerator.device.type == "cpu":  # a GPU would be waited for
                    self.loss = float(logs["loss"])
                self._show(1)
                self._after_step(told)
                if self._stop:
                    self._save_last()
                    raise KeyboardInterrupt
            self._show(0)
        self.accelerator.wait_for_everyone()
        calibrate_best(self.run, self.validator, self.accelerator, self.step, bar)
        return read_meta(self.run.best).metrics

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of this process from the next step to the end of the run."""
        several = (self.crops, self.unlabelled, self.config)
        return iter(run_loader(*several, self.step, self.accelerator))

    def opening(self) -> list[str]:
        """Return the screen that the run opens with; see :mod:`terradapt.training.opening`."""
        device = self.accelerator.device
        name = f"CPU, {self.threads} threads"
        if device.type == "cuda":
            name = f"{device} {torch.cuda.get_device_name(device)}"
        if self.accelerator.num_processes > 1:
            name += f", {self.accelerator.num_processes} processes"
        weights = self.meta.weights or "random"
        if self.start is not None:
            weights = f"those of {self.start.name} (sha256:{self.start.sha256})"
        steps = (self.step, self.total_steps, self.steps_per_epoch)
        seen = (self.config, self.dataset, self.spec)
        return opening(*seen, self.model, device=name, weights=weights, steps=steps)

    def _tell(self, show: Show, say: Callable[[str], None] | None, steps: int) -> None:
        """Show steps with the loss, the last mIoU and the time left; once, say the time."""
        note = "" if self.loss is None else f"loss {self.loss:.3f}"
        if self.miou is not None:
            note += f"  mIoU {self.miou:.3f}"
        left = self.pace.left(self.step, self.total_steps) if self.step < self.total_steps else 0.0
        show(steps, note=note, left=left)
        if say is not None and not self._said and left:
            self._said = True
            ends = datetime.now().astimezone() + timedelta(seconds=left)
            say(f"{'time':9} about {duration_text(left)}, until {ends:%a %H:%M}")
            whole = left * self.total_steps / (self.total_steps - self.step)
            epochs = max(1, int(self.config.train.epochs * _FIRST_MAP / whole))
            if left > _LONG and epochs < self.config.train.epochs:
                short = duration_text(whole * epochs / self.config.train.epochs)
                say(f"{'':9} a first map sooner: a new run with epochs={epochs}, about {short}")

    def stop(self) -> None:
        """End the run after the step in progress, with its state saved."""
        self._stop = True

    def evaluate(self, split: str = "val", progress: Advance | None = None) -> dict[str, Any]:
        """Return the metrics over whole images of a split, by blended windows as ``predict``.

        Args:
            split: Name of the split.
            progress: Called with the windows done, of all processes together.
        """
        weights = self.average.state_dict(self.model) if self.average else None
        return self.validator.metrics(split, weights, progress, lambda: self._stop)

    def _paced(self) -> Pace:
        """What the run will predict beside its steps: validations, calibration, the report."""
        every, epochs = self.config.train.val_every, self.config.train.epochs
        ends = tuple(e for e in range(1, epochs + 1) if e % every == 0 or e == epochs)
        after, windows = 0, self.validator.windows
        if self.config.train.calibrate != "none" and self.dataset.splits.get("val"):
            after += windows("val", SAMPLED)
        after += next(windows(s) for s in ("test", "val", "train") if self.dataset.splits.get(s))
        objective, begin = self.config.objective, None
        if objective.name == "consistency":
            begin = math.ceil(objective.consistency.begin * self.total_steps)
        return Pace(
            self.crops_per_step,
            tuple(e * self.steps_per_epoch for e in ends),
            windows(self.validator.split),
            after,
            begin,
        )

    def _open_run(self, resume: bool) -> bool:
        """Let the first process make the folder; tell whether there is a state to go on from."""
        if self.accelerator.is_main_process:
            self.run.open(self.config, resume)
            self.run.keep_splits(self.dataset)
        self.accelerator.wait_for_everyone()
        return resume and self.run.last.is_file()

    def _optimize(self, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        self.model.train()
        set_rates(self.optimizer, self.config.optim, self.step, self.total_steps)
        torch.manual_seed(_mix(self.config.train.seed, self.step, self.accelerator.process_index))
        logs: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                logs = self._backward(batch, len(batches))
        if self.config.optim.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.model, self.step)
        return logs

    def _backward(self, batch: dict[str, Tensor], parts: int) -> dict[str, Tensor]:
        batch = {k: v.to(self.accelerator.device, non_blocking=True) for k, v in batch.items()}
        batch |= {"pixels": batch["image"], "image": self._normalized(batch["image"])}
        if "unlabelled" in batch:
            strong = batch["strong"]
            batch |= {
                "weak": self._normalized(batch["unlabelled"]),
                "strong": self._normalized(strong.flatten(0, 1)).unflatten(0, strong.shape[:2]),
                "progress": torch.tensor(self.step / self.total_steps),
            }
        with self.accelerator.autocast():
            loss, logs = self.objective(self.wrapped, batch)
        self.accelerator.backward(loss / parts)
        return logs

    def _normalized(self, pixels: Tensor) -> Tensor:
        image = normalize_tensor(pixels, self.spec)
        if self.config.train.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return image

    def _after_step(self, logs: dict[str, Any]) -> None:
        if not all(map(math.isfinite, logs.values())):
            raise ConfigError(
                f"{self.run.folder}: the loss is not finite at step {self.step}",
                "lower optim.lr, or set optim.clip=1.0, in a new run",
            )
        if logs and self.accelerator.is_main_process:
            epoch = self.step / self.steps_per_epoch
            rates = {"lr": self.optimizer.param_groups[-1]["lr"]}
            self.run.log({"event": "step", "step": self.step, "epoch": epoch, **rates, **logs})
        epochs, rest = divmod(self.step, self.steps_per_epoch)
        done = self.step == self.total_steps
        if not rest and (epochs % self.config.train.val_every == 0 or done):
            self._validate(epochs)
        if done or not rest or self.step % self.config.train.save_every == 0:
            self._save_last()

    def _validate(self, epoch: int) -> None:
        split, started = self.validator.split, time.monotonic()
        windows = self.validator.windows(split)
        try:
            with self._bar(windows, "validate", "windows") as show:
                metrics = {**self.evaluate(split, show), "split": split}
        except StoppedError:
            self._due = True  # what goes on begins with it
            return
        self._due = False
        self.pace.predicted(windows, time.monotonic() - started)
        self.miou = float(metrics["miou"])
        self._show(0)
        if not self.accelerator.is_main_process:
            return
        figures = {k: v for k, v in metrics.items() if isinstance(v, float)}
        seconds = round(time.monotonic() - started, 3)
        event = {"event": "val", "step": self.step, "epoch": epoch, "split": split}
        self.run.log({**event, **figures, "seconds": seconds})
        score = _monitored(metrics, self.config.train.monitor)
        if score > self.best:
            self.best = score
            self._save(self.run.best, metrics, average=True)

    def _save_last(self) -> None:
        if self.accelerator.is_main_process:
            state = dict(optimizer_tensors(self._bare_optimizer(), self.model))
            if self.average:
                state |= {f"average.{k}": v for k, v in self.average.tensors.items()}
            self._save(self.run.last, {}, state=state)

    def _save(
        self,
        path: Path,
        metrics: dict[str, Any],
        *,
        state: dict[str, Tensor] | None = None,
        average: bool = False,
    ) -> None:
        weights = self.average.state_dict(self.model) if average and self.average else None
        best = self.best if math.isfinite(self.best) else None
        progress: dict[str, Any] = {"best": best, "total_steps": self.total_steps}
        if self._due:
            progress["due"] = True
        if self.accelerator.device.type == "cpu":
            progress["threads"] = self.threads
        if self.accelerator.scaler is not None:
            progress["scale"] = self.accelerator.scaler.get_scale()
        meta = replace(self.meta, metrics=metrics, step=self.step, progress=progress)
        bundle = self.config.train.bundle
        checkpoint.save(path, self.model, meta, bundle=bundle, state=state, weights=weights)

    def _build(self, goes_on: bool) -> None:
        train = self.config.train
        encoder = self.config.model.encoder
        if goes_on:  # its own state follows; nobody is asked for what it began with
            origin = check_origin(self.config, self.run)
            plan = with_weights(self.config, None).model
        else:
            origin, plan = weights_origin(encoder.name, encoder.weights), self.config.model
        torch.manual_seed(train.seed)
        if train.deterministic:
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        model = build(plan, len(self.dataset.classes))
        if self.start is not None and not self.start.goes_on:
            self.start.fill(model, self.dataset.classes, self.spec.channels)
        if train.channels_last:
            model = model.to(memory_format=torch.channels_last)
        require_multiple(self.config.data.crop, model.size_multiple)
        require_batch(model.min_batch, train.batch, self.accelerator.num_processes)
        if self.accelerator.device.type == "cpu" and train.precision == "bf16":
            spare_depthwise(model)
        self.model = model.to(self.accelerator.device)
        self.validator = Validator(
            self.model, self.dataset, self.config, self.spec, self.accelerator
        )
        self.average = Average(self.model, train.ema) if train.ema else None
        teacher = averaged(self.model, self.average.tensors) if self.average else None
        device = self.accelerator.device
        with cached_only() if goes_on else nullcontext():
            self.objective = build_objective(self.config, self.dataset, device, teacher)
        optimizer = build_optimizer(self.model, self.config.optim)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        if train.compile:
            self.wrapped = torch.compile(self.wrapped)
        self.meta = Meta(
            config=self.config,
            classes=self.dataset.classes,
            spec=self.spec,
            window=self.config.data.crop,
            commit=code_commit(),
            data=self.dataset.name,
            start=self.start.sha256 if self.start else None,
            weights=origin,
            alignment=self.alignment,
        )

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return inner

    def _restore(self) -> None:
        path = self.run.last
        meta = read_meta(path)
        if meta.classes != self.dataset.classes:
            raise CheckpointError(
                f"{path}: has other classes than {self.dataset.root}",
                "resume with the dataset that the run was started with",
            )
        own = self.config.model.encoder.weights
        with cached_only():
            stored, _ = checkpoint.load(path, trunk=own if own == HUB else None)
        self.model.load_state_dict(stored.state_dict())
        state = checkpoint.read_training_state(path)
        restore_optimizer(self._bare_optimizer(), self.model, state)
        if self.average:
            for name, value in self.average.tensors.items():
                value.copy_(state[f"average.{name}"])
        self.step = meta.step
        self._due = bool(meta.progress.get("due"))
        best = meta.progress.get("best")
        self.best = -math.inf if best is None else best
        if self.accelerator.scaler is not None and "scale" in meta.progress:
            self.accelerator.scaler.update(meta.progress["scale"])
        if self.accelerator.is_main_process:
            self.run.rewind_log(self.step)
        known = [e["miou"] for e in self.run.events() if e.get("event") == "val"]
        self.miou = known[-1] if known else None


def _monitored(metrics: dict[str, Any], name: str) -> float:
    if not isinstance(metrics.get(name), float):
        known = [k for k, v in metrics.items() if isinstance(v, float)]
        fix = one_of(name, known, "set train.monitor to one of: ")
        raise ConfigError(f"no metric '{name}' to monitor", fix)
    return float(metrics[name])


def _mix(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
