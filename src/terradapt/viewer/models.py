"""Models of a folder: which one is kept, which is on trial, and the work that makes them.

``models.json`` says it and is replaced at once; a folder in ``models/`` that it does not name is
what a stopped training left behind, and goes when the next session starts.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import DataError, TerradaptError
from terradapt.files import Closing, digest, read_json, write_json, writing
from terradapt.viewer.child import Child
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.looking import Eyes, Look
from terradapt.viewer.mapping import LOOK, REMEMBERED, Model
from terradapt.viewer.recent import Recent
from terradapt.viewer.retraining import retrain_arguments, scene_folder
from terradapt.viewer.session import Session

STATE, MODELS, MAPS = "models.json", "models", "maps"
_DOING = {
    "retrain": "a model is being trained",
    "look": "the model is looking again",
    "write": "the map is being written",
}
TRAINING = "training.gpkg"
"""What the last training learnt from: the corrections without the held-out places."""


class Kept:
    """``models.json``: the model that the folder began with, the kept one and the one on trial.

    Args:
        folder: Of the session.
        given: SHA-256 of the model that the session was started with.
    """

    def __init__(self, folder: Path, given: str) -> None:
        self.path = folder / STATE
        self.folder = folder
        self.given = given
        self.kept: str | None = None
        self.trial: str | None = None
        if self.path.is_file():
            state = read_json(self.path)
            if state.get("given") == given:
                self.kept, self.trial = state.get("kept"), state.get("trial")

    def write(self) -> None:
        """Write the file.

        Raises:
            OutputError: It cannot be written.
        """
        values = {"given": self.given, "kept": self.kept, "trial": self.trial}
        write_json(self.path, values)

    def checkpoint(self, name: str | None) -> Path | None:
        """Return the file of a model of the folder; None where it is not there."""
        if name is None or Path(name).name != name:
            return None
        path = self.folder / MODELS / name / "checkpoint.safetensors"
        return path if path.is_file() else None

    def tidy(self) -> list[str]:
        """Remove what no session needs any more; return the names."""
        home, gone = self.folder / MODELS, []
        if self.path.is_file() or home.is_dir():
            for path in sorted(home.iterdir()) if home.is_dir() else ():
                if path.is_dir() and path.name.isdecimal() and not self._is_named(path.name):
                    shutil.rmtree(path, ignore_errors=True)
                    gone.append(path.name)
        return gone

    def _is_named(self, name: str) -> bool:
        """A kept model stays for good: it may be the start of one that another session keeps."""
        if name in (self.kept, self.trial):
            return True
        return (self.folder / MODELS / name / "kept").is_file()

    def mark(self, name: str) -> None:
        """Note in a model's folder that it was kept."""
        (self.folder / MODELS / name / "kept").touch()

    def next_name(self) -> str:
        """Return a name for the next model."""
        home = self.folder / MODELS
        used = [int(p.name) for p in home.iterdir() if p.name.isdecimal()] if home.is_dir() else []
        return f"{max(used, default=0) + 1:04d}"


class Work(Closing):
    """Retraining and writing: one at a time, in processes of their own.

    Args:
        session: What is shown.
        kept: The folder's models.
        data: Folder of labelled images to train on beside the scenes.
        overrides: ``key=value`` for the recipe ``retrain``.
        opening: How models are opened.
    """

    def __init__(
        self,
        session: Session,
        kept: Kept,
        *,
        data: Path | None = None,
        overrides: Sequence[str] = (),
        **opening: Any,
    ) -> None:
        assert session.folder is not None
        self.session, self.kept, self.folder = session, kept, session.folder
        self._data, self._overrides = data, list(overrides)
        self._opening = {"recent": Recent[NDArray[np.float32]](REMEMBERED), **opening}
        self._lock = threading.RLock()
        self._child: Child | Look | None = None
        self._eyes = Eyes()
        self._name = ""
        self.state: dict[str, Any] = {"doing": None}
        if session.opened.is_set():
            self.open_models()

    def close(self) -> None:
        """Stop what is running."""
        self.stop()

    def open_models(self) -> None:
        """Open the session's model, where it is announced only, and the one on trial.

        Raises:
            CheckpointError: One cannot be trusted, read or fitted.
            SceneError: A scene does not fit it.
        """
        model, trial = self.session.model, self.kept.checkpoint(self.kept.trial)
        if model is not None and not model.is_open:
            self.session.take_model(Model.open(model.path, **self._opening))
        if trial is not None:
            self.session.try_model(Model.open(trial, **self._opening))

    def retrain(self) -> None:
        """Start a training on the corrections.

        Raises:
            ConflictError: Something is running, or a new model waits for a decision.
            DataError: There are no corrections outside the held-out places.
            OutputError: The disk is full.
        """
        session = self.session
        with self._idle():
            if session.candidate is not None:
                raise ConflictError(
                    "a new model waits for your decision", "keep it or throw it away first"
                )
            self._check_trainable("trained")
            assert session.correcting is not None and session.model is not None
            file = self.folder / TRAINING
            count = session.correcting.log.write(file, labels=session.labels, held=session.held())
            if not count:
                raise DataError(
                    "there is nothing to learn from yet",
                    "correct something outside the dashed places; those only measure",
                )
            files = self._scene_files()
            scenes = scene_folder(self.folder, files) if files else None
            name = self.kept.next_name()
            run = self.folder / MODELS / name
            self._name = name
            start = session.model.path
            beside = None if self._data is None else scenes
            data = self._data or scenes
            assert data is not None
            words = retrain_arguments(start, file, data, run, self._overrides, beside)
            self._begin("retrain")
            self._child = Child(words, self._tell, self._trained)

    def look_again(self) -> None:
        """Start to refit the model's last convolution; a look on trial makes room for it.

        Raises:
            ConflictError: Something is running, or a retrained model waits for a decision.
            OutputError: The disk is full.
        """
        session = self.session
        with self._idle():
            if session.candidate is not None and not session.candidate.quick:
                raise ConflictError(
                    "a new model waits for your decision", "keep it or throw it away first"
                )
            self._check_trainable("looked at again")
            if session.candidate is not None:
                self.throw_away()
            self._name = self.kept.next_name()
            self._begin("look")
            run = self.folder / MODELS / self._name
            self._child = Look(session, self._eyes, run, self._tell, self._trained)

    def write_maps(self) -> None:
        """Start to write the map of every scene with the model in use.

        Raises:
            ConflictError: Something is running.
        """
        session = self.session
        with self._idle():
            assert session.model is not None
            maps = self.folder / MAPS
            scenes: list[str] = []
            for view in session.views:
                parts = [view.given] if isinstance(view.given, str | Path) else view.given
                scenes += [str(Path(p).absolute()) for p in parts]
            one = len(session.views) == 1
            out = maps / f"{Path(session.views[0].name).stem}.tif" if one else maps
            words = ["predict", str(session.model.path.absolute()), *scenes, "-o", str(out)]
            words += ["--cluster", "none", "--resume", "--overwrite"]
            words += ["--mosaic"] if one and len(scenes) > 1 else []
            device = self._opening.get("device")
            words += ["--device", device] if device else []
            self._begin("write")
            self._child = Child(words, self._tell, self._written)

    def stop(self) -> None:
        """Stop what is running, and wait until it has ended."""
        with self._lock:
            child = self._child
        if child is not None:
            child.stop()

    def keep(self) -> None:
        """Let the model on trial take the old one's place.

        Raises:
            ConflictError: There is none, or something is running.
            OutputError: The disk is full; then the old one stays.
        """
        with self._idle():
            if self.session.candidate is None or self.kept.trial is None:
                raise ConflictError("there is no new model", "retrain first")
            before = self.kept.kept, self.kept.trial
            self.kept.mark(self.kept.trial)
            self.kept.kept, self.kept.trial = self.kept.trial, None
            try:
                self.kept.write()
            except TerradaptError:
                self.kept.kept, self.kept.trial = before
                raise
            self.session.keep_candidate()

    def throw_away(self) -> None:
        """Remove the model on trial, or the one that is being trained.

        Raises:
            ConflictError: There is none.
            OutputError: The disk is full.
        """
        self.session.wait_open()
        with self._lock:
            training = self._child if self.state["doing"] in ("retrain", "look") else None
        if training is not None:
            training.stop()
        with self._lock:
            name = self.kept.trial
            if name is None and training is None:
                raise ConflictError("there is no new model", "retrain first")
            self.session.drop_candidate()
            if name is not None:
                self.kept.trial = None
                self.kept.write()
                shutil.rmtree(self.folder / MODELS / name, ignore_errors=True)

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """Hold off all other work; nothing is running, and the models are open."""
        self.session.wait_open()
        with self._lock:
            if self._child is not None:
                raise ConflictError(
                    _DOING[str(self.state["doing"])], "wait until it is done, or stop it"
                )
            yield

    def _check_trainable(self, how: str) -> None:
        if self.session.correcting is None or self.session.model is None:
            raise ConflictError("there is no model to retrain", "start with a model")
        if self.session.model.path.suffix != ".safetensors":
            raise ConflictError(
                f"{self.session.model.path.name}: an exported model cannot be {how}",
                "start terradapt view with its checkpoint",
            )

    def _begin(self, doing: str) -> None:
        self.state = {"doing": doing, "phase": "starting", "done": 0, "total": None}
        self.session.events.publish("work", **self.state)

    def _tell(self, said: dict[str, Any]) -> None:
        if "log" in said:
            self.session.events.publish("log", **{"text": str(said["log"])})
            return
        self.state = {"doing": self.state["doing"], **said}
        self.session.events.publish("work", **self.state)

    def _done(self, **values: Any) -> None:
        with self._lock:
            self._child = None
            self.state = {"doing": None, **values}
        self.session.events.publish("work", **self.state)

    def _trained(self, result: Any, error: tuple[str, str] | None) -> None:
        name, doing = self._name, str(self.state["doing"])
        run = self.folder / MODELS / name
        if error is None:
            try:
                if doing == "look":
                    with writing(run):
                        (run / LOOK).touch()
                model = Model.open(Path(result["files"][0]), **self._opening)
                self.session.try_model(model)
                with self._lock:
                    self.kept.trial = name
                    self.kept.write()
            except TerradaptError as fault:
                self.session.drop_candidate()
                error = fault.message, fault.fix
        if error is not None:
            shutil.rmtree(run, ignore_errors=True)
            self._done(ended=doing, error=error[0], fix=error[1])
            return
        self._done(ended=doing, metrics=result.get("metrics", {}))

    def _written(self, result: Any, error: tuple[str, str] | None) -> None:
        if error is not None:
            self._done(ended="write", error=error[0], fix=error[1])
        else:
            self._done(ended="write", files=result["files"])

    def _scene_files(self) -> list[Path]:
        """What can be trained on; of a mosaic the folder of images holds the files."""
        files: list[Path] = []
        for view in self.session.views:
            given = view.given
            if isinstance(given, str | Path) and Path(given).is_file():
                files.append(Path(given))
            elif self._data is None:
                raise ConflictError(
                    f"{view.name}: a mosaic is no image to train on",
                    "give its files one by one, or a folder of images with --data",
                )
        return files


def first_model(given: Path, folder: Path) -> tuple[Model, Kept]:
    """Return the model that a session begins with: the one that was kept last, else the given one.

    Args:
        given: The file that was named.
        folder: Of the session.

    Returns:
        The model, announced, and the folder's models.

    Raises:
        CheckpointError: It cannot be trusted or read.
        DataError: ``models.json`` is damaged.
    """
    kept = Kept(folder, digest(given))
    with suppress(OSError):
        kept.tidy()
    return Model.announce(kept.checkpoint(kept.kept) or given), kept


__all__ = ["Kept", "Work", "first_model"]
