"""Stored splits meet the images that are there today: new ones join, others are gone.

Nothing of it is silent: what happened is logged in one line, and stands in the dataset's notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from terradapt.config import DataConfig
from terradapt.data.blocks import cut_blocks, gap_note, gap_of
from terradapt.data.dataset import INDEX_NAME, SPLITS_NAME, Dataset, Item
from terradapt.data.leaks import COMPARED, LEAST_OVERLAP, footprint, overlap, same_pixels
from terradapt.data.splits import Splits, SplitsFile, check_splits
from terradapt.errors import DataError, OutputError

Tell = Callable[[str], None]
_SHOWN = 5  # ids in a line


def with_stored(
    dataset: Dataset,
    config: DataConfig,
    tell: Tell,
    given: Splits | None = None,
    held: Path | None = None,
) -> Dataset:
    """Return the dataset with the splits of its ``splits.json``, or of a run that goes on.

    Where the splits were drawn, images that came later join ``train``, whole groups at a time,
    unless they show ground of another split: then they are left out. The file marks both. Where
    folders state the splits, new images join the split of their folder. Images that are gone are
    left out as long as they are; with ``held``, new ones too.

    Args:
        dataset: Without splits.
        config: Its crop is compared with the gap between blocks.
        tell: Called with a line for each thing that is not as the file has it.
        given: Splits that the folder's layout states.
        held: Splits of the run that goes on, which change no more.

    Raises:
        DataError: Splits that cannot be used, or all images of a split are gone.
    """
    path = held or dataset.root / SPLITS_NAME
    file = SplitsFile.read(path)
    dataset = cut_blocks(dataset, file.blocks, path)
    dataset = _without_labels(dataset, file, path, held)
    own = file.seed is not None or held is not None  # drawn, not written by hand
    known = {i for ids in file.splits.values() for i in ids} | set(file.left_out)
    new = [i for i in dataset.items if i.id not in known]
    notes: list[str] = []
    if new and held is not None:
        notes.append(f"{told(new)}: came after the run began, which goes on without")
        tell(f"{dataset.root}: {notes[-1]}")
    elif new and own:
        file = _join(dataset, file, new, given)
        _tell_joined(dataset, file, new, tell)
        with suppress(OutputError):  # a read-only folder is joined anew each time
            file.write(path)
    elif new and not (dataset.root / INDEX_NAME).is_file():
        tell(f"{path}: lists {told(new)} in no split; not used (list under 'train' to use)")
    splits = _present(dataset, file, path, notes, tell) if own else file.splits
    check_splits(splits, dataset.items, str(path), dataset.unlabelled)
    if file.joined:
        notes.append(f"{told(file.joined)}: joined after the splits were drawn")
    if file.gap:
        notes += _block_notes(dataset, file, config, tell)
    return replace(
        dataset,
        splits=splits,
        protocol=file.protocol,
        left_out=tuple(i.id for i in dataset.items if i.id in file.left_out),
        notes=tuple(notes),
    )


def told(items: Sequence[Item] | Sequence[str]) -> str:
    """Return a count of images with the first ids."""
    ids = [i.id if isinstance(i, Item) else i for i in items]
    names = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if ids[_SHOWN:] else "")
    return f"{len(ids)} image{'s' if ids[1:] else ''} ({names})"


def _without_labels(dataset: Dataset, file: SplitsFile, path: Path, held: Path | None) -> Dataset:
    """The dataset with the images that the file lists as unlabelled among those.

    Of a run that goes on there are no others.
    """
    lost = set(file.unlabelled) - {i.id for i in (*dataset.items, *dataset.unlabelled)}
    if held is not None:
        bare = tuple(i for i in dataset.unlabelled if i.id in file.unlabelled)
        dataset = replace(dataset, unlabelled=bare)
    elif lost:
        raise DataError(
            f"{path}: '{min(lost)}' in 'unlabelled' is no image of this dataset", "correct the id"
        )
    moved = tuple(replace(i, label=None) for i in dataset.items if i.id in file.unlabelled)
    rest = tuple(i for i in dataset.items if i.id not in file.unlabelled)
    return replace(dataset, items=rest, unlabelled=(*dataset.unlabelled, *moved))


def _present(
    dataset: Dataset, file: SplitsFile, path: Path, notes: list[str], tell: Tell
) -> Splits:
    """The splits without the images that are gone; these are noted and told."""
    here, bare = {i.id for i in dataset.items}, {i.id for i in dataset.unlabelled}
    splits = {n: tuple(i for i in ids if i in here) for n, ids in file.splits.items()}
    for name, ids in file.splits.items():
        lost = [i for i in ids if i not in here]
        if not lost:
            continue
        what = "gone" if not bare & set(lost) else "gone, or the label is"
        if not splits[name]:
            raise DataError(
                f"{path}: all images of '{name}' are gone: {told(lost)}",
                f"put them back, or remove {path.name} to draw new splits",
            )
        notes.append(f"{told(lost)} of '{name}': {what}; left out")
        tell(f"{dataset.root}: {notes[-1]}")
    return splits


def _join(
    dataset: Dataset, file: SplitsFile, new: Sequence[Item], given: Splits | None
) -> SplitsFile:
    """The file with new images in ``train``, in their folder's split, or left out."""
    if given is not None:
        home = {i: name for name, ids in given.items() for i in ids}
        added = {n: [i.id for i in new if home.get(i.id) == n] for n in file.splits}
        left: set[str] = set()
    else:
        seen = {i for name, ids in file.splits.items() if name != "train" for i in ids}
        others = [i for i in dataset.items if i.id in seen]
        shown = shows_ground_of(new, others)
        barred = {i.group for i in new if i.id in shown} | {i.group for i in others}
        left = {i.id for i in new if i.group in barred}
        added = {"train": [i.id for i in new if i.id not in left]}
    splits = {n: (*ids, *added.get(n, ())) for n, ids in file.splits.items()}
    joined = [i for ids in added.values() for i in ids]
    return replace(
        file,
        splits={n: tuple(sorted(ids)) for n, ids in splits.items()},
        joined=(*file.joined, *joined),
        left_out=(*file.left_out, *sorted(left)),
    )


def _tell_joined(dataset: Dataset, file: SplitsFile, new: Sequence[Item], tell: Tell) -> None:
    ids = {i.id for i in new}
    for name, part in file.splits.items():
        joined = [i for i in part if i in ids]
        if joined:
            tell(f"{dataset.root}: {told(joined)}: new, joined '{name}' (marked in {SPLITS_NAME})")
    left = [i for i in file.left_out if i in ids]
    if left:
        line = f"{dataset.root}: {told(left)}: new, left out: ground of val or test"
        tell(f"{line} (marked in {SPLITS_NAME})")


def shows_ground_of(new: Sequence[Item], others: Sequence[Item]) -> set[str]:
    """Return the ids of images that show ground of others, by footprint or by pixels."""
    outlines = [shape for i in others if (shape := footprint(i)) is not None]
    found = set()
    for item in new:
        own = footprint(item)
        if own is not None and any(
            own.intersects(o) and overlap(own, o) >= LEAST_OVERLAP for o in outlines
        ):
            found.add(item.id)
    both = [*new, *others]
    if sum(i.height * i.width for i in both) <= COMPARED:
        left, right = np.arange(len(new)), np.arange(len(new), len(both))
        found |= {both[a].id for a, _, _ in same_pixels(both, left=left, right=right)}
    return found


def _block_notes(dataset: Dataset, file: SplitsFile, config: DataConfig, tell: Tell) -> list[str]:
    notes = [gap_note(dataset.scenes, file.gap)]
    wanted = max((gap_of(i, config) for i in dataset.scenes), default=0)
    if wanted > file.gap:
        notes.append(f"the gap of {file.gap} px is narrower than a crop ({wanted} px)")
        tell(f"{dataset.root}: {notes[-1]}; remove {SPLITS_NAME} to draw wider blocks")
    return notes
