"""The run's folder: config, log, checkpoints; what a killed run left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terradapt.config import RunConfig, parse_config
from terradapt.data import Dataset
from terradapt.data.splits import SplitsFile
from terradapt.data.unlabelled import SPLIT
from terradapt.documents import read_log
from terradapt.errors import ConfigError, OutputError
from terradapt.files import check_output, read_text, write_text, writing

CONFIG, LOG, SPLITS = "config.yaml", "log.jsonl", "splits.json"
BEST, LAST = "checkpoint.safetensors", "last.safetensors"


class Run:
    """A run's folder.

    Attributes:
        folder: Where everything lies.
        best: The best checkpoint's path.
        last: The latest checkpoint's path, with the optimiser's state.
        splits: The splits that the run began with; it keeps them whatever joins its dataset.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.best = self.folder / BEST
        self.last = self.folder / LAST
        self.splits = self.folder / SPLITS

    def check(self, dataset: Dataset, config: RunConfig) -> None:
        """Refuse to write over what the run reads.

        Raises:
            OutputError: The folder is the dataset's, or a file in it is read.
        """
        if self.folder.is_dir() and self.folder.samefile(dataset.root):
            raise OutputError(f"{self.folder}: is the dataset's folder", "give another -o folder")
        lossnet = config.objective.lossnet
        weights = [config.model.encoder.weights, config.objective.distill.teacher]
        weights += [config.train.start]
        weights += [lossnet.weights] if lossnet else []
        written = [self.folder / n for n in (BEST, LAST, CONFIG, LOG, SPLITS)]
        written += [self.folder / f"report.{s}" for s in ("json", "md", "html")]
        check_output(written[0], reads=[*dataset.files, *weights], beside=written[1:])

    def held(self) -> RunConfig | None:
        """Return the config of the run that the folder holds, if it holds one."""
        path = self.folder / CONFIG
        return parse_config(read_text(path, ConfigError), str(path)) if path.is_file() else None

    def open(self, config: RunConfig, resume: bool) -> None:
        """Make or reopen the folder.

        Raises:
            OutputError: It holds another run, or cannot be written.
            ConfigError: Resumed with another config.
        """
        path = self.folder / CONFIG
        held = self.held() if resume else None
        if held is not None:
            require_same_config(held, config, path)
        elif path.exists():
            raise OutputError(
                f"{self.folder}: holds a run already", "add --resume, or give another -o folder"
            )
        if not path.exists():
            write_text(path, config.to_yaml())

    def keep_splits(self, dataset: Dataset) -> None:
        """Write the splits of the run's beginning, where they are not there yet.

        Raises:
            OutputError: The file cannot be written.
        """
        if not self.splits.is_file():
            blocks = {i.id: i.area for i in dataset.items if i.area is not None}
            splits = {
                name: tuple(i for i in ids if not i.startswith(f"{SPLIT}/"))  # found anew
                for name, ids in dataset.splits.items()
            }
            bare = tuple(i.id for i in dataset.unlabelled)
            file = SplitsFile(splits, dataset.protocol, blocks=blocks, unlabelled=bare)
            file.write(self.splits)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        path = self.folder / LOG
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def rewind_log(self, step: int) -> None:
        """Drop the lines of steps after ``step``, and a half-written one."""
        path = self.folder / LOG
        if path.is_file():
            kept = [e for e in self.events() if e.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(e) + "\n" for e in kept))

    def events(self) -> list[dict[str, Any]]:
        """Read the whole lines of the log."""
        return read_log(self.folder / LOG)


def require_same_config(held: RunConfig, given: RunConfig, path: Path) -> None:
    """Refuse to go on with a run under another config; processes that read ahead do not count.

    Args:
        held: The run's.
        given: The one to go on with.
        path: The file of the first, for the error.

    Raises:
        ConfigError: They differ.
    """
    a, b = _flat(held), _flat(given)
    differing = [key for key in a if a[key] != b[key] and key != "data.workers"]
    if differing:
        raise ConfigError(
            f"{path}: the run was started with another config ({', '.join(differing[:4])})",
            "resume with the same recipe and overrides, or start a new run with another -o",
        )


def _flat(config: RunConfig) -> dict[str, Any]:
    """The values of a config by ``section.key``; what belongs to no section by its own name."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        parts = value if isinstance(value, dict) else None
        flat |= {name: value} if parts is None else {f"{name}.{k}": v for k, v in parts.items()}
    return flat
