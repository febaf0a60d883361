"""Archives: what they hold comes out, and nothing comes out of the folder."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark_files import pack_tar, pack_zip
from terradapt.errors import DataError, OutputError
from terradapt.files import size_text
from terradapt.prepare.archives import DEEPEST, gather


def anything(name: str) -> bool:
    return not name.endswith(".skip")


def fill(folder: Path, names: dict[str, bytes]) -> Path:
    for name, content in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"a/one.txt": b"1" * 5000, "a/b/two.txt": b"22", "three.skip": b"333"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz"])
def test_what_is_wanted_comes_out(tmp_path: Path, name: str) -> None:
    pack = pack_zip if name.endswith(".zip") else pack_tar
    archive = pack(fill(tmp_path / "files", FILES), tmp_path / "in" / name)
    found = gather(archive, tmp_path / "out", anything)
    assert [f.name for f in found] == [f"{name}/a/b/two.txt", f"{name}/a/one.txt"]
    assert found[1].path.read_bytes() == FILES["a/one.txt"]


def test_archives_in_archives(tmp_path: Path) -> None:
    inner = pack_zip(fill(tmp_path / "files", FILES), tmp_path / "l1" / "inner.zip")
    middle = pack_tar(inner.parent, tmp_path / "l2" / "middle.tar.gz")
    pack_zip(middle.parent, tmp_path / "in" / "outer.zip")
    found = gather(tmp_path / "in", tmp_path / "out", anything)
    assert next(f.name for f in found) == "outer.zip/middle.tar.gz/inner.zip/a/b/two.txt"


def test_archives_without_end_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "0", FILES)
    for level in range(DEEPEST + 1):
        folder = pack_zip(folder, tmp_path / str(level + 1) / "deeper.zip").parent
    with pytest.raises(DataError, match="archives in archives"):
        gather(folder, tmp_path / "out", anything)


def test_unpacking_happens_once_and_again_when_the_archive_changes(tmp_path: Path) -> None:
    archive = pack_zip(fill(tmp_path / "files", FILES), tmp_path / "in" / "x.zip")
    first = gather(archive, tmp_path / "out", anything)[0].path
    stamp = first.stat().st_ino
    assert gather(archive, tmp_path / "out", anything)[0].path.stat().st_ino == stamp
    first.write_bytes(b"2")  # cut short
    assert gather(archive, tmp_path / "out", anything)[0].path.read_bytes() == b"22"
    pack_zip(fill(tmp_path / "files", {"a/b/two.txt": b"other"}), archive)
    assert gather(archive, tmp_path / "out", anything)[0].path.read_bytes() == b"other"


EVIL = ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt", "C:/e"]


@pytest.mark.parametrize("name", EVIL)
def test_a_zip_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in/evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("good.txt", b"good")
        packed.writestr(name, b"evil")
    check_refused(archive, tmp_path)


@pytest.mark.parametrize("name", EVIL)
def test_a_tar_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in/evil.tar"
    with tarfile.open(archive, "w") as packed:
        info = tarfile.TarInfo(name)
        info.size = 4
        packed.addfile(info, io.BytesIO(b"evil"))
    check_refused(archive, tmp_path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in/evil.tar"
    with tarfile.open(archive, "w") as packed:
        info = tarfile.TarInfo("innocent.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        packed.addfile(info)
    check_refused(archive, tmp_path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in/evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        info = zipfile.ZipInfo("innocent.txt")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    check_refused(archive, tmp_path)


def check_refused(archive: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=rf"{archive.name}: refused"):
        gather(archive, tmp_path / "out", anything)
    assert sorted(tmp_path.iterdir()) == before  # not even a folder


@settings(max_examples=100, deadline=None)
@given(name=st.text("ab./\\:C", min_size=1, max_size=12))
def test_no_name_writes_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("any")
    archive = root / "x.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("good.txt", b"good")
        packed.writestr(name, b"x")
    try:
        found = gather(archive, root / "out", anything)
    except (DataError, OutputError):
        found = []
    out = (root / "out").resolve()
    assert all(f.path.resolve().is_relative_to(out) for f in found)
    assert {p.name for p in root.iterdir()} <= {"x.zip", "out"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("keep", [0, 40, -700])
def test_truncated_archives_are_told(tmp_path: Path, name: str, keep: int) -> None:
    pack = pack_zip if name.endswith(".zip") else pack_tar
    noise = {f"{n}.txt": os.urandom(4000) for n in range(4)}
    archive = pack(fill(tmp_path / "files", noise), tmp_path / "in" / name)
    content = archive.read_bytes()
    end = keep if keep >= 0 else (len(content) - 11000 if name.endswith(".tar") else keep)
    archive.write_bytes(content[:end])
    with pytest.raises(DataError, match=f"{name}: damaged or truncated"):
        gather(archive, tmp_path / "out", anything)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_damaged_content_is_told(tmp_path: Path) -> None:
    archive = pack_zip(fill(tmp_path / "files", {"a.txt": b"abc" * 9000}), tmp_path / "in/x.zip")
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.zip: damaged"):
        gather(archive, tmp_path / "out", anything)
    assert not (tmp_path / "out").exists()


def test_macos_shadows_are_left_alone(tmp_path: Path) -> None:
    shadows = {"__MACOSX/a/._one.txt": b"x", "a/._two.txt": b"x", "a/one.txt": b"1"}
    archive = pack_zip(fill(tmp_path / "files", shadows), tmp_path / "in/x.zip")
    assert [f.name for f in gather(archive, tmp_path / "out", anything)] == ["x.zip/a/one.txt"]


def test_a_source_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        gather(tmp_path / "none", tmp_path / "out", anything)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        gather(tmp_path / "file.txt", tmp_path / "out", anything)


def test_sizes_have_units() -> None:
    assert [size_text(n) for n in (12, 1400, 2_500_000, 3_200_000_000)] == [
        "12 B", "1.4 kB", "2.5 MB", "3.2 GB",
    ]  # fmt: skip
