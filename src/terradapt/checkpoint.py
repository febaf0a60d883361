"""Checkpoints: one ``.safetensors`` file of weights with their :class:`Meta`, never a pickle.

A frozen trunk is stored as its name, source and SHA-256.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from terradapt.config import ModelConfig
from terradapt.errors import (
    CheckpointError,
    MissingExtraError,
)
from terradapt.files import replacing
from terradapt.meta import KEY, Meta, Trunk, damaged, read_meta
from terradapt.models import build
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import HUB

STATE_PREFIX = "state."  # optimiser moments and averages, beside the weights in last.safetensors
MOST_TENSORS, MOST_WEIGHTS = 5_000, 1_000_000_000
"""Of a model: several times those of the largest that terradapt trains."""


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
            that the run used, then a file of its name beside the checkpoint. ``"hub"`` fetches
            them from the library's hub: a checkpoint alone cannot.
        device: Where to put the model.

    Returns:
        The model in evaluation mode and its metadata.

    Raises:
        CheckpointError: Missing, truncated, a pickle, of another model, or with another trunk.
    """
    path = Path(path)
    meta = read_meta(path)
    named = meta.trunk is not None and not meta.trunk.bundled
    encoder = meta.config.model.encoder.model_copy(update={"weights": None})
    config = meta.config.model.model_copy(update={"encoder": encoder})
    with torch.device("meta"), _Unfilled(), _bounded(path):  # its form alone: nothing is allocated
        shell = _built(path, config, len(meta.classes))
    trunk_keys = frozen_keys(shell)
    check_names(path, _shapes(path), shell.state_dict(), trunk_keys if named else frozenset())
    source = _trunk_source(path, meta, trunk) if named else None
    encoder = encoder.model_copy(update={"weights": source})
    config = config.model_copy(update={"encoder": encoder})
    model = _built(path, config, len(meta.classes))
    weights = read_weights(path)
    expected = model.state_dict()
    if meta.trunk is not None:
        held = expected if named else weights
        check_trunk(path, meta.trunk, {k: held[k] for k in trunk_keys})
    model.load_state_dict(weights, strict=False)
    return model.to(device).eval(), meta


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the model's tensors, without a frozen trunk that is only named."""
    return {k: v for k, v in _read(Path(path)).items() if not k.startswith(STATE_PREFIX)}


def rewrite_meta(path: str | Path, meta: Meta) -> None:
    """Let a checkpoint say something else of itself; its tensors stay.

    Raises:
        OutputError: The file cannot be written.
    """
    _write(Path(path), _read(Path(path)), meta)


def read_training_state(path: str | Path) -> dict[str, Tensor]:
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


def _write(path: Path, tensors: Mapping[str, Tensor], meta: Meta) -> None:
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path, SafetensorError) as part:
        save_file(plain, part, metadata={KEY: meta.to_json()})


def _built(path: Path, config: ModelConfig, classes: int) -> SegmentationModel:
    try:
        return build(config, classes)
    except (CheckpointError, MissingExtraError):  # of the trunk's weights
        raise
    except Exception as error:  # a config of any origin; the encoders' libraries raise at will
        raise CheckpointError(
            f"{path}: its model cannot be built ({error})", "use the terradapt that wrote it"
        ) from error


class _Unfilled(TorchFunctionMode):
    """Give parameters no first values: where nothing is allocated torch loads its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__ and (args or "tensor" in given):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def _bounded(path: Path) -> Iterator[None]:
    """Stop the building of a model as soon as it is larger than any that is meant.

    Raises:
        CheckpointError: It has too many weights.
    """
    thread, tensors, weights = threading.get_ident(), 0, 0

    def count(_: nn.Module, __: str, weight: nn.Parameter | None) -> None:
        nonlocal tensors, weights
        if weight is None or threading.get_ident() != thread:
            return
        tensors, weights = tensors + 1, weights + weight.numel()
        if tensors > MOST_TENSORS or weights > MOST_WEIGHTS:
            raise CheckpointError(
                f"{path}: its model has more than {MOST_TENSORS} tensors or "
                f"{MOST_WEIGHTS / 1e9:.1f} billion weights",
                "use a checkpoint.safetensors that terradapt wrote",
            )

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's weights, unread."""
    try:
        with safe_open(path, "pt") as file:
            names = [n for n in file.keys() if not n.startswith(STATE_PREFIX)]  # noqa: SIM118
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def _trunk_source(path: Path, meta: Meta, given: str | Path | None) -> str:
    encoder = meta.config.model.encoder
    recorded = encoder.weights or ""
    if given is not None:
        return str(given)
    if recorded == HUB:
        raise CheckpointError(
            f"{path}: needs the trunk {encoder.name} from the hub",
            f"allow it with --trunk {HUB}, give its file with --trunk FILE, or have it stored "
            "inside: terradapt push --bundle",
        )
    if Path(recorded).is_file():
        return recorded
    beside = path.parent / Path(recorded).name
    if beside.is_file():
        return str(beside)
    raise CheckpointError(
        f"{path}: needs the trunk {encoder.name} from {Path(recorded).name}, which is not here",
        f"put {Path(recorded).name} beside the checkpoint, or give its path with --trunk",
    )


def check_trunk(path: Path, trunk: Trunk, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a frozen trunk's tensors that are not those that a checkpoint was tuned on.

    Raises:
        CheckpointError: Another hash.
    """
    found = hash_tensors(tensors)
    if found != trunk.sha256:
        raise CheckpointError(
            f"{path}: was tuned on the trunk {trunk.name} with SHA-256 {trunk.sha256[:12]}..., "
            f"this one has {found[:12]}...",
            f"use the weights that it was trained with: {trunk.source or 'bundled ones'}",
        )


def check_names(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, Tensor],
    elsewhere: frozenset[str],
) -> None:
    """Refuse tensors that are not those of a model, in name or shape.

    Args:
        path: Where they come from.
        shapes: Those of the tensors, by name.
        expected: The model's own.
        elsewhere: Names that may be missing.

    Raises:
        CheckpointError: One is missing, unknown or of another shape.
    """
    wanted = {k: tuple(v.shape) for k, v in expected.items() if k not in elsewhere}
    missing = sorted(wanted.keys() - shapes.keys())
    unknown = sorted(shapes.keys() - expected.keys())
    odd = [k for k in sorted(wanted.keys() & shapes.keys()) if wanted[k] != shapes[k]]
    faults = [f"lacks {k}" for k in missing[:1]] + [f"holds an unknown {k}" for k in unknown[:1]]
    faults += [f"{k} is {shapes[k]}, not {wanted[k]}" for k in odd[:1]]
    if faults:
        raise CheckpointError(
            f"{path}: its weights are not those of its model: {'; '.join(faults)}",
            "use a checkpoint.safetensors that terradapt wrote",
        )
