"""``classes.yaml`` or ``classes.json`` of a folder, and the classes that values alone suggest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from terradapt.classes import IGNORE, ROADS, ClassMap, Colour
from terradapt.data.labels import LabelForm
from terradapt.data.scan import LabelScan
from terradapt.errors import DataError

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json")
MOST_CLASSES = 64  # that values alone may suggest
_KEYS = {"names", "values", "colours", "colors", "ignore", "evaluated", "threshold"}
_EXAMPLE = "see docs/data.md; the shortest: names: [background, road]"


@dataclass(frozen=True)
class ClassFile:
    """What a folder's classes file states.

    Args:
        path: The file.
        classes: Names, colours and evaluated classes.
        values: Value of each class in the label files; None when not stated.
        coloured: Whether the file gives colours.
        ignored: Values read as 255.
        ignored_colours: Colours read as 255.
        threshold: Binary labels: values from here on are class 1.
    """

    path: Path
    classes: ClassMap
    values: tuple[int, ...] | None
    coloured: bool
    ignored: tuple[int, ...]
    ignored_colours: tuple[Colour, ...]
    threshold: int | None


def read_class_file(root: Path) -> ClassFile | None:
    """Read ``classes.yaml`` (or ``.yml``, ``.json``) of a folder; None when there is none.

    Keys: ``names`` (in the order of the ids), ``values`` (their values in the labels),
    ``colours``, ``ignore`` (values or colours), ``evaluated`` (names), ``threshold`` (binary).

    Raises:
        DataError: It is no such file.
    """
    path = next((root / n for n in CLASS_FILES if (root / n).is_file()), None)
    if path is None:
        return None
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no valid YAML or JSON", _EXAMPLE) from error
    if isinstance(values, list):
        values = {"names": values}
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{path}: no 'names'", _EXAMPLE)
    unknown = sorted(set(map(str, values)) - _KEYS)
    if unknown:
        raise DataError(f"{path}: unknown key '{unknown[0]}'", f"keys: {', '.join(sorted(_KEYS))}")
    try:
        return _class_file(path, values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}", _EXAMPLE) from error


def _class_file(path: Path, values: Mapping[str, Any]) -> ClassFile:
    names = tuple(str(n) for n in values["names"])
    colours = tuple(_colour(c) for c in values.get("colours") or values.get("colors") or ())
    evaluated = tuple(
        e if isinstance(e, int) else names.index(str(e)) for e in values.get("evaluated") or ()
    )
    ignore = values.get("ignore")
    ignore = [ignore] if isinstance(ignore, int) else ignore
    own = values.get("values")
    if own is not None and len(own) != len(names):
        raise ValueError(f"{len(own)} values for {len(names)} names")
    return ClassFile(
        path,
        ClassMap(names, colours, evaluated),
        tuple(int(v) for v in own) if own is not None else None,
        bool(colours),
        (IGNORE,) if ignore is None else tuple(v for v in ignore if isinstance(v, int)),
        ((0, 0, 0),)
        if ignore is None
        else tuple(_colour(c) for c in ignore if not isinstance(c, int)),
        int(values["threshold"]) if values.get("threshold") is not None else None,
    )


def _colour(value: Any) -> Colour:
    if isinstance(value, str) and len(value.lstrip("#")) == 6:
        packed = int(value.lstrip("#"), 16)
        return packed >> 16, (packed >> 8) & 255, packed & 255
    r, g, b = (int(v) for v in value)
    return r, g, b


def raster_labels(
    scans: Mapping[Path, LabelScan], stated: ClassFile | None, root: Path
) -> tuple[ClassMap, LabelForm]:
    """Return class map and label form of raster labels.

    Without a classes file: values 0 and 255 alone are background and road; else each value found
    is a class, in ascending order, and 255 and the files' nodata value are ignored.

    Raises:
        DataError: A value that is no class, colours without a classes file, or no two classes.
    """
    grey = all(_is_grey(scan) for scan in scans.values())
    counts = _totals(scans, grey)
    if not grey:
        return _colour_labels(scans, stated, root)
    if stated is None:
        return _found_classes(scans, counts, root)
    form = _stated_form(stated, counts)
    _check_known(scans, form, stated.classes, grey)
    return stated.classes, form


def _stated_form(stated: ClassFile, counts: Mapping[int, int]) -> LabelForm:
    if stated.threshold is not None:
        return LabelForm("binary", threshold=stated.threshold)
    if stated.values is None and len(stated.classes) == 2 and _is_binary(counts):
        return LabelForm("binary", {0: 0, 255: 1}, ())
    values = stated.values or tuple(range(len(stated.classes)))
    table = {v: i for i, v in enumerate(values)}
    return LabelForm("index", table, tuple(v for v in stated.ignored if v not in table))


def _found_classes(
    scans: Mapping[Path, LabelScan], counts: Mapping[int, int], root: Path
) -> tuple[ClassMap, LabelForm]:
    if _is_binary(counts):
        return ROADS, LabelForm("binary", {0: 0, 255: 1}, ())
    nodata = {int(s.nodata) for s in scans.values() if s.nodata is not None}
    ignored = {IGNORE, *nodata}
    values = sorted(v for v in counts if v not in ignored)
    if len(values) < 2:
        ignored = {IGNORE}
        values = sorted(v for v in counts if v not in ignored)
    if len(values) < 2 or len(values) > MOST_CLASSES or min(values) < 0 or max(values) > 255:
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        first = min(scans)
        raise DataError(
            f"{first.parent}: {len(values)} distinct label values ({shown}) are no class ids",
            f"write {root / 'classes.yaml'} with names (and values; for masks saved as JPEG also "
            f"threshold: 128), {_EXAMPLE}",
        )
    names = tuple(f"class {v}" for v in values)
    form = LabelForm("index", {v: i for i, v in enumerate(values)}, tuple(sorted(ignored)))
    return ClassMap(names), form


def _colour_labels(
    scans: Mapping[Path, LabelScan], stated: ClassFile | None, root: Path
) -> tuple[ClassMap, LabelForm]:
    if stated is None or not stated.coloured:
        path, scan = next((p, s) for p, s in sorted(scans.items()) if not _is_grey(s))
        raise DataError(
            f"{path}: is a colour label ({len(scan.counts)} colours), and no classes file says "
            "what its colours mean",
            f"write {root / 'classes.yaml'} with names and colours, one for each class",
        )
    form = LabelForm("colour", {}, (), stated.ignored_colours)
    _check_known(scans, form, stated.classes, grey=False)
    return stated.classes, form


def _check_known(
    scans: Mapping[Path, LabelScan], form: LabelForm, classes: ClassMap, grey: bool
) -> None:
    for _, error in _unknown(scans, form, classes, grey):
        raise error


def unknown_values(
    scans: Mapping[Path, LabelScan], stated: ClassFile
) -> list[tuple[Path, DataError]]:
    """Return an error for every label with values or colours that the classes file lacks."""
    grey = all(_is_grey(scan) for scan in scans.values())
    if not grey and not stated.coloured:
        return []
    form = LabelForm("colour", {}, (), stated.ignored_colours)
    if grey:
        form = _stated_form(stated, _totals(scans, grey))
    return list(_unknown(scans, form, stated.classes, grey))


def _unknown(
    scans: Mapping[Path, LabelScan], form: LabelForm, classes: ClassMap, grey: bool
) -> Iterator[tuple[Path, DataError]]:
    for path, scan in sorted(scans.items()):
        counts = _grey_counts(scan) if grey else scan.counts
        wrong = {v: n for v, n in counts.items() if form.class_of(v, classes) < 0}
        if wrong:
            value = max(wrong, key=wrong.__getitem__)
            shown = f"label value {value}"
            if form.kind == "colour":
                shown = f"colour {value >> 16},{(value >> 8) & 255},{value & 255}"
            error = DataError(
                f"{path}: {shown} is no class ({wrong[value]} pixels; {len(wrong)} unknown in all)",
                "mend the label, or add it to the classes file (a class, or 'ignore')",
            )
            yield path, error


def _is_binary(counts: Mapping[int, int]) -> bool:
    return set(counts) <= {0, 255} and 255 in counts


def _is_grey(scan: LabelScan) -> bool:
    return scan.bands < 3 or all(v >> 16 == (v >> 8) & 255 == v & 255 for v in scan.counts)


def _grey_counts(scan: LabelScan) -> dict[int, int]:
    return {v >> 16: n for v, n in scan.counts.items()} if scan.bands >= 3 else scan.counts


def _totals(scans: Mapping[Path, LabelScan], grey: bool) -> dict[int, int]:
    totals: dict[int, int] = {}
    for scan in scans.values():
        for value, number in (_grey_counts(scan) if grey else scan.counts).items():
            totals[value] = totals.get(value, 0) + number
    return totals
