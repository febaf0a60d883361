from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest

from terradapt import models
from terradapt.ablation import AblationResult, ablate, load_study, study_names
from terradapt.ablation import cell_config as config_of
from terradapt.ablation.result import ablation_csv, ablation_markdown, lookup
from terradapt.config import load_config
from terradapt.errors import ConfigError, OutputError
from terradapt.models import build_on_meta
from terradapt.report.printed import load_tables
from training_files import SMALL, write_folder

TINY = [*SMALL, "train.epochs=1", "train.steps_per_epoch=2", "train.ema=null"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", study_names())
def test_every_row_of_a_printed_table_is_a_variant_that_builds(name: str) -> None:
    study = load_study(name)
    table = next(t for t in load_tables() if t.id == name)
    assert [v.row for v in study.variants] == list(table.rows)
    assert len({v.slug for v in study.variants}) == len(study.variants)
    configs = [config_of(study, v, 3, ["encoder.weights=null"], None) for v in study.variants]
    assert len({c.model_dump_json(exclude={"name"}) for c in configs}) == len(configs)
    assert {c.train.seed for c in configs} == {3}
    for config in configs:
        classes = 2 if config.model.name == "sam2ms" else 6
        model = build_on_meta(config.model, classes)
        assert not any(p.requires_grad for p in model.encoder.trunk.parameters())


def test_table_6_of_arafnet_switches_what_it_names() -> None:
    study = load_study("arafnet-6")
    parts = {
        v.name: build_on_meta(config_of(study, v, 0, ["encoder.weights=null"], None).model, 6)
        for v in study.variants
    }
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
    study = load_study("sam2ms-4")
    found = []
    for variant in study.variants:
        config = config_of(study, variant, 0, ["encoder.weights=W/{encoder}.pt"], None)
        encoder = config.model.encoder
        assert encoder.weights == f"W/{encoder.name}.pt"
        found.append((encoder.name.removeprefix("sam2_hiera_"), encoder.adapters))
    sizes = ("tiny", "small", "base_plus", "large")
    assert found == [(s, adapted) for s in sizes for adapted in (False, True)]


def test_tables_5_and_6_of_sam2ms_switch_lossnet_mssm_and_drb() -> None:
    study = load_study("sam2ms-5")
    weights = ["objective.lossnet.weights=W/{lossnet}.safetensors"]
    nets = [config_of(study, v, 0, weights, None).objective.lossnet for v in study.variants]
    assert [n and (n.name, n.weights) for n in nets] == [
        None,
        ("vgg16", "W/vgg16.safetensors"),
        ("resnet50", "W/resnet50.safetensors"),
    ]
    study = load_study("sam2ms-6")
    options = [models.parse_options(config_of(study, v, 0, [], None).model) for v in study.variants]
    assert [(o.mssm, o.drb) for o in options] == [
        (False, "paper"),
        (True, "none"),
        (True, "paper"),
    ]


def test_the_users_overrides_hold_for_all_variants_and_the_variants_go_last() -> None:
    study = load_study("arafnet-6")
    given = ["model.options.width=64", "model.options.resaspp=true", "train.seed=9"]
    for variant in study.variants:
        config = config_of(study, variant, 5, given, "landcover")
        assert config.model.options["width"] == 64
        assert config.train.seed == 5
    assert config.model.options["resaspp"] is False


def filled(seeds: tuple[int, ...] = (0, 1, 2)) -> AblationResult:
    study = load_study("arafnet-6")
    result = AblationResult(study, study.variants[:2], seeds)
    for seed in seeds:
        for i, variant in enumerate(result.variants):
            per_class = {
                "car": {"f1": 0.5, "iou": 0.4 - 0.1 * i},
                "mud | clay": {"f1": 0.25, "iou": 0.2},
            }
            metrics = {"mf1": 0.6, "miou": 0.5 + 0.01 * seed**2 - 0.02 * i, "oa": 0.7}
            result.metrics[variant.slug, seed] = {**metrics, "per_class": per_class}
    return result


def test_the_table_holds_mean_and_spread_beside_the_printed_values() -> None:
    result = filled()
    text = ablation_markdown(result)
    values = [50.0, 51.0, 54.0]
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    cells = [c.strip() for c in text.split("\n| SAM2-ARAFNet |")[1].splitlines()[0].split("|")]
    assert cells[:4] == ["91.99", "60.00 ± 0.00", "85.43", f"{mean:.2f} ± {spread:.2f}"]
    changes = text.split("## Change")[1].split("##")[0]
    assert "| w/o ResASPP module | -0.85 | +0.00 ± 0.00 | -1.40 | -2.00 ± 0.00 |" in changes
    assert "87.84 / 78.31" in text
    assert "50.00 / 30.00" in text
    row = result.to_dict()["rows"][0]
    assert row["printed"]["miou"] == 85.43
    assert row["ours"]["miou"] == {
        "mean": pytest.approx(mean),
        "sd": pytest.approx(spread),
        "by_seed": pytest.approx({0: 50.0, 1: 51.0, 2: 54.0}),
    }
    lines = list(csv.DictReader(ablation_csv(result).splitlines()))
    own = next(r for r in lines if r["metric"] == "per_class.mud | clay.f1")
    assert (own["printed"], own["ours_mean"], own["runs"]) == ("", "25.0000", "3")


def test_a_table_without_figures_says_so() -> None:
    study = load_study("sam2ms-6")
    text = ablation_markdown(AblationResult(study, study.variants, (0,)))
    assert "0 of 3 runs have figures" in text
    assert "80.31" in text


def test_the_road_is_the_second_of_two_classes_whatever_its_name() -> None:
    classes = {"rest": {"f1": 0.9}, "street": {"f1": 0.25}}
    assert lookup({"per_class": classes}, "per_class.road.f1") == 0.25
    assert lookup({"per_class": {**classes, "x": {"f1": 1.0}}}, "per_class.road.f1") is None
    assert lookup({"per_class": {}, "mae_x100": 1.5}, "mae_x100") == 1.5
    assert lookup({"per_class": {}}, "mdice") is None


ARGS = ["--only", "SAM2-ARAFNet", "--only", "(add)", "--recipe", "landcover"]


def test_a_grid_through_the_command_line(terradapt, folder: Path, tmp_path: Path) -> None:
    """Three variants; one is broken off in training, one before its report; all end the same."""
    out = tmp_path / "grid"
    call = ["ablate", "arafnet-6", *TINY, *ARGS, "--data", folder, "-o", out, "--seeds", "4"]
    done = terradapt(*call)
    assert done.status == 0, done.err
    assert "3/3: w/o attention, BFM, and ResASPP (add), seed 4" in done.err
    held = json.loads((out / "ablation.json").read_text())
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
        assert load_config(run / "config.yaml").train.seed == 4
    texts = {p: p.read_bytes() for p in out.glob("ablation.*")}
    assert len(texts) == 3

    assert terradapt(*call).is_user_error("holds an ablation already")
    other = [*call, "optim.lr=0.5", "--resume"]
    assert terradapt(*other).is_user_error("another config", "optim.lr")
    runs = [out / r["folder"] / "seed-4" for r in held["rows"]]
    kept = (runs[0] / "report.json").stat().st_mtime_ns
    (runs[1] / "report.json").unlink()
    for name in ("report.json", "checkpoint.safetensors", "last.safetensors"):
        (runs[2] / name).unlink()
    assert terradapt(*call, "--resume").status == 0
    assert {p: p.read_bytes() for p in out.glob("ablation.*")} == texts
    assert (runs[0] / "report.json").stat().st_mtime_ns == kept


def test_a_run_that_fails_later_does_not_stop_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terradapt import ablation

    def run(config, data, path, split, bar):
        if "concat" in str(path) and "bfm" in path.parent.name:
            raise ConfigError("the loss is not finite", "lower it")
        metrics = {"miou": 0.5, "mf1": 0.5, "oa": 0.5, "per_class": {}}
        return {"metrics": metrics, "data": {"name": "x", "split": "test"}}

    monkeypatch.setattr(ablation, "_run", run)
    with pytest.raises(ConfigError, match=r"2 runs failed.*not finite"):
        ablate("arafnet-6", folder, tmp_path, seeds=(0,), overrides=["encoder.weights=null"])
    held = json.loads((tmp_path / "ablation.json").read_text())
    assert len([r for r in held["rows"] if r["ours"]]) == 9
    assert len(held["failed"]) == 2
    assert "not finite" in (tmp_path / "ablation.md").read_text()


def test_mistakes_are_told_before_any_work(terradapt, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tail = ["--data", folder, "-o", out]
    assert terradapt("ablate", "arafnet-5", *tail).is_user_error("arafnet-5")
    assert terradapt("ablate", "sam2ms-6", "--only", "x", *tail).is_user_error("'x'")
    assert terradapt("ablate", "sam2ms-6", "--seeds", "a", *tail).is_user_error("--seeds a")
    bad = terradapt("ablate", "sam2ms-6", "model.options.nosuch=1", *tail)
    assert bad.is_user_error("nosuch")
    assert not out.exists()
    call = ["ablate", "sam2ms-6", "encoder.weights=null", "encoder.name=mobilenetv3_small_050"]
    assert terradapt(*call, *tail).is_user_error("sam2ms cannot have 3 classes")
    with pytest.raises(OutputError, match="holds an ablation"):
        ablate("sam2ms-6", folder, out)
