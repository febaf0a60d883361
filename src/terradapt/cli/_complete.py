"""What a shell completes: recipes, keys, models, data sets. Nothing heavy is imported for it."""

from __future__ import annotations

from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """Return the recipes and YAML files that begin so."""
    from terradapt.config import recipe_names

    files = sorted(str(p) for p in Path().glob(f"{incomplete}*.y*ml")) if incomplete else []
    return [n for n in recipe_names() if n.startswith(incomplete)] + files


def keys(incomplete: str) -> list[str]:
    """Return the config's keys that begin so, with their sign; short forms where one is begun."""
    from terradapt.config import config_keys

    full = list(config_keys())
    short = [k.partition(".")[2] for k in full if k.startswith(("train.", "model."))]
    begun = full + short * bool(incomplete)
    return [f"{key}=" for key in begun if key.startswith(incomplete)]


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """Return the models that begin so, each with its line of the registry."""
    from terradapt.models import MODELS

    return [(n, line.summary) for n, line in MODELS.items() if n.startswith(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    """Return what ``terradapt data`` takes first and begins so."""
    from terradapt.prepare import DATASETS

    return [name for name in ("check", *DATASETS) if name.startswith(incomplete)]
