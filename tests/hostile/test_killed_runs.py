"""Killed runs: at every step that changes the disk, at random, alone and in pairs."""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from killing import KILLED, End, Run, jobs, state

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(os.name == "nt", reason="forks and SIGKILL"),
]
# Points at which a job is killed at most, spread over all that it has; and kills at random.
POINTS = {"predict": 40, "train": 8, "vectorize": 16, "export": 8, "prepare": 30}
KILLS = {"predict": 8, "train": 3, "vectorize": 6, "export": 4, "prepare": 8}


class Whole:
    """An unbroken run: its inputs, its result, its points and its time."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.inputs, self.folder = name, folder / "inputs", folder
        self.job = jobs()[name]
        self.inputs.mkdir()
        self.job.prepare(self.inputs)
        self.out = out = folder / "out"
        self.end = self.run(out)
        assert self.end.code == 0, self.end.said
        self.state = state(out, self.job.ignored)
        shutil.rmtree(out)

    def run(self, out: Path, resume: bool = False, after: float | None = None, **death) -> End:
        out.mkdir(parents=True, exist_ok=True)
        return Run(self.name, self.inputs, out, resume, **death).end(after)


@pytest.fixture(scope="module", params=list(POINTS))
def whole(request, tmp_path_factory) -> Whole:
    return Whole(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def figures(whole, request):
    """Counts of a test; written as a line of JSON where TERRADAPT_FIGURES says."""
    counts: Counter[str] = Counter()
    shutil.rmtree(whole.out, ignore_errors=True)
    yield counts
    place = os.environ.get("TERRADAPT_FIGURES")
    if place:
        row = {"verb": whole.name, "test": request.node.originalname, **counts}
        with Path(place).open("a") as file:
            file.write(json.dumps(row) + "\n")


def settle(whole: Whole, out: Path, figures: Counter, what: object) -> None:
    """Run again what was killed: the unbroken bytes, no file besides, or an error in words."""
    again = whole.run(out, resume=True)
    figures["tried"] += 1
    assert again.code in (0, 2), (what, again.said)
    if again.code == 2:
        figures["refused"] += 1
        return
    found = state(out, whole.job.ignored)
    left = sorted(found.keys() - whole.state.keys())
    wrong = [name for name, value in whole.state.items() if found.get(name) != value]
    figures["left"] += len(left)
    figures["wrong"] += len(wrong)
    assert not left, (what, left)
    assert not wrong, (what, wrong)
    figures["survived"] += 1
    shutil.rmtree(out)


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_every_step_that_changes_the_disk(whole, figures, torn):
    points = [i for i, kind in enumerate(whole.end.points, 1) if kind == "f" or not torn]
    step = max(1, len(points) / POINTS[whole.name])
    for i in range(round(len(points) / step)):
        point = points[round(i * step)]
        killed = whole.run(whole.out, point=point, torn=torn)
        assert killed.code == KILLED, (point, killed)
        figures["kills"] += 1
        settle(whole, whole.out, figures, (point, torn))
    assert figures["kills"] >= 3
    assert figures["refused"] == 0


def test_killed_at_random_and_again(whole, figures):
    draw, out = random.Random(7), whole.out
    for number in range(KILLS[whole.name]):
        for _ in range(1 + number % 3):
            after = draw.uniform(0, 1.1) * whole.end.seconds
            ended = whole.run(out, resume=out.exists(), after=after + 0.05)
            assert ended.code in (0, KILLED), ended.said
            figures["kills"] += ended.code == KILLED
        settle(whole, out, figures, number)
    assert figures["kills"]
    assert figures["refused"] == 0


def test_two_runs_at_once_killed_and_resumed(whole, figures):
    draw, out = random.Random(9), whole.out
    for number in range(max(3, KILLS[whole.name] // 2)):
        out.mkdir(parents=True, exist_ok=True)
        pair = [Run(whole.name, whole.inputs, out, True) for _ in range(2)]
        ends = [run.end(draw.uniform(0.2, 1.2) * whole.end.seconds) for run in pair]
        for end in ends:
            assert end.code in (0, 2, KILLED), end.said
            assert end.code != 2 or "is being written by" in end.said
            figures["kills"] += end.code == KILLED
            figures["second refused"] += end.code == 2
        settle(whole, out, figures, number)
