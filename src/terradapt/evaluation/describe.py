"""What a checkpoint, a run's folder and this machine say of themselves, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.report import Reference
from terradapt.report.printed import DATA, load_tables


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from.

    Attributes:
        path: The checkpoint.
        model: Its model's config, ``{}`` when the file does not say.
        objective: Its training objective's config.
        trained_on: Name of its dataset, or "".
        commit: Commit of the code that trained it, or "".
        data: How its data was read and split.
    """

    path: str
    model: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    commit: str = ""
    data: DataConfig = field(default_factory=DataConfig)


def read_origin(path: str | Path) -> Origin:
    """Read where a checkpoint comes from; an exported model says its path alone.

    Raises:
        CheckpointError: No whole checkpoint.
    """
    if Path(path).suffix != ".safetensors":
        return Origin(str(path))
    from terradapt.checkpoint import read_meta

    meta = read_meta(path)
    return Origin(
        str(path),
        meta.config.model.model_dump(mode="json"),
        meta.config.objective.model_dump(mode="json"),
        meta.data,
        meta.commit,
        meta.config.data,
    )


def references(classes: ClassMap) -> list[Reference]:
    """Return the papers' own rows for land cover or roads, whichever the classes speak of."""
    wanted = {"sam2ms-1", "sam2ms-2", "sam2ms-3"} if _roads(classes) else {"arafnet-2", "arafnet-3"}
    if not _roads(classes):
        wanted |= {"arafnet-5"}
    return [
        Reference(f"{row.names[0]}, {DATA[table.data]}", row.fractions(table), table.source)
        for table in load_tables()
        if table.id in wanted
        for row in table.rows
        if "ours" in row.names[0].casefold() or row.names[0].startswith("KD-")
    ]


def _roads(classes: ClassMap) -> bool:
    return len(classes) == 2 and "road" in classes.names[1].casefold()
