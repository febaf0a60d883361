"""Checkpoints that explain themselves: one ``.safetensors`` file, never a pickle.

The metadata holds config, class map, input, resolution, metrics and commit, so that eval, predict
and export take only the path. A frozen trunk is stored as its name, source and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from terradapt.classes import ClassMap
from terradapt.config import InputSpec, RunConfig, first_error
from terradapt.errors import CheckpointError, ConfigError, TerradaptError
from terradapt.files import replacing
from terradapt.models import build
from terradapt.models.contract import SegmentationModel
from terradapt.version import __version__

FORMAT = "terradapt-1"
STATE_PREFIX = "state."  # optimiser moments and averages, beside the weights in last.safetensors
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class Trunk:
    """The frozen trunk of a tuned encoder.

    Attributes:
        name: Architecture, as timm names it.
        source: File name or hub tag that the weights came from; None when they are random.
        sha256: Hash of the trunk's tensors (:func:`hash_tensors`).
        bundled: The tensors are inside the checkpoint.
    """

    name: str
    source: str | None
    sha256: str
    bundled: bool


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself.

    Attributes:
        config: The run's config.
        classes: Names and colours.
        spec: Bands, stretch, normalisation, training resolution in m/px.
        window: Side of the training crops, px.
        metrics: Validation metrics at this step, fractions.
        step: Optimiser steps done.
        trunk: The frozen trunk, when there is one.
        commit: Commit of the code that trained it, or "".
        data: Name of the dataset.
        progress: State of an unfinished run (only in ``last.safetensors``).
    """

    config: RunConfig
    classes: ClassMap
    spec: InputSpec
    window: int
    metrics: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    trunk: Trunk | None = None
    commit: str = ""
    version: str = __version__
    data: str = ""
    progress: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the metadata text."""
        return json.dumps(
            {
                "format": FORMAT,
                "config": self.config.model_dump(mode="json"),
                "classes": self.classes.to_dict(),
                "spec": self.spec.model_dump(mode="json"),
                "window": self.window,
                "metrics": self.metrics,
                "step": self.step,
                "trunk": self.trunk and vars(self.trunk),
                "commit": self.commit,
                "version": self.version,
                "data": self.data,
                "progress": self.progress,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str, source: str) -> Meta:
        """Read the metadata text.

        Raises:
            CheckpointError: Not written by terradapt, or damaged.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise KeyError("format")
            trunk = values.pop("trunk")
            return cls(
                config=RunConfig.model_validate(values.pop("config")),
                classes=ClassMap.from_dict(values.pop("classes")),
                spec=InputSpec.model_validate(values.pop("spec")),
                trunk=Trunk(**trunk) if trunk else None,
                **values,
            )
        except (ValueError, KeyError, TypeError, AttributeError, TerradaptError) as error:
            reason = first_error(error)[1] if isinstance(error, ValidationError) else error
            raise CheckpointError(
                f"{source}: its metadata is not a terradapt checkpoint's ({reason})",
                "use a checkpoint.safetensors that terradapt wrote",
            ) from error


def save(
    path: str | Path,
    model: SegmentationModel,
    meta: Meta,
    *,
    bundle: bool = False,
    state: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Meta:
    """Write a checkpoint beside its place, then rename it.

    Args:
        path: File to write.
        model: The model, for its frozen trunk and, by default, its weights.
        meta: What to say of it; ``trunk`` is filled in here.
        bundle: Store a frozen trunk that could be named instead.
        state: Further tensors to keep, such as the optimiser's moments.
        weights: Weights to store in place of the model's, such as their average.

    Returns:
        The metadata as written.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = dict(model.state_dict() if weights is None else weights)
    trunk_keys = frozen_keys(model)
    if trunk_keys:
        encoder = meta.config.model.encoder
        bundled = bundle or encoder.weights is None
        sha256 = hash_tensors({k: tensors[k] for k in trunk_keys})
        source = encoder.weights and Path(encoder.weights).name
        meta = replace(meta, trunk=Trunk(encoder.name, source, sha256, bundled))
        if not bundled:
            tensors = {k: v for k, v in tensors.items() if k not in trunk_keys}
    tensors |= {f"{STATE_PREFIX}{k}": v for k, v in (state or {}).items()}
    _write(Path(path), tensors, meta)
    return meta


def load(
    path: str | Path, *, trunk: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[SegmentationModel, Meta]:
    """Build the model of a checkpoint and fill it; nothing is ever unpickled.

    Args:
        path: A checkpoint that terradapt wrote.
        trunk: File with the weights of a frozen trunk that is only named; by default the file
            that the run used, then a file of its name beside the checkpoint.
        device: Where to put the model.

    Returns:
        The model in evaluation mode and its metadata.

    Raises:
        CheckpointError: Missing, truncated, a pickle, of another model, or with another trunk.
    """
    path = Path(path)
    meta = read_meta(path)
    tensors = _read(path)
    weights = {k: v for k, v in tensors.items() if not k.startswith(STATE_PREFIX)}
    encoder = meta.config.model.encoder
    named = meta.trunk is not None and not meta.trunk.bundled
    source = _trunk_source(path, meta, trunk) if named else None
    config = meta.config.model.model_copy(
        update={"encoder": encoder.model_copy(update={"weights": source})}
    )
    try:
        model = build(config, len(meta.classes))
    except (ConfigError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its model cannot be built ({error})", "use the terradapt that wrote it"
        ) from error
    expected = model.state_dict()
    trunk_keys = frozen_keys(model)
    _check_names(path, weights, expected, trunk_keys if named else frozenset())
    if meta.trunk is not None:
        held = expected if named else weights
        _check_trunk(path, meta.trunk, {k: held[k] for k in trunk_keys})
    model.load_state_dict(weights, strict=False)
    return model.to(device).eval(), meta


def read_meta(path: str | Path) -> Meta:
    """Read what a checkpoint says of itself, without its weights.

    Raises:
        CheckpointError: Missing, truncated, a pickle, or not written by terradapt.
    """
    path = Path(path)
    _refuse_pickle(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    return Meta.from_json(metadata.get("terradapt", "null"), str(path))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the further tensors of ``last.safetensors`` (optimiser, averages)."""
    tensors = _read(Path(path))
    length = len(STATE_PREFIX)
    return {k[length:]: v for k, v in tensors.items() if k.startswith(STATE_PREFIX)}


def frozen_keys(model: SegmentationModel) -> frozenset[str]:
    """Return the state-dict keys of the frozen trunk: what does not train inside the encoder."""
    return frozenset(
        f"encoder.{name}" for name, p in model.encoder.named_parameters() if not p.requires_grad
    )


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names, as hex digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def code_commit() -> str:
    """Return the commit of the running code, "" when it is not a checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"]
    try:
        tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__]
        subprocess.run(tracked, check=True, capture_output=True, timeout=10)
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _write(path: Path, tensors: Mapping[str, Tensor], meta: Meta) -> None:
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path, SafetensorError) as part:
        save_file(plain, part, metadata={"terradapt": meta.to_json()})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror})",
            "give a checkpoint.safetensors",
        ) from error
    if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
        raise CheckpointError(
            f"{path}: is a pickle, which can run code when it is loaded; it was not opened",
            "use a checkpoint.safetensors that terradapt wrote",
        )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: is no whole safetensors file ({error})", "copy it again, or use last.safetensors"
    )


def _trunk_source(path: Path, meta: Meta, given: str | Path | None) -> str:
    encoder = meta.config.model.encoder
    recorded = encoder.weights or ""
    if given is not None:
        return str(given)
    if recorded == "hub" or Path(recorded).is_file():
        return recorded
    beside = path.parent / Path(recorded).name
    if beside.is_file():
        return str(beside)
    raise CheckpointError(
        f"{path}: needs the trunk {encoder.name} from {Path(recorded).name}, which is not here",
        f"put {Path(recorded).name} beside the checkpoint, or give its path with --trunk",
    )


def _check_trunk(path: Path, trunk: Trunk, tensors: Mapping[str, Tensor]) -> None:
    found = hash_tensors(tensors)
    if found != trunk.sha256:
        raise CheckpointError(
            f"{path}: was tuned on the trunk {trunk.name} with SHA-256 {trunk.sha256[:12]}..., "
            f"this one has {found[:12]}...",
            f"use the weights that it was trained with: {trunk.source or 'bundled ones'}",
        )


def _check_names(
    path: Path,
    weights: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    elsewhere: frozenset[str],
) -> None:
    wanted = {k: v for k, v in expected.items() if k not in elsewhere}
    missing = sorted(wanted.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    odd = [k for k in sorted(wanted.keys() & weights.keys()) if wanted[k].shape != weights[k].shape]
    faults = [f"lacks {k}" for k in missing[:1]] + [f"holds an unknown {k}" for k in unknown[:1]]
    faults += [f"{k} is {tuple(weights[k].shape)}, not {tuple(wanted[k].shape)}" for k in odd[:1]]
    if faults:
        raise CheckpointError(
            f"{path}: its weights are not those of its model: {'; '.join(faults)}",
            "use a checkpoint.safetensors that terradapt wrote",
        )
