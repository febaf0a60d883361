"""Pack the QGIS plugin as the zip that QGIS installs: `make qgis-plugin`."""

from __future__ import annotations

import argparse
import configparser
import zipfile
from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "integrations" / "qgis" / "terradapt"
WHEN = (2026, 1, 1, 0, 0, 0)  # so that the same files give the same bytes


def metadata() -> dict[str, str]:
    """Return the plugin's fields, as QGIS reads them."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(PLUGIN / "metadata.txt", "utf-8")
    return dict(parser["general"])


def members() -> list[Path]:
    """Return the plugin's files, sorted."""
    found = (p for p in PLUGIN.rglob("*") if p.is_file())
    return sorted(p for p in found if p.suffix != ".pyc" and "__pycache__" not in p.parts)


def pack(folder: Path) -> Path:
    """Write ``terradapt-qgis-VERSION.zip`` with the one folder ``terradapt``, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"terradapt-qgis-{metadata()['version']}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members():
            name = f"{PLUGIN.name}/{member.relative_to(PLUGIN).as_posix()}"
            entry = zipfile.ZipInfo(name, WHEN)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, member.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("dist"))
    print(pack(parser.parse_args().output))
