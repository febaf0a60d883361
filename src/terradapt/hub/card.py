"""The model card: what a checkpoint says of itself, for people who find it on the hub."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from terradapt.errors import DataError
from terradapt.files import read_json
from terradapt.meta import Meta

FIGURES = {"miou": "mIoU", "mf1": "mF1", "oa": "OA"}


_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def plain(text: object) -> str:
    """Return a text as Markdown that shows it as it is, on one line, whatever stands in it."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split())[:500])


def model_card(meta: Meta, repo: str, licence: str | None, report: Path) -> str:
    """Return the card as Markdown with the hub's YAML header.

    Args:
        meta: The checkpoint's own words.
        repo: ``owner/name`` for the examples.
        licence: Licence of the weights as the hub knows it, or None.
        report: A ``report.json`` beside the checkpoint; its figures are told when it exists.
    """
    parts = (
        _header(meta, licence),
        f"# {repo.rpartition('/')[2]}\n\n{_summary(meta)}",
        f"## Use\n\n{_use(meta, repo)}",
        f"## Classes\n\n{_classes(meta)}",
        f"## Figures\n\n{_figures(meta, report)}",
        f"## Training\n\n{_training(meta)}",
        f"## Licence\n\n{_licence(meta, licence)}",
    )
    return "\n\n".join(parts) + "\n"


def _header(meta: Meta, licence: str | None) -> str:
    values = {
        "license": licence or "other",
        "library_name": "terradapt",
        "pipeline_tag": "image-segmentation",
        "tags": ["remote-sensing", "semantic-segmentation", "geospatial", meta.config.model.name],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _summary(meta: Meta) -> str:
    model = meta.config.model
    lines = [
        f"{plain(model.name)} on {plain(model.encoder.name)}: {len(meta.classes)} classes from "
        f"aerial or satellite imagery, made with terradapt {plain(meta.version)}."
    ]
    if meta.config.description:
        text = plain(meta.config.description)
        lines.append(text[:1].upper() + text[1:] + ".")
    return " ".join(lines)


def _use(meta: Meta, repo: str) -> str:
    trunk = meta.trunk
    named = "" if trunk is None or trunk.bundled else re.sub(r"[\s`\"\\]", "", str(trunk.source))
    more = f', trunk="{named}"' if named else ""
    option = f" --trunk {shlex.quote(named)}" if named else ""
    lines = [
        "```",
        "pip install 'terradapt[train,hub]'",
        f"terradapt predict hf://{repo} scene.tif -o classes.tif{option}",
        "```",
        "```python",
        "import terradapt",
        f'predictor = terradapt.load("hf://{repo}"{more})',
        "```",
    ]
    if trunk is not None and not trunk.bundled:
        lines.append(
            f"The frozen trunk {plain(trunk.name)} is not inside: it is taken from "
            f"{'the hub' if trunk.source == 'hub' else plain(trunk.source)} and must have the "
            f"SHA-256 `{trunk.sha256}` (of its tensors; checked when the checkpoint is opened)."
        )
    return "\n".join(lines)


def _classes(meta: Meta) -> str:
    lines = ["| id | class | colour | in the means |", "|---|---|---|---|"]
    for i, (name, colour) in enumerate(zip(meta.classes.names, meta.classes.colours, strict=True)):
        counted = "yes" if i in meta.classes.evaluated else "no"
        lines.append(f"| {i} | {plain(name)} | #{bytes(colour).hex()} | {counted} |")
    return "\n".join([*lines, "", "255 is ignored."])


def _figures(meta: Meta, report: Path) -> str:
    tables = []
    if meta.metrics:
        split = meta.metrics.get("split", "val")
        of = "training images (none were set aside)" if split == "train" else "validation images"
        tables.append(_table(f"on the {of}, by which it was chosen", meta.metrics))
    evaluated = _read_report(report)
    if evaluated is not None:
        data = evaluated.get("data", {})
        where = plain(f"on {data.get('name', 'its data')}, split {data.get('split', 'unknown')}")
        tables.append(_table(where, evaluated["metrics"]))
    return "\n\n".join(tables) or "None were measured."


def _table(where: str, metrics: Mapping[str, Any]) -> str:
    whole = [f"{title} {100 * metrics[k]:.2f} %" for k, title in FIGURES.items() if k in metrics]
    lines = [f"{', '.join(whole)} {where}.", "", "| class | IoU | F1 |", "|---|---|---|"]
    for name, row in metrics.get("per_class", {}).items():
        iou, f1 = ("absent" if row.get("absent") else _per_cent(row.get(k)) for k in ("iou", "f1"))
        lines.append(f"| {plain(name)} | {iou} | {f1} |")
    return "\n".join(lines if len(lines) > 4 else lines[:1])


def _per_cent(value: Any) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, float) else "-"


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = read_json(path)
    except DataError:
        return None
    told = values.get("metrics"), values.get("data", {})
    return values if all(isinstance(part, dict) for part in told) else None


def _training(meta: Meta) -> str:
    spec, train = meta.spec, meta.config.train
    resolution = f"{spec.resolution:.4g} m/px" if spec.resolution else "unknown"
    facts = {
        "data": meta.data or "not told",
        "bands": ", ".join(spec.band_names or map(str, spec.bands))
        + (f"; and the ground around, {spec.context} times as wide" if spec.context else ""),
        "pixel type": spec.dtype,
        "resolution": resolution,
        "crops": f"{meta.window} px, {train.batch * train.accumulate} a step",
        "steps": str(meta.step),
        "objective": meta.config.objective.name,
        "teacher": meta.config.objective.distill.teacher or "none",
        "seed": str(train.seed),
        "commit": meta.commit or "unknown",
    }
    rows = [f"| {name} | {plain(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _licence(meta: Meta, licence: str | None) -> str:
    lines = [
        f"Weights: {plain(licence)}."
        if licence
        else "Weights: the publisher has not named a licence.",
        f"They were trained on {plain(meta.data) or 'data that are not told'}: "
        "the licence of these data may bind their use.",
    ]
    name = meta.config.model.encoder.name
    if meta.trunk is not None:
        lines.append("The trunk is SAM 2's, by Meta, under Apache 2.0.")
    elif name.startswith("mit_b"):
        lines.append("The encoder's code is under NVIDIA's licence for SegFormer: research only.")
    elif meta.config.model.encoder.weights:
        lines.append(
            f"The encoder {plain(name)} began from {plain(meta.config.model.encoder.weights)}."
        )
    lines.append("terradapt itself is under the MIT licence.")
    return " ".join(lines)
