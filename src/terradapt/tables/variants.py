"""What the rows of the papers' tables are in terradapt, and their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from terradapt.config import ModelConfig
from terradapt.counts import ComplexityRow, counted_row
from terradapt.errors import ConfigError
from terradapt.models import MODELS, parse_options
from terradapt.models.arafnet import ABLATIONS
from terradapt.report.printed import PrintedRow, PrintedTable, load_tables

TRUNKS = {
    "Tiny": "sam2_hiera_tiny",
    "Small": "sam2_hiera_small",
    "Base+": "sam2_hiera_base_plus",
    "Large": "sam2_hiera_large",
}
STUDENTS = {
    "Efficientnet_b0 (Selected)": "efficientnet_b0",
    "Efficientnet_b1": "efficientnet_b1",
    "Mobilenetv3_large": "mobilenetv3_large_100",
    "Mobilenetv3_small": "mobilenetv3_small_100",
    "Resnet18": "resnet18",
    "Resnet50": "resnet50",
    "Segformer_b0": "mit_b0",
    "Segformer_b1": "mit_b1",
    "Ghostnetv3": "ghostnetv3_100",
}
ROADS = {
    "UNet": "unet",
    "UNet++": "unet++",
    "D-LinkNet": "d-linknet",
    "MSNet": "msnet",
    "M2SNet": "m2snet",
    "Seg-Road": "seg-road",
    "SwinUNet": "swin-unet",
    "SGCNNet": "sgcnnet",
    "MSMDFFNet": "msmdffnet",
    "SAM2UNet": "sam2-unet",
}
"""SAM2MS's names of the networks that it compares with."""
TEACHER = "sam2_hiera_large"
_TRAINING_ONLY = {"aux"}
ABSENT = "not in terradapt"
UNSPECIFIED = {
    "GCDNet": "no code of it is public, nor a description from which it could be built",
    "DMANet": (
        "its authors' repository holds no code, and the public part of its paper no architecture;"
        " its encoder is MaxViT by their words, not Swin"
    ),
}
"""Methods of the papers that cannot be built, and why; nothing else goes by their names."""


@dataclass(frozen=True)
class PaperVariant:
    """What a row of a paper is in terradapt.

    Attributes:
        model: Name in the registry.
        encoder: Its encoder.
        options: Its options where they are not the defaults.
        counted: Options of the published code whose counts the paper prints.
        adapters: Whether the trunk has adapters; None where that says nothing.
        distilled: Whether it learnt from a teacher; None: either.
        lossnet: ``none``, ``vgg16`` or ``resnet50``; None: any.
    """

    model: str
    encoder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    counted: Mapping[str, Any] = field(default_factory=dict)
    adapters: bool | None = None
    distilled: bool | None = None
    lossnet: str | None = None

    def fits(self, model: Mapping[str, Any]) -> bool:
        """Return whether a report's model is this one."""
        encoder, objective = model.get("encoder") or {}, model.get("objective") or {}
        distilled = bool((objective.get("distill") or {}).get("teacher"))
        lossnet = (objective.get("lossnet") or {}).get("name", "none")
        return (
            model.get("name") == self.model
            and encoder.get("name") == self.encoder
            and self.adapters in (None, encoder.get("adapters", True))
            and self.distilled in (None, distilled)
            and self.lossnet in (None, str(lossnet).casefold())
            and _options(self.model, model.get("options") or {})
            in (_options(self.model, self.options), _options(self.model, self.counted))
        )


def variant_of(table: PrintedTable, row: PrintedRow) -> PaperVariant | None:
    """Return what a printed row is in terradapt, None when terradapt has no such model."""
    name = row.names[0]
    if table.id.startswith("arafnet"):
        return arafnet_variant(table.number, name)
    if name.startswith("SAM2-"):
        return _sam2ms_ablation(table, row)
    if name.startswith("SAM2MS"):
        release = {"drb": "release"}
        return PaperVariant("sam2ms", TRUNKS["Large"], counted=release, adapters=True)
    model = ROADS.get(name.split(" (")[0])  # the rows have the year in brackets
    return PaperVariant(model, MODELS[model].encoder) if model else None


def absence_of(row: PrintedRow) -> str:
    """Return why terradapt has no model for a printed row."""
    why = UNSPECIFIED.get(row.names[0])
    return f"{ABSENT}: {why}" if why else ABSENT


@lru_cache(maxsize=64)
def _counted(model: str, encoder: str, options: tuple[tuple[str, Any], ...]) -> ComplexityRow:
    roads = MODELS[model].binary or model in ROADS.values()
    at: dict[str, Any] = {"classes": 2, "batch": 1, "size": 1024} if roads else {}
    known = counted_row(model, encoder, options=dict(options), **at)
    if known is not None:
        return known
    from terradapt import complexity

    return complexity.row(model, encoder, options=dict(options), **at)


def counts_of_tables() -> list[ComplexityRow]:
    """Return the rows that the papers' tables show counts of, each once."""
    found: dict[tuple[Any, ...], ComplexityRow] = {}
    for table in load_tables():
        if any(metric.startswith("complexity.") for _, metric in table.columns):
            for variant in filter(None, (variant_of(table, row) for row in table.rows)):
                key = (variant.model, variant.encoder, _all_options(variant))
                found[key] = _counted(*key)
    return list(found.values())


def _all_options(variant: PaperVariant) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted({**variant.options, **variant.counted}.items()))


def count_variant(variant: PaperVariant, what: str) -> float | None:
    """Count ``params`` (thop, millions), ``gmacs`` or ``size`` (float32 weights, MiB)."""
    row = _counted(variant.model, variant.encoder, _all_options(variant))
    figures = {
        "params": row.thop_parameters / 1e6,
        "gmacs": row.gmacs,
        "size": row.state_bytes / 2**20,
    }
    return figures.get(what)


def arafnet_variant(number: int, name: str) -> PaperVariant | None:
    """Return what a row of ARAFNet's is, None when terradapt has no such model."""
    teacher = PaperVariant("sam2-arafnet", TRUNKS["Large"], adapters=True)
    if name in ("SAM2-ARAFNet", "SAM2-ARAFNet (ours)", "SAM2"):
        return teacher
    if name in STUDENTS:
        return PaperVariant("kd-arafnet", STUDENTS[name], distilled=True)
    if name.startswith("KD-ARAFNet"):
        return PaperVariant("kd-arafnet", "efficientnet_b0", distilled="Distilled" in name)
    line = MODELS.get(name.casefold())
    if line is not None:
        return PaperVariant(name.casefold(), line.encoder)
    ablations = {k.casefold(): v for k, v in ABLATIONS.items()}
    if number == 6 and name.casefold() in ablations:
        return PaperVariant(
            "sam2-arafnet", TRUNKS["Large"], ablations[name.casefold()], adapters=True
        )
    return None


def _sam2ms_ablation(table: PrintedTable, row: PrintedRow) -> PaperVariant:
    marks = dict(zip(table.keys, row.names, strict=True))
    options: dict[str, Any] = {}
    if marks.get("DRB") == "off":
        options["drb"] = "none"
    if marks.get("MSSM") == "off":
        options["mssm"] = False
    return PaperVariant(
        "sam2ms",
        TRUNKS[row.names[0].removeprefix("SAM2-")],
        options,
        adapters=marks.get("adapter", "on") == "on",
        lossnet=marks["lossnet"].casefold() if "lossnet" in marks else None,
    )


def _options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A model's options in full, those left out that do not change the prediction."""
    try:
        parsed = parse_options(ModelConfig(name=model, options=dict(options)))
    except ConfigError:
        return {"unknown": dict(options)}
    return {k: v for k, v in parsed.model_dump().items() if k not in _TRAINING_ONLY}
