"""What stands beside a class raster: figures per class, class names for GDAL, a QGIS style."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from terradapt.classes import ClassMap
from terradapt.errors import DataError
from terradapt.files import digest, read_json, write_together
from terradapt.grid import Window
from terradapt.raster import Layer, signature_of
from terradapt.scene.job import Job
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor
from terradapt.scene.stream import Block

_HECTARE = 10_000.0  # m2
_SPAN = 4096  # columns measured at a time
_RAMP = (
    ("0", "#440154"),
    ("0.25", "#3b528b"),
    ("0.5", "#21918c"),
    ("0.75", "#5ec962"),
    ("1", "#fde725"),
)  # viridis


def tags(classes: ClassMap) -> dict[str, str]:
    """Return the class raster's metadata: what the ids mean."""
    return {"TERRADAPT_CLASSES": json.dumps(classes.to_dict(), separators=(",", ":"))}


def confidence(predictor: Predictor) -> str:
    """Return how far a predictor's scores are probabilities, in words."""
    return predictor.meta.confidence if predictor.meta else "not calibrated"


def count(job: Job, block: Block) -> dict[str, list[float]]:
    """Return pixels and square metres of each class of a block, by id; the note of its row."""
    number, area = len(job.predictor.classes), block.window
    pixels, metres = np.zeros(256), np.zeros(256)
    for left in range(0, area.width, _SPAN):
        ids = block.classes[:, left : left + _SPAN]
        here = Window(area.row, area.col + left, *ids.shape)
        pixels += np.bincount(ids.ravel(), minlength=256)
        each = job.source.georef.pixel_areas(here)
        metres += np.bincount(ids.ravel(), each.ravel(), minlength=256)
    return {str(k): [int(pixels[k]), float(metres[k])] for k in np.flatnonzero(pixels[:number])}


def statistics(
    job: Job, notes: Sequence[Mapping[str, Sequence[float]]], out: Path, model: str
) -> dict[str, Any]:
    """Return pixels, share and hectares of every class.

    Args:
        job: The scene and the model.
        notes: What :func:`count` says of each block row.
        out: The class raster.
        model: Name of the model.
    """
    classes, source = job.predictor.classes, job.source
    pixels, area = [0] * len(classes), [0.0] * len(classes)
    for note in notes:
        for key, (counted, metres) in note.items():
            pixels[int(key)] += int(counted)
            area[int(key)] += metres
    valid = sum(pixels)
    rows = [
        {
            "id": i,
            "name": name,
            "colour": list(classes.colours[i]),
            "pixels": pixels[i],
            "share": pixels[i] / valid if valid else 0.0,
            "hectares": area[i] / _HECTARE if source.crs else None,
        }
        for i, name in enumerate(classes.names)
    ]
    return {
        "raster": out.name,
        "scene": str(source.path),
        "model": model,
        "confidence": confidence(job.predictor),
        "width": source.width,
        "height": source.height,
        "resolution": source.resolution,
        "crs": source.crs.to_string() if source.crs else None,
        "valid_pixels": valid,
        "nodata_pixels": source.width * source.height - valid,
        "classes": rows,
        "window": job.grid.window,
        "stride": job.grid.stride,
        "signature": job.signature,
        "stamp": signature_of(job.stamp),
        "notes": list(job.notes),
    }


def written_with(out: Path, options: PredictOptions) -> list[Path]:
    """Return the files that stand beside a class raster."""
    layers = ["scores"] * bool(options.scores) + ["confidence"] * options.confidence
    return [
        out.with_suffix(".qml"),
        out.with_suffix(".json"),
        out.with_name(out.name + ".aux.xml"),
        *([out.with_name(f"{out.stem}_confidence.qml")] * options.confidence),
        *(out.with_name(f"{out.stem}_{layer}.tif") for layer in layers),
    ]


def finished(job: Job, out: Path, layers: Mapping[str, Layer]) -> dict[str, Any] | None:
    """Return the statistics of a result of the same job whose rasters are all whole, else None.

    Its style and class names are made again where they are missing or cut short; others are left,
    for people edit styles, and QGIS adds to the names.
    """
    try:
        found: dict[str, Any] = read_json(out.with_suffix(".json"))
    except DataError:
        return None
    claimed = found.get("signature"), found.get("stamp"), found.get("check")
    if claimed != (job.signature, signature_of(job.stamp), _check(found)):
        return None
    if found.get("files") != _recorded(layers.values()):
        return None
    texts = _texts(out, job.predictor.classes, layers)
    write_together({p: t for p, t in texts.items() if not _is_whole(p, t)})
    return found


def may_be_of(job: Job, out: Path) -> bool:
    """Tell whether a result may be made again: its figures do not say that it is another job's."""
    try:
        return bool(read_json(out.with_suffix(".json")).get("signature") == job.signature)
    except DataError:
        return True


def write(
    out: Path, classes: ClassMap, figures: Mapping[str, Any], layers: Mapping[str, Layer]
) -> dict[str, Any]:
    """Write ``.qml``, ``.tif.aux.xml`` and, last, ``.json``, which says that all is done.

    Args:
        out: The class raster.
        classes: Its classes.
        figures: What :func:`statistics` returned.
        layers: The rasters by name, all written; one named ``confidence`` gets a style too.

    Returns:
        The figures with size and SHA-256 of each raster, as the JSON file holds them.

    Raises:
        OutputError: One of them cannot be written.
    """
    whole = {**figures, "files": _recorded(layers.values())}
    whole["check"] = _check(whole)
    figures_file = {out.with_suffix(".json"): json.dumps(whole, indent=2) + "\n"}
    write_together({**_texts(out, classes, layers), **figures_file})
    return whole


def _texts(out: Path, classes: ClassMap, layers: Mapping[str, Layer]) -> dict[Path, str]:
    texts = {
        out.with_suffix(".qml"): qml(classes),
        out.with_name(out.name + ".aux.xml"): aux_xml(classes),
    }
    if "confidence" in layers:
        texts[layers["confidence"].path.with_suffix(".qml")] = confidence_qml()
    return texts


def _recorded(layers: Iterable[Layer]) -> dict[str, Any]:
    """Return size and SHA-256 of each raster; empty for one that is not there."""
    told: dict[str, Any] = {}
    for path, scratch in ((layer.path, layer.scratch) for layer in layers):
        told[path.name] = {"bytes": path.stat().st_size} if path.is_file() else {}
        if told[path.name] and not scratch:
            told[path.name]["sha256"] = digest(path)
    return told


def _is_whole(path: Path, text: str) -> bool:
    """Tell whether a file ends with the tag that its text ends with."""
    end = text.splitlines()[-1].encode()
    return path.is_file() and path.read_bytes().rstrip().endswith(end)


def _check(figures: Mapping[str, Any]) -> str:
    """Return the hash of the figures, which a changed file of figures does not have."""
    return signature_of({k: v for k, v in figures.items() if k != "check"})


def qml(classes: ClassMap) -> str:
    """Return a QGIS style: one colour and label per class."""
    entries = "\n".join(
        f'        <paletteEntry value="{i}" color="#{r:02x}{g:02x}{b:02x}" alpha="255" '
        f"label={quoteattr(name)}/>"
        for i, (name, (r, g, b)) in enumerate(zip(classes.names, classes.colours, strict=True))
    )
    return _raster_style(
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" '
        'nodataColor="">\n      <colorPalette>\n'
        f"{entries}\n"
        "      </colorPalette>\n    </rasterrenderer>\n"
    )


def confidence_qml() -> str:
    """Return a QGIS style: probabilities from dark (unsure) to light."""
    items = "\n".join(
        f'          <item value="{value}" label="{value}" color="{colour}" alpha="255"/>'
        for value, colour in _RAMP
    )
    return _raster_style(
        '    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" '
        'classificationMin="0" classificationMax="1" nodataColor="">\n'
        '      <rastershader>\n        <colorrampshader colorRampType="INTERPOLATED" '
        'classificationMode="1" clip="0" minimumValue="0" maximumValue="1">\n'
        f"{items}\n"
        "        </colorrampshader>\n      </rastershader>\n    </rasterrenderer>\n"
    )


def _raster_style(renderer: str) -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.28.0" styleCategories="Symbology">\n  <pipe>\n{renderer}'
        "  </pipe>\n  <blendMode>0</blendMode>\n</qgis>\n"
    )


def aux_xml(classes: ClassMap) -> str:
    """Return GDAL's persistent metadata: category names and a raster attribute table."""
    names = "".join(f"      <Category>{escape(n)}</Category>\n" for n in classes.names)
    fields = (("Value", 0, 0), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    columns = "".join(
        f'      <FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>\n"
        for i, (name, kind, usage) in enumerate(fields)
    )
    rows = "".join(
        f'      <Row index="{i}"><F>{i}</F><F>{escape(name)}</F>'
        + "".join(f"<F>{part}</F>" for part in classes.colours[i])
        + "</Row>\n"
        for i, name in enumerate(classes.names)
    )
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n'
        f"    <CategoryNames>\n{names}    </CategoryNames>\n"
        f'    <GDALRasterAttributeTable tableType="thematic">\n{columns}{rows}'
        "    </GDALRasterAttributeTable>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
