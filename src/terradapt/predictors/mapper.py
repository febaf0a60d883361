"""Mapper: an opened model that takes whole scenes, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import ConfigError, SceneError
from terradapt.options import keywords
from terradapt.predictors.scene_map import SceneMap
from terradapt.progress import silent, text_bar
from terradapt.raster import ScenePath
from terradapt.scene import PredictOptions, Predictor, predict_scene
from terradapt.scene.job import open_job
from terradapt.scene.options import PredictChoices
from terradapt.scene.predictor import Wrapped


class Mapper(Wrapped):
    """An opened model: maps scenes, and is a :class:`Predictor` of pixels itself.

    Args:
        predictor: What runs the model.
        name: Model's name, for the statistics and for resuming.
        file: Where it was opened from.
    """

    def __init__(self, predictor: Predictor, name: str = "", file: Path | None = None) -> None:
        super().__init__(predictor)
        self.name, self.file = name, file

    def __repr__(self) -> str:
        scale = f", {self.spec.resolution:g} m per pixel" if self.spec.resolution else ""
        return (
            f"<Mapper {self.name or 'of a model'}: {len(self.classes)} classes "
            f"({', '.join(self.classes.names)}), {len(self.spec.bands)} bands{scale}, "
            f"windows of {self.window} px, {self.engine} on {self.device}>"
        )

    @overload
    def predict(self, scene: NDArray[np.uint8], /) -> Any: ...
    @overload
    def predict(
        self,
        scene: ScenePath,
        out: str | Path | None = None,
        *,
        progress: bool = True,
        **options: Unpack[PredictChoices],
    ) -> SceneMap: ...
    @keywords(PredictOptions)
    def predict(
        self,
        scene: Any,
        out: str | Path | None = None,
        *,
        progress: bool = True,
        **options: Any,
    ) -> Any:
        """Map a scene.

        Args:
            scene: A raster, a folder of them, or files that make one mosaic; or pixels
                (B, C, H, W) uint8 of windows.
            out: The class raster to write, with its style and statistics beside it; None keeps
                the result in memory.
            progress: Show a line of progress.
            options: Fields of :class:`PredictOptions`: ``confidence=True`` and ``scores=True``
                keep the winner's and all classes' probabilities.

        Returns:
            The map: its classes, confidence, scores, areas, polygons and roads. For pixels,
            softmax scores (B, K, H, W).

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
            self.check_images(scene, self.name or "the model")
            return self.predictor.predict(scene)
        paths = [scene] if isinstance(scene, str | Path) else scene
        if not (isinstance(paths, Sequence) and all(isinstance(p, str | Path) for p in paths)):
            raise SceneError(
                f"a {type(scene).__name__} is no scene",
                "give a path, a list of paths, or pixels (B, C, H, W) as a NumPy array of uint8",
            )
        chosen, track = PredictOptions.of(**options), text_bar if progress else silent
        if out is not None:
            out = Path(out)
            figures = predict_scene(self.predictor, scene, out, chosen, track, model=self.name)
            return SceneMap.of_file(out, self.classes, figures)
        with ExitStack() as stack:
            job = open_job(self.predictor, scene, chosen, self.name, stack)
            return SceneMap.of_job(job, self.name, track)
