"""Open a checkpoint or an exported model with any engine, the measured fastest among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from terradapt import hub, predictors
from terradapt.errors import ConfigError, one_of
from terradapt.predictors import engines

if TYPE_CHECKING:
    from terradapt.scene import Predictor

TORCH_ENGINES = {
    "torch": "fp32",
    "compiled": "fp32",
    "reduce-overhead": "fp32",
    "torch-bf16": "bf16",
    "torch-fp16": "fp16",
}
"""Engine to the precision that it stands for; with fp32 the caller's own goes."""


def load(
    path: str | Path,
    *,
    engine: str = engines.OWN,
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
    say: engines.Say | None = None,
    seconds: float = 1.0,
) -> Predictor:
    """Open a checkpoint or an exported model for prediction.

    Args:
        path: ``.safetensors`` or ``.onnx``.
        engine: ``own`` (torch for a checkpoint, ONNX Runtime for an exported model), ``auto``, or
            a name: ``torch``, ``compiled``, ``reduce-overhead``, ``torch-bf16``,
            ``onnxruntime``, ``openvino``, ``openvino-bf16``. For the latter three a checkpoint is
            exported on the way.
        device: A torch device; an engine other than torch runs on the CPU.
        precision: Of torch: ``fp32``, ``bf16``, ``fp16``.
        trunk: Weights of a frozen trunk that the checkpoint only names.
        say: Called with one line on what ``auto`` measured and took.
        seconds: Time for which ``auto`` measures each engine.

    Raises:
        CheckpointError: The file cannot be trusted, read or fitted.
        ConfigError: No such engine.
        MissingExtraError: The engine is not installed.
    """
    path = hub.local(path)
    if path.suffix == ".onnx" and path.is_file():
        return engines.load_onnx(path, engine=engine, say=say, seconds=seconds)

    def torch(name: str = "torch") -> Predictor:
        used = precision if TORCH_ENGINES[name] == "fp32" else TORCH_ENGINES[name]
        return predictors.load(path, engine=name, device=device, precision=used, trunk=trunk)

    if engine == engines.OWN:
        return torch()
    if engine in TORCH_ENGINES:
        return torch(engine)
    if engine == engines.AUTO:
        predictor, rates = engines.fastest(_candidates(path, torch, trunk, device), seconds=seconds)
        if say is not None:
            say(engines.describe(rates))
        return predictor
    if engine in engines.ONNX_ENGINES | engines.FASTER:
        return exported(path, engine, trunk)
    known = (engines.OWN, engines.AUTO, *TORCH_ENGINES, *engines.ONNX_ENGINES, *engines.FASTER)
    raise ConfigError(f"no engine '{engine}'", one_of(engine, known))


def exported(path: Path, engine: str, trunk: str | Path | None = None) -> Predictor:
    """Export a checkpoint into a folder that vanishes and open it with an engine."""
    from terradapt.export.run import export_checkpoint

    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / f"{path.stem}.onnx"
        export_checkpoint(path, file, trunk=trunk)
        return engines.open_engine(file, engine)


def _candidates(
    path: Path,
    torch: Callable[..., Predictor],
    trunk: str | Path | None,
    device: str | None,
) -> dict[str, Callable[[], Predictor]]:
    """Return torch, and without a GPU what the exported model can be run with."""
    own = torch()
    found: dict[str, Callable[[], Predictor]] = {"torch": lambda: own}
    if device is not None or own.device != "cpu":
        return found
    for name in engines.installed():
        found[name] = _maker(path, name, trunk)
    return found


def _maker(path: Path, name: str, trunk: str | Path | None) -> Callable[[], Predictor]:
    return lambda: exported(path, name, trunk)
