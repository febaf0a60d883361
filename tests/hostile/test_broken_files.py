"""Broken files of every kind through the command line: two lines, or a right result."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from broken import WHOLE, Whole, broken, call, files, folders, peak

from onnx_files import tiny_proto, write_tiny
from terradapt.config import RunConfig, parse_config
from terradapt.errors import TerradaptError
from terradapt.meta import Meta
from terradapt.plain_yaml import load_yaml
from terradapt.predictors.onnx_file import scan
from terradapt.raster import SceneReader
from terradapt.raster.vectors import local_vector
from terradapt.raster.vrt import read_vrt

pytestmark = [pytest.mark.hostile, pytest.mark.filterwarnings("default")]
CASES = 28
"""Broken inputs of each of the twenty kinds."""
MOST_MEMORY = 2 << 30
FUZZ_SECONDS = float(os.environ.get("TERRADAPT_FUZZ_SECONDS", "60"))


def note(test: str, name: str, counts: Counter[str]) -> None:
    place = os.environ.get("TERRADAPT_FIGURES")
    if place:
        with Path(place).open("a") as file:
            file.write(json.dumps({"test": test, "kind": name, **counts}) + "\n")


@pytest.mark.parametrize("whole", WHOLE, ids=lambda w: w.name)
def test_broken_files_are_refused_in_two_lines_or_read(whole: Whole, tmp_path: Path) -> None:
    write_tiny(tmp_path / "x.onnx")
    counts: Counter[str] = Counter()
    faults = []
    for seed, case in folders(tmp_path, whole, range(CASES)):
        before = files(case)
        peak()
        args = [a.format(file=whole.file, onnx=tmp_path / "x.onnx") for a in whole.call]
        seen = call(case, *args)
        left = {n for n in set(files(case)) - set(before) if "label-index" not in n}
        counts["tried"] += 1
        lines = [s.split(":")[0] for s in seen.said.splitlines() if s.startswith(("error", "fix"))]
        if seen.code == 2 and lines == ["error", "fix"]:
            counts["refused"] += 1
            if left and "to/" not in "".join(left) and not any(".part" in n for n in left):
                faults.append((seed, "left", sorted(left)))
        elif seen.code == 1 and whole.call[0] == "data":
            counts["told"] += 1  # the check's own page says what is wrong with the data
        elif seen.code == 0:
            counts["read"] += 1
            if whole.raster:
                with SceneReader(case / whole.file) as a, SceneReader(case / "o.tif") as b:
                    if (a.height, a.width) != (b.height, b.width):
                        faults.append((seed, "another size"))
        else:
            faults.append((seed, seen.code, seen.said[-300:]))
        if (held := peak()) > MOST_MEMORY:
            faults.append((seed, "memory", held))
        if seen.seconds > 60:
            faults.append((seed, "time", seen.seconds))
    counts["faults"] = len(faults)
    note("broken", whole.name, counts)
    assert not faults, faults[:6]


def _vrt(data: bytes, home: Path) -> None:
    path = home / "f.vrt"
    path.write_bytes(data)
    for source in read_vrt(path):
        source.path(path)


def _vector(data: bytes, home: Path) -> None:
    path = home / "f.geojson"
    path.write_bytes(data)
    with local_vector(path):
        pass


def _yaml(data: bytes, _: Path) -> None:
    with suppress(yaml.YAMLError):
        load_yaml(data.decode("utf-8", "replace"))


VRT = b"""<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>
</VRTRasterBand></VRTDataset>"""
PARSERS: dict[str, tuple[bytes, Callable[[bytes, Path], object]]] = {
    "ONNX": (tiny_proto().SerializeToString(), lambda data, _: scan(data, Path("f.onnx"))),
    "VRT": (VRT, _vrt),
    "vector": (b'{"type": "FeatureCollection", "features": []}', _vector),
    "YAML": (RunConfig().to_yaml().encode(), _yaml),
    "recipe": (
        RunConfig().to_yaml().encode(),
        lambda data, _: parse_config(data.decode("utf-8", "replace"), "f.yaml"),
    ),
    "metadata": (
        b'{"format": 2, "classes": {"names": ["a", "b"]}, "config": {}, "window": 64}',
        lambda data, _: Meta.from_json(data.decode("utf-8", "replace"), "f"),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_parsers_end_in_words(name: str, tmp_path: Path) -> None:
    """Damage upon damage for a minute; whatever is not the house's own error is a fault."""
    data, parse = PARSERS[name]
    draw = random.Random(1)
    stop = time.monotonic() + FUZZ_SECONDS
    counts: Counter[str] = Counter()
    while time.monotonic() < stop or not counts["tried"]:
        text = data
        for _ in range(draw.choice((1, 1, 2, 8))):
            text = broken(text or data, draw.randrange(1 << 40))
        counts["tried"] += 1
        try:
            parse(text, tmp_path)
            counts["read"] += 1
        except TerradaptError:
            counts["refused"] += 1
    note("fuzz", name, counts)
