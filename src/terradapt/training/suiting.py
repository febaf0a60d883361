"""What of data, model and processes must suit each other, before a run writes anything."""

from __future__ import annotations

from terradapt import data as datasets
from terradapt.config import OCTAVE, InputSpec, ModelConfig, RunConfig
from terradapt.data.scan import is_labelled
from terradapt.errors import ConfigError, DataError
from terradapt.models import entry
from terradapt.models.building import encoder_normalization


def input_spec_for(dataset: datasets.Dataset, config: RunConfig) -> InputSpec:
    """Return how the pixels become the model's input: bands, stretch, its weights' normalisation.

    Raises:
        ConfigError: The bands, dates, context or scale do not suit the model.
        DataError: See :func:`terradapt.data.input_spec`.
    """
    dates, context = entry(config.model.name).dates, config.data.context
    film = config.model.encoder.film
    if dates > 1 and (context or film):
        raise ConfigError(
            f"{config.model.name} takes {dates} dates, data.context and encoder.film are for one",
            "set data.context=0 and encoder.film=false",
        )
    if config.model.encoder.context not in (0, context):
        raise ConfigError(
            f"encoder.context={config.model.encoder.context}, but data.context={context}",
            "set data.context alone: the run sets the encoder's",
        )
    views = dates * (2 if context else 1)
    each = encoder_normalization(config.model.encoder, (config.model.in_channels - film) // views)
    mean, std = (values * views for values in each)
    spec = datasets.input_spec(dataset, config.data).model_copy(update={"film": film})
    if film and spec.resolution is None:
        raise ConfigError(
            f"{dataset.root}: its images do not say their metres per pixel, by which encoder.film "
            "scales",
            "georeference them (CRS and pixel size), or set encoder.film=false",
        )
    if film:
        mean, std = (*mean, spec.level() / 255), (*std, OCTAVE / 255)
    if len(spec.channels) != config.model.in_channels:
        raise ConfigError(
            f"{len(spec.channels)} bands are read, but the model takes {config.model.in_channels}",
            "set data.bands and model.in_channels to the same number",
        )
    return spec.model_copy(update={"mean": mean, "std": std})


def with_channels(config: RunConfig) -> ModelConfig:
    """Return the model for all channels of its input, where the config counts its bands alone."""
    model = config.model
    if model.in_channels != len(config.data.bands):
        return model
    encoder = model.encoder.model_copy(update={"context": config.data.context})
    return model.model_copy(update={"encoder": encoder, "in_channels": len(config.channels)})


def require_labels(dataset: datasets.Dataset, split: str) -> None:
    """Refuse a split without an image, or without a labelled pixel.

    Raises:
        DataError: It is so.
    """
    if not dataset.splits.get(split):
        raise DataError(
            f"{dataset.root}: no image in the split '{split}'",
            "add images, or mend splits.json",
        )
    if not is_labelled(dataset, dataset.split(split)):
        raise DataError(
            f"{dataset.root}: no pixel of the split '{split}' is labelled, all are ignored",
            "label some of its images, or move labelled ones there in splits.json",
        )


def require_divisible(batch: int, processes: int) -> None:
    """Refuse a batch that the processes cannot share.

    Raises:
        ConfigError: It is so.
    """
    if batch % processes:
        raise ConfigError(
            f"a batch of {batch} cannot be shared by {processes} processes",
            f"set train.batch to a multiple of {processes}",
        )


def require_multiple(crop: int, multiple: int) -> None:
    """Refuse a crop whose side, px, the model cannot take.

    Raises:
        ConfigError: It is so.
    """
    if crop % multiple:
        near = max(multiple, round(crop / multiple) * multiple)
        raise ConfigError(
            f"a crop of {crop} px does not suit the model, which takes multiples of {multiple}",
            f"set data.crop={near}",
        )


def require_batch(least: int, batch: int, processes: int) -> None:
    """Refuse a batch of fewer images than the model's norms need.

    Raises:
        ConfigError: It is so.
    """
    if batch // processes < least:
        raise ConfigError(
            f"a batch of {batch // processes} is too small for a model with norms of single pixels",
            f"set train.batch to {least * processes} or more",
        )
