"""TorchPredictor: a torch model behind the Predictor protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terradapt.classes import ClassMap
from terradapt.config import InputSpec
from terradapt.meta import Meta
from terradapt.models.contract import SegmentationModel
from terradapt.scene.predictor import Predictor, on_host

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILED = {"compiled": "default", "reduce-overhead": "reduce-overhead"}
"""Engine to the mode of ``torch.compile``; the second replays CUDA graphs on an NVIDIA GPU."""


def normalize_tensor(x: Tensor, spec: InputSpec) -> Tensor:
    """Return ``(x / 255 - mean) / std`` of uint8 pixels (B, C, H, W) as float32, per band."""
    mean, std = _constants(spec.mean, spec.std, x.device)
    return (x.float() - mean).div_(std)


@lru_cache(maxsize=32)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1, C, 1, 1) in units of the pixels: made once, as a copy would wait."""
    mean_std = torch.tensor([mean, std], dtype=torch.float32).view(2, 1, -1, 1, 1) * 255
    mean_255, std_255 = mean_std.to(device)
    return mean_255, std_255


class TorchPredictor(Predictor):
    """A torch model as a Predictor: uint8 pixels in, softmax scores out, on the model's device.

    Args:
        model: A model of the registry; it is put into evaluation mode for each call.
        classes: K names and colours.
        spec: Bands and normalisation.
        window: Preferred side of a window, px.
        device: Where the model is.
        precision: Arithmetic of the forward pass; scores are always float32.
        engine: One of :data:`COMPILED`; any other name runs the model eagerly.
        meta: What the model's checkpoint says of itself, when it comes from one; its calibration is
            applied.

    Attributes:
        streams: Calls of :meth:`predict` that pay at once. On a CPU a core each is faster than
            all cores for one window: their layers are too small to share.
    """

    def __init__(
        self,
        model: SegmentationModel,
        classes: ClassMap,
        spec: InputSpec,
        window: int,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        engine: str = "torch",
        meta: Meta | None = None,
    ) -> None:
        self.meta = meta
        if meta is not None:
            self.scales = meta.scales
        self.classes = classes
        self.spec = spec
        self.window = window
        self.multiple = model.size_multiple
        self.device = str(device)
        self.precision = precision
        own = "torch" if precision == "fp32" else f"torch-{precision}"
        compiled = engine in COMPILED
        self.engine = engine if compiled else own
        alone = compiled or not on_host(self)
        self.streams = 1 if alone else torch.get_num_threads()
        self.model = model
        self.parameters = sum(p.numel() for p in model.parameters())
        self._modes = _Evaluation(model)
        self._run: nn.Module | Any = (
            torch.compile(model, mode=COMPILED[engine]) if compiled else model
        )

    def predict(self, images: NDArray[np.uint8], /) -> Tensor:
        """Return softmax scores (B, K, H, W) float32 on the device for pixels (B, C, H, W).

        Raises:
            SceneError: What are no such pixels; see :meth:`Predictor.check_images`.
            MemoryError: The batch does not fit into the device's memory.
        """
        self.check_images(images)
        try:
            with self._modes, torch.no_grad(), self._autocast():
                x = normalize_tensor(self._sent(images), self.spec)
                logits = self._run(x.contiguous(memory_format=torch.channels_last)).logits
                scores: Tensor = self._calibrated(logits.float()).softmax(1)
                return scores
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def share(self, count: int) -> None:
        """Give the calling thread its part of the cores, as one of ``count`` streams."""
        if self.streams > 1:
            torch.set_num_threads(max(1, self.streams // count))

    def asarray(self, array: NDArray[np.float32]) -> Tensor:
        """Put an array on the device."""
        return torch.from_numpy(array).to(self.device)

    def numpy(self, array: Tensor) -> NDArray[Any]:
        """Bring an array back."""
        return array.cpu().numpy()

    def fetch(self, array: Tensor) -> Callable[[], NDArray[Any]]:
        """Begin to bring an array back, into pinned memory, while the device goes on."""
        if not array.is_cuda:
            return lambda: self.numpy(array)
        host = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        host.copy_(array, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> NDArray[Any]:
            done.synchronize()
            return host.numpy()

        return wait

    def label(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 ids and float32 values (H, W) of the highest scores, on the device."""
        return scores.argmax(0).to(torch.uint8), scores.amax(0)

    def _sent(self, images: NDArray[np.uint8]) -> Tensor:
        """Pixels on the device as uint8; to a GPU from pinned memory, without waiting."""
        pixels = torch.from_numpy(images)
        if torch.device(self.device).type != "cuda":
            return pixels.to(self.device)
        return pixels.pin_memory().to(self.device, non_blocking=True)

    def _calibrated(self, logits: Tensor) -> Tensor:
        found = self.meta and self.meta.calibration
        if not found:
            return logits
        scaled = logits / found.temperature
        if found.bias:
            scaled += torch.tensor(found.bias, device=logits.device).view(1, -1, 1, 1)
        return scaled

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, DTYPES[self.precision])


class _Evaluation:
    """Holds a model in evaluation mode while any thread is inside, then restores its mode."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.inside, self.training = model, 0, False
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.training = self.model.training
                self.model.eval()
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.model.train(self.training)
