"""A checkpoint becomes an INT8 model, with what it gained and what it lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt import checkpoint
from terradapt.errors import DataError
from terradapt.export.int8 import (
    PROBE_SIDE,
    PROBES,
    SMALLER,
    TARGET,
    TRIES,
    Quantizer,
    choose,
    sensitivity,
    slim,
)
from terradapt.export.metadata import mlm_item, properties, write_item
from terradapt.export.onnx import calibrate_graph, import_onnx, write_proto
from terradapt.export.parity import compare, raw_output
from terradapt.export.run import ExportResult, check_export, end_in_classes, export_model
from terradapt.export.windows import Windows, collect
from terradapt.files import replacing
from terradapt.meta import Calibration, Meta
from terradapt.metrics import Confusion
from terradapt.metrics.calibration import fit_calibration, labelled_sample
from terradapt.owner import owned
from terradapt.predictors import engines
from terradapt.predictors.onnx import OnnxPredictor
from terradapt.predictors.torch import TorchPredictor
from terradapt.progress import Advance, Track, silent

METHOD = "ONNX Runtime static QDQ, per channel, moving average of minimum and maximum"
HELD_OUT = 48
"""Windows at most on which accuracy and agreement are measured."""
FLOAT_BYTES_SAVED = 3  # of each float32 parameter that becomes an int8


@dataclass(frozen=True)
class Sample:
    """Windows to calibrate on, others to measure on, and what the user is told of them."""

    calibration: Windows
    held_out: Windows
    notes: tuple[str, ...]


def export_int8(
    source: str | Path,
    path: Path,
    folder: Path,
    *,
    count: int = 32,
    window: int | None = None,
    fixed: bool = False,
    argmax: bool = False,
    trunk: str | Path | None = None,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write an INT8 model with its STAC item; return the report.

    Args:
        source: ``.safetensors`` that terradapt wrote.
        path: ``.onnx`` to write.
        folder: Scenes or a prepared dataset; a dataset calibrates on ``train`` and measures on
            ``val`` and ``test``.
        count: Windows to calibrate on.
        window: Side of a window, px; the training crop's by default.
        fixed: The file takes windows of that side only, as QGIS Deepness asks.
        argmax: The graph ends in class ids, for other programs.
        trunk: Weights of a frozen trunk that the checkpoint only names.
        track: Tells how far it is: first the layers, then the file beside the float one.
        say: Called with a line for the user.

    Raises:
        CheckpointError: The checkpoint cannot be trusted, read or fitted.
        DataError: The folder has no scenes with valid pixels.
        MissingExtraError: ONNX Runtime's quantization is not installed.
    """
    path = check_export(path, source, trunk, *folder.rglob("*"))
    model, meta = checkpoint.load(source, trunk=trunk)
    with owned(path), TemporaryDirectory() as work:
        bare = replace(meta, calibration=None)
        plain = export_model(model, bare, Path(work) / "float.onnx", window=window, fixed=fixed)
        sample = gather_sample(folder, meta, plain.meta.window, count)
        for note in sample.notes:
            say(f"note: {note}")
        torch = TorchPredictor(model, meta.classes, meta.spec, plain.meta.window)
        shown = f"windows of {folder.name}"
        parity = compare(torch, OnnxPredictor(plain.path), sample.held_out.images[:4], shown)
        chosen, layers = _quantized(plain, sample, Path(work), track)
        proto = slim(import_onnx().load(str(chosen)))
        found = None
        if meta.calibration is not None:
            found, note = recalibrate(chosen, plain.meta, meta.calibration, folder)
            say(f"note: {note}")
        told = replace(plain.meta, precision="int8", calibration=found)
        if found is not None:
            calibrate_graph(proto, found)
        with replacing(path) as part:
            write_proto(proto, part, properties(told))
            result = ExportResult(part, told, parity)
            report = compare_int8(plain, result, sample, track)
            if argmax:
                result = end_in_classes(result, sample.held_out.images[:4])
            report["bytes"] = part.stat().st_size
        result = replace(result, path=path)
        write_item(path, mlm_item(path, result.meta))
    return {
        **result.to_dict(),
        "int8": {"method": METHOD, "float_layers": list(layers), **report},
    }


def gather_sample(folder: Path, meta: Meta, side: int, count: int) -> Sample:
    """Collect windows to calibrate on and others to measure on."""
    calibration = collect(folder, meta.spec, meta.classes, side, count)
    if calibration.split:
        try:
            held = collect(
                folder, meta.spec, meta.classes, side, HELD_OUT, splits=("val", "test"), seed=1
            )
        except DataError:
            held = calibration
    else:
        both = collect(folder, meta.spec, meta.classes, side, 2 * count)
        calibration = replace(both, images=both.images[::2])
        held = replace(both, images=both.images[1::2]) if len(both) > 1 else both
    notes = []
    if calibration.scenes == 1:
        notes.append(
            f"{folder} gave one scene only ({len(calibration)} windows); "
            "ranges measured on it may not hold elsewhere: add scenes of other places and light"
        )
    if held is calibration or len(held) == len(calibration) == 1:
        notes.append("accuracy is measured on the windows of the calibration: there are no others")
    return Sample(calibration, held, tuple(notes))


def recalibrate(
    file: Path, meta: Meta, given: Calibration, folder: Path
) -> tuple[Calibration, str]:
    """Fit the calibration again to an INT8 file's own scores on the split ``val``.

    Args:
        file: The INT8 model without a calibration.
        meta: What it says of itself.
        given: The checkpoint's.
        folder: Scenes or a prepared dataset.

    Returns:
        What was found, the checkpoint's where nothing is labelled; and what was done.
    """
    kept = "the checkpoint's calibration stays: there are no labelled windows of a split val"
    try:
        windows = collect(
            folder, meta.spec, meta.classes, meta.window, HELD_OUT, splits=("val",), seed=2
        )
    except DataError:
        return given, kept
    if windows.masks is None:
        return given, kept
    parts = [
        labelled_sample(raw_output(file, meta, image[None])[0], mask, windows.masks.size, index)
        for index, (image, mask) in enumerate(zip(windows.images, windows.masks, strict=True))
    ]
    scores, ids = np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts])
    found = fit_calibration(scores, ids, meta.classes, bias=bool(given.bias))
    return (found, str(found)) if found else (given, kept)


def compare_int8(
    plain: ExportResult, result: ExportResult, sample: Sample, track: Track = silent
) -> dict[str, Any]:
    """Return size, speed, agreement and accuracy of an INT8 file beside the float one."""
    before, after = plain.path.stat().st_size, result.path.stat().st_size
    classes, images = result.meta.classes, sample.held_out.images
    with track(2 * len(images), "compare with the float file", "window") as advance:
        old, new = (_classes(OnnxPredictor(r.path), images, advance) for r in (plain, result))
    report: dict[str, Any] = {
        "windows": len(sample.calibration),
        "scenes": sample.calibration.scenes,
        "notes": list(sample.notes),
        "float_bytes": before,
        "bytes": after,
        "smaller": before / after,
        "held_out": len(sample.held_out),
        "agreement": float((old == new).mean()),
        "target": TARGET,
        "shares": {
            name: (float((old == i).mean()), float((new == i).mean()))
            for i, name in enumerate(classes.names)
        },
        "speed": _speed(plain.path, result.path),
    }
    masks = sample.held_out.masks
    if masks is not None:
        figures = {
            name: Confusion(len(classes)).update(masks, ids).metrics(classes)
            for name, ids in (("fp32", old), ("int8", new))
        }
        split = {"split": sample.held_out.split, "windows": len(masks)}
        report["accuracy"] = {**figures, **split}
    return report


def _quantized(
    plain: ExportResult, sample: Sample, work: Path, track: Track
) -> tuple[Path, tuple[str, ...]]:
    quantizer = Quantizer(plain.path, work, plain.meta.spec, sample.calibration.images)
    fixed = plain.meta.fixed
    side = plain.meta.window if fixed else PROBE_SIDE
    probes = spread_evenly(sample.calibration.images, 1 if fixed else PROBES)[:, :, :side, :side]

    def run(file: Path) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = raw_output(file, plain.meta, probes)
        return scores

    with track(len(quantizer.layers), "quantize each layer alone", "layer") as advance:
        change = sensitivity(quantizer, run, advance)
    budget = _budget(plain.path, quantizer.folder / "all.onnx")
    held = spread_evenly(sample.calibration.images, 4 * PROBES)
    reference = raw_output(plain.path, plain.meta, held).argmax(1)

    def agreement(file: Path) -> float:
        return float((raw_output(file, plain.meta, held).argmax(1) == reference).mean())

    with track(len(TRIES), "choose the layers left in float", "file") as advance:
        file, layers, _ = choose(quantizer, change, agreement, budget, advance)
    return file, layers


def spread_evenly(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return up to ``count`` windows, evenly over all, which lie in the order of their scenes."""
    chosen: NDArray[np.uint8] = images[
        np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))
    ]
    return chosen


def _budget(plain: Path, quantized: Path) -> int:
    """Return the parameters that may stay in float for the file to be small enough."""
    smallest = len(slim(import_onnx().load(str(quantized))).SerializeToString())
    return max(0, int((plain.stat().st_size / SMALLER - smallest) / FLOAT_BYTES_SAVED))


def _classes(
    predictor: OnnxPredictor, images: NDArray[np.uint8], advance: Advance
) -> NDArray[np.uint8]:
    ids = []
    for image in images:
        ids.append(predictor.predict(image[None]).argmax(1).astype(np.uint8))
        advance(1)
    return np.concatenate(ids)


def _speed(plain: Path, quantized: Path) -> dict[str, dict[str, float]]:
    """Return windows per second of both files with each installed engine, taken in turns."""
    return {
        name: {
            "fp32": engines.rate(engines.open_engine(plain, name)),
            "int8": engines.rate(engines.open_engine(quantized, name)),
        }
        for name in engines.installed()
    }
