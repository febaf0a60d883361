"""Validity: what is data and what is not, of scenes and labels alike; the one place that knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

Masks = Callable[[Sequence[int], bool], NDArray[Any]]
"""(bands, masks) -> (C, H, W): their pixels, or their masks."""


class Validity:
    """What hides pixels of a raster: nodata, alpha and masks; what one of them hides is hidden.

    Nodata hides a pixel where every band that is read holds its own nodata value, so that a black
    roof in one band stays; NaN and infinity in any of them hide it too. Alpha bands hide where they
    are 0, whatever band they are and of whatever type. A mask (inside the file, ``.msk`` beside it,
    of the whole or of single bands) hides where it is 0. A band that is read is never a mask.

    Args:
        file: An open rasterio dataset.
        indexes: 1-based bands that are read.
        everything: They are all bands of the file, in no model's name: alpha bands still hide.
        nodata: A nodata value instead of the file's.

    Attributes:
        bands: Bands that are read and hide nothing.
        nodata: Of each band that is read: the value, in the band's own type, or None.
        alphas: Alpha bands that hide.
        masks: Bands whose masks hide; one of them where the mask is that of the whole file.
    """

    def __init__(
        self,
        file: Any,
        indexes: Sequence[int],
        *,
        everything: bool = False,
        nodata: float | None = None,
    ) -> None:
        colours = file.colorinterp
        alphas = [i for i, c in enumerate(colours, 1) if c == ColorInterp.alpha]
        read = [i for i in indexes if i not in alphas] if everything else list(indexes)
        self.bands = tuple(read)
        self.alphas = tuple(i for i in alphas if everything or i not in indexes)
        values = _nodata_values(file) if nodata is None else [nodata] * file.count
        self.nodata = tuple(_in_type(values[i - 1], file.dtypes[i - 1]) for i in read)
        self.masks = _mask_bands(file, read)
        self._places = [list(indexes).index(i) for i in read]

    @property
    def is_plain(self) -> bool:
        """Whether nodata alone hides pixels."""
        return not self.alphas and not self.masks

    def of(self, raw: NDArray[Any], masks: Masks) -> NDArray[np.bool_]:
        """Return the (H, W) mask of the pixels that are data.

        Args:
            raw: (C, H, W) pixels of the bands that are read.
            masks: Reads alpha bands and masks of the same place.
        """
        whole = self._places == list(range(len(raw)))
        read = raw if whole else raw[self._places]
        valid = np.ones(raw.shape[1:], bool)
        stated = [value for value in self.nodata if value is not None]
        if stated and len(stated) == len(self.nodata):
            hidden = np.ones(raw.shape[1:], bool)
            for band, value in zip(read, stated, strict=True):
                hidden &= np.isnan(band) if np.isnan(value) else band == band.dtype.type(value)
                if not hidden.any():
                    break
            valid &= ~hidden
        if raw.dtype.kind == "f":
            valid &= np.isfinite(read).all(0)
        if self.alphas:
            valid &= (masks(self.alphas, False) > 0).all(0)
        if self.masks:
            valid &= (masks(self.masks, True) > 0).all(0)
        return valid


def shrink(valid: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return what is farther than ``by`` px, in rows or columns, from every pixel that is hidden.

    Beyond the array nothing is hidden.
    """
    void = ~valid
    for _ in range(2):
        sums = np.pad(void, ((by + 1, by), (0, 0))).cumsum(0, dtype=np.int32)
        void = (sums[2 * by + 1 :] > sums[: -2 * by - 1]).T
    return ~void


def _nodata_values(file: Any) -> list[float | None]:
    """The nodata value of every band; PNG and some GeoTIFFs state them together."""
    together = file.tags().get("NODATA_VALUES", "").split()
    if len(together) == file.count:
        try:
            return [float(value) for value in together]
        except ValueError:
            pass
    return list(file.nodatavals)


def _in_type(value: float | None, dtype: str) -> float | None:
    """A nodata value as a band of a type can hold it; None where it cannot."""
    kind = np.dtype(dtype)
    if value is None or kind.kind == "f":
        with np.errstate(over="ignore"):
            return value if value is None else float(kind.type(value))
    if kind.kind not in "iu" or not float(value).is_integer():
        return None
    limits = np.iinfo(kind)
    return value if limits.min <= value <= limits.max else None


def _mask_bands(file: Any, indexes: Sequence[int]) -> tuple[int, ...]:
    flags = file.mask_flag_enums
    other = {MaskFlags.alpha, MaskFlags.nodata, MaskFlags.all_valid}
    masked = [i for i in indexes if not other & set(flags[i - 1])]
    whole = [i for i in masked if MaskFlags.per_dataset in flags[i - 1]]
    return tuple(whole[:1] + [i for i in masked if i not in whole])
