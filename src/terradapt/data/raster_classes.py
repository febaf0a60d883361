"""Class map and label form of raster labels: as a classes file states, or as the values suggest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from terradapt.classes import IGNORE, ROADS, ClassMap
from terradapt.data.class_files import EXAMPLE, MOST_CLASSES, ClassFile
from terradapt.data.labels import ColourForm, IndexForm, RasterForm, ThresholdForm
from terradapt.data.scan import LabelScan
from terradapt.errors import DataError

Scans = Mapping[Path, LabelScan]
MASK = IndexForm({0: 0, 255: 1}, ())
"""The form of masks of 0 and 255."""


def raster_labels(
    scans: Scans, stated: ClassFile | None, root: Path
) -> tuple[ClassMap, RasterForm]:
    """Return class map and label form of raster labels.

    Without a classes file: values 0 and 255 alone are background and road; else each value found
    is a class, in ascending order, and 255 and what the files hide (nodata, alpha, masks) are
    ignored.

    Raises:
        DataError: A value that is no class, colours without a classes file, or no two classes.
    """
    coloured = next((p for p, scan in sorted(scans.items()) if not scan.is_grey), None)
    if coloured is not None and (stated is None or not stated.coloured):
        raise DataError(
            f"{coloured}: is a colour label ({len(scans[coloured].counts)} colours), and no "
            "classes file says what its colours mean",
            f"write {root / 'classes.yaml'} with names and colours, one for each class",
        )
    if stated is None:
        return _found_classes(scans, root)
    for _, error in unknown_labels(scans, stated):
        raise error
    return stated.classes, _stated_form(scans, stated)


def unknown_labels(scans: Scans, stated: ClassFile) -> Iterator[tuple[Path, DataError]]:
    """Yield an error for every label with values or colours that the classes file lacks."""
    form = _stated_form(scans, stated)
    if isinstance(form, ColourForm) and not stated.coloured:
        return
    for path, scan in sorted(scans.items()):
        counts = (scan if isinstance(form, ColourForm) else scan.first_band()).counts
        wrong = {v: n for v, n in counts.items() if form.class_of(v, stated.classes) < 0}
        if wrong:
            value = max(wrong, key=wrong.__getitem__)
            error = DataError(
                f"{path}: {form.named(value)} is no class ({wrong[value]} pixels; {len(wrong)} "
                "unknown in all)",
                "mend the label, or add it to the classes file (a class, or 'ignore')",
            )
            yield path, error


def _stated_form(scans: Scans, stated: ClassFile) -> RasterForm:
    if not all(scan.is_grey for scan in scans.values()):
        return ColourForm(stated.ignored_colours)
    if stated.threshold is not None:
        return ThresholdForm(stated.threshold)
    if stated.values is None and len(stated.classes) == 2 and _is_mask(_totals(scans)):
        return MASK
    table = {v: i for i, v in enumerate(stated.values or range(len(stated.classes)))}
    return IndexForm(table, tuple(v for v in stated.ignored if v not in table))


def _found_classes(scans: Scans, root: Path) -> tuple[ClassMap, IndexForm]:
    counts = _totals(scans)
    if _is_mask(counts):
        return ROADS, MASK
    values = sorted(v for v in counts if v != IGNORE)
    hidden = sorted({f"{s.nodata:g}" for s in scans.values() if s.hidden and s.nodata is not None})
    if len(values) < 2 and hidden:
        raise DataError(
            f"{min(scans).parent}: {len(values)} label values beside nodata ({', '.join(hidden)}), "
            "which is ignored",
            "if nodata is a class (background), take its mark away: gdal_edit.py -unsetnodata",
        )
    if len(values) < 2 or len(values) > MOST_CLASSES or min(values) < 0 or max(values) > 255:
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise DataError(
            f"{min(scans).parent}: {len(values)} distinct label values ({shown}) are no class ids",
            f"write {root / 'classes.yaml'} with names (and values; for masks saved as JPEG also "
            f"threshold: 128), {EXAMPLE}",
        )
    names = tuple(f"class {v}" for v in values)
    return ClassMap(names), IndexForm({v: i for i, v in enumerate(values)})


def _is_mask(counts: Mapping[int, int]) -> bool:
    return set(counts) <= {0, 255} and 255 in counts


def _totals(scans: Scans) -> dict[int, int]:
    totals: Counter[int] = Counter()
    for scan in scans.values():
        totals.update(scan.first_band().counts)
    return totals
