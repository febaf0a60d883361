"""Warm start: a run begins with the weights of any checkpoint, joined by the names of classes.

Not to be confused with resuming: a resumed run goes on with its own state, whatever it began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from terradapt import checkpoint, hub
from terradapt.classes import ClassMap
from terradapt.config import Channels, InputSpec, ModelConfig, RunConfig
from terradapt.data import Dataset, input_spec
from terradapt.errors import CheckpointError, ConfigError
from terradapt.files import digest
from terradapt.meta import Meta, read_meta
from terradapt.models import build_on_meta, entry
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import AROUND, HUB
from terradapt.training.run import Run

Joined = Sequence[int | None]
"""For each new class or band the old one's place, None where it is new."""


@dataclass(frozen=True)
class Start:
    """What a run began with.

    Attributes:
        name: As it was given.
        sha256: Of the file.
        meta: What the file says of itself; of a run that goes on, what its own last state says.
        goes_on: The run has a state of its own: the file is not needed.
    """

    name: str
    sha256: str
    meta: Meta
    goes_on: bool = False

    def config(self, config: RunConfig, dataset: Dataset) -> RunConfig:
        """Return a run's config with the start's model, and its stretch where none is given.

        Raises:
            CheckpointError: The start needs a frozen trunk that is not on this machine.
        """
        old, data = self.meta, config.data
        encoder = old.config.model.encoder.model_copy(
            update={"weights": self._trunk(config), "context": data.context}
        )
        seen = config.model_copy(update={"model": old.config.model})
        model = {"encoder": encoder, "in_channels": len(seen.channels)}
        like = input_spec(dataset, data)
        if data.stretch is None and like.dtype == old.spec.dtype and data.bands == old.spec.bands:
            data = data.model_copy(update={"stretch": old.spec.stretch})
        return config.model_copy(
            update={
                "model": old.config.model.model_copy(update=model),
                "data": data,
                "train": config.train.model_copy(update={"start": self.name}),
            }
        )

    def spec(self, spec: InputSpec) -> InputSpec:
        """Return a spec that normalises the start's bands as the start did."""
        old = self.meta.spec
        known = dict(zip(old.channels, zip(old.mean, old.std, strict=True), strict=True))
        pairs = [
            known.get((band, side), known.get((band, 1), own))
            for (band, side), own in zip(
                spec.channels, zip(spec.mean, spec.std, strict=True), strict=True
            )
        ]
        mean, std = zip(*pairs, strict=True)
        return spec.model_copy(update={"mean": mean, "std": std})

    def told(self, classes: ClassMap) -> dict[str, str]:
        """Return what a run's log says of its start."""
        model, known = self.meta.config.model, {n.casefold() for n in self.meta.classes.names}
        return {
            "start": self.name,
            "sha256": self.sha256,
            "model": f"{model.name} on {model.encoder.name}",
            "new_classes": ", ".join(n for n in classes.names if n.casefold() not in known),
        }

    def fill(
        self,
        model: SegmentationModel,
        classes: ClassMap,
        channels: Channels,
    ) -> None:
        """Put the start's weights into a model.

        A new class starts at the mean of the old ones' rows; a new band with weights of 0, and so
        does the ground around, so that the model says at first what it said before.

        Args:
            model: The run's.
            classes: Its dataset's.
            channels: Its spec's.

        Raises:
            CheckpointError: A class of the start that the dataset lacks, or weights that do not
                fit.
        """
        old = self.meta
        tensors = checkpoint.read_weights(self.name)
        rows = self._rows(classes)
        if rows is not None:
            for name, axis in _axes(old.config.model, len(old.classes), classes=1).items():
                # a head that shuffles pixels has several rows a class, one after the other
                each = tensors[name].unflatten(axis, (len(old.classes), -1))
                taken = _taken(each, axis, rows, each.mean(axis, True))
                tensors[name] = taken.flatten(axis, axis + 1)
        known, own = old.spec.channels, model.state_dict()
        if channels != known:
            places = [known.index(c) if c in known else None for c in channels]
            for name, axis in _axes(old.config.model, len(old.classes), bands=2).items():
                blank = torch.zeros_like(tensors[name].narrow(axis, 0, 1))
                shown = places[: own[name].shape[axis]]  # a trunk sees both views by the same ones
                tensors[name] = _taken(tensors[name], axis, shown, blank)
        at_first = {k: v for k, v in own.items() if k.startswith(AROUND)}
        held = {k: v for k, v in tensors.items() if k in own or not k.startswith(AROUND)}
        tensors = {**at_first, **held}
        trunk = checkpoint.frozen_keys(model)
        elsewhere = trunk - tensors.keys()
        shapes = {k: tuple(v.shape) for k, v in tensors.items()}
        checkpoint.check_names(Path(self.name), shapes, own, elsewhere)
        model.load_state_dict(tensors, strict=False)
        if old.trunk is not None and channels == known:
            state = model.state_dict()
            checkpoint.check_trunk(Path(self.name), old.trunk, {k: state[k] for k in trunk})

    def _rows(self, classes: ClassMap) -> Joined | None:
        """Join the classes by name; None where they are the same."""
        old = self.meta.classes
        if old.names == classes.names:
            return None
        place = {name.casefold(): i for i, name in enumerate(old.names)}
        rows = [place.get(name.casefold()) for name in classes.names]
        lost = [name for i, name in enumerate(old.names) if i not in rows]
        if lost:
            raise CheckpointError(
                f"{self.name}: has the class {', '.join(lost)}, which the dataset has not "
                f"({', '.join(classes.names)})",
                "list it among the dataset's classes in classes.yaml, labelled or not",
            )
        if entry(self.meta.config.model.name).binary:
            if rows == [0, 1]:
                return None
            raise CheckpointError(
                f"{self.name}: {self.meta.config.model.name} tells {' from '.join(old.names)}, and "
                f"the dataset has {', '.join(classes.names)}",
                "give the classes that order, or start from a model of many classes",
            )
        return rows

    def _trunk(self, config: RunConfig) -> str | None:
        """The file of a frozen trunk that the start only names; None without one."""
        trunk = self.meta.trunk
        if trunk is None or trunk.bundled:
            return None
        recorded = self.meta.config.model.encoder.weights or ""
        name = Path(recorded).name
        files = [config.model.encoder.weights, recorded, str(Path(self.name).parent / name)]
        for file in files:
            if file not in (None, "", HUB) and Path(str(file)).is_file():
                return file
        raise CheckpointError(
            f"{self.name}: needs the trunk {trunk.name} from {name}, which is not here",
            "give its file with encoder.weights=FILE",
        )


def open_start(config: RunConfig, run: Run, resume: bool) -> Start | None:
    """Open the checkpoint that a run begins with, if it begins with one.

    Raises:
        CheckpointError: It cannot be read or trusted, or is not the one that the run began with.
        ConfigError: It is an address, or a resumed run began with another one.
    """
    held = run.held() if resume else None
    given = config.train.start
    if held is not None:
        if given not in (None, held.train.start):
            raise ConfigError(
                f"{run.folder}: the run began with {held.train.start or 'no start'}, not {given}",
                "leave train.start out to go on, or start a new run with another -o",
            )
        given = held.train.start
    if given is None:
        return None
    if hub.is_address(given):
        raise ConfigError(
            f"train.start={given}: a run starts from a file, so that it needs no network",
            "fetch the checkpoint first and give its path",
        )
    given = str(hub.local(given))
    if held is not None and run.last.is_file():
        meta = read_meta(run.last)
        sha256 = meta.start or ""
        if Path(given).is_file() and digest(given) != sha256:
            raise CheckpointError(
                f"{given}: is not the checkpoint that {run.folder} began with ({sha256[:12]}...)",
                "put the old one back, or start a new run with another -o",
            )
        return Start(given, sha256, meta, goes_on=True)
    meta = read_meta(given)
    return Start(given, digest(given), meta)


def start_classes(config: RunConfig, run: Run, resume: bool) -> ClassMap | None:
    """Return the classes of what a run begins or goes on with; None where it begins afresh.

    Raises:
        CheckpointError: See :func:`open_start`.
        ConfigError: See :func:`open_start`.
    """
    start = open_start(config, run, resume)
    return start.meta.classes if start else None


def _axes(model: ModelConfig, count: int, *, classes: int = 0, bands: int = 0) -> dict[str, int]:
    """Return which axis of which tensors grows with the classes, or with the bands."""
    wider = model.model_copy(update={"in_channels": model.in_channels + bands})
    one = build_on_meta(model, count).state_dict()
    more = build_on_meta(wider, count + classes).state_dict()
    return {
        name: next(d for d, (a, b) in enumerate(zip(value.shape, more[name].shape)) if a != b)  # noqa: B905
        for name, value in one.items()
        if value.shape != more[name].shape
    }


def _taken(tensor: Tensor, axis: int, places: Joined, new: Tensor) -> Tensor:
    parts = [new if at is None else tensor.narrow(axis, at, 1) for at in places]
    return torch.cat(parts, axis)
