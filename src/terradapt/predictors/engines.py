"""What can run an exported model here, and which of it is the fastest on the real window."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terradapt.errors import ConfigError, MissingExtraError, one_of
from terradapt.scene.predictor import most_streams

if TYPE_CHECKING:
    from terradapt.scene import Predictor

OWN, AUTO = "own", "auto"
ONNX_ENGINES = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino": "openvino",
}
"""Engine to the module that it needs; all compute in float32."""
FASTER = {"openvino-bf16": "openvino"}
"""Engines that round: never chosen by ``auto``."""

Say = Callable[[str], None]
Makers = Mapping[str, "Callable[[], Predictor]"]


def load_onnx(
    path: Path, *, engine: str = OWN, say: Say | None = None, seconds: float = 1.0
) -> Predictor:
    """Open an exported model with an engine.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.
        engine: One of :data:`ONNX_ENGINES` or :data:`FASTER`; ``own`` is ONNX Runtime; ``auto``
            measures the installed ones on a window and takes the fastest.
        say: Called with one line on what was measured and taken.
        seconds: Time to measure each.

    Raises:
        CheckpointError: The file cannot be trusted, read or fitted.
        ConfigError: No such engine.
        MissingExtraError: The engine is not installed.
    """
    if engine == AUTO:
        predictor, rates = fastest(makers(path), seconds=seconds)
        if say is not None:
            say(describe(rates))
        return predictor
    return open_engine(path, "onnxruntime" if engine == OWN else engine)


def open_engine(path: Path, engine: str) -> Predictor:
    """Open an exported model with one engine by name.

    Raises:
        ConfigError: No such engine.
        MissingExtraError: It is not installed.
    """
    known = ONNX_ENGINES | FASTER
    if engine not in known:
        raise ConfigError(f"no engine '{engine}' for {path}", one_of(engine, (OWN, AUTO, *known)))
    if engine.startswith("openvino"):
        from terradapt.predictors.openvino import OpenVinoPredictor

        return OpenVinoPredictor(path, precision="bf16" if engine in FASTER else "fp32")
    from terradapt.predictors.onnx import OnnxPredictor

    if engine == "onnxruntime":
        return OnnxPredictor(path)
    if not _has_cuda():
        raise MissingExtraError(f"the engine {engine} (onnxruntime-gpu)", "export")
    return OnnxPredictor(path, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))


def installed() -> tuple[str, ...]:
    """Return the float32 engines that can run an exported model here."""
    return tuple(
        name
        for name, module in ONNX_ENGINES.items()
        if find_spec(module) is not None and (name != "onnxruntime-cuda" or _has_cuda())
    )


def makers(path: Path) -> dict[str, Callable[[], Predictor]]:
    """Return what opens a file with each installed engine."""

    def maker(name: str) -> Callable[[], Predictor]:
        return lambda: open_engine(path, name)

    return {name: maker(name) for name in installed()}


def fastest(candidates: Makers, *, seconds: float = 1.0) -> tuple[Predictor, dict[str, float]]:
    """Measure predictors of one model on its window and return the fastest.

    Args:
        candidates: What opens each, by name.
        seconds: Time to measure each.

    Returns:
        The fastest, and windows per second of each, the fastest first.
    """
    assert candidates, "no candidates"
    best: Predictor | None = None
    rates: dict[str, float] = {}
    for name, make in candidates.items():
        predictor = make()
        rates[name] = rate(predictor, seconds=seconds)
        if rates[name] == max(rates.values()):
            best = predictor
    assert best is not None
    return best, dict(sorted(rates.items(), key=lambda pair: -pair[1]))


def rate(
    predictor: Predictor, *, window: int | None = None, batch: int = 1, seconds: float = 1.0
) -> float:
    """Return windows per second as scenes are predicted: in the predictor's streams.

    The median round within the time counts, after one that warms up.

    Args:
        predictor: What to measure, normalisation and softmax included.
        window: Side, px; the predictor's own by default.
        batch: Windows at a time.
        seconds: Time to measure; at least two runs are made.
    """
    side = window or predictor.window
    shape = (batch, len(predictor.spec.channels), side, side)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    streams = most_streams(predictor, side, batch)

    def call(_: int) -> None:
        predictor.numpy(predictor.predict(images))

    times: list[float] = []
    with ThreadPoolExecutor(streams, "rate", lambda: predictor.share(streams)) as pool:
        list(pool.map(call, range(streams)))
        while len(times) < 2 or sum(times) < seconds:
            start = time.perf_counter()
            list(pool.map(call, range(streams)))
            times.append(time.perf_counter() - start)
    predictor.share(1)
    return streams * batch / float(np.median(times))


def describe(rates: Mapping[str, float]) -> str:
    """Say in one line which engine was taken and what was measured."""
    (name, best), *others = rates.items()
    rest = "".join(f", {n} {r:.2f}" for n, r in others)
    return f"engine {name}: {best:.2f} windows/s{rest or ', no other is installed'}"


def _has_cuda() -> bool:
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
