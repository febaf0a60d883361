"""Connected regions of equal value, by runs of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def label_equal(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the 4-connected regions of equal value of an (H, W) array.

    Returns:
        (H, W) numbers from 0, in the order of the regions' first pixels.
    """
    height, width = values.shape
    begins = np.ones((height, width), bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    runs = (
        begins.ravel().cumsum(dtype=np.int32).reshape(height, width) - 1
    )  # a number for each run of a row
    same = values[1:] == values[:-1]
    # two runs that touch do so at the first common column, where one of them begins
    meet = same & (begins[1:] | begins[:-1])
    upper, lower = runs[:-1][meet], runs[1:][meet]
    count = int(runs[-1, -1]) + 1
    links = coo_matrix((np.ones(len(upper), bool), (upper, lower)), (count, count))
    _, regions = connected_components(links, directed=False)
    _, first = np.unique(regions, return_index=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    numbered: NDArray[np.int64] = order[regions][runs]
    return numbered
