"""GraphsPredictor: the forward pass recorded once per shape as a CUDA graph, then replayed.

A small student's layers take less time on a GPU than it takes to start them one by one; a graph
starts them all at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terradapt.errors import ConfigError
from terradapt.models.contract import Prediction
from terradapt.predictors.torch import TorchPredictor

WARM_UP = 3  # runs before a recording, in which libraries choose their kernels
ENGINE = "cuda-graphs"
MAX_RECORDED = 4  # shapes; each holds the memory of its activations


class GraphsPredictor(TorchPredictor):
    """A :class:`TorchPredictor` on an NVIDIA GPU that replays recorded forward passes.

    Raises:
        ConfigError: The device is no NVIDIA GPU.
    """

    def __init__(self, model: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        if self.device.type != "cuda":
            raise ConfigError(
                f"CUDA graphs need an NVIDIA GPU, not {self.device}",
                "add --device cuda:0, or use --engine torch",
            )
        self.engine = ENGINE
        self._run = Recorded(model)


class Recorded:
    """A model's call, recorded at the first batch of each shape.

    Calls must follow each other on one stream: they share their input and output.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W) that the next call overwrites."""
        shape = tuple(x.shape)
        if shape not in self._held:
            while len(self._held) >= MAX_RECORDED:
                self._held.pop(next(iter(self._held)))
            self._held[shape] = self._record(x.clone())
        graph, image, logits = self._held[shape]
        image.copy_(x)
        graph.replay()
        return Prediction(logits)

    def _record(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # weights cast outside the graph would be freed before it is replayed
        with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._model(image)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits: Tensor = self._model(image).logits
        return graph, image, logits


def predictor_class(engine: str) -> type[TorchPredictor]:
    """Return the class that one of torch's engines is run by."""
    return GraphsPredictor if engine == ENGINE else TorchPredictor
