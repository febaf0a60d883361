"""Whole images, predicted and scored by a model while it trains, as ``predict`` does it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from terradapt.config import InputSpec, RunConfig
from terradapt.data import Dataset
from terradapt.data.dataset import Item
from terradapt.data.labelled import labelled_areas
from terradapt.data.reading import ItemReader
from terradapt.grid import Window
from terradapt.metrics.confusion import Confusion
from terradapt.models.contract import SegmentationModel
from terradapt.predictors.torch import Precision, TorchPredictor
from terradapt.progress import Advance
from terradapt.scene import Block, PredictOptions, Predictor
from terradapt.scene.blend import Plan
from terradapt.scene.job import Job
from terradapt.scene.resample import fitted
from terradapt.training.stopping import StoppedError


class Validator:
    """Scores a model on whole images of a split; the processes share the images.

    Args:
        model: The one that trains; it is asked as it stands.
        dataset: Where the images are.
        config: Of the run.
        spec: What the model's input is.
        accelerator: Of the run.
    """

    def __init__(
        self,
        model: SegmentationModel,
        dataset: Dataset,
        config: RunConfig,
        spec: InputSpec,
        accelerator: Accelerator,
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.config = config
        self.spec = spec
        self.accelerator = accelerator
        self._areas: dict[str, tuple[Window, ...]] = {}

    @property
    def split(self) -> str:
        """The split that chooses the best weights: ``val``, or ``train`` where there is none."""
        return "val" if self.dataset.splits.get("val") else "train"

    def predictor(self) -> TorchPredictor:
        """Return the model as a predictor."""
        return TorchPredictor(
            self.model,
            self.dataset.classes,
            self.spec,
            self.config.data.crop,
            device=self.accelerator.device,
            precision=cast(Precision, self.config.train.precision),
        )

    @contextmanager
    def predicting(self, weights: Mapping[str, Tensor] | None) -> Iterator[TorchPredictor]:
        """The model as a predictor, with other weights than those that are trained if given."""
        held = None
        if weights is not None:
            held = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.model.load_state_dict(weights, strict=False)
        try:
            yield self.predictor()
        finally:
            if held is not None:
                self.model.load_state_dict(held)

    def windows(self, split: str, options: PredictOptions | None = None) -> int:
        """Return the windows that are predicted of a split, of all processes together."""
        options, model = options or PredictOptions(), self.predictor()
        count = 0
        for item in self.dataset.split(split):
            suited = fitted(model, options, item.resolution)
            grid = options.grid(suited, item.height, item.width)
            batch = options.batch_for(suited, grid)
            count += sum(len(Plan(grid, area, batch)) for area in self.areas(item))
        return count

    def areas(self, item: Item) -> tuple[Window, ...]:
        """Return what is predicted of an item: where its labels are."""
        if item.id not in self._areas:
            self._areas[item.id] = labelled_areas(self.dataset, item)
        return self._areas[item.id]

    def metrics(
        self,
        split: str,
        weights: Mapping[str, Tensor] | None,
        progress: Advance | None,
        stopped: Callable[[], bool],
    ) -> dict[str, Any]:
        """Return the metrics over a split's labelled pixels, by blended windows of whole images.

        Args:
            split: Name of the split.
            weights: Other than those that are trained, or None.
            progress: Called with the windows done, of all processes together.
            stopped: Whether the run is to stop; asked where one process has all images.

        Raises:
            StoppedError: The run is to stop.
        """
        processes = self.accelerator.num_processes
        confusion = Confusion(len(self.dataset.classes))

        def advance(windows: int) -> None:
            if progress:
                progress(windows * processes)
            if processes == 1 and stopped():  # several would wait for each other
                raise StoppedError

        with self.predicting(weights) as predictor:
            for item in self.dataset.split(split)[self.accelerator.process_index :: processes]:
                areas = self.areas(item)
                with (
                    ItemReader(self.dataset, item, self.spec) as reader,
                    closing(predict_areas(reader, predictor, areas, progress=advance)) as blocks,
                ):
                    for block in blocks:
                        confusion.update(reader.mask(block.window), block.classes)
        matrix = torch.from_numpy(confusion.matrix).to(self.accelerator.device)
        total: Tensor = self.accelerator.reduce(matrix, "sum")
        whole = Confusion(len(self.dataset.classes), total.cpu().numpy())
        return whole.metrics(self.dataset.classes)


def predict_areas(
    reader: ItemReader,
    predictor: Predictor,
    areas: Sequence[Window],
    options: PredictOptions | None = None,
    progress: Advance | None = None,
) -> Generator[Block, None, None]:
    """Predict areas of an item; their pixels are those of the whole image's prediction."""
    job = Job.of(reader, predictor, options or PredictOptions())
    for area in areas:
        with closing(job.blocks(area, progress)) as blocks:
            yield from blocks
