"""Speeds that ``terradapt bench`` measured, for the papers' column of images per second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terradapt.errors import DataError, refusing
from terradapt.files import read_json

NAME = "bench.json"
_PREFERRED = ("torch",)  # the papers' own engine


@dataclass(frozen=True)
class Speeds:
    """Images per second of one engine on one machine.

    Attributes:
        path: File of the bench.
        rates: Images per second by encoder.
        engine: What ran the models.
        shape: Batch and size of the images.
        hardware: The machine.
    """

    path: Path
    rates: Mapping[str, float]
    engine: str
    shape: str
    hardware: str


def read_speeds(path: Path) -> Speeds:
    """Read the ``bench.json`` of ``terradapt bench``, or that of a folder.

    Torch's rows are taken, as the papers measured; without them those of the first engine.

    Raises:
        DataError: No such file, or no result of the bench.
    """
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: no such file", "measure it: terradapt bench -o DIR")
    fix = "give its bench.json, or the folder of it"
    with refusing(path, DataError, fix, "no result of terradapt bench"):
        values = read_json(path, fix=fix)
        rows = [r for r in values["rows"] if r["rate"] is not None]
        engines = list(dict.fromkeys(str(r["engine"]) for r in rows))
        engine = next((e for e in _PREFERRED if e in engines), engines[0])
        rates = {str(r["backbone"]): float(r["rate"]) for r in rows if r["engine"] == engine}
        return Speeds(path, rates, engine, _shape(values["options"]), str(values["hardware"]))


def find_speeds(folders: Sequence[Path | str]) -> Speeds | None:
    """Return the newest speeds below some folders, or None."""
    found = [p for folder in map(Path, folders) for p in folder.rglob(NAME)]
    for path in sorted(found, key=lambda p: (-p.stat().st_mtime, str(p))):
        try:
            return read_speeds(path)
        except DataError:
            continue
    return None


def _shape(options: Mapping[str, Any]) -> str:
    return f"a batch of {options['batch']} x 3 x {options['size']} x {options['size']}"
