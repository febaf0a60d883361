"""Measure backbones on engines; each row is one model on one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from terradapt.bench.meters import (
    MIB,
    gpus,
    multiply_rate,
    reset_peak,
    resident,
    timed,
)
from terradapt.classes import ISPRS
from terradapt.complexity import measure
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.errors import ConfigError, one_of
from terradapt.export.fastest import TORCH_ENGINES
from terradapt.export.run import export_model
from terradapt.machine import cpu_threads, hardware
from terradapt.meta import Meta
from terradapt.models import build
from terradapt.predictors import engines
from terradapt.predictors.torch import TorchPredictor
from terradapt.progress import Advance

if TYPE_CHECKING:
    from terradapt.models.contract import SegmentationModel
    from terradapt.scene import Predictor

TEACHER = "sam2_hiera_large"
BACKBONES: dict[str, str] = {
    TEACHER: "SAM2",
    "efficientnet_b0": "Efficientnet_b0 (Selected)",
    "efficientnet_b1": "Efficientnet_b1",
    "mobilenetv3_large_100": "Mobilenetv3_large",
    "mobilenetv3_small_100": "Mobilenetv3_small",
    "resnet18": "Resnet18",
    "resnet50": "Resnet50",
    "mit_b0": "Segformer_b0",
    "mit_b1": "Segformer_b1",
    "ghostnetv3_100": "Ghostnetv3",
}
"""Encoders with their names in ARAFNet's Table 4, in its order."""
BATCHES = (1, 2, 4, 8, 16)
DEFAULT_ENGINES = ("torch", "torch-bf16", "onnxruntime", "openvino", "openvino-bf16")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        backbones: Encoders, of :data:`BACKBONES` or any other of timm's.
        engines: Names of :func:`terradapt.export.fastest.load`; those not installed are left out.
        size: Side of the images, px.
        batch: Images at a time of the table's column.
        seconds: Time for each figure.
        device: Torch device, None for the CPU.
    """

    backbones: tuple[str, ...] = tuple(BACKBONES)
    engines: tuple[str, ...] = DEFAULT_ENGINES
    size: int = 512
    batch: int = 8
    seconds: float = 2.0
    device: str | None = None


@dataclass(frozen=True)
class BenchRow:
    """One backbone on one engine; None stands for what the machine does not tell.

    Attributes:
        backbone: Encoder.
        engine: What ran it.
        parameters: Millions, as thop counts.
        reduction: Per cent fewer than the teacher's.
        gmacs: Of the whole batch, as thop counts.
        size_mib: Weights in float32, MiB.
        rate: Images per second at the table's batch.
        best_rate: Images per second at the best batch.
        best_batch: That batch.
        latency_ms: Milliseconds of a batch of one.
        memory_mib: Resident memory that weights and a batch of one take at their peak.
        joules: Energy of an image.
        of_limit: Time of the batch over that of its arithmetic at the matrix product's rate.
        gflops: That rate, GFLOP/s of a float32 product in the same run.
    """

    backbone: str
    engine: str
    parameters: float
    reduction: float | None
    gmacs: float
    size_mib: float
    rate: float
    best_rate: float
    best_batch: int
    latency_ms: float
    memory_mib: float | None
    joules: float | None
    of_limit: float
    gflops: float


def bench(
    options: Options,
    advance: Advance = lambda n: None,
    held: Sequence[BenchRow] = (),
) -> dict[str, Any]:
    """Measure all backbones on all engines that are installed here.

    Args:
        options: What is measured.
        advance: Called with 1 for each row.
        held: Rows of an earlier run; they stand in the result and are not measured again.

    Returns:
        ``hardware``, ``gpus``, ``threads``, ``options`` and ``rows``.

    Raises:
        ConfigError: No such backbone or engine.
    """
    used = usable(options)
    limit = multiply_rate()
    rows = list(held)
    for backbone in options.backbones:
        done = {row.engine for row in held if row.backbone == backbone}
        left = replace(options, engines=tuple(e for e in used if e not in done))
        for row in measure_backbone(backbone, left, limit) if left.engines else ():
            rows.append(row)
            advance(1)
    return {
        "hardware": hardware(),
        "gpus": gpus(),
        "threads": cpu_threads(),
        "options": asdict(options),
        "rows": [asdict(row) for row in with_reduction(in_order(rows))],
    }


def in_order(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Return rows in the order of Table 4, other backbones behind; engines stay in theirs."""
    names = [*BACKBONES, *(row.backbone for row in rows)]
    return sorted(rows, key=lambda row: names.index(row.backbone))


def usable(options: Options) -> tuple[str, ...]:
    """Return the engines that are installed.

    Raises:
        ConfigError: One that there is not.
    """
    known = {*TORCH_ENGINES, *engines.ONNX_ENGINES, *engines.FASTER}
    for name in options.engines:
        if name not in known:
            raise ConfigError(f"no engine '{name}'", one_of(name, sorted(known)))
    here = set(engines.installed())
    if "openvino" in here:
        here.add("openvino-bf16")
    return tuple(n for n in options.engines if n in TORCH_ENGINES or n in here)


def measure_backbone(backbone: str, options: Options, limit: float) -> Iterator[BenchRow]:
    """Yield a row for each engine."""
    model, meta = random_model(backbone, options.size)
    complexity = measure(model, options.batch, options.size)
    size_mib = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / MIB
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "model.onnx"
        if any(name not in TORCH_ENGINES for name in options.engines):
            export_model(model, meta, file, window=options.size)
        for engine in options.engines:
            yield _row(
                engine,
                (model, meta, file),
                options,
                limit,
                {
                    "backbone": backbone,
                    "parameters": complexity.thop_parameters / 1e6,
                    "gmacs": complexity.macs / 1e9,
                    "size_mib": size_mib,
                },
            )


def random_model(backbone: str, size: int) -> tuple[SegmentationModel, Meta]:
    """Build ARAFNet on a backbone with random weights; speed does not depend on them."""
    name = "sam2-arafnet" if backbone == TEACHER else "kd-arafnet"
    options = {"aux": False} if backbone == TEACHER else {}
    config = RunConfig(
        model=ModelConfig(name=name, encoder=EncoderConfig(name=backbone), options=options)
    )
    model = build(config.model, len(ISPRS)).eval()
    return model, Meta(config=config, classes=ISPRS, spec=InputSpec(), window=size)


def with_reduction(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Fill in how many fewer parameters than the teacher's each row has."""
    teacher = next((r.parameters for r in rows if r.backbone == TEACHER), None)
    return [
        row
        if teacher is None or row.backbone == TEACHER
        else replace(row, reduction=100 * (1 - row.parameters / teacher))
        for row in rows
    ]


def _row(
    engine: str,
    source: tuple[SegmentationModel, Meta, Path],
    options: Options,
    limit: float,
    facts: dict[str, Any],
) -> BenchRow:
    peaks = reset_peak()
    before = resident()
    predictor = _open(engine, source, options)
    latency = timed(_call(predictor, 1, options.size), options.seconds)
    peak = resident("VmHWM")
    held = facts["size_mib"] if engine in TORCH_ENGINES else 0.0  # the model was there before
    slow = latency.median > options.seconds  # one image takes longer than the time for a figure
    whole = _call(predictor, options.batch, options.size)
    rates = {options.batch: timed(whole, options.seconds, 1 if slow else 2, warm=not slow)}
    for batch in () if slow else BATCHES:
        if batch not in rates:
            rates[batch] = timed(_call(predictor, batch, options.size), options.seconds / 2)
    per_second = {b: b / t.median for b, t in rates.items()} | {1: 1 / latency.median}
    best = max(per_second, key=lambda b: per_second[b])
    joules = rates[options.batch].joules
    work = 2 * facts["gmacs"] * 1e9 / limit
    return BenchRow(
        engine=engine,
        reduction=None,
        rate=per_second[options.batch],
        best_rate=per_second[best],
        best_batch=best,
        latency_ms=1000 * latency.median,
        memory_mib=_added(before, peak, held) if peaks else None,
        joules=None if joules is None else joules / options.batch,
        of_limit=rates[options.batch].median / work,
        gflops=limit / 1e9,
        **facts,
    )


def _added(before: float | None, peak: float | None, held: float) -> float | None:
    return None if before is None or peak is None else peak - before + held


def _open(engine: str, source: tuple[SegmentationModel, Meta, Path], options: Options) -> Predictor:
    model, meta, file = source
    if engine not in TORCH_ENGINES:
        return engines.open_engine(file, engine)
    device = options.device or "cpu"
    return TorchPredictor(
        model.to(device).to(memory_format=torch.channels_last),
        meta.classes,
        meta.spec,
        meta.window,
        device=device,
        precision=TORCH_ENGINES[engine],  # type: ignore[arg-type]
        engine=engine,
    )


def _call(predictor: Predictor, batch: int, size: int) -> Callable[[], Any]:
    shape = (batch, len(predictor.spec.channels), size, size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return lambda: predictor.numpy(predictor.predict(images))
