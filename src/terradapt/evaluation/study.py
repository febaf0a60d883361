"""The split study: do training and test images, or two datasets, look alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terradapt.config import DataConfig
from terradapt.data import Dataset, Item, open_dataset
from terradapt.data.study import feature_names, item_features
from terradapt.errors import DataError
from terradapt.progress import Advance
from terradapt.report import Report
from terradapt.report.figures import draw_scatter

PER_GROUP = 200  # images of one split or dataset at most
_SEED = 0


def add_study(
    report: Report,
    dataset: Dataset,
    others: Sequence[Path | str] = (),
    progress: Advance | None = None,
) -> None:
    """Add the plots of SAM2MS's Figures 6 and 10 to a report.

    Args:
        report: Where the drawings and the accuracies of telling groups apart go.
        dataset: Its splits are compared with each other.
        others: Folders of datasets that are compared with it as a whole.
        progress: Called with 1 for each image.

    Raises:
        DataError: Fewer than four labelled images, or datasets with other numbers of classes.
    """
    drawings = dict(report.figures)
    splits = {
        name: _sample(dataset.split(name))
        for name, ids in dataset.splits.items()
        if ids and name in ("train", "val", "test")
    }
    drawn, told = study({n: (dataset, i) for n, i in splits.items()}, progress)
    drawings["Split study"] = drawn
    report.protocol["split_study"] = told
    if others:
        whole = {dataset.name: (dataset, _sample(dataset.items))}
        for folder in others:
            other = open_dataset(Path(folder), DataConfig())
            name = other.name if other.name not in whole else str(folder)
            whole[name] = (other, _sample(other.items))
        drawn, told = study(whole, progress)
        drawings["Dataset study"] = drawn
        report.protocol["dataset_study"] = told
    report.figures = drawings


def study(
    groups: Mapping[str, tuple[Dataset, Sequence[Item]]],
    progress: Advance | None = None,
) -> tuple[str, str]:
    """Draw groups of images in the plane of PCA and of t-SNE.

    Returns:
        SVG text, and one sentence: how well a nearest-neighbour classifier tells the groups apart.

    Raises:
        DataError: Fewer than four images, or datasets with other numbers of classes.
    """
    counts = {len(data.classes) for data, _ in groups.values()}
    if len(counts) > 1:
        raise DataError(
            "the datasets have different numbers of classes", "compare datasets of one task"
        )
    rows, labels = [], []
    for name, (data, items) in groups.items():
        for item in items:
            rows.append(item_features(data, item))
            labels.append(name)
            if progress is not None:
                progress(1)
    if len(rows) < 4:
        raise DataError(
            f"{len(rows)} images are too few for the study", "give a dataset of four or more"
        )
    features = standardize(np.stack(rows))
    panels, shares = embed(features)
    told = _told(features, labels)
    note = f"{len(rows)} images, {len(feature_names(counts.pop()))} features; "
    note += f"PCA shows {100 * shares.sum():.0f} % of the variance; {told}"
    return draw_scatter(panels, labels, note), told


def standardize(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return features with mean 0 and deviation 1 each; constant ones are 0."""
    spread = features.std(axis=0)
    centred = features - features.mean(axis=0)
    scaled: NDArray[np.float64] = np.divide(
        centred, spread, out=np.zeros_like(centred), where=spread > 1e-12
    )
    return scaled


def embed(
    features: NDArray[np.float64],
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Return (N, 2) points of PCA and t-SNE, and the variance shares of the PCA's axes."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    pca = PCA(2, svd_solver="full")
    flat = pca.fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=_SEED, n_jobs=1)
    points = {"PCA": flat, "t-SNE": tsne.fit_transform(features)}
    return points, pca.explained_variance_ratio_


def _told(features: NDArray[np.float64], labels: Sequence[str]) -> str:
    """Say how often an image's nearest other image is of its own group, against chance."""
    names = np.array(labels)
    if len(set(labels)) < 2:
        return "one group only"
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    own = names[distance.argmin(axis=1)] == names
    chance = np.mean([(names == n).sum() - 1 for n in names]) / (len(names) - 1)
    return (
        f"the nearest image is of the same group in {100 * own.mean():.0f} % of cases, "
        f"by chance in {100 * chance:.0f} %"
    )


def _sample(items: Sequence[Item]) -> list[Item]:
    """Take evenly spaced labelled items, the same every time."""
    labelled = [i for i in items if i.label is not None]
    if len(labelled) <= PER_GROUP:
        return labelled
    picks = np.linspace(0, len(labelled) - 1, PER_GROUP).round().astype(int)
    return [labelled[i] for i in picks]
