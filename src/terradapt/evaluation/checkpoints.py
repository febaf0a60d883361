"""A checkpoint and a dataset's folder in, a written report out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from terradapt import hub
from terradapt.config import DataConfig
from terradapt.data import Dataset, open_dataset
from terradapt.data.pair import pair_dataset
from terradapt.errors import DataError
from terradapt.evaluation.options import Protocol
from terradapt.evaluation.run import PICTURES, evaluate
from terradapt.meta import Meta, code_commit
from terradapt.predictors import load
from terradapt.predictors.mapper import Mapper
from terradapt.progress import Advance, Track, silent
from terradapt.report import Report, check_report, write_report
from terradapt.report.html import require_html
from terradapt.scene import Predictor


@dataclass(frozen=True)
class EvaluationTask:
    """A checkpoint with the dataset it is to be evaluated on; nothing is predicted yet.

    Attributes:
        predictor: The model.
        dataset: Labelled images.
        split: Name of the split.
        checkpoint: The model's file, if it came from one.
        pixels: Pixels to be predicted.
    """

    predictor: Predictor
    dataset: Dataset
    split: str
    checkpoint: Path | None

    @property
    def pixels(self) -> int:
        """Pixels to be predicted."""
        return sum(i.height * i.width for i in self.dataset.split(self.split))

    @property
    def files(self) -> list[Path]:
        """What is read."""
        return [*([self.checkpoint] if self.checkpoint else ()), *self.dataset.files]

    def run(
        self,
        protocol: Protocol | None = None,
        *,
        pictures: int = PICTURES,
        title: str = "",
        command: str = "",
        progress: Advance | None = None,
    ) -> Report:
        """Evaluate; see :func:`terradapt.evaluation.evaluate`."""
        return evaluate(
            self.predictor,
            self.dataset,
            self.split,
            protocol,
            checkpoint=self.checkpoint or "",
            pictures=pictures,
            title=title,
            commit=code_commit(),
            facts={"command": command} if command else {},
            progress=progress,
        )


def open_task(
    checkpoint: str | Path | Mapper,
    data: str | Path | tuple[str | Path, str | Path],
    split: str | None = "test",
    *,
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
) -> EvaluationTask:
    """Open a checkpoint and a dataset.

    Args:
        checkpoint: ``.safetensors``, an exported model, or an opened one, to which device,
            precision and trunk do not matter any more.
        data: Folder of the dataset; or an image and its label raster, see
            :func:`terradapt.data.pair.pair_dataset`.
        split: Name of a split, or None: the first of test, val and train that has images. An image
            alone has none.
        device: See :func:`terradapt.predictors.load`.
        precision: See :func:`terradapt.predictors.load`.
        trunk: See :func:`terradapt.predictors.load`.

    Raises:
        CheckpointError: The checkpoint cannot be trusted, read or fitted.
        DataError: No dataset, or no such split.
    """
    predictor: Predictor
    if isinstance(checkpoint, Mapper):
        predictor, file = checkpoint.predictor, checkpoint.file
    else:
        file = hub.local(checkpoint)
        predictor = load(file, device=device, precision=precision, trunk=trunk)
    if isinstance(data, tuple):
        return EvaluationTask(predictor, pair_dataset(*data, predictor.classes), "all", file)
    read = _data_config(predictor.meta, Path(data)) if predictor.meta else None
    dataset = open_dataset(data, read)
    split = split or _first_split(dataset)
    dataset.split(split)
    return EvaluationTask(predictor, dataset, split, file)


def report_run(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    command: str = "",
    bar: Track = silent,
) -> Report:
    """Evaluate a run's best checkpoint and write ``report.json``, ``.md`` and ``.html`` into it.

    Args:
        run: The run's folder.
        data: Folder of the dataset.
        split: Name of a split, or None: the first of test, val and train that has images.
        command: The command line, for the run facts.
        bar: Shows the phase.

    Raises:
        MissingExtraError: The libraries of the report are not installed.
        OutputError: The run's folder cannot be written.
    """
    run = Path(run)
    require_html()
    task = open_task(run / "checkpoint.safetensors", data, split)
    check_report(run / "report.json", task.files)
    with bar(task.pixels, f"report on {task.split}", "px") as advance:
        report = task.run(command=command, progress=advance)
    write_report(report, run / "report.json")
    return report


def _data_config(meta: Meta, data: Path) -> DataConfig:
    """How the model's own data is read; its corrections lie on that data alone."""
    config = meta.config.data
    own = Path(config.corrections or "").is_file() and data.absolute().name == meta.data
    return config if own else config.model_copy(update={"corrections": None})


def _first_split(dataset: Dataset) -> str:
    for name in ("test", "val", "train"):
        with suppress(DataError):
            dataset.split(name)
            return name
    return "all"
