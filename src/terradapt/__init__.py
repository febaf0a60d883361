"""terradapt adapts SAM2 to aerial and satellite imagery.

``terradapt.build`` makes a model, ``terradapt.load`` opens a checkpoint or an exported model,
``terradapt.compare`` tells what changed between two dates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from terradapt.version import __version__

if TYPE_CHECKING:
    from terradapt.models.contract import SegmentationModel
    from terradapt.predictors.mapper import Mapper

__all__ = ["__version__", "build", "compare", "load"]


def build(
    name: str, classes: int, *, encoder: str | None = None, **fields: Any
) -> SegmentationModel:
    """Build a model of the registry.

    Args:
        name: A name of ``terradapt models``, for example ``"sam2-arafnet"``.
        classes: K, 2 or more.
        encoder: The encoder's name; the paper's own when missing.
        fields: Further fields of ``ModelConfig``, for example ``in_channels=4``,
            ``options={"aux": False}``, or of its encoder, for example ``weights="hub"``.

    Returns:
        A model: normalized pixels (B, C, H, W) in, ``Prediction`` out.

    Raises:
        ConfigError: No such model or field.
        CheckpointError: Weights that cannot be read or fitted.
    """
    from terradapt import models
    from terradapt.config import RunConfig

    own = models.default_config(name)
    chosen = {"model.encoder.name": encoder or own.encoder.name}
    inside = set(type(own.encoder).model_fields) - {"name"}
    chosen |= {f"model.{'encoder.' if k in inside else ''}{k}": v for k, v in fields.items()}
    config = RunConfig(model=own).with_values(chosen)
    return models.build(config.model, classes)


def load(path: str | Path, **options: Any) -> Mapper:
    """Open a checkpoint, an exported model or ``hf://owner/name``.

    ``load(path).predict(scene)`` maps a scene: see :class:`terradapt.predictors.mapper.Mapper`;
    for the options, :func:`terradapt.predictors.load`.
    """
    from inspect import signature

    from terradapt import predictors
    from terradapt.errors import ConfigError, one_of
    from terradapt.predictors.mapper import Mapper

    known = list(signature(predictors.load).parameters)[1:]
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise ConfigError(f"no option '{unknown}'", one_of(unknown, known, "options: "))
    return Mapper(predictors.load(path, **options), Path(str(path)).name)


def compare(old: Any, new: Any, output: str | Path, **options: Any) -> dict[str, Any]:
    """Write what is new, gone and changed between two scenes, maps or vector files, in any mix.

    Args:
        old: The earlier side: a raster, a folder of them, or a vector file.
        new: The later side.
        output: The GeoPackage to write; a raster, figures and a page stand beside it.
        options: ``model`` maps scenes; for the others, :func:`terradapt.changes.run.compare`.

    Returns:
        The figures.
    """
    from terradapt.changes.run import compare as run

    return run(old, new, output, **options)
