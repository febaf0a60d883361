"""What is asked next, and what the answers say: against the paper's example and known truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terradapt.viewer.asking import class_areas, class_weights, next_places
from viewer_files import Browser, predicted, session

SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Olofsson et al. 2014, table 8: rows mapped, columns by reference; deforestation, forest gain,
stable forest, other."""
MAPPED = np.array([0.020, 0.015, 0.320, 0.645]) * 900_000  # ha


def test_the_areas_are_those_of_the_worked_example_of_olofsson_2014() -> None:
    places = np.zeros((SAMPLE.sum(), 4, 4))
    cells = np.repeat(np.arange(16), SAMPLE.ravel())
    places[np.arange(len(cells)), cells // 4, cells % 4] = 1
    found = class_areas(places, places.sum(2), MAPPED)
    assert found.reach is not None
    share = SAMPLE / SAMPLE.sum(1, keepdims=True)
    each = (MAPPED[:, None] ** 2) * share * (1 - share) / (SAMPLE.sum(1, keepdims=True) - 1)
    assert found.areas == pytest.approx(MAPPED @ share)
    assert found.reach == pytest.approx(1.96 * np.sqrt(each.sum(0)), rel=0.01)
    assert round(float(found.areas[0])) == 21_158  # as the paper prints, with +- 6158
    assert found.reach[0] == pytest.approx(6158, rel=0.01)


def test_places_as_clusters_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(7)
    # 400 places of 200 px: mapped class, true class; places differ, the map errs unevenly
    wet = draw.beta(2, 5, 400)[:, None] > draw.random((400, 200))
    err = draw.beta(1, 8, 400)[:, None] > draw.random((400, 200))
    mapped = np.where(err, ~wet, wet).astype(np.intp)
    counts = np.zeros((400, 2, 2))
    for place in range(400):
        cells = mapped[place] * 2 + wet[place]
        counts[place] = np.bincount(cells, minlength=4).reshape(2, 2)
    totals, truth = counts.sum((0, 2)), wet.sum()
    hits, simple, narrower = 0, 0, 0
    for _ in range(300):
        some = counts[draw.choice(400, 30, replace=False)]
        found = class_areas(some, some.sum(2), totals)
        alone = class_areas(
            some.sum(1, keepdims=True), some.sum((1, 2))[:, None], totals.sum()[None]
        )
        assert found.reach is not None
        assert alone.reach is not None
        hits += abs(found.areas[1] - truth) <= found.reach[1]
        simple += abs(alone.areas[1] - truth) <= alone.reach[1]
        narrower += found.reach[1] < alone.reach[1]
    assert 0.91 <= hits / 300 <= 0.99
    assert 0.91 <= simple / 300 <= 0.99
    assert narrower > 270, "the map's strata make the interval narrower"


def test_few_places_and_classes_that_no_place_shows() -> None:
    one = class_areas(np.array([[[3.0, 1.0]]]), np.array([[4.0]]), np.array([100.0]))
    assert one.areas.tolist() == [75.0, 25.0]
    assert one.reach is None
    part = class_areas(np.array([[[3.0, 1.0]]]), np.array([[8.0]]), np.array([100.0]))
    assert part.areas.tolist() == [37.5, 12.5], "half of the place is no ground"
    unseen = class_areas(
        np.array([[[3.0, 1.0], [0.0, 0.0]]]), np.array([[4.0, 0.0]]), np.array([60.0, 40.0])
    )
    assert unseen.areas.tolist() == [75.0, 25.0]
    none = class_areas(np.zeros((2, 1, 2)), np.zeros((2, 1)), np.array([9.0]))
    assert (none.areas.tolist(), none.reach) == ([0.0, 0.0], None)


def test_a_class_with_a_low_iou_counts_more() -> None:
    assert class_weights([1.0, 0.0, None, float("nan")]).tolist() == [0.5, 1.5, 1.0, 1.0]
    doubt = {(0, 0): {0: 0.3}, (5, 5): {1: 0.2}}
    weights = class_weights([0.9, 0.2])
    score = {p: sum(weights[k] * v for k, v in d.items()) for p, d in doubt.items()}
    assert next_places(score, [], [], 1) == [((5, 5), False)]
    assert next_places({p: sum(d.values()) for p, d in doubt.items()}, [], [], 1)[0][0] == (0, 0)


def test_the_page_hears_of_weights_and_of_hectares_with_an_interval(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser, view = Browser.on(opened), opened.views[0]
        assert browser.get("/hectares/0").json["estimate"] is None
        predicted(opened)
        facts = view.map.store.facts
        for said in facts.values():
            assert sum(said["doubt"].values()) == pytest.approx(said["uncertainty"])
            assert set(said["doubt"]) <= set(said["areas"])
        per_class = {"class 1": {"iou": 0.0}, "class 2": {"iou": 1.0}}
        opened.model.predictor.meta = type("Said", (), {"metrics": {"per_class": per_class}})()
        free = [p for p in facts if p not in view.held]
        weights = {"0": 1.0, "1": 1.5, "2": 0.5}
        score = {
            p: sum(weights.get(k, 1.0) * v for k, v in facts[p]["doubt"].items()) for p in free
        }
        first = browser.get("/queue/0").json[0]
        assert tuple(first["place"]) == max(free, key=lambda p: (score[p], p))
        assert first["uncertainty"] == facts[tuple(first["place"])]["uncertainty"]
        opened.model.predictor.meta = None
        # answer the one place that is held out: half of its class 1 is class 2 in truth
        (place,) = view.held
        block = view.map.pyramid.block(*place)
        truth = view.map.store.get(*place).classes.copy()
        ones = np.flatnonzero(truth == 1)
        truth.ravel()[ones[::2]] = 2
        ring = [[block.col, block.row], [block.right, block.row], [block.right, block.bottom]]
        opened.pen().log.add(
            view.name, {"kind": "right", "points": ring, "key": "truth000"}, "",
            place=place, window=block, ids=truth,
        )  # fmt: skip
        said = browser.get("/hectares/0").json
        found, mapped = said["estimate"], said["classes"]
        assert (found["places"], found["weak"], found["by_map"]) == (1, True, True)
        moved = mapped["class 1"] * len(ones[::2]) / len(ones)
        assert found["classes"]["class 1"]["area"] == pytest.approx(mapped["class 1"] - moved)
        assert found["classes"]["class 2"]["area"] == pytest.approx(mapped["class 2"] + moved)
        assert found["classes"]["class 1"]["reach"] is None
        whole = sum(mapped.values())
        view.map.store._file(0, 0).unlink()
        assert view.map.store.get(0, 0) is None
        said = browser.get("/hectares/0").json["estimate"]
        assert not said["by_map"], "the map is not whole"
        share = float((truth == 1).mean())
        assert said["classes"]["class 1"]["area"] == pytest.approx(whole * share, rel=1e-3)
