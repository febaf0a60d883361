"""What an encoder begins with: pretrained weights where they can be had, told where not.

Only a run that begins may ask the hub, for its user's own config; a resumed run and a warm start
never do.
"""

from __future__ import annotations

from terradapt import checkpoint
from terradapt.config import RunConfig
from terradapt.errors import CheckpointError
from terradapt.files import digest
from terradapt.meta import read_meta
from terradapt.models import build, build_on_meta
from terradapt.models.encoder import HUB
from terradapt.training.run import Run


def settle_weights(
    config: RunConfig, num_classes: int, run: Run, resume: bool
) -> tuple[RunConfig, str]:
    """Replace ``hub`` by random weights where the hub has none for us.

    Args:
        config: The whole run.
        num_classes: K.
        run: The run's folder.
        resume: Whether it goes on with what the folder holds.

    Returns:
        The config, and what is to be said aloud; "" where nothing is.

    Raises:
        CheckpointError: The hub's weights cannot be had, and those of a frozen trunk are needed, or
            the run began with them.
    """
    encoder = config.model.encoder
    if encoder.weights != HUB:
        return config, ""
    held = run.held() if resume else None
    bare = with_weights(config, None)
    if held is not None and held.model.encoder.weights is None:
        return bare, ""  # its first part could not have them either
    if held is not None and run.last.is_file():
        return config, ""
    try:
        build(config.model, num_classes)
    except CheckpointError as error:
        trunk = checkpoint.frozen_keys(build_on_meta(bare.model, num_classes))
        if held is not None or trunk:
            raise
        return bare, (
            f"NO PRETRAINED WEIGHTS. {error.message}. The encoder begins with random ones, which "
            f"costs accuracy. Fetch {address(encoder.name)} where there is a network, and give the "
            "file with encoder.weights=FILE. (encoder.weights=null: random, without this warning)"
        )
    return config, ""


def check_origin(config: RunConfig, run: Run) -> str | None:
    """Return what a run that has a state began with, as it recorded it.

    Raises:
        CheckpointError: The weight file that it is given is another one.
    """
    recorded = read_meta(run.last).weights
    given = config.model.encoder.weights
    if given in (None, HUB) or recorded is None:
        return recorded
    if not recorded.endswith(f"sha256:{digest(str(given))}"):
        raise CheckpointError(
            f"{given}: is not the file that {run.folder} began with ({recorded[:60]}...)",
            "put the old one back, or start a new run with another -o",
        )
    return recorded


def address(encoder: str) -> str:
    """Return where a browser finds an encoder's weights."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(encoder, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        return f"timm's weights of {encoder}"
    return f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"


def with_weights(config: RunConfig, weights: str | None) -> RunConfig:
    """Return a config whose encoder begins with other weights."""
    encoder = config.model.encoder.model_copy(update={"weights": weights})
    model = config.model.model_copy(update={"encoder": encoder})
    return config.model_copy(update={"model": model})
