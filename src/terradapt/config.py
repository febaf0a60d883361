"""RunConfig and its parts on one page; recipes are YAML files of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from importlib import resources
from inspect import isclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from terradapt.documents import parse_pairs, parse_yaml, validated
from terradapt.errors import ConfigError, first_error, one_of
from terradapt.files import read_text

_ALIKE = 0.6  # of 1: a key is asked about
Pair = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Stretch = tuple[Pair, ...] | Pair
"""One (low, high) per band, raw units: fixed. A single (low, high): percentiles of each scene."""


def _rising(pair: Pair) -> Pair:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("two factors above 0 are needed, the lower one first")
    return pair


Scales = Annotated[Pair, AfterValidator(_rising)]
"""Lowest and highest magnification."""

Context = Literal[0, 2, 4, 8]
"""How many times as wide as a window the ground is that a model sees around it; 0: none."""


OCTAVE = 16
"""Steps of :meth:`InputSpec.level` to a doubling of the metres per pixel."""
Channels = tuple[tuple[int, int], ...]
"""What each channel of an input shows: a band, and px to the side of a cell; (0, 0): the scale."""


def _channels(bands: tuple[int, ...], context: int, film: bool) -> Channels:
    sides = (1, context) if context else (1,)
    return tuple((band, side) for side in sides for band in bands) + ((0, 0),) * film


NOT_ARCHITECTURE = {
    "name",
    "weights",
    "depth",
    "in_channels",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "out_indices",
    "in_chans",
    "num_classes",
    "scriptable",
    "exportable",
}
"""Arguments of timm.create_model that load files or change the contract: never from a config."""


class ConfigPart(BaseModel):
    """One part of a config: unknown keys are errors, numbers are finite, values are frozen.

    A key's comment is its line in docs/config.md: ``# [unit] meaning``.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class InputSpec(ConfigPart):
    """How raw pixels become a model's input; stored in every checkpoint.

    A model sees uint8 bands (B, C, H, W). The scene reader applies ``stretch`` to imagery that is
    not 8 bit, so that prediction repeats what training did; the predictor alone applies
    ``(x / 255 - mean) / std``. With ``context`` the bands come twice: of the window, and then of
    the ground around it, as :meth:`terradapt.raster.Scene.look` reads them. With ``film`` one more
    channel holds :meth:`level` at every pixel.
    """

    bands: tuple[int, ...] = (1, 2, 3)  # 1-based band indexes in the file
    band_names: tuple[str, ...] = ()  # of the bands, "" where unknown; () where all are
    dtype: str = "uint8"  # of the training files
    stretch: Stretch | None = None  # None: 8 bit as it is
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resolution: float | None = None  # metres per pixel at training
    grow_void: int = Field(0, ge=0, le=1024)  # px next to what is hidden that are hidden too
    context: Context = 0  # width of the ground around, in windows
    film: bool = False  # the last channel is the scale

    @property
    def channels(self) -> Channels:
        """What each channel of the model's input shows."""
        return _channels(self.bands, self.context, self.film)

    def level(self, metres: float | None = None) -> int:
        """Return metres per pixel in steps of a sixteenth of an octave, 128 for 1 m, as 0..255.

        Where nobody knows the metres, they are those of the training.
        """
        known = metres or self.resolution or 1.0
        return min(max(round(128 + OCTAVE * math.log2(known)), 0), 255)

    @property
    def ranges(self) -> tuple[Pair, ...] | None:
        """The fixed (low, high) of each band in raw units; None for another stretch, or none."""
        return tuple(pair for pair in self.stretch or () if isinstance(pair, tuple)) or None

    @property
    def percentiles(self) -> Pair | None:
        """The (low, high) percentiles that each scene is stretched between, 0..100, or None."""
        match self.stretch:
            case (float(low), float(high)):
                return low, high
        return None


class EncoderConfig(ConfigPart):
    """The encoder: a timm or smp backbone, or SAM2's Hiera with adapters."""

    name: str = "efficientnet_b0"  # timm or smp name, sam2_hiera_*, or own: the model's own
    weights: str | None = None  # a local file, "hub" for timm's hub weights, or none for random
    # (the weights of mit_b0..b5 are NVIDIA's, for research only)
    adapters: bool = True  # train adapters in the trunk; SAM2 trunks only
    adapter_width: int = Field(32, ge=1)  # [channels] inside an adapter
    adapter_activation: Literal["gelu", "relu"] = "gelu"  # inside an adapter
    freeze: bool | None = None  # none: a trunk with adapters is frozen, all else trains
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, slower
    context: Context = 0  # [windows] width of the ground around that the bands' second half shows;
    # the run sets it from data.context
    film: bool = False  # scale the maps of each stage by the logarithm of the metres per pixel,
    # which come as one more channel
    args: dict[str, Any] = {}  # further arguments of the timm architecture

    @field_validator("name")
    @classmethod
    def _no_address(cls, name: str) -> str:
        if ":" in name or "/" in name:
            raise ValueError("an encoder's name is an architecture, not an address")
        return name

    @field_validator("args")
    @classmethod
    def _no_loading(cls, args: dict[str, Any]) -> dict[str, Any]:
        refused = sorted(set(args) & NOT_ARCHITECTURE)
        if refused:
            raise ValueError(f"{', '.join(refused)}: use encoder.weights and model.in_channels")
        return args


class ModelConfig(ConfigPart):
    """A model of the registry with its options."""

    name: str = "kd-arafnet"  # a name of terradapt models
    encoder: EncoderConfig = EncoderConfig()
    in_channels: int = Field(3, ge=1)  # [bands] that the model takes; the run sets it from
    # data.bands and data.context
    options: dict[str, Any] = {}  # checked by the model's own Options


class DataConfig(ConfigPart):
    """What is read from the images, and how they are split."""

    crop: int = Field(512, ge=32)  # [px] side of the square that a step sees
    bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 3)
    # 1-based indexes in the files, in the model's order
    stretch: Stretch | None = None  # (low, high) per band, raw units, or one pair of percentiles of
    # each scene; none: found in the train split
    context: Context = 0  # [crops] width of the ground around each that the model sees too, as
    # further channels; 0: none
    resolution: float | None = Field(None, gt=0)  # [m/px] to resample to; none: native
    grow_void: int = Field(0, ge=0, le=1024)  # [px] next to nodata that lossy compression blurred
    val_fraction: float = Field(0.15, ge=0, lt=1)  # of the images, where no splits are given
    test_fraction: float = Field(0.15, ge=0, lt=1)  # of the images, where no splits are given
    split_seed: int = Field(0, ge=0)  # of drawn splits
    balance: float = Field(0.0, ge=0, le=1)  # share of crops centred on a class drawn uniformly
    line_width: float = Field(6.0, gt=0)  # [m] buffer of line labels
    class_column: str | None = None  # of a vector label file; none: found
    align: Literal["auto", "none"] = "none"  # auto: labels that surely lie beside their images are
    # moved onto them
    corrections: str | None = None  # a vector file above the labels, or the only labels
    unlabelled: str | None = None  # a folder of further images, of which nothing is labelled
    background: Literal["ignore", "class"] | None = None  # ground without a feature; none: see
    # data.md
    workers: int = Field(2, ge=0)  # [processes] that read ahead; 0: none


class AugmentConfig(ConfigPart):
    """Augmentations of protocols.md section 3; probabilities 0..1, strengths as factors."""

    hflip: Share = 0.5  # probability of a mirrored crop, left to right
    vflip: Share = 0.5  # probability of a mirrored crop, top to bottom
    rot90: bool = True  # turn by 0, 90, 180 or 270 degrees
    rotate: float = Field(0.0, ge=0, le=180)  # [degrees] uniform in +-
    scale: Scales = (0.5, 1.5)  # lowest and highest magnification of the random crop
    brightness: Share = 0.2  # strength: factors 1 +- this
    contrast: Share = 0.2  # strength: factors 1 +- this
    saturation: Share = 0.1  # strength: factors 1 +- this
    sharpness: Share = 0.1  # probability of light sharpening


class LossNetConfig(ConfigPart):
    """Frozen ImageNet features of prediction and mask (SAM2MS)."""

    name: Literal["resnet50", "vgg16"] = "resnet50"
    # the network; where no key of lossnet is given there is none
    form: Literal["paper", "release"] = "paper"  # of the loss
    weights: str | None = None  # a local file of ImageNet weights; none or "hub": timm's
    weight: float | None = None  # none: 1 for paper, 0.1 for release


class DistillConfig(ConfigPart):
    """DIST (ARAFNet Eqs 6-8), Hinton's KL, or channel-wise distillation."""

    teacher: str | None = None  # a checkpoint; none: the one that the run starts from
    where: Literal["labelled", "unlabelled", "all", "auto"] = "labelled"  # pixels with a soft loss;
    # auto: unlabelled ones, and no teacher where images to train on have labels beside corrections
    loss: Literal["dist", "kl", "cwd"] = "dist"  # two classes: kl uses all that the teacher says;
    # cwd: where in the image a class is
    temperature: float = Field(0.5, gt=0)  # both sides' logits are divided by it
    beta: float = 1.0  # weight of DIST between classes
    gamma: float = 1.0  # weight of DIST within classes
    t_squared: bool = False  # multiply the soft loss by the temperature squared
    hard: float = 1.0  # weight of the hard-label loss
    soft: float = 1.0  # weight of the loss against the teacher
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the teacher
    cache: str | None = None  # folder for teacher logits; none: computed anew
    cache_gb: float = Field(20.0, gt=0)  # [GB] of the whole folder, all runs together


class ConsistencyConfig(ConfigPart):
    """Unlabelled images: a strong view must be called what the averaged model calls a weak one."""

    weight: float = Field(1.0, ge=0)  # of the unlabelled images' loss, when it has risen
    begin: Share = 0.5  # share of the run that labelled crops alone have
    ramp: Share = 0.2  # share of the run in which the weight then rises from 0
    threshold: Share = 0.95  # least confidence with which the averaged model is believed
    relative: bool = False  # threshold lower for classes of which the averaged model is less sure
    shares: Share = 0.0  # how far the averaged model's classes are brought to the labels' shares
    views: Literal[1, 2] = 1  # strong views of each unlabelled crop
    dropout: Share = 0.0  # of the encoder's channels in one more view; 0: no such view
    colour: Share = 0.5  # strength of brightness and contrast in a strong view, half for saturation
    blur: Share = 0.5  # probability of a blurred strong view
    cutmix: Share = 0.5  # probability that a box of a strong view shows another crop


class ObjectiveConfig(ConfigPart):
    """What is minimised."""

    name: Literal["supervised", "structure", "distill", "consistency"] = "supervised"
    # what is minimized; consistency and distill learn from data.unlabelled too
    ce: float = 1.0  # weight of the cross-entropy
    dice: float = 1.0  # weight of the Dice loss
    aux: float = 0.4  # weight of the auxiliary head's loss
    relation: float = 0.0  # weight of attention along lines, where the model tells it (slcnet: 10)
    connectivity: float = 0.4  # weight of Seg-Road's branches
    skeleton_recall: float = Field(0.0, ge=0)  # weight, two classes: the middle of a road is found
    cldice: float = Field(0.0, ge=0)  # weight, two classes: roads hang together, none is invented
    cldice_iterations: int = Field(10, ge=1)  # [px] half the width of the widest road
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    # of the cross-entropy: numbers, one a class, or by frequency
    corrections: float = Field(0.0, ge=0)  # weight of the mean over corrected pixels, beside the
    # mean over older labels; 0: one mean over all pixels
    reproduce_release: bool = False  # structure loss with SAM2MS's reduce='none' slip
    lossnet: LossNetConfig | None = None
    distill: DistillConfig = DistillConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()


class OptimConfig(ConfigPart):
    """AdamW with two parameter groups and a cosine schedule."""

    lr: float = Field(6e-4, gt=0)  # of the decoder, at the peak
    lr_backbone: float | None = Field(None, ge=0)  # of backbone and adapters; none: as the decoder
    weight_decay: float = Field(0.01, ge=0)  # none on bias and norm
    min_lr: float = Field(0.0, ge=0)  # absolute, where the cosine ends
    warmup: int = Field(0, ge=0)  # [steps] of rising rate
    clip: float | None = Field(None, gt=0)  # greatest gradient norm; none: unclipped


class TrainConfig(ConfigPart):
    """Length, batch, precision, cadence."""

    start: str | None = None  # a run or checkpoint to begin with: its model, classes joined by name
    batch: int = Field(8, ge=1)  # [crops] in a step
    accumulate: int = Field(1, ge=1)  # [batches] whose gradients make one step
    epochs: int = Field(50, ge=1)  # [epochs] in all
    steps_per_epoch: int | None = Field(None, ge=1)  # [steps] none: crops that cover the images
    # once
    val_every: int = Field(1, ge=1)  # [epochs] between validations
    save_every: int = Field(200, ge=1)  # [steps] between saved states
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"  # of the arithmetic; auto: what is
    # faster here
    compile: bool = False  # compile the model with torch: faster after a slow start
    channels_last: bool = True  # memory layout of images and weights
    ema: float | None = Field(None, ge=0, lt=1)  # decay of an average of weights, then validated
    seed: int = Field(42, ge=0, lt=1 << 63)  # of every random number
    monitor: str = "miou"  # the best checkpoint has its maximum
    deterministic: bool = True  # the same numbers again on the same machine, perhaps slower
    calibrate: Literal["temperature", "bias", "none"] = "temperature"  # of the confidence, on val,
    # when all is done
    bundle: bool = False  # store a frozen trunk inside the checkpoint instead of naming it


class RunConfig(ConfigPart):
    """Everything that a run needs beside its data."""

    name: str = "run"  # of the run, for reports
    description: str = ""  # one line for people
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @property
    def channels(self) -> Channels:
        """As :attr:`InputSpec.channels`."""
        return _channels(self.data.bands, self.data.context, self.model.encoder.film)

    def with_overrides(self, overrides: Sequence[str]) -> RunConfig:
        """Return a copy with ``key=value`` overrides, dotted keys, YAML values.

        ``encoder.weights=FILE`` is short for ``model.encoder.weights=FILE``: a key whose first
        part is not one of the page's is looked for in ``model``, then in ``train``.

        Raises:
            ConfigError: No such key, no YAML, or a value of the wrong kind.
        """
        return self.with_values(parse_pairs(overrides, "train.epochs=10"))

    def with_values(self, changes: Mapping[str, Any]) -> RunConfig:
        """Return a copy with values at dotted keys; options do not follow to another model.

        Raises:
            ConfigError: No such key, or a value of the wrong kind.
        """
        values = self.model_dump()
        if changes.get("model.name", self.model.name) != self.model.name:
            values["model"]["options"] = {}
        for key, value in changes.items():
            _assign(values, key, value)
        return _validated(values, "overrides")

    def to_yaml(self) -> str:
        """Return the whole config as YAML, keys in the page's order."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_config(source: str | Path) -> RunConfig:
    """Read a recipe by name, or a YAML file by path.

    Raises:
        ConfigError: No such recipe or file, no YAML, an unknown key or a wrong value.
    """
    name = str(source)
    if name in recipe_names():
        text = (resources.files("terradapt.recipes") / f"{name}.yaml").read_text("utf-8")
    elif Path(name).is_file():
        text = read_text(name, ConfigError, "give a recipe as YAML")
    else:
        raise ConfigError(
            f"no recipe or file '{name}'",
            one_of(name, recipe_names(), "use a YAML file or one of: "),
        )
    return parse_config(text, name)


def parse_config(text: str, source: str) -> RunConfig:
    """Read a config from YAML text; ``source`` names it in errors.

    Raises:
        ConfigError: No YAML, an unknown key or a wrong value.
    """
    values = parse_yaml(text, source, ConfigError, "mend that line") or {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: no mapping of keys", "start from: terradapt recipes landcover"
        )
    return _validated(values, source)


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, sorted."""
    folder = resources.files("terradapt.recipes")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """Return a packaged recipe's YAML with its header comment."""
    load_config(name)
    return (resources.files("terradapt.recipes") / f"{name}.yaml").read_text("utf-8")


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    home: dict[str, Any] = values
    if parts[0] not in values:
        home = next((values[s] for s in ("model", "train") if parts[0] in values[s]), values)
    for depth, part in enumerate(parts[:-1]):
        if not isinstance(home.get(part), dict):
            if home.get(part, 0) is not None:
                where = ".".join(parts[: depth + 1])
                raise ConfigError(f"no config key '{key}' ('{where}' holds no keys)", _fix(key))
            home[part] = {}
        home = home[part]
    free = {"options", "args", "lossnet"}
    if parts[-1] not in home and not (len(parts) > 1 and parts[-2] in free):
        raise ConfigError(f"no config key '{key}'", _fix(key))
    home[parts[-1]] = value


def config_keys(part: type[ConfigPart] = RunConfig, above: str = "") -> dict[str, FieldInfo]:
    """Return every dotted key of the page with its field, in the page's order."""
    keys: dict[str, FieldInfo] = {}
    for name, field in part.model_fields.items():
        kinds = [k for k in (field.annotation, *get_args(field.annotation)) if isclass(k)]
        below = next((k for k in kinds if issubclass(k, ConfigPart)), None)
        keys |= config_keys(below, f"{above}{name}.") if below else {f"{above}{name}": field}
    return keys


def _fix(key: str) -> str:
    """Return what to do about a key that there is not: the nearest by its last part, then all."""
    known = {p for k in config_keys() for p in accumulate(k.split("."), "{}.{}".format)}

    def likeness(one: str, other: str) -> float:
        if one.startswith(f"{other}_") or other.startswith(f"{one}_"):  # batch_size, batch
            return 0.9
        return SequenceMatcher(None, one.casefold(), other.casefold()).ratio()

    last = {k: likeness(key.rpartition(".")[2], k.rpartition(".")[2]) for k in sorted(known)}
    close = [k for k in last if last[k] >= _ALIKE]
    near = max(close, key=lambda k: last[k] + likeness(key, k), default="")
    meant = f"did you mean '{near}'? " if near else ""
    return f"{meant}see the keys in docs/config.md, RUN/config.yaml or: terradapt recipes landcover"


def _validated(values: dict[str, Any], source: str) -> RunConfig:
    try:
        return validated(RunConfig, values, source, ConfigError, _fix(""))
    except ConfigError as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError) and cause.errors()[0]["type"] == "extra_forbidden":
            key = first_error(cause)[0]
            raise ConfigError(f"{source}: no config key '{key}'", _fix(key)) from cause
        raise
