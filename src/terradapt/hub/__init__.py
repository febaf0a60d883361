"""Hugging Face Hub: publish a checkpoint with its model card, open ``hf://owner/name``.

One ``checkpoint.safetensors`` and one ``README.md``; nothing else is written or fetched, and
nothing is ever unpickled. Access is that of huggingface_hub: its own login, ``HF_ENDPOINT``,
``HF_HOME`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from terradapt.errors import CheckpointError, ConfigError, MissingExtraError
from terradapt.files import check_output, write_text

CHECKPOINT, CARD = "checkpoint.safetensors", "README.md"
_SCHEME = re.compile(r"^hf:/{1,2}")  # a path keeps only one of the two slashes
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
Made = TypeVar("Made")


def is_address(path: str | Path) -> bool:
    """Tell whether a path is an ``hf://`` address."""
    return bool(_SCHEME.match(str(path)))


def local(path: str | Path) -> Path:
    """Return a model's file: of a run's folder its checkpoint, of ``hf://`` the fetched file.

    Raises:
        CheckpointError: The file cannot be fetched, or the folder has no checkpoint.
        ConfigError: Not of the form ``hf://owner/name`` or ``hf://owner/name@revision``.
        MissingExtraError: huggingface_hub is not installed.
    """
    if is_address(path):
        return fetch(str(path))
    if not Path(path).is_dir():
        return Path(path)
    inside = Path(path) / CHECKPOINT
    if not inside.is_file():
        raise CheckpointError(
            f"{path}: is a folder without {CHECKPOINT}",
            "give a run's folder, its checkpoint.safetensors, or a model.onnx",
        )
    return inside


def fetch(address: str) -> Path:
    """Fetch ``checkpoint.safetensors`` of ``hf://owner/name[@revision]`` into the hub's cache.

    Raises:
        CheckpointError: No such repository, revision or file, no access, or no network.
        ConfigError: Another form of address.
        MissingExtraError: huggingface_hub is not installed.
    """
    _require()
    import huggingface_hub

    repo, revision = _parts(address)
    return Path(
        _asked(
            lambda: huggingface_hub.hf_hub_download(repo, CHECKPOINT, revision=revision),
            f"{address}: {CHECKPOINT} cannot be fetched",
        )
    )


def pinned(address: str) -> str:
    """Return an address with the revision that it leads to now, which never changes.

    Raises:
        CheckpointError: As :func:`fetch`.
        ConfigError: Another form of address.
        MissingExtraError: huggingface_hub is not installed.
    """
    repo, _ = _parts(address)
    return f"hf://{repo}@{fetch(address).parent.name}"  # the cache keeps one folder a revision


def save(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    repo: str = "OWNER/NAME",
    licence: str | None = None,
    bundle: bool = False,
    trunk: str | Path | None = None,
) -> Path:
    """Write what a hub repository holds: the checkpoint and its card.

    The checkpoint is opened, so that only a whole one is published, and written anew: without the
    optimiser's state, and with the names of local files in place of their paths.

    Args:
        checkpoint: A checkpoint of terradapt.
        folder: Where to write; made when missing.
        repo: Repository that the card's examples name.
        licence: Licence of the weights as the hub knows it, for example ``"mit"``.
        bundle: Store a frozen trunk inside, so that the checkpoint needs no other file.
        trunk: Weights of a frozen trunk that the checkpoint only names.

    Returns:
        The folder.

    Raises:
        CheckpointError: The checkpoint cannot be trusted, read or fitted.
        OutputError: The folder cannot be written, or is the checkpoint's own.
    """
    from terradapt import checkpoint as checkpoints
    from terradapt.hub.card import model_card

    source, folder = local(checkpoint), Path(folder)
    reads = [source, trunk, source.with_name("report.json")]
    check_output(folder / CHECKPOINT, reads=reads, beside=[folder / CARD])
    model, meta = checkpoints.load(source, trunk=trunk)
    inside = bundle or (meta.trunk is not None and meta.trunk.bundled)
    written = checkpoints.save(folder / CHECKPOINT, model, meta.portable(), bundle=inside)
    write_text(folder / CARD, model_card(written, repo, licence, source.with_name("report.json")))
    return folder


def push(
    checkpoint: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    bundle: bool = False,
    trunk: str | Path | None = None,
    message: str = "Upload a terradapt checkpoint",
) -> str:
    """Publish a checkpoint with its card; see :func:`save` for the other arguments.

    Args:
        checkpoint: A checkpoint of terradapt.
        repo: ``owner/name``; made when it does not exist.
        private: Whether a new repository is private.
        licence: See :func:`save`.
        bundle: See :func:`save`.
        trunk: See :func:`save`.
        message: Of the commit.

    Returns:
        The repository's address on the web.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the hub refuses.
        ConfigError: Not of the form ``owner/name``.
        MissingExtraError: huggingface_hub is not installed.
    """
    _require()
    from huggingface_hub import HfApi

    name, revision = _parts(repo)
    if revision is not None:
        raise ConfigError(f"{repo}: a revision cannot be pushed to", f"use {name}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        save(checkpoint, folder, repo=name, licence=licence, bundle=bundle, trunk=trunk)
        api = HfApi()
        failed = f"{name}: cannot be published"
        made: Any = _asked(lambda: api.create_repo(name, private=private, exist_ok=True), failed)
        _asked(
            lambda: api.upload_folder(repo_id=name, folder_path=folder, commit_message=message),
            failed,
        )
    return str(made)


def _parts(address: str) -> tuple[str, str | None]:
    found = _REPO.fullmatch(_SCHEME.sub("", address))
    if found is None:
        raise ConfigError(
            f"{address}: no address of the hub", "write hf://owner/name or hf://owner/name@revision"
        )
    return found["repo"], found["revision"]


def _asked(ask: Callable[[], Made], failed: str) -> Made:
    try:
        return ask()
    except Exception as error:  # any of the hub client's, the network's and the disk's
        raise CheckpointError(
            f"{failed}: {_first_line(error)}",
            "check the name and the network, and log in with: hf auth login",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _require() -> None:
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("an address of the Hugging Face Hub", "hub")
