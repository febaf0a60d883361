"""Terms for thin things in a run: they are weighed, logged, and refused for many classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from terradapt import training
from terradapt.config import load_config
from terradapt.errors import ConfigError
from terradapt.training.run import Run
from training_files import SMALL, write_folder

BOTH = ["objective.skeleton_recall=0.5", "objective.cldice=0.3", "objective.cldice_iterations=4"]
SHORT = [*SMALL, "train.epochs=1", "train.steps_per_epoch=10"]


@pytest.mark.parametrize("name", ["supervised", "structure"])
def test_both_terms_are_part_of_the_loss(tmp_path: Path, name: str) -> None:
    config = load_config("roads").with_overrides([*SHORT, *BOTH, f"objective.name={name}"])
    folder = write_folder(tmp_path / "data", classes=2)
    training.train(config, folder, tmp_path / "run")
    step = next(e for e in Run(tmp_path / "run").events() if e["event"] == "step")
    assert 0 < step["skeleton_recall"] <= 0.5 and 0 < step["cldice"] <= 0.3
    terms = {k: v for k, v in step.items() if k not in NOT_TERMS}
    assert step["loss"] == pytest.approx(sum(terms.values()), abs=1e-5)


NOT_TERMS = {"event", "step", "epoch", "lr", "loss", "crops_per_second"}


def test_three_classes_have_no_skeleton(tmp_path: Path) -> None:
    config = load_config("landcover").with_overrides([*SMALL, BOTH[0]])
    with pytest.raises(ConfigError, match=r"objective\.skeleton_recall is for 2 classes"):
        training.train(config, write_folder(tmp_path / "data"), tmp_path / "run")
