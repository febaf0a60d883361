"""Names and number formats of the figures, the same on every surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terradapt.classes import ClassMap
from terradapt.notebook import html_table

TITLES = {
    "miou": "mIoU",
    "mf1": "mF1",
    "oa": "OA",
    "oa_evaluated": "OA, evaluated classes",
    "precision": "precision",
    "recall": "recall",
    "iou": "IoU",
    "f1": "F1",
    "kappa": "kappa",
    "pixels": "pixels",
    "dice": "Dice",
    "mdice": "mDice",
    "miou_image": "mIoU per image",
    "mdice_dynamic": "mDice, dynamic",
    "miou_dynamic": "mIoU per image, dynamic",
    "mae": "MAE",
    "mae_x100": "MAE x 100",
    "rlod": "RLOD",
    "boundary_f1": "boundary F1",
    "boundary_precision": "boundary precision",
    "boundary_recall": "boundary recall",
    "boundary_tolerance_m": "boundary tolerance, m",
    "images": "images",
    "images_without_road": "images without road",
    "miou_full_labels": "mIoU, full labels",
    "mf1_full_labels": "mF1, full labels",
    "oa_full_labels": "OA, full labels",
    "apls": "APLS",
    "topo_f1": "TOPO F1",
    "topo_precision": "TOPO precision",
    "topo_recall": "TOPO recall",
    "network_components_label": "network parts, label",
    "network_components_prediction": "network parts, prediction",
    "network_dead_ends_label": "dead ends, label",
    "network_dead_ends_prediction": "dead ends, prediction",
    "ece": "ECE",
    "nll": "NLL",
    "brier": "Brier score",
    "ece_before": "ECE, not calibrated",
    "nll_before": "NLL, not calibrated",
    "brier_before": "Brier score, not calibrated",
    "id": "image",
}
MEANINGS = {
    "miou": "mean IoU of the evaluated classes",
    "mf1": "mean of the evaluated classes' F1",
    "oa": "share of all labelled pixels that are right",
    "oa_evaluated": "share of the evaluated classes' pixels that are right",
    "mdice": "mean over images of Dice, road, fixed threshold",
    "miou_image": "mean over images of IoU, road, fixed threshold",
    "mdice_dynamic": "mean over images and 256 thresholds of Dice",
    "miou_dynamic": "mean over images and 256 thresholds of IoU",
    "mae_x100": "mean absolute error of the road probability, times 100",
    "rlod": "mean over images of found road pixels / road pixels",
    "boundary_f1": "class borders within the tolerance",
    "kappa": "Cohen's kappa",
    "ece": "mean distance of confidence and accuracy, 15 bins",
    "nll": "mean negative log-likelihood of the label, nats",
    "brier": "mean squared error of the probabilities, 0 to 2",
    "apls": "mean over images of the path length similarity",
    "topo_f1": "mean over images of the local topology's F1",
    "road F1": "over all pixels of the split",
    "road IoU": "over all pixels of the split",
}
_PLAIN = {"mae_x100", "boundary_tolerance_m"}
_FINE = {"nll", "brier", "nll_before", "brier_before"}
_HIDDEN = {"per_class", "absent"}
_LEADING = (
    "miou",
    "mf1",
    "oa",
    "mdice",
    "miou_image",
    "rlod",
    "mae_x100",
    "apls",
    "topo_f1",
    "boundary_f1",
)


def title_of(key: str) -> str:
    """Return the figure's name as it is written."""
    return TITLES.get(key, key.replace("_", " "))


def shown(key: str, value: Any) -> str:
    """Return a value as text: fractions in per cent with two digits, counts in full."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        if key in _FINE:
            return f"{value:.4f}"
        return f"{value:.2f}" if key in _PLAIN else f"{100 * value:.2f} %"
    return str(value)


def shown_of_class(column: str, row: Mapping[str, Any]) -> str:
    """Return a figure of a class as text; one that is nowhere has none, rather than 0."""
    if row.get("absent") and column not in ("pixels", "evaluated"):
        return "absent"
    return shown(column, row.get(column, ""))


def headline(
    metrics: Mapping[str, Any], *, everything: bool = False
) -> list[tuple[str, float | int]]:
    """Return the figures to lead with; with ``everything``, all single figures."""
    keys = [k for k in _LEADING if k in metrics]
    if everything:
        keys += [k for k in metrics if k not in keys and k not in _HIDDEN]
    return [(k, metrics[k]) for k in keys if isinstance(metrics[k], int | float)]


def class_rows(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every class's figures by its name, from wherever in the metrics they stand."""
    errors = metrics.get("ece_per_class", {})
    return {
        name: {**row, **({"ece": errors[name]} if name in errors else {})}
        for name, row in metrics.get("per_class", {}).items()
    }


def per_class_columns(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures that the classes have, in a fixed order."""
    found = {k for row in per_class.values() for k in row}
    order = ["iou", "f1", "precision", "recall", "boundary_f1", "ece", "pixels"]
    return [k for k in order if k in found]


def told_metrics(metrics: Mapping[str, Any]) -> str:
    """Return the leading figures on one line: ``mIoU 61.20 %, mF1 ...``."""
    return ", ".join(f"{title_of(key)} {shown(key, value)}" for key, value in headline(metrics))


def metrics_html(metrics: Mapping[str, Any], classes: ClassMap) -> str:
    """Return the figures of each class as a table for notebooks, in the order of the classes."""
    rows = class_rows(metrics)
    columns = per_class_columns(rows)
    known = [(n, rows[n], c) for n, c in zip(classes.names, classes.css, strict=True) if n in rows]
    cells = [(name, *(shown_of_class(c, row) for c in columns)) for name, row, _ in known]
    return html_table(("class", *map(title_of, columns)), cells, [colour for *_, colour in known])
