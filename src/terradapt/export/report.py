"""The export's report: JSON and Markdown beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terradapt.files import write_json, write_text


def write_export_report(path: Path, values: Mapping[str, Any]) -> Path:
    """Write ``<stem>.report.json`` and ``.md`` beside an exported model; return the latter."""
    write_json(path.with_suffix(".report.json"), values, indent=2)
    return write_text(path.with_suffix(".report.md"), export_markdown(values))


def export_markdown(values: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# {values['file']}",
        "",
        f"{values['model']} on {values['encoder']}, {values['parameters'] / 1e6:.2f} M parameters, "
        f"{values['precision']}, {values['bytes'] / 1e6:.2f} MB, ONNX opset {values['opset']}, "
        f"windows of {values['window']} px" + (" (fixed)." if values["fixed_size"] else "."),
        "",
        f"Confidence: {values['confidence']}.",
        "",
        *_argmax(values.get("argmax_equal")),
        *_parity(values.get("parity")),
        *_int8(values.get("int8")),
    ]
    return "\n".join(lines)


def _argmax(equal: float | None) -> list[str]:
    if equal is None:
        return []
    return [
        "The graph ends in class ids, uint8 (B, H, W), for other programs; terradapt itself needs "
        f"the scores. {equal:.4%} of the ids are those of the highest score.",
        "",
    ]


def _parity(parity: Mapping[str, Any] | None) -> list[str]:
    if not parity:
        return []
    return [
        "## Parity of the float32 graph with the checkpoint",
        "",
        f"{parity['windows']} windows ({parity['source']}), {parity['pixels']} pixels: "
        f"{'passed' if parity['passed'] else 'NOT passed'}.",
        "",
        "| | value | limit |",
        "|---|---|---|",
        f"| largest difference of a score | {parity['max_score']:.2e} | 1e-4 |",
        f"| largest difference of a centred logit | {parity['max_logit']:.2e} | |",
        f"| pixels of the same class | {parity['equal_classes']:.4%} | 99.9 % |",
        "",
    ]


def _int8(report: Mapping[str, Any] | None) -> list[str]:
    if not report:
        return []
    rows = [
        ("size, MB", f"{report['float_bytes'] / 1e6:.2f}", f"{report['bytes'] / 1e6:.2f}"),
        *_speed_rows(report["speed"]),
        *_accuracy_rows(report.get("accuracy")),
    ]
    return [
        "## INT8",
        "",
        f"{report['method']}; calibrated on {report['windows']} windows of "
        f"{report['scenes']} scenes.",
        *[f"Note: {note}" for note in report["notes"]],
        "",
        "| | float32 | int8 |",
        "|---|---|---|",
        *[f"| {a} | {b} | {c} |" for a, b, c in rows],
        "",
        f"{report['smaller']:.2f} times smaller.",
        f"{kept_classes(report)}.",
        "",
        *_changes(report),
        "### Layers left in float, found by measurement",
        "",
        *([f"- `{name}`" for name in report["float_layers"]] or ["none"]),
        "",
    ]


def kept_classes(report: Mapping[str, Any]) -> str:
    """Say how many pixels keep their class in an INT8 file, and whether they are enough."""
    share, target = report["agreement"], report["target"]
    verdict = "reached" if share >= target else "MISSED"
    windows = f"{report['held_out']} other windows"
    if any("there are no others" in note for note in report["notes"]):
        windows = f"the {report['held_out']} windows of the calibration"
    return (
        f"{share:.3%} of the pixels of {windows} keep the float file's class: the target of "
        f"{target:.0%} is {verdict}"
    )


def _speed_rows(speed: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, str]]:
    return [
        (f"{engine}, windows/s", f"{rates['fp32']:.2f}", f"{rates['int8']:.2f}")
        for engine, rates in speed.items()
    ]


def _accuracy_rows(accuracy: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    if not accuracy:
        return []
    before, after = accuracy["fp32"], accuracy["int8"]
    names = {"miou": "mIoU", "mf1": "mF1", "oa": "OA"}
    where = f"({accuracy['split']}, {accuracy['windows']} windows)"
    return [
        (f"{shown} {where}", f"{before[k]:.4f}", f"{after[k]:.4f}") for k, shown in names.items()
    ]


def _changes(report: Mapping[str, Any]) -> list[str]:
    accuracy = report.get("accuracy")
    lines = ["### By class", ""]
    if accuracy:
        lines += ["| class | IoU float32 | IoU int8 | change, points |", "|---|---|---|---|"]
        for name, before in accuracy["fp32"]["per_class"].items():
            after = accuracy["int8"]["per_class"][name]["iou"]
            change = 100 * (after - before["iou"])
            lines.append(f"| {name} | {before['iou']:.4f} | {after:.4f} | {change:+.2f} |")
        return [*lines, ""]
    lines += ["| class | share float32 | share int8 |", "|---|---|---|"]
    for name, (before, after) in report["shares"].items():
        lines.append(f"| {name} | {before:.4f} | {after:.4f} |")
    return [*lines, ""]
