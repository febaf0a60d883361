"""The figures of a comparison: per class, per square kilometre, and how they were made."""

from __future__ import annotations

from typing import Any

import numpy as np

from terradapt.changes.comparison import Pairing
from terradapt.changes.networks import Edges
from terradapt.changes.objects import Objects
from terradapt.changes.roads import STATES
from terradapt.changes.sides import MapSide, Side
from terradapt.raster.georef import crs_name
from terradapt.scene.options import STEPS
from terradapt.version import __version__

FORMAT = "terradapt-changes-1"


def figures_of(
    plan: Pairing,
    polygons: Objects,
    edges: Edges,
    rows: list[dict[str, Any]],
    extra: dict[str, Any],
    *,
    signature: str,
    model: str,
) -> dict[str, Any]:
    """Return what ``NAME.json`` holds.

    Args:
        plan: What was compared.
        polygons: The areas found.
        edges: The roads found.
        rows: The notes of the rows of the raster of change; empty without one.
        extra: Shift, reach and the like.
        signature: Of the inputs and the options.
        model: Name of the model, or "".
    """
    looked, unseen = np.sum([r["areas"] for r in rows], axis=0) if rows else (0.0, 0.0)
    square = float(looked) / 1e6 if rows else float(extra.get("box_km2", 0.0))
    if plan.pair is not None and not rows:
        square = float(plan.pair.georef.pixel_areas(_whole(plan)).sum()) / 1e6
    metric = polygons.unit == "m"
    per_class = _per_class(plan, polygons, rows)
    counts = {state: int((polygons.state == state).sum()) for state in STATES}
    areas = {state: float(polygons.area[polygons.state == state].sum()) for state in STATES}
    metres = {state: float(edges.length[edges.state == state].sum()) for state in STATES}
    options = plan.options
    return {
        "format": FORMAT,
        "old": _told(plan.old),
        "new": _told(plan.new),
        "model": model,
        "classes": list(plan.joined.names) if plan.joined else [],
        "grid": None if plan.pair is None else _grid(plan),
        **extra,
        "threshold": options.threshold,
        "grow": plan.pair.grow if plan.pair else None,
        "min_area_m2": options.min_area,
        "road_tolerance_m": options.along.tolerance,
        "calibration": str(plan.pair.table) if plan.pair else "vectors: shares of overlap",
        "looked_at_km2": square,
        "not_looked_at_km2": float(unseen) / 1e6,
        "polygons": {
            s: {"count": counts[s], "area_m2" if metric else "area": areas[s]} for s in STATES
        },
        "edges": {
            **{s: {"count": int((edges.state == s).sum()), "length_m": metres[s]} for s in STATES},
            **{f"{name}_m": length for name, length in edges.totals.items()},
        },
        "per_class": per_class,
        "per_km2": {
            "polygons": {s: counts[s] / square if square else None for s in STATES},
            "edges_m": {s: metres[s] / square if square else None for s in STATES},
        },
        "notes": list(plan.notes),
        "signature": signature,
        "version": __version__,
    }


def _per_class(
    plan: Pairing, polygons: Objects, rows: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Objects and square metres that each class gained and lost, and its whole area."""
    names = list(plan.joined.names) if plan.joined else []
    names += [n for n in dict.fromkeys([*polygons.before, *polygons.after]) if n not in names]
    whole = np.sum([r["classes"] for r in rows], axis=0) if rows else None
    table: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(names):
        gained = (polygons.after == name) & (polygons.before != name)
        lost = (polygons.before == name) & (polygons.after != name)
        table[name] = {
            "gained": int(gained.sum()),
            "gained_m2": float(polygons.area[gained].sum()),
            "lost": int(lost.sum()),
            "lost_m2": float(polygons.area[lost].sum()),
        }
        if whole is not None and k < whole.shape[1]:
            table[name] |= {"before_m2": float(whole[0, k]), "after_m2": float(whole[1, k])}
    return table


def _told(side: Side) -> dict[str, Any]:
    if not isinstance(side, MapSide):
        return {
            "file": str(side.path),
            "kind": "vectors",
            "polygons": len(side.polygons),
            "lines": len(side.lines),
        }
    kind = "scene" if side.scene is not None else "map"
    file = side.path if side.scene is None else side.scene
    return {"file": str(file), "kind": kind, "probabilities": side.surety}


def _grid(plan: Pairing) -> dict[str, Any]:
    assert plan.pair is not None
    georef = plan.pair.georef
    return {
        "crs": crs_name(georef.crs),
        "resolution_m": georef.resolution,
        "width": georef.width,
        "height": georef.height,
        "step": 1 / STEPS,
    }


def _whole(plan: Pairing) -> Any:
    from terradapt.grid import Window

    assert plan.pair is not None
    return Window(0, 0, plan.pair.georef.height, plan.pair.georef.width)
