"""Read weight files without running their code, and fit them to a backbone."""

from __future__ import annotations

import pickle
import ssl
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from safetensors import SafetensorError, safe_open
from timm.models import adapt_input_conv, get_pretrained_cfg
from torch import Tensor, nn

from terradapt.errors import CheckpointError, reason
from terradapt.files import digest

State = dict[str, Tensor]
Made = TypeVar("Made")
PATIENCE = 4.0  # s
FRESH = "download the file again, or give another one"


def from_hub(make: Callable[[], Made], name: str) -> Made:
    """Call ``make``, which fetches the weights of ``name`` from its hub.

    A hub that does not answer within seconds is not asked: what was fetched earlier is used.

    Raises:
        CheckpointError: They cannot be fetched.
    """
    from huggingface_hub import constants

    offline = "HF_HUB_OFFLINE is set, and they were not fetched before"
    fault = offline if constants.HF_HUB_OFFLINE else hub_fault(constants.ENDPOINT)
    try:
        with cached_only() if fault else nullcontext():
            return make()
    except Exception as error:  # any of the hub client's, the network's and the disk's
        first = reason(error).partition(" For more information")[0]
        raise CheckpointError(
            f"{name}: no weights from the hub: {fault or first}",
            "check the network, or give a local file in place of 'hub'",
        ) from error


@contextmanager
def cached_only() -> Iterator[None]:
    """Let the hub's client take what it holds, and ask nobody."""
    from huggingface_hub import constants

    held = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = held


@cache
def hub_fault(address: str) -> str:
    """Tell why a hub does not answer, "" if it does.

    The hub's client asks a silent server again for more than a minute; this asks once, for
    :data:`PATIENCE`, in a thread that nobody waits for: names are looked up without a time limit.
    """
    told: list[str] = []

    def ask() -> None:
        try:
            with urlopen(Request(address, method="HEAD"), timeout=PATIENCE):
                told.append("")
        except HTTPError as error:
            told.append("" if error.code < 500 else f"{address} answers {error.code}")
        except OSError as error:
            cause = getattr(error, "reason", error)
            trusted = isinstance(cause, ssl.SSLCertVerificationError)  # the client has its own list
            told.append("" if trusted else f"{address} cannot be reached ({cause})")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE + 1)
    return told[0] if told else f"{address} does not answer"


def weights_origin(encoder: str, weights: str | None) -> str | None:
    """Name what an encoder's weights are: a file by its hash, the hub's by their commit.

    Args:
        encoder: Its name.
        weights: A local file, ``"hub"`` or None.

    Returns:
        ``NAME sha256:...``, ``hf://OWNER/NAME@COMMIT sha256:...``, ``hub`` where it does not tell
        the commit, or None for random weights.
    """
    if weights is None:
        return None
    if weights != "hub":
        return f"{Path(weights).name} sha256:{digest(weights)}"
    config = get_pretrained_cfg(encoder, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return weights
    from huggingface_hub.constants import HF_HUB_CACHE

    home = Path(HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"
    try:
        commit = (home / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        return weights
    file = home / "snapshots" / commit / "model.safetensors"
    known = f" sha256:{digest(file)}" if file.is_file() else ""
    return f"hf://{config.hf_hub_id}@{commit}{known}"


def read_state(path: str) -> State:
    """Read a state dict from a ``.safetensors`` file or a torch file, unpickling nothing else.

    A torch file may hold the state dict under ``model`` or ``state_dict``.

    Raises:
        CheckpointError: No such file, truncated, or a pickle that holds more than tensors.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such weight file", "check the path of the weights")
    values = _read_safetensors(path) if path.endswith(".safetensors") else _read_torch(path)
    for key in ("model", "state_dict"):
        if isinstance(values.get(key), Mapping):
            values = dict(values[key])
    tensors = {str(k): v for k, v in values.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights", FRESH)
    return tensors


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: no readable safetensors file: {error}", FRESH) from error


def _read_torch(path: str) -> dict[str, Tensor]:
    with Path(path).open("rb") as file:
        if file.read(2)[:1] not in (b"P", b"\x80"):  # a zip archive or a pickle
            raise CheckpointError(f"{path}: truncated or no torch file", FRESH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols, which are refused below
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle that holds more than weights; it was not run",
            "use a file from a source you trust that holds tensors only",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: truncated or no torch file", FRESH) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no state dict", FRESH)
    return values


def read_metadata(path: str) -> dict[str, str]:
    """Return a safetensors file's own metadata; empty for other files.

    Raises:
        CheckpointError: No such file, or no readable safetensors file.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such weight file", "check the path of the weights")
    if not path.endswith(".safetensors"):
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: no readable safetensors file: {error}", FRESH) from error


def load_backbone(body: nn.Module, path: str) -> None:
    """Load a backbone's state dict; the classifier's weights are left out.

    The names are timm's (or those of segmentation_models_pytorch for MiT). A first convolution
    for three bands is adapted to the body's bands.

    Raises:
        CheckpointError: Cannot be read, a weight is missing, or one has another shape.
    """
    source = {_plain(k): v for k, v in read_state(path).items()}
    own = body.state_dict()
    fitted = {key: _fit(key, value, source, path) for key, value in own.items()}
    body.load_state_dict(fitted)


def _plain(key: str) -> str:
    return key.replace("_", ".")  # features_only writes "stages_0" where timm has "stages.0"


def _fit(key: str, own: Tensor, source: Mapping[str, Tensor], path: str) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return own
    found = source.get(_plain(key))
    if found is None:
        raise CheckpointError(
            f"{path}: weight '{key}' is missing; the file is of another encoder or partial",
            "use the encoder that the file was made for (encoder.name)",
        )
    return fit_shape(key, own, found, path)


def fit_shape(key: str, own: Tensor, found: Tensor, path: str) -> Tensor:
    """Return ``found`` in the shape of ``own``; first convolutions are adapted to the bands.

    Raises:
        CheckpointError: Another shape.
    """
    first = own.ndim == 4 and found.ndim == 4 and found.shape[1] == 3 and own.shape[1] != 3
    if first and found.shape[0] == own.shape[0] and found.shape[2:] == own.shape[2:]:
        adapted: Tensor = adapt_input_conv(own.shape[1], found)
        return adapted
    if found.shape != own.shape:
        raise CheckpointError(
            f"{path}: weight '{key}' has shape {tuple(found.shape)}, not {tuple(own.shape)}; "
            "the file is of another size",
            "use the encoder that the file was made for (encoder.name)",
        )
    return found
