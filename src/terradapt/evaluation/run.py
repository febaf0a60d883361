"""evaluate: a predictor over a split of a dataset, whole images, one report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.classes import ClassMap
from terradapt.data import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.data.scan import is_labelled
from terradapt.data.splits import splits_digest
from terradapt.documents import read_log
from terradapt.errors import ConfigError, DataError
from terradapt.evaluation.counted import (
    as_trained,
    check_items,
    choose_threshold,
    counted_labels,
    road_of,
)
from terradapt.evaluation.describe import references
from terradapt.evaluation.joining import join_classes
from terradapt.evaluation.networks import LEGEND, NetworkScorer, draw_plate
from terradapt.evaluation.options import Protocol
from terradapt.evaluation.places import Place, choose_places, image_places
from terradapt.evaluation.predicting import Road, Trust, score_item
from terradapt.evaluation.resolution import check_resolution, resolution_notes
from terradapt.evaluation.scoring import Scorer
from terradapt.machine import hardware
from terradapt.meta import Meta
from terradapt.progress import Advance
from terradapt.report import Picture, Plate, Report
from terradapt.scene import Predictor

PICTURES = 6
PICTURE_SIDE = 512  # px
_TOLD = 4  # images whose values are looked at


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    split: str = "test",
    protocol: Protocol | None = None,
    *,
    checkpoint: str | Path = "",
    pictures: int = PICTURES,
    title: str = "",
    commit: str = "",
    facts: Mapping[str, str] | None = None,
    progress: Advance | None = None,
) -> Report:
    """Predict every image of a split whole and count it against its label.

    Args:
        predictor: The model.
        dataset: Labelled images, on which the model may or may not have been trained.
        split: Name of the split, or ``all``.
        protocol: What is counted; every labelled pixel as it is when missing.
        checkpoint: The model's file; the run's log beside it gives the curves.
        pictures: Places shown side by side.
        title: Heading of the report.
        commit: Commit of the running code.
        facts: Further lines for the report's run facts, for example the command.
        progress: Called with the pixels predicted.

    Returns:
        The report, not yet written.

    Raises:
        DataError: No such split, an image without a label, a label that does not fit its image or
            holds unknown values, or no common class.
        SceneError: An image cannot be read or does not fit the model.
        ConfigError: A resolution is asked for, and no image says its own; a threshold is to be
            chosen, and there are more than two classes.
    """
    protocol = protocol or Protocol()
    dataset = as_trained(dataset, predictor.meta, {split, protocol.threshold_from})
    full, dataset = dataset, counted_labels(dataset, split, protocol)
    items = dataset.split(split)
    joined = join_classes(dataset.classes, predictor.classes, protocol.match)
    road = road_of(joined, predictor.classes, protocol.road)
    check_resolution(items, protocol)
    check_items(dataset, items, predictor)
    if not is_labelled(dataset, items):
        raise DataError(
            f"{dataset.root}: no pixel of the split '{split}' is labelled, all are ignored",
            "evaluate a split with labels, or label its images",
        )
    if protocol.threshold_from is not None:
        chosen = choose_threshold(full, predictor, joined, protocol, road)
        protocol = replace(protocol, threshold=chosen)
    scorer = Scorer(joined.classes, protocol, road.joined if road else None)
    trust = Trust(joined.classes, predictor.meta.calibration if predictor.meta else None)
    networks = _networks(protocol, road)
    places: list[Place] = []
    keep = pictures if len(items) < pictures else 3
    started = time.monotonic()
    for item in items:
        whole = full.item(item.id) if item.label != full.item(item.id).label else None
        image = score_item(dataset, item, predictor, joined, protocol, road, whole, progress, trust)
        row = scorer.add(image)
        if networks is not None:
            row.update(networks.add(image))
        if pictures:
            label, ids = (a[: item.height, : item.width] for a in (image.target, image.prediction))
            count = len(joined.classes)
            places += image_places(item.id, label, ids, count, PICTURE_SIDE, keep)
    seconds = time.monotonic() - started
    notes = [*dataset.notes, *joined.notes, *_notes(dataset, items, predictor, protocol, scorer)]
    notes += networks.notes() if networks else []
    metrics = scorer.metrics()
    per_class = metrics.pop("per_class")
    found = trust.metrics() | (networks.metrics() if networks else {})
    return Report(
        metrics={**metrics, **found, "per_class": per_class},
        classes=joined.classes,
        protocol=_told_protocol(split, dataset, dataset is not full, protocol, networks),
        data=_data(dataset, split, items, predictor.meta),
        checkpoint=str(checkpoint),
        commit=commit,
        title=title or f"Evaluation on {dataset.name}",
        model=_model(predictor.meta),
        confusion=scorer.confusion.matrix,
        images=sorted(scorer.rows, key=lambda row: (row["miou"], row["id"])),
        image_confusion=scorer.matrices,
        facts=_facts(predictor, items, seconds) | dict(facts or {}),
        notes=notes,
        events=read_log(Path(checkpoint).with_name("log.jsonl")) if checkpoint else (),
        reliability=trust.tables(),
        pictures=_pictures(dataset, predictor, joined.classes, choose_places(places, pictures)),
        networks=_plates(dataset, predictor, networks, pictures),
        network_legend=LEGEND,
        references=references(joined.classes),
        reads=_files(full, checkpoint, protocol),
    )


def _told_protocol(
    split: str,
    dataset: Dataset,
    eroded: bool,
    protocol: Protocol,
    networks: NetworkScorer | None,
) -> dict[str, Any]:
    values = {"split": split, "splits": dataset.protocol, "labels": "eroded" if eroded else "full"}
    values |= protocol.to_dict()
    return {**values, "network": networks.definitions} if networks else values


def _networks(protocol: Protocol, road: Road | None) -> NetworkScorer | None:
    if not protocol.network:
        return None
    if road is None:
        raise ConfigError(
            "the network of which class?", "name it with --road, for example --road road"
        )
    return NetworkScorer(road.joined, protocol.centrelines, protocol.pixel)


def _files(dataset: Dataset, checkpoint: str | Path, protocol: Protocol) -> list[Path]:
    lines = protocol.centrelines
    own = [Path(checkpoint)] if checkpoint else []
    return [*own, *dataset.files, *([lines, *lines.glob("*")] if lines else ())]


def _model(meta: Meta | None) -> dict[str, Any]:
    if meta is None:
        return {}
    objective = meta.config.objective.model_dump(mode="json")
    return {**meta.config.model.model_dump(mode="json"), "objective": objective}


def _data(dataset: Dataset, split: str, items: Sequence[Item], meta: Meta | None) -> dict[str, Any]:
    known = [i.resolution for i in items if i.resolution]
    values: dict[str, Any] = {
        "name": dataset.name,
        "split": split,
        "images": len(items),
        "splits_digest": splits_digest(dataset),
        "root": str(dataset.root),
        "resolution_m": float(np.median(known)) if known else None,
        "trained_on": (meta and meta.data) or None,
    }
    return {k: v for k, v in values.items() if v is not None}


def _facts(predictor: Predictor, items: Sequence[Item], seconds: float) -> dict[str, str]:
    pixels = sum(i.height * i.width for i in items)
    facts = {
        "time": f"{seconds:.1f} s for {pixels / 1e6:.1f} Mpx",
        "device": predictor.device,
        "hardware": hardware(),
        "window": f"{predictor.window} px",
        "confidence": predictor.meta.confidence if predictor.meta else "not calibrated",
    }
    if predictor.parameters is not None:
        facts["parameters"] = f"{predictor.parameters / 1e6:.3f} M"
    if predictor.meta is not None and predictor.meta.alignment is not None:
        facts["alignment_of_training"] = str(predictor.meta.alignment)
    if predictor.meta is not None and predictor.meta.commit:
        facts["commit_of_training"] = predictor.meta.commit
    return facts


def _notes(
    dataset: Dataset,
    items: Sequence[Item],
    predictor: Predictor,
    protocol: Protocol,
    scorer: Scorer,
) -> list[str]:
    notes = []
    absent = scorer.confusion.metrics(scorer.classes)["absent"]
    if absent:
        notes.append(
            f"Neither labelled nor predicted here, and so left out of the means: "
            f"{', '.join(absent)}."
        )
    trained_on = predictor.meta.data if predictor.meta else ""
    cross = trained_on not in ("", dataset.name)
    if cross:
        notes.append(f"Cross-data: trained on {trained_on}, evaluated on {dataset.name}.")
    if protocol.geoseg_compat:
        notes.append(
            "geoseg_compat: padding is counted as class 0. These figures are too high; "
            "use them only to compare with tools that do the same."
        )
    chosen_on = dataset.split(protocol.threshold_from) if protocol.threshold_from else ()
    if {i.id for i in items} & {i.id for i in chosen_on}:
        notes.append(
            "The threshold was chosen on images that are counted here: the figures are too high."
        )
    notes += resolution_notes(items, predictor, protocol, cross=cross)
    notes += _remarks(dataset, items, predictor)
    if scorer.unmeasured:
        notes.append(
            f"{len(scorer.unmeasured)} of {len(items)} images have no resolution, and so no "
            "boundary F1."
        )
    return notes


def _remarks(dataset: Dataset, items: Sequence[Item], predictor: Predictor) -> list[str]:
    """What predicting some of the images, spread over all, would tell."""
    found: dict[str, None] = {}
    for index in np.linspace(0, len(items) - 1, min(_TOLD, len(items))).round():
        with ItemReader(dataset, items[int(index)], predictor.spec) as reader:
            found |= dict.fromkeys(reader.remarks())
    return list(found)


def _pictures(
    dataset: Dataset,
    predictor: Predictor,
    classes: ClassMap,
    chosen: Sequence[tuple[str, Place]],
) -> list[Picture]:
    what = f"1 - IoU of {classes.names[1]}" if len(classes) == 2 else "wrong pixels"
    pictures = []
    for why, place in chosen:
        with ItemReader(dataset, dataset.item(place.id), predictor.spec) as reader:
            pixels, _ = reader.read(place.window)
        label, prediction = place.arrays()
        w = place.window
        caption = f"{why}, {what} {100 * place.error:.1f} %; rows {w.row} to {w.bottom - 1}, "
        caption += f"columns {w.col} to {w.right - 1}"
        image = shown_bands(pixels)
        pictures.append(Picture(place.id, image, label, prediction, caption))
    return pictures


def _plates(
    dataset: Dataset, predictor: Predictor, networks: NetworkScorer | None, count: int
) -> list[Plate]:
    plates = []
    for compared in networks.chosen(count) if networks else ():
        with ItemReader(dataset, dataset.item(compared.id), predictor.spec) as reader:
            pixels, _ = reader.read(reader.window)
        plates.append(draw_plate(compared, shown_bands(pixels)))
    return plates


def shown_bands(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (H, W, 3) of (C, H, W): the first three bands, or the first one as grey."""
    first = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(first, 0, 2))
