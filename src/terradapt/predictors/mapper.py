"""Mapper: an opened model that takes whole scenes, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import ConfigError, SceneError
from terradapt.raster import ScenePath
from terradapt.scene import PredictOptions, Predictor, predict_scene
from terradapt.scene.job import open_job
from terradapt.scene.predictor import Wrapped


class Mapper(Wrapped):
    """An opened model: maps scenes, and is a :class:`Predictor` of pixels itself.

    Args:
        predictor: What runs the model.
        name: Model's name, for the statistics and for resuming.
    """

    def __init__(self, predictor: Predictor, name: str = "") -> None:
        super().__init__(predictor)
        self.name = name

    @overload
    def predict(self, scene: NDArray[np.uint8], /) -> Any: ...
    @overload
    def predict(self, scene: ScenePath, out: None = None, **options: Any) -> NDArray[np.uint8]: ...
    @overload
    def predict(self, scene: ScenePath, out: str | Path, **options: Any) -> dict[str, Any]: ...
    def predict(
        self, scene: NDArray[np.uint8] | ScenePath, out: str | Path | None = None, **options: Any
    ) -> Any:
        """Map a scene.

        Args:
            scene: A raster, a folder of them, or files that make one mosaic; or pixels
                (B, C, H, W) uint8 of windows.
            out: The class raster to write, with its style and statistics beside it; None keeps
                the result in memory.
            options: Fields of :class:`PredictOptions`.

        Returns:
            With ``out``, the statistics as in its JSON file; else class ids (H, W) uint8, 255
            without data. For pixels, softmax scores (B, K, H, W).

        Raises:
            SceneError: The scene cannot be read, or the pixels are not of the model's form.
            ConfigError: Options that do not exist or do not fit.
            OutputError: The result cannot be written.
        """
        if hasattr(scene, "shape"):  # an array, whatever made it
            if out is not None or options:
                told = ", ".join([*(["out"] if out is not None else []), *options])
                raise ConfigError(
                    f"pixels are predicted as they are, without {told}",
                    "write them as a raster, and give its path",
                )
            pixels: Any = scene
            self.check_images(pixels, self.name or "the model")
            return self.predictor.predict(pixels)
        paths = [scene] if isinstance(scene, str | Path) else scene
        if not (isinstance(paths, Sequence) and all(isinstance(p, str | Path) for p in paths)):
            raise SceneError(
                f"a {type(scene).__name__} is no scene",
                "give a path, a list of paths, or pixels (B, C, H, W) as a NumPy array of uint8",
            )
        chosen = PredictOptions.of(**options)
        if out is not None:
            return predict_scene(self.predictor, scene, Path(out), chosen, model=self.name)
        with ExitStack() as stack:
            job = open_job(self.predictor, scene, chosen, self.name, stack)
            return np.concatenate([block.classes for block in job.blocks()])
