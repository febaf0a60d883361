"""SAM2's official checkpoints and timm's files, checked whole before anything is loaded.

Official files (``sam2_hiera_*.pt``, ``sam2.1_hiera_*.pt``) hold ``{"model": state_dict}``,
the trunk under ``image_encoder.trunk.`` and its MLPs as ``mlp.layers.{0,1}``; timm has ``fc1``,
``fc2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from terradapt.errors import CheckpointError
from terradapt.weights import State, fit_shape, read_state

PREFIX = "image_encoder.trunk."
OWN_PREFIXES = (PREFIX, "trunk.")
RENAMES = ((".mlp.layers.0.", ".mlp.fc1."), (".mlp.layers.1.", ".mlp.fc2."))


def load_trunk(trunk: nn.Module, path: str) -> None:
    """Load an official or a timm file into timm's Hiera trunk.

    Raises:
        CheckpointError: Cannot be read, is partial (names the first missing key), holds blocks
            that the trunk lacks, or a weight of another shape. Then nothing is loaded.
    """
    official, source = trunk_state(path)
    own = trunk.state_dict()
    missing = next((key for key in own if key not in source), None)
    if missing is not None:
        raise _misfit(path, f"'{_told(missing, official)}' is missing")
    extra = next((k for k in source if k not in own and not k.startswith("head.")), None)
    if extra is not None:
        raise _misfit(path, f"'{_told(extra, official)}' has no place in this trunk")
    trunk.load_state_dict({k: fit_shape(k, v, source[k], path) for k, v in own.items()})


def trunk_state(path: str) -> tuple[bool, State]:
    """Read a file's trunk in timm's names; tell whether it has the official form."""
    values = read_state(path)
    prefix = next((p for p in OWN_PREFIXES if any(k.startswith(p) for k in values)), "")
    trunk = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return prefix == PREFIX, _to_timm(trunk)


def _to_timm(values: Mapping[str, Tensor]) -> State:
    return {_renamed(key, RENAMES): value for key, value in values.items()}


def _renamed(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        key = key.replace(old, new)
    return key


def _told(key: str, official: bool) -> str:
    return PREFIX + _renamed(key, [(new, old) for old, new in RENAMES]) if official else key


def _misfit(path: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}; the file is partial or of another trunk",
        "use the official SAM2 file of this size, for example sam2.1_hiera_large.pt",
    )
