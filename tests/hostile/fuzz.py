"""Each parser of files that anyone may have made, fed with damage; found faults end the process.

With atheris, coverage leads the damage; a process of its own, as it ends the one that it runs in:

    python tests/hostile/fuzz.py NAME SECONDS
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None and __name__ == "__main__":
    with atheris.instrument_imports(include=["terradapt"]):
        import terradapt.config
        import terradapt.meta
        import terradapt.plain_yaml
        import terradapt.predictors.onnx_file
        import terradapt.raster.vectors
        import terradapt.raster.vrt  # noqa: F401  read once, with counters in them

from onnx_files import tiny_proto
from terradapt.config import RunConfig, parse_config
from terradapt.errors import TerradaptError
from terradapt.meta import Meta
from terradapt.plain_yaml import load_yaml
from terradapt.predictors.onnx_file import scan
from terradapt.raster.vectors import local_vector
from terradapt.raster.vrt import read_vrt


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


def survives(name: str, data: bytes, home: Path) -> bool:
    """Parse; True when it was read, False when it was refused in words; all else is a fault."""
    try:
        PARSERS[name][1](data, home)
    except TerradaptError:
        return False
    return True


def main() -> None:
    name, seconds = sys.argv[1:]
    home = Path(tempfile.mkdtemp())
    corpus = home / "corpus"
    corpus.mkdir()
    (corpus / "whole").write_bytes(PARSERS[name][0])
    options = [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=10", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: survives(name, data, home))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
