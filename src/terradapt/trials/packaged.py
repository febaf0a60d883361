"""The ablation tables of the two papers as overrides of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from terradapt.errors import ConfigError, one_of
from terradapt.models.arafnet import ABLATIONS
from terradapt.report.printed import PrintedRow, PrintedTable, load_tables

TRUNKS = {
    "SAM2-Tiny": "sam2_hiera_tiny",
    "SAM2-Small": "sam2_hiera_small",
    "SAM2-Base+": "sam2_hiera_base_plus",
    "SAM2-Large": "sam2_hiera_large",
}
ADAPTERS = {
    "on": ("model.encoder.adapters=true", "model.encoder.freeze=true"),
    "off": ("model.encoder.adapters=false", "model.encoder.freeze=true"),
}
LOSSNETS = {
    "none": ("objective.lossnet=null",),
    "VGG16": ("objective.lossnet.name=vgg16",),
    "ResNet50": ("objective.lossnet.name=resnet50",),
}
MSSM = {"on": "model.options.mssm=true", "off": "model.options.mssm=false"}
DRB = {"on": (), "off": ("model.options.drb=none",)}


@dataclass(frozen=True, eq=False)
class Variant:
    """A row of the table.

    Attributes:
        row: As the paper prints it.
        overrides: What makes it, applied to the recipe after the user's own.
    """

    row: PrintedRow
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The row's names in one."""
        return " / ".join(self.row.names)

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        words = "".join(c if c.isalnum() else " " for c in self.name.casefold().replace("+", "p"))
        return "-".join(words.split())


@dataclass(frozen=True)
class Study:
    """An ablation table.

    Attributes:
        table: As printed.
        recipe: The paper's settings.
        variants: In the paper's order.
        full: The variant that the others are compared with.
    """

    table: PrintedTable
    recipe: str
    variants: tuple[Variant, ...]
    full: Variant

    def chosen(self, only: tuple[str, ...]) -> tuple[Variant, ...]:
        """Return the variants whose names hold one of some texts; all when there are none.

        Raises:
            ConfigError: A text that no variant's name holds.
        """
        for text in only:
            if not any(text.casefold() in v.name.casefold() for v in self.variants):
                names = "; ".join(v.name for v in self.variants)
                raise ConfigError(f"no variant '{text}' in {self.table.id}", f"use: {names}")
        wanted = [t.casefold() for t in only]
        return tuple(
            v for v in self.variants if not wanted or any(t in v.name.casefold() for t in wanted)
        )


def study_names() -> list[str]:
    """Return the names of the studies."""
    return ["arafnet-6", "sam2ms-4", "sam2ms-5", "sam2ms-6"]


def load_study(name: str) -> Study:
    """Return a study by the printed table's id, for example ``"arafnet-6"``.

    Raises:
        ConfigError: No such study.
    """
    if name not in study_names():
        raise ConfigError(f"no ablation table '{name}'", one_of(name, study_names()))
    table = next(t for t in load_tables() if t.id == name)
    variants = tuple(Variant(row, _overrides(table, row)) for row in table.rows)
    if name == "arafnet-6":
        return Study(table, "arafnet-vaihingen", variants, variants[0])
    return Study(table, "sam2ms-deepglobe", variants, variants[-1])


def _overrides(table: PrintedTable, row: PrintedRow) -> tuple[str, ...]:
    if table.id == "arafnet-6":
        switches = {k.casefold(): v for k, v in ABLATIONS.items()}
        options = switches.get(row.names[0].casefold(), {})
        return tuple(f"model.options.{k}={_yaml(v)}" for k, v in options.items())
    marks = dict(zip(table.keys, row.names, strict=True))
    if table.id == "sam2ms-4":
        name = f"model.encoder.name={TRUNKS[marks['backbone']]}"
        return (name, *ADAPTERS[marks["adapter"]])
    if table.id == "sam2ms-5":
        return LOSSNETS[marks["lossnet"]]
    return (MSSM[marks["MSSM"]], *DRB[marks["DRB"]])


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
