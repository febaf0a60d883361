"""One exported model on every engine that is installed; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from terradapt.bench.meters import Timing, gpus, reset_peak, resident, timed
from terradapt.errors import ConfigError, MissingExtraError, one_of
from terradapt.files import write_together
from terradapt.machine import cpu_threads, hardware
from terradapt.predictors import engines
from terradapt.predictors.onnx_file import read_onnx
from terradapt.progress import Advance
from terradapt.scene.predictor import most_streams

COLUMNS = (
    ("engine", "Engine", "{}"),
    ("latency_ms", "Latency (ms)", "{:.1f}"),
    ("best_ms", "at best (ms)", "{:.1f}"),
    ("rate", "windows/s", "{:.2f}"),
    ("megapixels", "Mpx/s", "{:.2f}"),
    ("memory_mib", "Memory (MiB)", "{:.0f}"),
    ("joules", "J/window", "{:.2f}"),
)


@dataclass(frozen=True)
class EngineRow:
    """An exported model on one engine; None stands for what the machine does not tell.

    Attributes:
        engine: What ran it.
        precision: Of the arithmetic.
        latency_ms: Milliseconds of one window, the median.
        best_ms: Milliseconds of the fastest.
        rate: Windows per second as scenes are predicted, in all streams.
        streams: Windows, or batches, that were predicted at once for the rate.
        megapixels: Million pixels per second at that rate, without overlap.
        memory_mib: Resident memory that the engine, the weights and one window add at their peak.
        joules: Energy of one window.
    """

    engine: str
    precision: str
    latency_ms: float
    best_ms: float
    rate: float
    streams: int
    megapixels: float
    memory_mib: float | None
    joules: float | None


def bench_exported(
    path: Path,
    names: Sequence[str] | None = None,
    *,
    window: int | None = None,
    batch: int = 1,
    seconds: float = 2.0,
    advance: Advance = lambda n: None,
) -> dict[str, Any]:
    """Measure an exported model.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.
        names: Engines; None: all float32 ones that are installed.
        window: Side, px; the model's own by default.
        batch: Windows at a time, for the rate.
        seconds: Time for each figure.
        advance: Called with 1 for each engine.

    Returns:
        ``file``, ``bytes``, ``precision``, ``parameters``, ``window``, ``batch``, ``hardware``,
        ``gpus``, ``threads`` and ``rows``.

    Raises:
        CheckpointError: The file cannot be trusted, read or fitted.
        ConfigError: No such engine, or a window that does not fit the model.
        MissingExtraError: An engine that is asked for is not installed.
    """
    _, meta = read_onnx(path)
    side = window or meta.window
    if side % meta.multiple or (meta.fixed and side != meta.window):
        fitting = -(-side // meta.multiple) * meta.multiple
        raise ConfigError(
            f"{path} takes no windows of {side} px",
            f"use --size {meta.window if meta.fixed else fitting}",
        )
    chosen = tuple(names) if names else engines.installed()
    known = engines.ONNX_ENGINES | engines.FASTER
    for name in chosen:
        if name not in known:
            raise ConfigError(f"no engine '{name}' for {path}", one_of(name, known))
        if find_spec(known[name]) is None:
            raise MissingExtraError(f"the engine {name}", known[name])
    rows = []
    for name in chosen:
        rows.append(_measured(path, name, side, batch, seconds))
        advance(1)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "precision": meta.precision,
        "parameters": meta.parameters,
        "window": side,
        "batch": batch,
        "hardware": hardware(),
        "gpus": gpus(),
        "threads": cpu_threads(),
        "rows": [asdict(row) for row in rows],
    }


def _measured(path: Path, engine: str, side: int, batch: int, seconds: float) -> EngineRow:
    peaks, before = reset_peak(), resident()
    predictor = engines.open_engine(path, engine)
    shape = (1, len(predictor.spec.bands), side, side)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    latency: Timing = timed(lambda: predictor.numpy(predictor.predict(image)), seconds)
    peak = resident("VmHWM")
    rate = engines.rate(predictor, window=side, batch=batch, seconds=seconds)
    return EngineRow(
        engine=engine,
        precision=predictor.precision,
        latency_ms=1000 * latency.median,
        best_ms=1000 * latency.best,
        rate=rate,
        streams=most_streams(predictor, side, batch),
        megapixels=rate * side**2 / 1e6,
        memory_mib=peak - before if peaks and peak is not None and before is not None else None,
        joules=latency.joules,
    )


def exported_markdown(result: Mapping[str, Any]) -> str:
    """Return the rows as a table, and what the columns mean."""
    columns = [c for c in COLUMNS if any(row[c[0]] is not None for row in result["rows"])]
    absent = [title for key, title, _ in COLUMNS if all(row[key] is None for row in result["rows"])]
    cells = [[title for _, title, _ in columns]]
    for row in result["rows"]:
        cells.append(
            ["not told" if row[k] is None else form.format(row[k]) for k, _, form in columns]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [
        "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in pairs) + " |"
        for pairs in (enumerate(zip(line, widths, strict=True)) for line in cells)
    ]
    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    facts = (
        f"{result['bytes'] / 1e6:.2f} MB, {result['parameters'] / 1e6:.2f} M parameters, "
        f"{result['precision']}; windows of {result['window']} px. {result['hardware']}; "
        f"threads: {result['threads']}."
    )
    told = (
        "Latency is that of one window, the median. windows/s is the rate at which scenes are "
        f"predicted, {result['batch']} at a time in as many streams as pay; normalisation and "
        "softmax are inside. Memory is what the engine, the weights and one window add to the "
        "process at their peak."
    )
    if absent:
        told += f" This machine does not tell: {', '.join(absent)}."
    head, *body = table
    lines = [f"# {result['file']} on this machine", "", fill(facts, 80), "", head, f"|{rule}|"]
    return "\n".join([*lines, *body, "", fill(told, 80)]) + "\n"


def write_exported(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Write ``<model>.bench.json`` and ``.md`` into a folder; return them."""
    stem = Path(result["file"]).stem
    return write_together(
        {
            folder / f"{stem}.bench.json": json.dumps(dict(result), indent=2) + "\n",
            folder / f"{stem}.bench.md": exported_markdown(result),
        }
    )
