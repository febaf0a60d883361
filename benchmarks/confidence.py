"""How far a model's confidence can be believed: the checkpoint, its ONNX file, its INT8 file.

Each pair is a checkpoint and its folder of data. The checkpoint's temperature was fitted on ``val``
when it was trained, or is fitted now as a training does it. The ONNX file carries it, and it is
fitted anew on that file's own scores to see that it is the same; INT8 has one of its own. Errors
are those of whole images in 15 bins. Goals: .03 on ``test`` (INT8 .04), on ``val`` never worse than
raw, the same temperature within .02.

    python benchmarks/confidence.py --run RUN/checkpoint.safetensors DIR -o OUT
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import Accelerator

from terradapt import checkpoint, evaluation
from terradapt.data import open_dataset
from terradapt.export.quantized import export_int8, recalibrate
from terradapt.export.run import export_checkpoint, export_model
from terradapt.files import write_json, write_text
from terradapt.machine import hardware
from terradapt.meta import read_meta
from terradapt.metrics.calibration import fit_calibration
from terradapt.predictors import load
from terradapt.training.calibrating import sample_scores

Row = dict[str, Any]
SPLITS = ("val", "test")


def errors(model: Path, data: Path) -> Row:
    """Return ECE before and after, and NLL, of each split."""
    found: Row = {}
    for split in SPLITS:
        metrics = evaluation.open_task(model, data, split).run(pictures=0).metrics
        found[split] = {k: metrics.get(k) for k in ("ece", "ece_before", "nll", "nll_before")}
    return found


def calibrated(file: Path, data: Path, out: Path) -> Path:
    """Return a checkpoint, or its copy with the temperature that a training would have fitted."""
    meta = read_meta(file)
    if meta.calibration is not None:
        return file
    predictor, dataset = load(file), open_dataset(data)
    drawn = sample_scores(predictor, dataset, "val", meta.config.train.seed, Accelerator(cpu=True))
    shutil.copyfile(file, out)
    checkpoint.rewrite_meta(
        out, replace(meta, calibration=fit_calibration(*drawn, dataset.classes))
    )
    return out


def measure(file: Path, data: Path, exports: bool) -> list[Row]:
    """Return a row for each form of a checkpoint."""
    name = f"{file.resolve().parent.name} on {data.name}"
    with TemporaryDirectory() as work:
        file = calibrated(file, data, Path(work) / "calibrated.safetensors")
        model, meta = checkpoint.load(file)
        given = meta.calibration
        assert given is not None, f"{data}: nothing is labelled in val"
        rows = [{"model": name, "form": "torch", "temperature": given.temperature}]
        rows[0] |= errors(file, data)
        if not exports:
            return rows
        onnx = export_checkpoint(file, Path(work) / "float.onnx")
        bare = export_model(model, replace(meta, calibration=None), Path(work) / "bare.onnx")
        again, _ = recalibrate(bare.path, bare.meta, given, data)
        held = load(onnx.path).meta
        assert held is not None and held.calibration is not None
        row: Row = {"model": name, "form": "ONNX", "temperature": held.calibration.temperature}
        rows.append({**row, "fitted_again": again.temperature, **errors(onnx.path, data)})
        int8 = Path(work) / "int8.onnx"
        export_int8(file, int8, data)
        held = load(int8).meta
        assert held is not None and held.calibration is not None
        row = {"model": name, "form": "INT8", "temperature": held.calibration.temperature}
        rows.append({**row, **errors(int8, data)})
    return rows


def page(rows: list[Row]) -> str:
    """Return the table, errors in points of a hundred."""
    heads = ["model", "form", "temperature", "fitted again"]
    heads += [f"ECE {s}, {w}" for s in SPLITS for w in ("raw", "calibrated")] + ["NLL test"]
    text = f"# Confidence, {hardware()}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    for row in rows:
        again = row.get("fitted_again")
        cells = [row["model"], row["form"], f"{row['temperature']:.3f}"]
        cells.append("" if again is None else f"{again:.3f}")
        for split in SPLITS:
            cells += [f"{100 * row[split][k]:.2f}" for k in ("ece_before", "ece")]
        cells.append(f"{row['test']['nll']:.3f}")
        text += f"| {' | '.join(cells)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=Path, nargs=2, action="append", required=True, metavar=("CKPT", "DATA")
    )
    parser.add_argument("--no-exports", action="store_true", help="checkpoints alone")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    args = parser.parse_args()
    rows: list[Row] = []
    for file, data in args.run:
        rows += measure(file, data, not args.no_exports)
        print(page(rows).splitlines()[-1], flush=True)
        facts = {"hardware": hardware(), "rows": rows}
        write_json(args.output.with_name(f"{args.output.name}.json"), facts)
        write_text(args.output.with_name(f"{args.output.name}.md"), page(rows))
    print(page(rows))


if __name__ == "__main__":
    main()
