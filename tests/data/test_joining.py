"""Images that come after the splits were drawn join train, others are gone: told, never silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import UTM, picture, place, regions, write_folder
from terradapt.config import DataConfig
from terradapt.data import open_dataset
from terradapt.data.splits import SplitsFile
from terradapt.errors import DataError
from terradapt.preflight.check import check_dataset
from terradapt.raster import write_raster


def add(root: Path, name: str, seed: int, col: int, label: bool = True) -> None:
    """One more image, at a column of the endless grid."""
    ids = regions(96, 128, 3, seed)
    at: dict[str, Any] = {"crs": UTM, "transform": place(0, col)}
    write_raster(root / "images" / f"{name}.tif", picture(ids, seed), **at)
    if label:
        write_raster(root / "labels" / f"{name}.tif", ids, **at)


def remove(root: Path, name: str) -> None:
    for folder in ("images", "labels"):
        (root / folder / f"{name}.tif").unlink()


def stored(root: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((root / "splits.json").read_text())
    return values


def test_new_images_join_train_alone_and_are_marked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_dataset(write_folder(tmp_path, 6)).splits
    add(tmp_path, "new0", 90, 20_000)
    add(tmp_path, "new1", 91, 30_000)
    dataset = open_dataset(tmp_path)
    assert dataset.splits["train"] == tuple(sorted((*before["train"], "new0", "new1")))
    assert (dataset.splits["val"], dataset.splits["test"]) == (before["val"], before["test"])
    lines = [r.getMessage() for r in caplog.records]
    assert lines == [
        f"{tmp_path}: 2 images (new0, new1): new, joined 'train' (marked in splits.json)"
    ]
    assert stored(tmp_path)["joined"] == ["new0", "new1"]
    caplog.clear()
    again = open_dataset(tmp_path)
    assert again.splits == dataset.splits and not caplog.records
    assert again.notes == ("2 images (new0, new1): joined after the splits were drawn",)


@pytest.mark.parametrize("how", ["footprint", "pixels"])
def test_new_images_on_the_ground_of_another_split_are_left_out(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "footprint":
        root = write_folder(tmp_path, 6)
        val = open_dataset(root).splits["val"][0]
        add(root, "new", 90, int(val[1:]) * 256 + 64)
    else:
        root = write_folder(tmp_path, 6, size=(300, 300), suffix=".png")
        val = open_dataset(root).splits["val"][0]
        whole = picture(regions(300, 300, 3, int(val[1:])), int(val[1:]))
        write_raster(root / "images" / "new.png", whole[:, 20:, 30:])
        write_raster(root / "labels" / "new.png", regions(280, 270, 3, 1))
    dataset = open_dataset(root)
    assert "new" not in {i for ids in dataset.splits.values() for i in ids}
    assert "1 image (new): new, left out: ground of val or test" in caplog.text
    assert stored(root)["left_out"] == ["new"] and dataset.left_out == ("new",)
    caplog.clear()
    assert open_dataset(root).splits == dataset.splits and not caplog.records
    told = "\n".join(p.message for p in check_dataset(root).of("note"))
    assert "1 image (new): left out by splits.json" in told


def test_a_group_joins_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 6)
    val = open_dataset(root).splits["val"][0]
    open_dataset(root).save()
    add(root, "a", 90, int(val[1:]) * 256 + 64)
    add(root, "b", 91, 30_000)
    add(root, "c", 92, 40_000)
    index = json.loads((root / "dataset.json").read_text())
    for name, group in (("a", "flight"), ("b", "flight"), ("c", "c")):
        paths = {"image": f"images/{name}.tif", "label": f"labels/{name}.tif"}
        size = {"height": 96, "width": 128}
        index["items"].append({"id": name, "group": group, **size, **paths})
    (root / "dataset.json").write_text(json.dumps(index))
    dataset = open_dataset(root)
    assert set(dataset.left_out) == {"a", "b"} and "c" in dataset.splits["train"]


@pytest.mark.parametrize("both", [True, False])
def test_an_image_that_is_gone_is_told_and_left_out_until_it_is_back(
    tmp_path: Path, both: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when its label still lies there."""
    before = open_dataset(write_folder(tmp_path / "set", 6)).splits
    root, lost = tmp_path / "set", before["train"][0]
    shutil.copytree(root, tmp_path / "copy")
    remove(root, lost) if both else (root / "images" / f"{lost}.tif").unlink()
    for _ in range(2):
        caplog.clear()
        dataset = open_dataset(root)
        assert dataset.splits["train"] == before["train"][1:]
        assert f"1 image ({lost}) of 'train': gone; left out" in caplog.text
    assert f"1 image ({lost}) of 'train': gone" in "\n".join(
        p.message for p in check_dataset(root).of("note")
    )
    add(root, "new", 90, 30_000)  # writing the file keeps the place of what is gone
    open_dataset(root)
    for folder in ("images", "labels"):
        shutil.copy(tmp_path / "copy" / folder / f"{lost}.tif", root / folder)
    assert open_dataset(root).splits["train"] == tuple(sorted((*before["train"], "new")))


def test_a_split_that_is_gone_as_a_whole_is_an_error(tmp_path: Path) -> None:
    splits = open_dataset(write_folder(tmp_path, 6)).splits
    remove(tmp_path, splits["val"][0])
    with pytest.raises(DataError, match="all images of 'val' are gone"):
        open_dataset(tmp_path)


def test_images_without_labels_are_listed_and_join_with_one(tmp_path: Path) -> None:
    write_folder(tmp_path, 5)
    add(tmp_path, "bare", 90, 20_000, label=False)
    dataset = open_dataset(tmp_path)
    assert [(i.id, i.label, i.group) for i in dataset.unlabelled] == [("bare", None, "bare")]
    assert "bare" not in {i.id for i in dataset.items}
    assert "bare" not in {i for ids in dataset.splits.values() for i in ids}
    report = check_dataset(tmp_path)
    assert not report.of("error") and not report.of("warning")
    assert "1 image (bare) without a label" in "\n".join(p.message for p in report.of("note"))
    dataset.save()
    assert [i.id for i in open_dataset(tmp_path).unlabelled] == ["bare"]
    (tmp_path / "dataset.json").unlink()
    add(tmp_path, "bare", 90, 20_000)
    again = open_dataset(tmp_path)
    assert "bare" in again.splits["train"] and not again.unlabelled


def test_a_label_that_is_gone_makes_its_image_unlabelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = open_dataset(write_folder(tmp_path, 6)).splits
    lost = splits["train"][0]
    (tmp_path / "labels" / f"{lost}.tif").unlink()
    dataset = open_dataset(tmp_path)
    assert [i.id for i in dataset.unlabelled] == [lost]
    assert f"1 image ({lost}) of 'train': gone, or the label is" in caplog.text


def test_the_list_unlabelled_takes_labels_away(tmp_path: Path) -> None:
    write_folder(tmp_path, 4)
    lists = {"train": ["s0"], "val": ["s1"], "unlabelled": ["s2", "s3"]}
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    dataset = open_dataset(tmp_path)
    assert [(i.id, i.label) for i in dataset.unlabelled] == [("s2", None), ("s3", None)]
    assert set(dataset.splits) == {"train", "val", "test"}
    lists["unlabelled"] = ["nothere"]
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(DataError, match="'nothere' in 'unlabelled'"):
        open_dataset(tmp_path)


def test_a_hand_written_file_that_lists_an_image_without_a_label_is_told_so(
    tmp_path: Path,
) -> None:
    root = write_folder(tmp_path / "set", 4)
    first = sorted((root / "labels").iterdir())[0]
    ids = [p.stem for p in sorted((root / "images").iterdir())]
    first.unlink()
    (root / "splits.json").write_text(json.dumps({"train": ids[:3], "test": ids[3:]}))
    with pytest.raises(DataError, match=f"'{ids[0]}' in 'train' has no label"):
        open_dataset(root)


def test_new_images_of_stated_folders_join_the_split_of_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part, start in (("train", 0), ("val", 3)):
        write_folder(tmp_path / part, 2)
        for n in range(2):
            remove(tmp_path / part, f"s{n}")
            add(tmp_path / part, f"s{n}", start + n, (start + n) * 256)
    open_dataset(tmp_path)
    add(tmp_path / "val", "new", 9, 30_000)
    dataset = open_dataset(tmp_path)
    assert "val/new" in dataset.splits["val"] and "joined 'val'" in caplog.text


def test_what_a_hand_written_file_does_not_list_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, 4)
    text = '{"train": ["s0", "s1"], "val": ["s2"]}'
    (tmp_path / "splits.json").write_text(text)
    dataset = open_dataset(tmp_path)
    assert dataset.splits["train"] == ("s0", "s1")
    assert "lists 1 image (s3) in no split" in caplog.text
    assert (tmp_path / "splits.json").read_text() == text


def test_a_run_keeps_the_splits_that_it_began_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder(tmp_path / "set", 6)
    first = open_dataset(root)
    held = SplitsFile(dict(first.splits), first.protocol).write(tmp_path / "run.json")
    add(root, "new", 90, 30_000)
    add(root, "bare", 91, 40_000, label=False)
    assert "new" in open_dataset(root).splits["train"]
    caplog.clear()
    resumed = open_dataset(root, held=held)
    assert resumed.splits == first.splits and not resumed.unlabelled
    assert "came after the run began, which goes on without" in caplog.text
    remove(root, first.splits["train"][0])
    assert open_dataset(root, held=held).splits["train"] == first.splits["train"][1:]
    assert "gone; left out" in caplog.text


def test_a_read_only_folder_joins_the_same_images_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_dataset(write_folder(tmp_path, 6))
    add(tmp_path, "new", 90, 30_000)
    text = (tmp_path / "splits.json").read_text()

    def refuse(*_: object) -> None:
        from terradapt.errors import OutputError

        raise OutputError("read-only", "")

    monkeypatch.setattr(SplitsFile, "write", refuse)
    assert "new" in open_dataset(tmp_path, DataConfig()).splits["train"]
    assert "new" in open_dataset(tmp_path, DataConfig()).splits["train"]
    assert (tmp_path / "splits.json").read_text() == text
    assert np.all([len(ids) for ids in open_dataset(tmp_path).splits.values()])
