"""What is tried: methods under one protocol, from a file or as a paper's table has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from terradapt.config import EncoderConfig, RunConfig, load_config, recipe_names
from terradapt.documents import parse_pairs, parse_yaml, validated
from terradapt.errors import ConfigError, one_of
from terradapt.files import read_text
from terradapt.models import OWN_ENCODER, entry, parse_options
from terradapt.report.printed import PrintedRow, PrintedTable

RESEARCH_ONLY = ("mit_b",)
"""Encoders whose weights a user must name: their licence allows research only."""
SIZE = 512
"""px, both sides of the image that a limit of work is counted at, unless a file says another."""


@dataclass(frozen=True, eq=False)
class Method:
    """One row: what is changed in the protocol.

    Attributes:
        name: For people.
        model: A name of the registry; "" for the recipe's, with its encoder and options.
        changes: Dotted keys of the config and values; applied last.
        teacher: Name of the method that this one learns from, seed by seed, or "".
        absent: Why it is not trained, or "".
        printed: The row of the paper, or None.
    """

    name: str
    model: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = ""
    absent: str = ""
    printed: PrintedRow | None = None

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        text = self.name.casefold().replace("+", "p")
        return "-".join("".join(c if c.isalnum() else " " for c in text).split())


@dataclass(frozen=True)
class Trials:
    """Methods and the protocol that is one for all.

    Attributes:
        name: In short.
        title: Of the table.
        recipe: Name or file of the settings.
        methods: In the table's order.
        reference: The method that the others are compared with.
        seeds: One run of each method with each.
        changes: Dotted keys of the recipe and values, for all.
        split: Split to evaluate; None: the first of test, val and train that has images.
        limit: Methods of more GMACs are told and not trained; None: none.
        size: px, both sides of the image that GMACs are counted at.
        always: Names of methods that are trained whatever their GMACs.
        table: As printed, where it is a paper's.
    """

    name: str
    title: str
    recipe: str
    methods: tuple[Method, ...]
    reference: Method
    seeds: tuple[int, ...] = (42,)
    changes: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    limit: float | None = None
    size: int = SIZE
    always: tuple[str, ...] = ()
    table: PrintedTable | None = None

    def method(self, name: str) -> Method:
        """Return a method by its name; capitals do not count.

        Raises:
            ConfigError: No such method.
        """
        for one in self.methods:
            if one.name.casefold() == name.casefold():
                return one
        names = [m.name for m in self.methods]
        raise ConfigError(f"no method '{name}' in {self.name}", one_of(name, names))

    def chosen(self, only: Sequence[str]) -> tuple[Method, ...]:
        """Return the methods whose names hold one of some texts, all when there are none.

        The reference is always among them, and so is the teacher of one that is.

        Raises:
            ConfigError: A text that no method's name holds.
        """
        wanted = [t.casefold() for t in only]
        for text in only:
            if not any(text.casefold() in m.name.casefold() for m in self.methods):
                names = [m.name for m in self.methods]
                raise ConfigError(f"no method '{text}' in {self.name}", one_of(text, names))
        kept = {m.name for m in self.methods if not only or _holds(m.name, wanted)}
        kept.add(self.reference.name)
        kept |= {m.teacher for m in self.methods if m.name in kept and m.teacher}
        return tuple(m for m in self.methods if m.name in kept)

    def protocol(self, overrides: Sequence[str] = (), recipe: str | None = None) -> RunConfig:
        """Return what holds for all methods: recipe, the file's changes, the user's overrides.

        Raises:
            ConfigError: No such recipe, or a change that cannot be used.
        """
        return (
            load_config(recipe or self.recipe).with_values(self.changes).with_overrides(overrides)
        )

    def config(
        self,
        method: Method,
        seed: int,
        overrides: Sequence[str] = (),
        recipe: str | None = None,
        out: Path | None = None,
    ) -> RunConfig:
        """Return the config of one run: recipe, file, the user's overrides, the method, the seed.

        Args:
            method: One of the methods.
            seed: Of all its random numbers.
            overrides: ``key=value``; ``{encoder}``, ``{size}`` and ``{lossnet}`` in a value stand
                for the method's, so that each finds its weights.
            recipe: Instead of the trials' own.
            out: Folder of the trials, below which a teacher's checkpoint lies.

        Raises:
            ConfigError: A change that cannot be used.
        """
        given = parse_pairs(overrides, "train.epochs=10")
        config = load_config(recipe or self.recipe).with_values(self.changes)
        changes = dict(method.changes)
        if method.model:
            config = _switched(config, method.model, changes.get("model.encoder.name"))
            if entry(method.model).encoder == OWN_ENCODER:
                changes |= {"model.encoder.name": OWN_ENCODER, "model.encoder.weights": None}
        config = config.with_values(given)
        if method.teacher:
            changes["objective.name"] = "distill"
            if config.objective.distill.teacher is None:
                teacher = self.method(method.teacher).slug
                path = (out or Path()).absolute() / teacher / f"seed-{seed}"
                changes["objective.distill.teacher"] = str(path / "checkpoint.safetensors")
        config = config.with_values({**changes, "train.seed": seed})
        config = RunConfig.model_validate(_filled(config.model_dump(), dict(_marks(config))))
        parse_options(config.model)
        return config.model_copy(update={"name": f"{self.name} {method.slug} seed {seed}"})

    def renewed(self, **changes: Any) -> Trials:
        """Return a copy with the values that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def _holds(name: str, texts: Sequence[str]) -> bool:
    return any(text in name.casefold() for text in texts)


def _switched(config: RunConfig, model: str, encoder: str | None) -> RunConfig:
    """A recipe's config with another model: its encoder is that of its paper, or the one named."""
    held = config.model
    name = encoder or (held.encoder.name if model == held.name else entry(model).encoder)
    changed = held.encoder
    if name != changed.name:
        unasked = name == OWN_ENCODER or name.startswith(RESEARCH_ONLY)
        changed = EncoderConfig(
            name=name,
            weights=None if unasked else changed.weights,
            adapters=changed.adapters,
            checkpointing=changed.checkpointing and name.startswith("sam2_hiera"),
        )
    switched = config.with_values({"model.name": model})
    own = switched.model.model_copy(update={"encoder": changed})
    return switched.model_copy(update={"model": own})


def _marks(config: RunConfig) -> Iterator[tuple[str, str]]:
    name = config.model.encoder.name
    yield "{encoder}", name
    yield "{size}", name.removeprefix("sam2_hiera_")
    yield "{lossnet}", config.objective.lossnet.name if config.objective.lossnet else ""


def _filled(value: Any, marks: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, marks) for k, v in value.items()}
    if isinstance(value, str):
        for mark, text in marks.items():
            value = value.replace(mark, text)
    return value


class _Limit(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gmacs: float = Field(gt=0)
    size: int = Field(SIZE, ge=32)
    always: list[str] = []


class _File(BaseModel):
    """A trials file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    title: str = ""
    recipe: str
    reference: str
    seeds: list[int] = Field([42], min_length=1)
    split: str | None = None
    limit: _Limit | None = None
    changes: dict[str, Any] = Field({}, alias="set")
    methods: dict[str, dict[str, Any] | None] = Field(min_length=1)


def read_trials(path: Path) -> Trials:
    """Read a trials file; docs/trials.md says what it holds.

    Raises:
        ConfigError: No YAML, a key or value that does not fit, an unknown method, model or recipe.
    """
    fix = "write name, recipe, reference and methods as docs/trials.md shows"
    text = read_text(path, ConfigError, fix)
    values = parse_yaml(text, path, ConfigError, "mend that line")
    if isinstance(values, dict) and isinstance(values.get("methods"), list):
        values = {**values, "methods": dict.fromkeys(map(str, values["methods"]))}
    held = validated(_File, values, path, ConfigError, fix)
    methods = tuple(_method(path, name, given or {}) for name, given in held.methods.items())
    slugs = [m.slug for m in methods]
    for method in methods:
        if not method.slug or slugs.count(method.slug) > 1:
            raise ConfigError(
                f"{path}: '{method.name}' has no folder of its own",
                "give each method a name that differs from the others in its letters or digits",
            )
    recipe = held.recipe
    if recipe not in recipe_names() and (path.parent / recipe).is_file():
        recipe = str(path.parent / recipe)
    limit = held.limit or _Limit(gmacs=float("inf"))
    trials = Trials(
        held.name,
        held.title or held.name,
        recipe,
        methods,
        methods[0],
        tuple(dict.fromkeys(held.seeds)),
        held.changes,
        held.split,
        limit.gmacs if held.limit else None,
        limit.size,
        tuple(limit.always),
    )
    for name in trials.always:
        trials.method(name)  # it is there
    for method in methods:
        if method.teacher and trials.method(method.teacher).teacher:
            raise ConfigError(
                f"{path}: the teacher of '{method.name}' has a teacher itself",
                "name a method without one",
            )
    return replace(trials, reference=trials.method(held.reference))


def _method(path: Path, name: str, given: dict[str, Any]) -> Method:
    inside = ("encoder", "options", "in_channels")  # short forms of the model's keys
    changes = {f"model.{k}" if k.split(".")[0] in inside else k: v for k, v in given.items()}
    teacher = str(changes.pop("teacher", None) or "")
    model = str(changes.pop("model.name", None) or name)
    try:
        entry(model)
    except ConfigError as error:
        raise ConfigError(f"{path}: method '{name}': {error.message}", error.fix) from error
    return Method(name, model, changes, teacher)
