"""The tables of the two papers as trials: every row a method, the paper's settings the protocol."""

from __future__ import annotations

from typing import Any

from terradapt.report.printed import PrintedRow, PrintedTable, load_tables
from terradapt.tables.variants import absence_of, variant_of
from terradapt.trials.plan import Method, Trials

REFERENCES = {
    "arafnet-2": "SAM2-ARAFNet (ours)",
    "arafnet-4": "SAM2",
    "arafnet-5": "SAM2-ARAFNet",
    "arafnet-6": "SAM2-ARAFNet",
    "sam2ms-1": "SAM2MS (Ours)",
    "sam2ms-4": "SAM2-Large / on",
    "sam2ms-5": "SAM2-Large / on / ResNet50",
    "sam2ms-6": "SAM2-Large / on / on",
    "sam2ms-7": "SAM2MS (Ours)",
}
"""The packaged trials by the id of their table, each with the row that others are compared with."""
LOSSNETS: dict[str, dict[str, Any]] = {
    "none": {"objective.lossnet": None},
    "VGG16": {"objective.lossnet.name": "vgg16"},
    "ResNet50": {"objective.lossnet.name": "resnet50"},
}
OWN_TERMS: dict[str, dict[str, Any]] = {
    "slcnet": {"objective.relation": 10.0, "objective.aux": 0.05}
}
"""Terms of the loss that belong to a method, with the weights of its code."""


def packaged_names() -> list[str]:
    """Return the names of the packaged trials."""
    return list(REFERENCES)


def packaged_trials(name: str) -> Trials:
    """Return packaged trials by their name, one of :func:`packaged_names`."""
    table = next(t for t in load_tables() if t.id == name)
    methods = tuple(_method(table, row) for row in table.rows)
    reference = next(m for m in methods if m.name == REFERENCES[name])
    recipe = "arafnet-vaihingen" if name.startswith("arafnet") else "sam2ms-deepglobe"
    title = f"{table.source}: {table.title.lower()}"
    return Trials(name, title, recipe, methods, reference, table=table)


def _method(table: PrintedTable, row: PrintedRow) -> Method:
    alone = len({r.names[0] for r in table.rows}) == len(table.rows)
    name = row.names[0] if alone else " / ".join(row.names)
    variant = variant_of(table, row)
    if variant is None:
        return Method(name, absent=absence_of(row), printed=row)
    marks = dict(zip(table.keys, row.names, strict=True))
    changes: dict[str, Any] = {f"model.options.{k}": v for k, v in variant.options.items()}
    changes |= OWN_TERMS.get(variant.model, {})
    teacher = table.rows[0].names[0] if variant.distilled else ""
    if variant.distilled is False:
        changes["objective.distill.teacher"] = None
    if table.id in ("arafnet-2", "arafnet-4", "arafnet-5", "sam2ms-1", "sam2ms-7"):
        if variant.model == "kd-arafnet":
            changes["model.encoder.name"] = variant.encoder
        return Method(name, variant.model, changes, teacher, printed=row)
    if table.id == "sam2ms-4":
        adapted = {"model.encoder.adapters": marks["adapter"] == "on", "model.encoder.freeze": True}
        changes |= {"model.encoder.name": variant.encoder, **adapted}
    elif table.id == "sam2ms-5":
        changes |= LOSSNETS[marks["lossnet"]]
    elif table.id == "sam2ms-6":
        changes["model.options.mssm"] = marks["MSSM"] == "on"
    return Method(name, changes=changes, printed=row)
