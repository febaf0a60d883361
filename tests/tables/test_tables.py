from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Call
from terradapt.complexity import ROAD_BASELINES
from terradapt.errors import ConfigError
from terradapt.report.printed import DATA, PrintedRow, PrintedTable, load_tables
from terradapt.tables import (
    STUDENTS,
    PaperVariant,
    fill,
    find_reports,
    to_csv,
    to_markdown,
    variant_of,
)

TABLES = {t.id: t for t in load_tables()}
HALF = 0.005 + 1e-9  # a printed number's rounding
CLASSES = ("impervious", "building", "low vegetation", "tree", "car")


def _rows(*ids: str) -> list[tuple[PrintedTable, PrintedRow]]:
    return [(t, row) for t in TABLES.values() if not ids or t.id in ids for row in t.rows]


def _f1_rows() -> list[tuple[PrintedTable, PrintedRow]]:
    return [(t, r) for t, r in _rows() if "per_class.car.f1" in r.values]


def _name(pair: tuple[PrintedTable, PrintedRow]) -> str:
    return f"{pair[0].id}: {' '.join(pair[1].names)}"


def no_count(variant: PaperVariant, what: str) -> float | None:
    return None


def test_every_table_of_both_papers_is_there() -> None:
    assert list(TABLES) == [f"arafnet-{i}" for i in range(2, 7)] + [
        f"sam2ms-{i}" for i in range(1, 8)
    ]
    counts = {t.id: len(t.rows) for t in TABLES.values()}
    assert counts == {
        **{"arafnet-2": 15, "arafnet-3": 15, "arafnet-4": 10, "arafnet-5": 3, "arafnet-6": 11},
        **{"sam2ms-1": 11, "sam2ms-2": 11, "sam2ms-3": 11, "sam2ms-4": 8, "sam2ms-5": 3},
        **{"sam2ms-6": 3, "sam2ms-7": 11},
    }
    assert {t.data for t in TABLES.values()} <= DATA.keys()


@pytest.mark.parametrize("pair", _f1_rows(), ids=_name)
def test_class_iou_follows_from_f1_except_in_known_slips(
    pair: tuple[PrintedTable, PrintedRow],
) -> None:
    _, row = pair
    for name in CLASSES:
        f1 = row.values[f"per_class.{name}.f1"]
        iou = row.values[f"per_class.{name}.iou"]
        assert f1 is not None and iou is not None
        low, high = (100 * f / (200 - f) for f in (f1 - 0.011, f1 + 0.011))
        agrees = low - HALF <= iou <= high + HALF
        assert agrees != (f"per_class.{name}.iou" in row.slips), (name, f1, iou)


@pytest.mark.parametrize("pair", _f1_rows(), ids=_name)
def test_means_follow_from_the_classes_except_in_known_slips(
    pair: tuple[PrintedTable, PrintedRow],
) -> None:
    _, row = pair
    for metric, part in (("mf1", "f1"), ("miou", "iou")):
        mean = sum(row.values[f"per_class.{n}.{part}"] or 0 for n in CLASSES) / 5
        printed = row.values[metric]
        assert printed is not None
        assert (abs(mean - printed) <= 2 * HALF) != (metric in row.slips), (mean, printed)


@pytest.mark.parametrize("pair", _rows("sam2ms-1", "sam2ms-2", "sam2ms-3"), ids=_name)
def test_road_f1_follows_from_precision_and_recall(pair: tuple[PrintedTable, PrintedRow]) -> None:
    _, row = pair
    p, r, f1 = (row.values[f"per_class.road.{k}"] for k in ("precision", "recall", "f1"))
    assert p is not None and r is not None and f1 is not None
    agrees = abs(2 * p * r / (p + r) - f1) <= 2 * HALF
    assert agrees != ("per_class.road.f1" in row.slips)


def test_reductions_follow_from_the_parameters() -> None:
    table = TABLES["arafnet-4"]
    teacher = table.rows[0].values["complexity.params"]
    for row in table.rows[1:]:
        own, cut = row.values["complexity.params"], row.values["complexity.reduction"]
        assert teacher and own and cut
        assert abs(100 * (1 - own / teacher) - cut) < 0.01


def test_the_same_model_has_the_same_numbers_in_every_table() -> None:
    for row, other in (("arafnet-2", "arafnet-5"), ("arafnet-5", "arafnet-6")):
        first = next(r for r in TABLES[row].rows if r.names[0].startswith("SAM2-ARAFNet"))
        again = next(r for r in TABLES[other].rows if r.names[0].startswith("SAM2-ARAFNet"))
        for key, value in first.values.items():
            twin = again.values[key]
            assert value is not None and twin is not None
            assert abs(value - twin) < 0.011
    for key in ("per_class.road.f1", "miou_image", "mae_x100"):
        cells = {TABLES[t].rows[-1].values[key] for t in ("sam2ms-1", "sam2ms-4", "sam2ms-6")}
        assert len(cells) == 1


def test_counts_are_computed_and_equal_the_papers() -> None:
    filled = fill(["arafnet-4"])[0]
    seen = 0
    for row, cells in zip(filled.table.rows, filled.cells, strict=True):
        by_metric = dict(zip((m for _, m in filled.table.columns), cells, strict=True))
        for key in ("complexity.params", "complexity.gmacs", "complexity.reduction"):
            cell = by_metric[key]
            if cell.printed is not None:
                assert cell.why == "counted" and cell.ours is not None
                assert abs(cell.ours - cell.printed) < 0.0101, (row.names, key, cell)
                seen += 1
    assert seen == 3 * (1 + len(STUDENTS)) - 1


def test_swapped_columns_are_flagged_and_ours_are_not_swapped() -> None:
    filled = fill(["sam2ms-1"])[0]
    cells = dict(zip((m for _, m in filled.table.columns), filled.cells[-1], strict=True))
    params, macs = cells["complexity.params"], cells["complexity.gmacs"]
    assert params.slip and macs.slip
    assert params.ours is not None and macs.ours is not None
    assert abs(params.ours - (macs.printed or 0)) < 0.011
    assert abs(macs.ours - (params.printed or 0)) < 0.011


def _report(folder: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "format": "terradapt-report-1",
        "metrics": {"mf1": 0.5, "miou": 0.25, "oa": 0.75, "rlod": 0.5, "mae_x100": 2.0,
                    "per_class": {"car": {"f1": 0.125, "iou": 0.1}}},
        "data": {"name": "isprs-vaihingen", "trained_on": "isprs-vaihingen"},
        "model": {"name": "kd-arafnet", "encoder": {"name": "efficientnet_b0"}, "options": {},
                  "objective": {"distill": {"teacher": "t.safetensors"}, "lossnet": None}},
    }  # fmt: skip
    values |= changes
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(values))
    return values


def _ours(table: str, row: str, folder: Path) -> dict[str, Any]:
    filled = fill([table], find_reports([folder]), no_count)[0]
    index = [r.names[0] for r in filled.table.rows].index(row)
    return {m: c for (_, m), c in zip(filled.table.columns, filled.cells[index], strict=True)}


def test_a_report_fills_the_row_that_it_is_of(tmp_path: Path) -> None:
    _report(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "other.json").write_text("[]")
    cells = _ours("arafnet-5", "KD-ARAFNet (Distilled)", tmp_path)
    assert (cells["mf1"].ours, cells["per_class.car.f1"].ours) == (50.0, 12.5)
    assert cells["mf1"].why.endswith("report.json")
    assert cells["per_class.tree.f1"].ours is None
    assert cells["per_class.tree.f1"].why == "needs ISPRS Vaihingen"
    for row in ("KD-ARAFNet (Baseline)", "SAM2-ARAFNet"):
        assert _ours("arafnet-5", row, tmp_path)["mf1"].ours is None
    assert _ours("arafnet-3", "SAM2-ARAFNet (ours)", tmp_path)["mf1"].why == "needs ISPRS Potsdam"
    assert _ours("arafnet-3", "MANet", tmp_path)["mf1"].why == "needs ISPRS Potsdam"


@pytest.mark.parametrize(
    ("row", "model", "encoder"),
    [("UNetFormer", "unetformer", "resnet18"), ("MIFNet", "mifnet", "resnext50_32x4d")],
)
def test_a_baseline_s_report_fills_its_row(
    row: str, model: str, encoder: str, tmp_path: Path
) -> None:
    _report(tmp_path / "a", model={"name": model, "encoder": {"name": encoder}})
    assert _ours("arafnet-2", row, tmp_path)["mf1"].ours == 50.0
    others = [r.names[0] for r in TABLES["arafnet-2"].rows if r.names[0] != row]
    assert all(_ours("arafnet-2", other, tmp_path)["mf1"].ours is None for other in others)


def test_every_method_of_the_land_cover_tables_is_there_or_its_absence_told() -> None:
    rows = _rows("arafnet-2", "arafnet-3")
    absent = {r.names[0] for t, r in rows if variant_of(t, r) is None}
    assert absent == {"GCDNet", "DMANet"}
    text = to_markdown(fill(["arafnet-3"], (), no_count))
    assert "GCDNet: not in terradapt: no code of it is public" in text
    assert "DMANet: not in terradapt: its authors' repository holds no code" in text


def test_ablations_are_told_apart_by_their_options(tmp_path: Path) -> None:
    model = {"name": "sam2-arafnet", "encoder": {"name": "sam2_hiera_large", "adapters": True}}
    options = {"fusion": "add", "aux": True, "width": 128}
    _report(tmp_path / "a", model={**model, "options": options})
    assert _ours("arafnet-6", "w/o BFM (add)", tmp_path)["miou"].ours == 25.0
    assert _ours("arafnet-6", "w/o BFM (concat)", tmp_path)["miou"].ours is None
    assert _ours("arafnet-6", "SAM2-ARAFNet", tmp_path)["miou"].ours is None


def test_cross_data_needs_both_names(tmp_path: Path) -> None:
    model = {"name": "sam2ms", "encoder": {"name": "sam2_hiera_large", "adapters": True}}
    data = {"name": "SpaceNet roads", "trained_on": "deepglobe"}
    _report(tmp_path / "a", model=model, data=data)
    cells = _ours("sam2ms-7", "SAM2MS (Ours)", tmp_path)
    assert cells["rlod@deepglobe>spacenet"].ours == 50.0
    assert cells["rlod@spacenet>spacenet"].why == "needs SpaceNet 3"
    assert cells["rlod@deepglobe>massachusetts"].why == "needs DeepGlobe and Massachusetts"


def test_rows_of_the_papers_own_models_have_a_variant() -> None:
    own = [(t, r) for t, r in _rows() if "ours" in " ".join(r.names).casefold()]
    own += _rows("arafnet-4", "arafnet-5", "arafnet-6", "sam2ms-4", "sam2ms-5", "sam2ms-6")
    variants = [variant_of(t, r) for t, r in own]
    assert all(v is not None for v in variants)
    distinct = {repr(variant_of(t, r)) for t, r in _rows("arafnet-6")}
    assert len(distinct) == 11


def test_markdown_and_csv_hold_every_printed_number() -> None:
    filled = fill([], (), no_count)
    text = to_markdown(filled)
    lines = list(csv.DictReader(io.StringIO(to_csv(filled))))
    assert len(lines) == sum(len(t.rows) * len(t.columns) for t in TABLES.values())
    for table, row in _rows():
        for value in row.values.values():
            assert value is None or f"{value:.2f}" in text, (table.id, value)
    assert "867.28*" in text and "the two columns are swapped" in text
    whys = {line["why"] for line in lines}
    assert "needs DeepGlobe" in whys
    assert sum(why.startswith("not in terradapt: ") for why in whys) == 2  # GCDNet, DMANet
    assert "not in terradapt" not in whys


def test_every_network_that_sam2ms_compares_with_has_a_variant() -> None:
    found = [variant_of(t, r) for t, r in _rows("sam2ms-1")]
    models = [v.model for v in found if v is not None]
    assert models == [*ROAD_BASELINES, "sam2-unet", "sam2ms"]


def test_the_verb_writes_both_files(terradapt: Call, tmp_path: Path) -> None:
    ran = terradapt("tables", "arafnet-5", "-o", tmp_path / "t.md")
    assert ran.status == 0, ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.md"]
    assert "needs ISPRS Vaihingen" in (tmp_path / "t.md").read_text()
    assert terradapt("tables", "arafnet-5").out.startswith("# The papers' tables")


def test_wrong_names_are_told(terradapt: Call, tmp_path: Path) -> None:
    assert terradapt("tables", "arafnet-9").is_user_error("arafnet-9")
    assert terradapt("tables", "--runs", tmp_path / "gone").is_user_error("gone")
    with pytest.raises(ConfigError, match="no table"):
        fill(["x"])
