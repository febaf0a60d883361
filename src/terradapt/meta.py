"""What a model says of itself: one JSON text inside a checkpoint and inside an exported file.

Whoever opens a model, in whichever form, reads the same words: how its data was read and split,
at which scales it was trained, what its classes are. A text may come from anyone, so every value is
checked when it is read.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import from_json

from terradapt.classes import ClassMap
from terradapt.config import InputSpec, RunConfig
from terradapt.errors import CheckpointError, DataError, MissingExtraError
from terradapt.version import __version__

KEY = "terradapt"
"""Under this key a file's own metadata holds the text."""
FORMAT = 2
"""Of the text; a new field with a default does not change it."""
FIRST_FORMATS = ("terradapt-1", "terradapt-onnx-1")
"""Of 0.1.0: its checkpoints and its exported models."""
MAX_WINDOW = 4096  # px
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")

Count = Annotated[int, Field(strict=True, ge=0)]
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_WINDOW)]
_STRICT = ConfigDict(extra="forbid")
_PIXELS = re.compile(r"u?int(8|16|32|64)|float(16|32|64)")


@dataclass(frozen=True, config=_STRICT)
class Trunk:
    """The frozen trunk of a tuned encoder.

    Attributes:
        name: Architecture, as timm names it.
        source: File name or hub tag that the weights came from; None when they are random.
        sha256: Hash of the trunk's tensors (:func:`terradapt.checkpoint.hash_tensors`).
        bundled: The tensors are inside the checkpoint.
    """

    name: str
    source: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bundled: Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, config=_STRICT)
class Alignment:
    """By how much the labels of a run were moved onto their images.

    Attributes:
        images: Labelled images whose label was looked at.
        moved: How many of these were moved.
        alone: How many of the moved by their own estimate, the others by that of all together.
        rows: Rows that the labels lay below their images, px, the median of the moved.
        cols: Columns that they lay right of them, px, the median of the moved.
        error: Largest standard error, px; the band along borders that is ignored.
        apart: Largest distance of an image's shift from the median, px.
        jumps: Whether that is more than a set that was drawn on one photo would show.
    """

    images: Count
    moved: Count
    alone: Count
    rows: Annotated[float, Field(allow_inf_nan=False)]
    cols: Annotated[float, Field(allow_inf_nan=False)]
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    apart: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    jumps: bool = False

    def __str__(self) -> str:
        below = f"{abs(self.rows):.1f} px {'below' if self.rows > 0 else 'above'}"
        right = f"{abs(self.cols):.1f} px {'right' if self.cols > 0 else 'left'} of"
        text = (
            f"labels of {self.moved} of {self.images} images moved: they lay {below} and {right} "
            f"their images (error {self.error:.1f} px, {self.alone} by their own estimate)"
        )
        if self.jumps:
            text += f"; the estimates differ by up to {self.apart:.1f} px: look at these images"
        return text


@dataclass(frozen=True, config=_STRICT)
class Calibration:
    """What makes a model's scores probabilities: ``softmax(logits / temperature + bias)``.

    Found by :func:`terradapt.metrics.calibration.fit_calibration`; applied by predictors alone.

    Attributes:
        temperature: Above 1 the model was too sure of itself.
        bias: One per class, or none; only with a bias may a class change.
        split: Where the pixels come from that it was found on.
        pixels: How many these were.
        absent: Classes without a labelled pixel among them.
        before: ``ece``, ``nll`` and ``brier`` of these pixels without it.
        after: The same with it.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    bias: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    split: str = "val"
    pixels: Count = 0
    absent: tuple[str, ...] = ()
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def told(self) -> dict[str, float]:
        """Return its figures by one name each, for a log."""
        before = {f"{k}_before": v for k, v in self.before.items()}
        own = {"temperature": self.temperature, "pixels": self.pixels}
        return {**own, **self.after, **before}

    def __str__(self) -> str:
        biases = " and a bias per class" if self.bias else ""
        absent = f" (no pixel of {', '.join(self.absent)})" if self.absent else ""
        return f"calibrated on {self.split}{absent}: temperature {self.temperature:.4g}{biases}"


@dataclass(frozen=True, config=_STRICT)
class Meta:
    """What a checkpoint says of itself.

    A further field with a default is all that it takes to say more: files without it stay readable,
    and None is not written.

    Attributes:
        config: The run's config.
        classes: Names and colours.
        spec: Bands, stretch, normalisation, training resolution in m/px.
        window: Side of the training crops, px.
        metrics: Validation metrics at this step, fractions.
        step: Optimiser steps done.
        trunk: The frozen trunk, when there is one.
        commit: Commit of the code that trained it, or "".
        version: terradapt's, of the writer.
        data: Name of the dataset.
        progress: State of an unfinished run (only in ``last.safetensors``).
        calibration: What makes the scores probabilities; None where nothing was found to calibrate
            on.
        start: SHA-256 of the checkpoint that the run began with, None where it began afresh.
        weights: What the encoder began with: a file with its hash, or a commit on the hub.
        alignment: By how much labels were moved onto their images; None where none was.

    Raises:
        ValidationError: A value of the wrong type, out of range, or not fitting the others.
    """

    config: RunConfig
    classes: ClassMap
    spec: InputSpec
    window: Side
    metrics: dict[str, Any] = field(default_factory=dict)
    step: Count = 0
    trunk: Trunk | None = None
    commit: str = ""
    version: str = __version__
    data: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    start: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    weights: str | None = None
    alignment: Alignment | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        bands, wanted = len(self.spec.channels), self.config.model.in_channels
        if bands != wanted:
            raise ValueError(f"{bands} bands for a model of {wanted}")
        _check_spec(self.spec)
        if not (np.isfinite(self.scales).all() and min(self.scales) > 0):
            raise ValueError(f"augment.scale is {self.scales}")
        if self.calibration and len(self.calibration.bias) not in (0, len(self.classes)):
            raise ValueError(f"{len(self.calibration.bias)} biases, {len(self.classes)} classes")
        return self

    @property
    def confidence(self) -> str:
        """How far the scores are probabilities, in words."""
        return str(self.calibration) if self.calibration else "not calibrated"

    @property
    def scales(self) -> tuple[float, float]:
        """Lowest and highest magnification of the training's crops."""
        return self.config.augment.scale

    def portable(self) -> Self:
        """Return what may leave this machine: names of files, not their paths; no run's state."""
        values = self.config.model_dump(mode="json")
        encoder, objective = values["model"]["encoder"], values["objective"]
        for home, key in (
            (encoder, "weights"),
            (objective["distill"], "teacher"),
            (objective["lossnet"] or {}, "weights"),
            (values["train"], "start"),
            (values["data"], "corrections"),
        ):
            if home.get(key) and not home[key].startswith("hf:"):
                home[key] = Path(home[key]).name
        objective["distill"]["cache"] = None
        return replace(self, config=RunConfig.model_validate(values), progress={})

    def to_json(self) -> str:
        """Return the text."""
        values = TypeAdapter(type(self)).dump_python(self, mode="json")
        told = {k: v for k, v in values.items() if v is not None}
        return json.dumps({"format": FORMAT, **told}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read the text of this terradapt or of any before it.

        Args:
            text: What a file holds under :data:`KEY`.
            source: The file, for the errors.

        Raises:
            CheckpointError: Not written by terradapt, damaged, or of a newer terradapt.
        """
        try:
            values = from_json(text)
            if not isinstance(values, dict):
                raise ValueError("no mapping of keys")
            found: Self = TypeAdapter(cls).validate_python(_migrated(values, source))
        except (ValueError, DataError) as error:
            raise CheckpointError(
                f"{source}: its metadata is damaged, or not terradapt's ({_reason(error)})",
                "use a checkpoint.safetensors or model.onnx that terradapt wrote, and its newest "
                "version",
            ) from error
        return found


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Exported(Meta):
    """What an exported model says of itself: its checkpoint's words and its own.

    Attributes:
        window: Side of a window, px.
        multiple: Sides must be multiples of this, px; the window when the size is fixed.
        parameters: All parameters of the exported graph.
        precision: Of its weights.
        argmax: True where the graph ends in class ids, for other programs; else None.
        exported_by: terradapt's version, of the exporter.
    """

    multiple: Side
    parameters: Count
    precision: Literal["fp32", "int8"] = "fp32"
    argmax: Literal[True] | None = None
    exported_by: str = __version__

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.window % self.multiple:
            raise ValueError(f"window {self.window} px in multiples of {self.multiple}")
        return self

    @property
    def fixed(self) -> bool:
        """Whether the graph takes windows of one size only."""
        return self.window == self.multiple


def read_meta(path: str | Path) -> Meta:
    """Read what a checkpoint says of itself, without its weights and without torch.

    Raises:
        CheckpointError: Missing, truncated, a pickle, or not written by terradapt.
        MissingExtraError: safetensors is not installed.
    """
    path = Path(path)
    try:
        with path.open("rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror})",
            "give a checkpoint.safetensors",
        ) from error
    if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
        raise CheckpointError(
            f"{path}: is a pickle, which can run code when it is loaded; it was not opened",
            "use a checkpoint.safetensors that terradapt wrote",
        )
    if find_spec("safetensors") is None:
        raise MissingExtraError(f"{path.name} (a torch checkpoint)", "train")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    return Meta.from_json(metadata.get(KEY, "null"), str(path))


def damaged(path: Path, error: Exception) -> CheckpointError:
    """Return what is said of a checkpoint that is no safetensors file, or not a whole one."""
    return CheckpointError(
        f"{path}: is no whole safetensors file ({error})", "copy it again, or use last.safetensors"
    )


def code_commit() -> str:
    """Return the commit of the running code, "" when it is not a checkout."""
    here = str(Path(__file__).resolve().parent)
    tracked = ["git", "-C", here, "ls-files", "--error-unmatch", __file__]
    command = ["git", "-C", here, "rev-parse", "--short=12", "HEAD"]
    try:
        subprocess.run(tracked, check=True, capture_output=True, timeout=10)
        return subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _migrated(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Bring a text's values to today's form: the one place that knows older ones."""
    kind = values.pop("format", None)
    if type(kind) is int and kind > FORMAT:
        version = " ".join(str(values.get("version", "unknown")).split())[:40]
        raise CheckpointError(
            f"{source}: was written by a newer terradapt ({version}), this is {__version__}",
            "update terradapt, from where it was installed",
        )
    if kind in FIRST_FORMATS:
        if isinstance(values.get("classes"), dict):
            values["classes"].pop("ignore", None)
    elif type(kind) is not int or kind != FORMAT:
        raise ValueError(f"format {str(kind)[:40]!r}")
    return values


def _check_spec(spec: InputSpec) -> None:
    bands, channels = len(spec.bands), len(spec.channels)
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    if bands == 0 or min(spec.bands) < 1 or len(spec.band_names) not in (0, bands):
        raise ValueError(f"bands {spec.bands} with the names {spec.band_names}")
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ValueError(f"{len(mean)} means and {len(std)} deviations for {channels} bands")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("mean or std is not usable")
    if spec.resolution is not None and not 0 < spec.resolution < float("inf"):
        raise ValueError(f"a resolution of {spec.resolution} m/px")
    if not _PIXELS.fullmatch(spec.dtype):
        raise ValueError(f"pixels of type {spec.dtype}")
    if spec.stretch is not None:
        _check_stretch(np.asarray(spec.stretch, float), bands)


def _check_stretch(pairs: np.ndarray[Any, np.dtype[np.float64]], bands: int) -> None:
    of_scene = pairs.ndim == 1  # percentiles; else raw units of each band
    shape = (2,) if of_scene else (bands, 2)
    usable = pairs.shape == shape and np.isfinite(pairs).all()
    if not usable or not (pairs[..., 0] < pairs[..., 1]).all():
        raise ValueError(f"a stretch of {pairs.tolist()} for {bands} bands")
    if of_scene and not (pairs[0] >= 0 and pairs[1] <= 100):
        raise ValueError(f"percentiles of {pairs.tolist()}")


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"terradapt {__version__} knows no '{where}'"
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
