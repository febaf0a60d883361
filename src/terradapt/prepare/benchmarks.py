"""The preparers of ``DATASETS`` that read benchmarks: options by name in, a dataset out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from terradapt.data.dataset import Dataset
from terradapt.documents import validated
from terradapt.errors import DataError
from terradapt.prepare import deepglobe as _deepglobe
from terradapt.prepare import isprs as _isprs
from terradapt.prepare import levir_cd as _levir_cd
from terradapt.prepare import loveda as _loveda
from terradapt.prepare import massachusetts as _massachusetts
from terradapt.prepare import openearthmap as _openearthmap
from terradapt.prepare import spacenet as _spacenet
from terradapt.prepare.options import PrepareOptions, Tell, tell_nothing
from terradapt.progress import Track, silent

Options = Mapping[str, Any]


def vaihingen(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare ISPRS Vaihingen from a folder or an archive."""
    chosen = read_options(options, "vaihingen")
    return _isprs.prepare_vaihingen(source, out, chosen, track, tell).dataset


def potsdam(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare ISPRS Potsdam from a folder or an archive."""
    chosen = read_options(options, "potsdam")
    return _isprs.prepare_potsdam(source, out, chosen, track, tell).dataset


def deepglobe(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare DeepGlobe roads from a folder or an archive."""
    return _deepglobe.prepare(source, out, read_options(options, "deepglobe"), track, tell).dataset


def spacenet(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare SpaceNet 3 roads from a folder or archives."""
    return _spacenet.prepare(source, out, read_options(options, "spacenet"), track, tell).dataset


def massachusetts(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare Massachusetts roads from a folder or an archive."""
    chosen = read_options(options, "massachusetts")
    return _massachusetts.prepare(source, out, chosen, track, tell).dataset


def loveda(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare LoveDA land cover from a folder or archives."""
    chosen = read_options(options, "loveda")
    return _loveda.prepare_loveda(source, out, chosen, track, tell).dataset


def openearthmap(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare OpenEarthMap land cover from a folder or an archive."""
    chosen = read_options(options, "openearthmap")
    return _openearthmap.prepare_openearthmap(source, out, chosen, track, tell).dataset


def levir_cd(
    source: Path, out: Path, options: Options, track: Track = silent, tell: Tell = tell_nothing
) -> Dataset:
    """Prepare LEVIR-CD building changes from a folder or archives; two dates are six bands."""
    chosen = read_options(options, "levir-cd")
    return _levir_cd.prepare_levir_cd(source, out, chosen, track, tell).dataset


def read_options(options: Options, name: str) -> PrepareOptions:
    """Return checked options of a benchmark's preparation.

    Raises:
        DataError: An unknown option, or a value of the wrong kind.
    """
    known = [field.name for field in fields(PrepareOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DataError(f"no option '{unknown[0]}' for {name}", f"options: {', '.join(known)}")
    chosen = validated(PrepareOptions, dict(options), "options", DataError, "correct its value")
    if chosen.crop is not None and not 0 <= chosen.overlap < chosen.crop:
        raise DataError(
            f"option overlap: {chosen.overlap} px of crops of {chosen.crop} px",
            "give fewer pixels than the crops have",
        )
    return chosen
