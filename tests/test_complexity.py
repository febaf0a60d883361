"""The catalogue of models: its rows, the verb, the page that is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from terradapt.cli import build_app
from terradapt.complexity import catalogue, measure, row
from terradapt.config import EncoderConfig, ModelConfig
from terradapt.counts import ComplexityRow, counted_rows, plain, with_table
from terradapt.errors import ConfigError
from terradapt.models import MODELS, build
from terradapt.models.encoder import STUDENTS
from terradapt.tables.variants import counts_of_tables

SMALL = "mobilenetv3_small_100"
PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.fixture(scope="module")
def rows() -> list[ComplexityRow]:
    return catalogue()


def test_every_model_and_every_student_has_a_row(rows: list[ComplexityRow]) -> None:
    assert {r.name for r in rows} == set(MODELS)
    assert {r.encoder for r in rows if r.name == "kd-arafnet"} == set(STUDENTS)
    assert all(r.trainable <= r.parameters + 1_200_000 and r.gmacs > 0 for r in rows)
    teacher = next(r for r in rows if r.name == "sam2-arafnet")
    assert teacher.parameters == 222_996_278
    assert teacher.trainable == 1_714_416 + 9_132_566 + 148_486  # adapters, decoder, auxiliary head


def test_the_page_s_table_is_fresh(rows: list[ComplexityRow]) -> None:
    page = PAGE.read_text("utf-8")
    assert with_table(page, rows) == page, "run: python checks/counts.py"
    assert all(f"`{name}`" in page for name in MODELS)


def test_the_stored_counts_are_fresh(rows: list[ComplexityRow]) -> None:
    """The verbs show stored counts: each is counted again here."""
    stored = counted_rows()
    assert list(stored["catalogue"]) == rows, "run: python checks/counts.py"
    for r in stored["further"]:
        at = {"classes": r.classes, "batch": r.batch, "size": r.size}
        assert row(r.name, r.encoder, options=r.options, **at) == r
    known = [*stored["catalogue"], *stored["further"]]
    assert all(r in known for r in counts_of_tables()), "run: python checks/counts.py"


def test_verb_prints_columns(rows: list[ComplexityRow]) -> None:
    lines = plain(rows).splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].split()[:2] == ["model", "encoder"]
    assert lines[1].split()[:2] == ["sam2-arafnet", "sam2_hiera_large"]


def test_verb_counts_any_encoder_as_json() -> None:
    result = CliRunner().invoke(build_app(), ["models", "--json", "--encoder", SMALL])
    assert result.exit_code == 0
    (found,) = json.loads(result.stdout)
    assert {"name", "encoder", "parameters", "trainable", "thop_parameters", "gmacs"} <= set(found)
    assert (found["name"], found["encoder"], found["batch"], found["size"]) == (
        "kd-arafnet",
        SMALL,
        8,
        512,
    )
    assert round(found["gmacs"], 3) == 43.227


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = build(ModelConfig(encoder=EncoderConfig(name=SMALL)), 3).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = measure(model, 1, 64), measure(model, 2, 64)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert second.macs == 2 * first.macs
    assert second.parameters == first.parameters == sum(p.numel() for p in model.parameters())
    assert all(not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(("name", "encoder"), [("segnet", SMALL), ("kd-arafnet", "resnet1")])
def test_unknown_names_are_told(name: str, encoder: str) -> None:
    with pytest.raises(ConfigError):
        row(name, encoder)
