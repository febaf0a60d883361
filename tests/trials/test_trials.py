from __future__ import annotations

import csv
import itertools
import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from conftest import Call
from terradapt import models
from terradapt.classes import ClassMap
from terradapt.config import load_config
from terradapt.errors import ConfigError, DataError
from terradapt.metrics.confusion import Confusion
from terradapt.models import build_on_meta
from terradapt.report.printed import load_tables
from terradapt.tables import fill, find_reports
from terradapt.trials import Comparison, Trials, load_trials, run_trials
from terradapt.trials.bootstrap import draw_counts, paired_bootstrap
from terradapt.trials.comparison import Contender
from terradapt.trials.evidence import Evidence, RunEvidence, TrialNote, read_run
from terradapt.trials.folders import compare_runs
from terradapt.trials.packaged import REFERENCES, packaged_names
from terradapt.trials.plan import Method, read_trials
from terradapt.trials.running import slots_of
from terradapt.trials.writing import (
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    latex_text,
)
from training_files import SMALL, write_folder

TINY = [*SMALL, "train.epochs=1", "train.steps_per_epoch=2", "train.ema=null"]
WEIGHTLESS = ["encoder.weights=null"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def config_of(trials: Trials, name: str, seed: int = 0, overrides: Any = WEIGHTLESS, **kw: Any):
    return trials.config(trials.method(name), seed, overrides, **kw)


@pytest.mark.parametrize("name", packaged_names())
def test_every_row_of_a_printed_table_is_a_method_that_builds(name: str) -> None:
    trials = load_trials(name)
    table = next(t for t in load_tables() if t.id == name)
    assert [m.printed for m in trials.methods] == list(table.rows)
    assert len({m.slug for m in trials.methods}) == len(table.rows)
    absent = [m.name for m in trials.methods if m.absent]
    assert absent == (["GCDNet", "DMANet"] if name == "arafnet-2" else [])
    configs = [trials.config(m, 3, WEIGHTLESS) for m in trials.methods if not m.absent]
    assert len({c.model_dump_json(exclude={"name"}) for c in configs}) == len(configs)
    assert {c.train.seed for c in configs} == {3}
    for config in configs if len(configs) < 9 else configs[:2]:
        classes = 2 if name.startswith("sam2ms") else 6
        model = build_on_meta(config.model, classes)
        if config.model.encoder.name.startswith("sam2"):
            assert not any(p.requires_grad for p in model.encoder.trunk.parameters())


def test_table_6_of_arafnet_switches_what_it_names() -> None:
    trials = load_trials("arafnet-6")
    parts = {m.name: build_on_meta(config_of(trials, m.name).model, 6) for m in trials.methods}
    assert len(parts) == 11
    full = parts.pop("SAM2-ARAFNet")
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in parts.items()}
    total = sum(p.numel() for p in full.parameters())
    assert all(count < total for name, count in counts.items() if "concat" not in name.lower())
    assert parts["w/o LowPath (BFM removed)"].low is None
    assert parts["w/o LowPath (BFM removed)"].fusion is None
    assert parts["w/o LowPath (BFM retained)"].fusion is not None
    assert type(parts["w/o BFM (add)"].fusion).__name__ == "AddFusion"
    assert type(parts["w/o BFM (concat)"].fusion).__name__ == "ConcatFusion"
    bare = parts["w/o attention, BFM, and ResASPP (add)"]
    assert not any(type(m).__name__ == "CBAM" for m in bare.modules())


def test_table_4_of_sam2ms_is_four_trunks_with_and_without_adapters() -> None:
    trials = load_trials("sam2ms-4")
    found = []
    for method in trials.methods:
        encoder = trials.config(method, 0, ["encoder.weights=W/{encoder}.pt"]).model.encoder
        assert encoder.weights == f"W/{encoder.name}.pt"
        found.append((encoder.name.removeprefix("sam2_hiera_"), encoder.adapters))
    sizes = ("tiny", "small", "base_plus", "large")
    assert found == [(s, adapted) for s in sizes for adapted in (False, True)]


def test_tables_5_and_6_of_sam2ms_switch_lossnet_mssm_and_drb() -> None:
    trials = load_trials("sam2ms-5")
    weights = ["objective.lossnet.weights=W/{lossnet}.safetensors"]
    nets = [trials.config(m, 0, weights).objective.lossnet for m in trials.methods]
    assert [n and (n.name, n.weights) for n in nets] == [
        None,
        ("vgg16", "W/vgg16.safetensors"),
        ("resnet50", "W/resnet50.safetensors"),
    ]
    trials = load_trials("sam2ms-6")
    options = [models.parse_options(trials.config(m, 0).model) for m in trials.methods]
    assert [(o.mssm, o.drb) for o in options] == [
        (False, "paper"),
        (True, "none"),
        (True, "paper"),
    ]


def test_table_2_trains_each_network_on_its_paper_s_encoder_without_research_weights() -> None:
    trials = load_trials("arafnet-2")
    found = {m.name: trials.config(m, 0).model.encoder for m in trials.methods if not m.absent}
    assert (found["PSPNet"].name, found["PSPNet"].weights) == ("resnet18", "hub")
    assert (found["STUNet"].name, found["STUNet"].weights) == ("own", None)
    assert not found["PSPNet"].checkpointing
    assert found["SAM2-ARAFNet (ours)"].checkpointing
    assert config_of(trials, "SLCNet").objective.relation == 10
    assert config_of(trials, "PSPNet").objective.relation == 0
    students = load_trials("arafnet-4")
    assert config_of(students, "Segformer_b0", overrides=()).model.encoder.weights is None
    asked = config_of(students, "Segformer_b0", overrides=["encoder.weights=hub"])
    assert asked.model.encoder.weights == "hub"


def test_students_learn_from_the_teacher_of_their_seed_or_from_the_user_s(tmp_path: Path) -> None:
    trials = load_trials("arafnet-5")
    student = config_of(trials, "KD-ARAFNet (Distilled)", 7, out=tmp_path)
    own = tmp_path / "sam2-arafnet" / "seed-7" / "checkpoint.safetensors"
    assert (student.objective.name, student.objective.distill.teacher) == ("distill", str(own))
    given = ["objective.distill.teacher=T.safetensors"]
    taught = config_of(trials, "KD-ARAFNet (Distilled)", overrides=given)
    assert taught.objective.distill.teacher == "T.safetensors"
    bare = config_of(trials, "KD-ARAFNet (Baseline)", overrides=given)
    assert (bare.objective.name, bare.objective.distill.teacher) == ("supervised", None)


def test_the_users_overrides_hold_for_all_methods_and_the_methods_go_last() -> None:
    trials = load_trials("arafnet-6")
    given = ["model.options.width=64", "model.options.resaspp=true", "train.seed=9"]
    for method in trials.methods:
        config = trials.config(method, 5, given, "landcover")
        assert config.model.options["width"] == 64
        assert config.train.seed == 5
    assert config.model.options["resaspp"] is False


def test_the_reference_is_always_among_the_chosen_and_so_is_a_teacher() -> None:
    trials = load_trials("arafnet-6")
    assert [m.name for m in trials.chosen(("(add)",))] == [
        "SAM2-ARAFNet",
        "w/o BFM (add)",
        "w/o attention, BFM, and ResASPP (add)",
    ]
    assert trials.chosen(()) == trials.methods
    pair = [Method("Full"), Method("Old"), Method("Student", teacher="Old")]
    mine = replace(trials, methods=tuple(pair), reference=pair[0])
    assert [m.name for m in mine.chosen(("student",))] == ["Full", "Old", "Student"]
    with pytest.raises(ConfigError, match=r"no method 'w/o BFM \(adt\)'") as told:
        trials.chosen(("w/o BFM (adt)",))
    assert "did you mean 'w/o BFM (add)'" in told.value.fix


FILE = """
name: mine
recipe: landcover
reference: kd-arafnet
seeds: [4]
set: {encoder.name: mobilenetv3_small_050, data.crop: 64}
limit: {gmacs: 100, size: 64}
methods:
  kd-arafnet:
  UNetFormer: {model.name: unetformer, encoder.name: resnet18}
  Student: {model.name: kd-arafnet, teacher: UNetFormer, optim.lr: 0.5}
"""


def test_a_file_names_methods_by_model_and_what_they_change(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    trials = load_trials(path)
    assert (trials.seeds, trials.limit, trials.size) == ((4,), 100, 64)
    first, second = config_of(trials, "kd-arafnet"), config_of(trials, "UNetFormer")
    assert (first.model.encoder.name, first.data.crop) == ("mobilenetv3_small_050", 64)
    assert (second.model.name, second.model.encoder.name) == ("unetformer", "resnet18")
    student = config_of(trials, "student", 4, out=tmp_path)
    assert student.optim.lr == 0.5
    assert "unetformer/seed-4" in Path(student.objective.distill.teacher).as_posix()
    path.write_text("{name: x, recipe: roads, reference: unet, methods: [unet, bisenet]}")
    assert [m.model for m in load_trials(path).methods] == ["unet", "bisenet"]


@pytest.mark.parametrize(
    ("old", "new", "message", "fix"),
    [
        ("model.name: unetformer", "model.name: unetforner", "unetforner", "mean 'unetformer'"),
        ("  kd-arafnet:\n", "  kd-arafnett:\n", "kd-arafnett", "did you mean 'kd-arafnet'"),
        ("reference: kd-arafnet", "reference: kd-arafne", "kd-arafne", "mean 'kd-arafnet'"),
        ("teacher: UNetFormer", "teacher: Nobody", "Nobody", "Student"),
        ("teacher: UNetFormer", "teacher: Student", "teacher", "without one"),
        ("  Student:", "  unet-former: {model.name: unet}\n  UNet Former:", "of its own", "name"),
        ("seeds: [4]", "seeds: []", "seeds", "trials.md"),
        ("seeds: [4]", "sedes: [4]", "sedes", "trials.md"),
        ("gmacs: 100", "gmacs: -1", "gmacs", "trials.md"),
        ("gmacs: 100", "gmacs: 100, always: [Nobody]", "Nobody", "use one of"),
        ("name: mine", "name: [", "line", "mend"),
    ],
)
def test_files_that_cannot_be_used_are_told(
    tmp_path: Path, old: str, new: str, message: str, fix: str
) -> None:
    path = tmp_path / "mine.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as told:
        read_trials(path)
    assert fix in told.value.fix


CLASSES = ClassMap(("impervious", "car", "mud | clay"), evaluated=(0, 1))


def evidence(seed: int, images: int = 3, **changes: Any) -> Evidence:
    """A report of random matrices, its figures as an evaluation makes them."""
    rng = np.random.default_rng(seed)
    k = len(changes.get("classes", CLASSES))
    matrices = rng.integers(0, 40, (images, k, k)) + 60 * np.eye(k, dtype=int)
    matrices[0, 1] = matrices[0, :, 1] = 0  # an image without the second class
    whole = Confusion(k, matrices.sum(0).astype(np.int64))
    rows = {f"i{n}": {"id": f"i{n}", "pixels": 100, "dice": rng.random()} for n in range(images)}
    metrics = whole.metrics(changes.get("classes", CLASSES))
    metrics["mdice"] = float(np.mean([row["dice"] for row in rows.values()]))
    values = {
        "metrics": metrics,
        "classes": CLASSES,
        "data": {"name": "d", "split": "test", "splits_digest": "0a"},
        "protocol": {"labels": "full", "splits": "given"},
        "images": rows,
        "confusion": matrices.astype(float),
    }
    return Evidence(Path("report.json"), **{**values, **changes})


METRICS = ("miou", "mf1", "oa", "precision", "recall", "per_class.mud | clay.iou", "mdice")


@pytest.mark.parametrize("metric", METRICS)
def test_every_image_drawn_once_gives_the_report_s_own_figure(metric: str) -> None:
    one = evidence(1)
    assert one.resampled(metric, np.ones((1, 3))) == pytest.approx([one.value(metric)])


def test_an_interval_is_scipy_s_where_the_figure_is_a_mean_over_images() -> None:
    a, b = evidence(1, 30), evidence(2, 30)
    gaps = [100 * (a.images[i]["dice"] - b.images[i]["dice"]) for i in a.images]
    oracle = stats.bootstrap(
        (gaps,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = paired_bootstrap([a], [b], "mdice")
    assert ours is not None
    assert (ours.value, ours.images) == (pytest.approx(np.mean(gaps)), 30)
    width = oracle.high - oracle.low
    assert abs(ours.low - oracle.low) < 0.04 * width
    assert abs(ours.high - oracle.high) < 0.04 * width


def test_miou_over_drawn_images_is_counted_by_hand() -> None:
    """Three images have 27 draws: the interval is that of all of them, each as likely."""
    a, b = evidence(1), evidence(2)
    gaps = []
    for drawn in itertools.product(range(3), repeat=3):
        sides = [Confusion(3, e.confusion[list(drawn)].sum(0).astype(np.int64)) for e in (a, b)]
        own, other = (100 * s.metrics(CLASSES)["miou"] for s in sides)
        gaps.append(own - other)
    ours = paired_bootstrap([a], [b], "miou", draws=20000)
    assert ours is not None
    low, high = np.percentile(np.repeat(gaps, 1000), (2.5, 97.5))
    assert ours.low == pytest.approx(low)
    assert ours.high == pytest.approx(high)
    assert ours.value == pytest.approx(a.value("miou") - b.value("miou"))
    assert ours.clear == (low > 0 or high < 0)


def test_seeds_are_held_and_averaged_and_images_are_paired_by_name() -> None:
    a, b, c = evidence(1), evidence(2), evidence(3)
    turned = replace(b, images=dict(reversed(b.images.items())), confusion=b.confusion[::-1])
    assert list(turned.ordered(a).images) == list(a.images)
    same = paired_bootstrap([b], [turned.ordered(b)], "miou")
    assert same is not None
    assert (same.value, same.low, same.high, same.clear) == (0, 0, 0, False)
    both = paired_bootstrap([b, c], [a], "miou")
    assert both is not None
    mean = (b.value("miou") + c.value("miou")) / 2
    assert both.value == pytest.approx(mean - a.value("miou"))
    assert paired_bootstrap([a], [b], "apls") is None
    assert paired_bootstrap([replace(a, confusion=None)], [b], "miou") is None
    assert draw_counts(3).sum(1).tolist() == [3.0] * len(draw_counts(3))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"name": "e", "split": "test"}}, "evaluated on e, not on d"),
        ({"data": {"name": "d", "split": "val"}}, "split 'val'"),
        ({"data": {"name": "d", "split": "test", "splits_digest": "0b"}}, "other splits"),
        ({"images": {f"i{n}": {"pixels": 100} for n in (0, 1, 3)}}, "other images"),
        ({"images": {f"i{n}": {"pixels": 99} for n in range(3)}}, "other labels"),
        ({"classes": ClassMap(("a", "b", "c"))}, "classes a, b, c"),
        ({"protocol": {"labels": "full", "threshold": 0.4}}, "counted differently (threshold)"),
        ({"data": {"name": "d", "split": "test"}}, ""),
    ],
)
def test_reports_that_cannot_be_compared(changes: dict[str, Any], told: str) -> None:
    why = replace(evidence(1), **changes).misfit(evidence(2))
    assert told in why
    assert bool(told) == bool(why)


def test_the_road_is_the_class_beside_the_rest_whatever_their_names() -> None:
    def value(names: tuple[str, ...], metric: str) -> float | None:
        classes = ClassMap(names)
        per_class = {n: {"f1": 0.25 * i} for i, n in enumerate(names)}
        return replace(evidence(1), classes=classes, metrics={"per_class": per_class}).value(metric)

    assert value(("rest", "street"), "per_class.road.f1") == 25
    assert value(("street", "rest"), "per_class.road.f1") == 0
    assert value(("a", "b", "c"), "per_class.road.f1") is None
    assert value(("a", "b", "c"), "per_class.c.f1") == 50
    assert value(("a", "b"), "mdice") is None
    assert replace(evidence(1), metrics={"mae_x100": 1.5}).value("mae_x100") == 1.5


def compared(seeds: tuple[int, ...] = (0, 1, 2)) -> Comparison:
    trials = load_trials("arafnet-6")
    contenders = []
    for i, method in enumerate(trials.methods[:2]):
        one = Contender(method.name, method.slug, printed=method.printed.values)
        for seed in seeds:
            metrics = {
                "mf1": 0.6,
                "miou": 0.5 + 0.01 * seed**2 - 0.02 * i,
                "oa": 0.7,
                "per_class": {
                    "car": {"f1": 0.5, "iou": 0.4 - 0.1 * i},
                    "mud | clay": {"f1": 0.25, "iou": 0.2},
                },
            }
            one.runs[seed] = RunEvidence(Path(f"s{seed}"), evidence(i, metrics=metrics))
        contenders.append(one)
    title = f"{trials.title} & more"
    return Comparison("arafnet-6", title, contenders, contenders[0], seeds, table=trials.table)


def test_the_table_holds_mean_and_spread_beside_the_printed_values() -> None:
    result = compared()
    text = comparison_markdown(result)
    values = [50.0, 51.0, 54.0]
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    cells = [c.strip() for c in text.split("\n| SAM2-ARAFNet |")[1].splitlines()[0].split("|")]
    assert cells[:4] == ["91.99", "60.00 ± 0.00", "85.43", f"{mean:.2f} ± {spread:.2f}"]
    changes = text.split("## Change")[1].split("##")[0]
    row = changes.split("| w/o ResASPP module |")[1].splitlines()[0]
    assert row.split("|")[0].strip() == "-0.85"
    gap = paired_bootstrap([evidence(1)] * 3, [evidence(0)] * 3, "miou")
    assert gap is not None
    star = "*" if gap.clear else ""
    assert f"-2.00 ± 0.00 [{gap.low:+.2f}, {gap.high:+.2f}]{star} |" in row
    assert "87.84 / 78.31" in text
    assert "50.00 / 30.00" in text
    row = result.to_dict()["rows"][0]
    assert row["printed"]["miou"] == 85.43
    assert row["ours"]["miou"] == {
        "mean": pytest.approx(mean),
        "sd": pytest.approx(spread),
        "by_seed": pytest.approx({0: 50.0, 1: 51.0, 2: 54.0}),
        "against_reference": None,
    }
    lines = list(csv.DictReader(comparison_csv(result).splitlines()))
    own = next(r for r in lines if r["metric"] == "per_class.mud | clay.f1")
    assert (own["printed"], own["mean"], own["runs"]) == ("", "25.0000", "3")
    own = next(r for r in lines if r["method"] != "SAM2-ARAFNet" and r["metric"] == "miou")
    assert own["change_low"] == f"{gap.low:.4f}"


def test_latex_is_a_table_of_booktabs_with_its_signs_escaped() -> None:
    text = comparison_latex(compared())
    order = [r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    places = [text.index(mark) for mark in order]
    assert places == sorted(places)
    assert text.startswith("% \\usepackage{booktabs}")
    assert r"study on the vaihingen dataset \& more." in text
    assert r"SAM2-ARAFNet & \textbf{" not in text.split(r"\midrule")[0]
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert all(line.endswith(r" \\") and line.count("&") == len(columns) - 1 for line in body)
    assert r"\textbf{51.67 $\pm$ 2.08}" in body[0]
    assert latex_text("a_b & 5 % {x} ~ ^ \\ #") == (
        r"a\_b \& 5 \% \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \#"
    )


def test_a_table_without_figures_says_so() -> None:
    trials = load_trials("sam2ms-6")
    rows = [Contender(m.name, m.slug, printed=m.printed.values) for m in trials.methods]
    rows.append(Contender("Heavy", gmacs=85.25, absent="not run: 85.3 GMACs > 25"))
    empty = Comparison("sam2ms-6", trials.title, rows, rows[2], (0,), table=trials.table)
    text = comparison_markdown(empty)
    assert "0 of 3 runs have figures" in text
    assert "80.31" in text
    assert "| Heavy | 85.25 |" in text and "not run: 85.3 GMACs > 25" in text
    assert r"\emph{not run: 85.3 GMACs > 25}" in comparison_latex(empty)


ARGS = ["--only", "(add)", "--recipe", "landcover", "--workers", "1"]


@pytest.mark.slow
def test_a_grid_through_the_command_line(terradapt: Call, folder: Path, tmp_path: Path) -> None:
    """Three methods; one is broken off in training, one before its report; all end the same."""
    out = tmp_path / "grid"
    call = ["trials", "arafnet-6", *TINY, *ARGS, "--data", folder, "-o", out, "--seeds", "4"]
    done = terradapt(*call)
    assert done.status == 0, done.err
    assert "3/3: w/o attention, BFM, and ResASPP (add), seed 4" in done.err
    held = json.loads((out / "trials.json").read_text())
    assert [r["name"] for r in held["rows"]] == [
        "SAM2-ARAFNet",
        "w/o BFM (add)",
        "w/o attention, BFM, and ResASPP (add)",
    ]
    for row in held["rows"]:
        run = out / row["folder"] / "seed-4"
        report = json.loads((run / "report.json").read_text())
        assert row["ours"]["miou"]["mean"] == pytest.approx(100 * report["metrics"]["miou"])
        assert row["ours"]["per_class.class1.iou"]["by_seed"]["4"] >= 0
        assert row["gmacs"] > 0
        assert load_config(run / "config.yaml").train.seed == 4
        seconds = TrialNote.model_validate_json((run / "trial.json").read_text()).seconds
        assert seconds == row["seconds"] > 0
    assert held["rows"][1]["ours"]["miou"]["against_reference"]["images"] == 1
    tables = {p: p.read_bytes() for p in out.glob("trials.*") if p.suffix in (".csv", ".tex")}
    assert {p.suffix for p in out.glob("trials.*")} == {".json", ".md", ".csv", ".tex", ".svg"}
    assert (out / "trials.svg").read_text().count("<path") > 10

    assert terradapt(*call).is_user_error("holds trials already")
    other = [*call, "optim.lr=0.5", "--resume"]
    assert terradapt(*other).is_user_error("another config", "optim.lr")
    runs = [out / r["folder"] / "seed-4" for r in held["rows"]]
    kept = (runs[0] / "report.json").stat().st_mtime_ns
    (runs[1] / "report.json").unlink()
    for name in ("report.json", "checkpoint.safetensors", "last.safetensors"):
        (runs[2] / name).unlink()
    again = terradapt(*call, "--resume")
    assert again.status == 0
    assert "2/2: " in again.err
    assert {p: p.read_bytes() for p in tables} == tables
    assert (runs[0] / "report.json").stat().st_mtime_ns == kept

    report = json.loads((runs[1] / "report.json").read_text())
    report["data"]["split"] = "val"
    (runs[1] / "report.json").write_text(json.dumps(report))
    one = terradapt("runs", out, "--reference", "SAM2-ARAFNet")
    assert one.is_user_error("1 of the folders left out", "split 'val'")
    assert "| w/o attention, BFM, and ResASPP (add) |" in one.out
    assert "| w/o BFM (add) |" not in one.out
    (folder / "splits.json").rename(folder / "kept.json")
    try:
        (folder / "splits.json").write_text('{"train": ["0"], "val": ["2"], "test": ["3"]}')
        assert terradapt(*call, "--resume").is_user_error("other splits")
    finally:
        (folder / "kept.json").replace(folder / "splits.json")


def test_a_run_that_fails_does_not_stop_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terradapt.trials import running

    def run(note, data, path, split, also, bar):
        if "concat" in str(path) and "bfm" in path.parent.name:
            raise ConfigError("the loss is not finite", "lower it")
        return RunEvidence(path, evidence(3))

    monkeypatch.setattr(running, "run_cell", run)
    small = ["encoder.weights=null", "encoder.name=mobilenetv3_small_050"]
    with pytest.raises(ConfigError, match=r"2 runs failed.*not finite"):
        run_trials(
            "arafnet-6", folder, tmp_path, seeds=(0,), only=("concat",), overrides=small, workers=1
        )
    held = json.loads((tmp_path / "trials.json").read_text())
    assert [r["name"] for r in held["rows"] if r["ours"]] == ["SAM2-ARAFNet"]
    assert [r["failed"] for r in held["rows"] if r["failed"]] == 2 * [
        {"0": "the loss is not finite"}
    ]
    assert "not finite" in (tmp_path / "trials.md").read_text()


@pytest.mark.parametrize("bad", [["arafnet-55"], ["nosuch.yaml"]])
def test_unknown_trials_are_told(terradapt: Call, tmp_path: Path, bad: list[str]) -> None:
    assert terradapt("trials", *bad, "-o", tmp_path / "o").is_user_error(bad[0])


def test_mistakes_are_told_before_any_work(terradapt: Call, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tail = ["--data", folder, "-o", out]
    assert terradapt("trials", "sam2ms-6", "--only", "x", *tail).is_user_error("'x'")
    assert terradapt("trials", "sam2ms-6", "--seeds", "a", *tail).is_user_error("--seeds a")
    bad = terradapt("trials", "sam2ms-6", "model.options.nosuch=1", *tail)
    assert bad.is_user_error("nosuch")
    call = ["trials", "sam2ms-6", "encoder.weights=null", "encoder.name=mobilenetv3_small_050"]
    assert terradapt(*call, *tail).is_user_error("sam2ms cannot have 3 classes")
    assert terradapt(*call, "--split", "tset", *tail).is_user_error("no split 'tset'")
    assert terradapt(*call, "--also", folder / "no", *tail).is_user_error("no")
    path = tmp_path / "mine.yaml"
    path.write_text(FILE.replace("gmacs: 100", "gmacs: 0.0001"))
    assert terradapt("trials", path, *tail).is_user_error("kd-arafnet", "GMACs > 0.0001")
    assert not out.exists()


def test_the_old_verb_says_where_it_went(terradapt: Call) -> None:
    told = terradapt("ablate", "arafnet-6", "--data", "my data")
    assert told.is_user_error("terradapt ablate is terradapt trials now")
    assert "terradapt trials arafnet-6 --data 'my data'" in told.errors[1]


def write_run(folder: Path, seed: int = 0, name: str = "isprs-vaihingen", **changes: Any) -> Path:
    """A finished run as evaluation leaves it, without training."""
    folder.mkdir(parents=True)
    config = load_config("kd-arafnet-vaihingen").with_overrides(
        [f"train.seed={seed}", "objective.distill.teacher=t.safetensors", *changes.pop("set", [])]
    )
    (folder / "config.yaml").write_text(config.to_yaml())
    one = evidence(seed)
    values = {
        "format": "terradapt-report-1",
        "metrics": one.metrics,
        "classes": CLASSES.to_dict(),
        "data": {"name": name, "trained_on": name, "split": "test"},
        "protocol": dict(one.protocol),
        "images": list(one.images.values()),
        "image_confusion": {
            i: m.ravel().astype(int).tolist()
            for i, m in zip(one.images, one.confusion, strict=True)
        },
        "model": {**config.model.model_dump(), "objective": config.objective.model_dump()},
    }
    (folder / "report.json").write_text(json.dumps(values | changes))
    return folder


def test_finished_runs_are_grouped_by_what_differs_but_the_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "mine" / f"seed-{seed}", seed)
    write_run(tmp_path / "fast", 2, set=["optim.lr=0.5"])
    comparison, told = compare_runs([tmp_path / "mine", f"Fast={tmp_path / 'fast'}"])
    assert told == []
    assert {c.name: sorted(c.runs) for c in comparison.contenders} == {"mine": [0, 1], "Fast": [2]}
    values = comparison.contenders[0].values("miou")
    assert values == pytest.approx({s: evidence(s).value("miou") for s in (0, 1)})
    assert comparison.notes == ["Fast differs from mine in optim.lr."]
    assert comparison.facts["images"] == 3
    fast, _ = compare_runs([tmp_path], reference="FAST")
    assert fast.reference.name == "fast"


def test_run_folders_that_do_not_fit_are_told_and_the_rest_kept(
    terradapt: Call, tmp_path: Path
) -> None:
    good = write_run(tmp_path / "good")
    write_run(tmp_path / "again")
    write_run(tmp_path / "elsewhere", 1, name="potsdam")
    broken = write_run(tmp_path / "broken", 1, set=["optim.lr=0.5"])
    (broken / "report.json").write_text('{"metrics": {}}')
    lone = write_run(tmp_path / "lone", 1, set=["optim.lr=0.5"])
    (lone / "config.yaml").unlink()
    (tmp_path / "empty").mkdir()
    names = ("good", "again", "elsewhere", "broken", "lone", "empty", "gone")
    comparison, told = compare_runs([tmp_path / n for n in names])
    assert [r.folder for c in comparison.contenders for r in c.runs.values()] == [good]
    assert len(told) == 6
    for name, why in zip(
        ("broken", "lone", "empty", "gone", "elsewhere"),
        ("report.json", "config.yaml", "no finished run", "no folder", "evaluated on potsdam"),
        strict=True,
    ):
        assert any(name in line and why in line for line in told), (name, told)
    done = terradapt("runs", good, tmp_path / "gone", "-o", tmp_path / "table")
    assert done.is_user_error("1 of the folders left out", "gone")
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == [
        f"runs.{s}" for s in ("csv", "json", "md", "tex")
    ]
    assert "Left out: " in (tmp_path / "table" / "runs.md").read_text()
    assert terradapt("runs", tmp_path / "gone").is_user_error("no run to compare", "gone")
    with pytest.raises(ConfigError, match="no method 'Goood'") as wrong:
        compare_runs([good], reference="Goood")
    assert "did you mean 'good'" in wrong.value.fix


def test_the_papers_tables_take_the_mean_over_the_seeds(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / "kd-arafnet-distilled" / f"seed-{seed}", seed)
    write_run(tmp_path / "other" / "seed-0", 9, name="potsdam")
    filled = fill(["arafnet-5"], find_reports([tmp_path]), lambda variant, what: None)[0]
    column = [m for _, m in filled.table.columns].index("miou")
    cell = filled.cells[1][column]
    values = [evidence(s).value("miou") for s in (0, 1, 2)]
    assert cell.ours == pytest.approx(statistics.fmean(values))
    assert (cell.spread, cell.runs) == (pytest.approx(statistics.stdev(values)), 3)


def test_damaged_notes_of_trials_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "trial.json").write_text('{"method": "x", "seconds": -1}')
    with pytest.raises(DataError, match=r"trial\.json"):
        read_run(run)


def test_processes_share_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from terradapt.trials import running

    monkeypatch.setattr(running, "_gpus", lambda: ["3", "5"])
    assert slots_of(3) == [{"CUDA_VISIBLE_DEVICES": n} for n in ("3", "5", "3")]
    assert running.worker_count(None, 9) == 2
    assert running.worker_count(None, 1) == 1
    monkeypatch.setattr(running, "_gpus", list)
    monkeypatch.setattr(running, "cpu_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots_of(4) == [{"OMP_NUM_THREADS": "2"}] * 4
    assert running.worker_count(None, 99) == 8


def test_further_data_are_columns_of_their_own(tmp_path: Path) -> None:
    """SAM2MS's Table 7: trained on one dataset, found roads on another beside the printed ones."""
    trials = load_trials("sam2ms-7")
    rows = []
    for seed, name in enumerate(("UNet (2015)", "SAM2MS (Ours)")):
        one = Contender(name, printed=trials.method(name).printed.values)
        road = ClassMap(("rest", "road"))
        far = evidence(seed + 7, classes=road, metrics={"rlod": 0.5 + 0.1 * seed, "per_class": {}})
        far = replace(far, data={"name": "SpaceNet roads"})
        near = replace(far, data={"name": "deepglobe"}, metrics={"rlod": 0.75, "per_class": {}})
        one.runs[0] = RunEvidence(tmp_path, near, {"SpaceNet roads": far})
        rows.append(one)
    table = Comparison("sam2ms-7", "t", rows, rows[1], (0,), table=trials.table)
    assert table.columns() == {
        "rlod": "RLOD",
        "rlod@SpaceNet roads": "RLOD on SpaceNet roads",
    }
    line = comparison_markdown(table).split("\n| UNet (2015) |")[1].splitlines()[0]
    assert [c.strip() for c in line.split("|")[:4]] == ["–", "75.00", "10.21", "50.00"]
    change = comparison_markdown(table).split("## Change")[1]
    assert "-10.00" in change


@pytest.mark.slow
def test_runs_are_evaluated_on_further_data_too(folder: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "elsewhere")
    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text(FILE.split("  UNetFormer", maxsplit=1)[0])
    small = [*TINY[1:], "train.steps_per_epoch=2"]
    run_trials(path, folder, out, overrides=small, also=[other], workers=1)
    held = read_run(out / "kd-arafnet" / "seed-4")
    assert set(held.further) == {"elsewhere"}
    row = json.loads((out / "trials.json").read_text())["rows"][0]
    assert row["ours"]["miou@elsewhere"]["mean"] == held.further["elsewhere"].value("miou")


@pytest.mark.slow
def test_processes_are_stopped_and_go_on_and_a_student_waits_for_its_teacher(
    folder: Path, tmp_path: Path
) -> None:
    """Two processes, terminated in training; then resumed, and the student last."""
    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text(FILE.replace("resnet18", "mobilenetv3_small_050").replace("0.5", "0.001"))
    small = [s for s in TINY if "steps_per" not in s and "encoder" not in s]
    command = [sys.executable, "-m", "terradapt", "trials", path, *small]
    command += ["train.steps_per_epoch=25", "--data", folder, "-o", out, "--workers", "2"]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL) as process:
        logs = [out / m / "seed-4" / "log.jsonl" for m in ("kd-arafnet", "unetformer")]
        until = time.monotonic() + 120
        while not any(p.is_file() for p in logs) and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert not (out / "student").exists()
    again = [*map(str, command), "--resume"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = json.loads((out / "trials.json").read_text())
    assert [list(r["runs"]) for r in held["rows"]] == [["4"]] * 3
    student = load_config(out / "student" / "seed-4" / "config.yaml")
    assert "unetformer/seed-4" in Path(str(student.objective.distill.teacher)).as_posix()


def test_references_are_rows_of_their_tables() -> None:
    assert set(packaged_names()) == set(REFERENCES)
    assert {load_trials(n).reference.name for n in REFERENCES} == set(REFERENCES.values())
