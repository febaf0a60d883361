"""Small files that declare much, and files that two readers would read differently: refused."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from onnx_files import tiny_proto
from scene_files import noise, write_scene
from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.errors import CheckpointError, DataError, SceneError
from terradapt.hub.card import plain
from terradapt.meta import Meta
from terradapt.plain_yaml import load_yaml
from terradapt.predictors.onnx_file import scan
from terradapt.prepare import archives
from terradapt.raster import SceneReader


def tiff(path: Path, width: int, height: int, tile: int | None, bands: int = 3) -> Path:
    """Write a GeoTIFF's header without a pixel."""
    short, long = lambda v: struct.pack("<H", v) + b"\0\0", lambda v: struct.pack("<I", v)
    tags = [(256, 4, long(width)), (257, 4, long(height)), (258, 3, short(8))]
    tags += [(259, 3, short(1 if tile else 8)), (262, 3, short(1)), (277, 3, short(bands))]
    if tile:
        tags += [(322, 4, long(tile)), (323, 4, long(tile)), (324, 4, long(0)), (325, 4, long(0))]
    else:
        tags = [*tags, (273, 4, long(0)), (278, 4, long(height)), (279, 4, long(0))]
    body = b"".join(struct.pack("<HHI", t, kind, 1) + value for t, kind, value in sorted(tags))
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + struct.pack("<I", 0))
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def beside_a_fifo(path: Path) -> Path:
    write_scene(path, noise(64, 64))
    os.mkfifo(path.with_name(path.name + ".aux.xml"))
    return path


def nested(path: Path) -> Path:
    """VRTs in VRTs, ten times the one below each."""
    text = '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">{}'
    text += "</VRTRasterBand></VRTDataset>"
    one = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource>'
    write_scene(path.with_name("v0.vrt"), noise(8, 8, 1))
    for level in range(1, 7):
        inside = one.format(f"v{level - 1}.vrt") * 10
        path.with_name(f"v{level}.vrt").write_text(text.format(inside))
    return path.with_name("v6.vrt")


SCENES = {
    "tiles": lambda path: tiff(path, 4096, 4096, 65536),
    "side": lambda path: tiff(path, 2**31 - 1, 64, 256, 1),
    "bands": lambda path: tiff(path, 64, 64, 64, 5000),
    "fifo": fifo,
    "beside": beside_a_fifo,
    "device": lambda _: Path("/dev/zero"),
    "nested": nested,
}


@pytest.mark.skipif(os.name == "nt", reason="no pipes in the file system")
@pytest.mark.parametrize("kind", SCENES)
def test_a_scene_that_declares_too_much_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SceneError):
        SceneReader(SCENES[kind](tmp_path / f"{kind}.tif"))


def test_a_wide_mosaic_is_refused_before_the_first_row(
    terradapt, tmp_path: Path, monkeypatch
) -> None:
    """A real mosaic may be huge; what does not fit is said before memory is taken."""
    path = tmp_path / "wide.vrt"
    band = '<VRTRasterBand dataType="Byte" band="{}"/>'
    bands = "".join(band.format(i) for i in (1, 2, 3))
    head = '<VRTDataset rasterXSize="20000000" rasterYSize="20000000">'
    path.write_text(f"{head}{bands}</VRTDataset>")
    with SceneReader(path) as reader:
        assert reader.width == 20_000_000
    monkeypatch.setattr("terradapt.scene.job.free_memory", lambda: 4 << 30)
    done = terradapt("predict", trained(tmp_path), path, "-o", tmp_path / "o.tif")
    assert done.is_user_error("wide.vrt")


CONFIG = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))


def trained(home: Path) -> Path:
    meta = Meta(RunConfig(model=CONFIG), ClassMap(("a", "b", "c")), InputSpec(), 64)
    checkpoint.save(home / "c.safetensors", models.build(CONFIG, 3), meta)
    return home / "c.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        {"args": {"channel_multiplier": 400.0}},
        {"args": {"block_args": [["ds_r20000_k3_s1_e1_c16"]] * 4}},
        {"name": "vit_giant_patch14_224"},
        {"name": "convnext_base", "args": {"dims": [20000] * 4}},
        {"name": "resnet18", "args": {"layers": [50000, 2, 2, 2]}},
        {"name": "sam2_hiera_tiny", "adapter_width": 10**9},
        {"name": "mit_b0", "args": {"weights": "imagenet"}},
    ],
)
def test_a_checkpoint_of_a_vast_model_is_refused_at_once(tmp_path: Path, change: dict) -> None:
    good = trained(tmp_path)
    values = json.loads(checkpoint.read_meta(good).to_json())
    values["config"]["model"]["encoder"] |= change
    save_file(load_file(good), tmp_path / "bad.safetensors", {"terradapt": json.dumps(values)})
    start = time.process_time()
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "bad.safetensors")
    assert time.process_time() - start < 10


def test_yaml_is_held_to_a_size() -> None:
    laughs = ["&a0 [lol, lol]"]
    laughs += [f"&a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 11)]
    for text in (
        f"names: [{', '.join(laughs)}]",
        "&a [*a]",
        "[" * 5000,
        "- 1\n" * 100_000,
        "day: 2020-13-45",
        "n: 0x" + "f" * 5 + "\n: : :",
    ):
        with pytest.raises(yaml.YAMLError):
            load_yaml(text)
    assert load_yaml("base: &b {a: 1}\none: {<<: *b, c: 2}") == {
        "base": {"a": 1},
        "one": {"a": 1, "c": 2},
    }
    assert load_yaml("") is None


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes, high: int = 0) -> bytes:
    return varint(number << 3 | 2 | high) + varint(len(data)) + data


def model_with(tensor: bytes = b"", graph: bytes = b"", model: bytes = b"") -> bytes:
    proto = tiny_proto()
    inside = proto.graph.SerializeToString() + graph + (field(5, tensor) if tensor else b"")
    proto.ClearField("graph")
    return proto.SerializeToString() + field(7, inside) + model


LOCATION = field(1, b"location") + field(2, b"/etc/passwd")


@pytest.mark.parametrize(
    "data",
    {
        "high tag": model_with(field(13, LOCATION, high=1 << 32)),
        "high tag, external": model_with(varint(14 << 3 | 1 << 35) + b"\1"),
        "long tag": model_with(b"\xea\x80\x00" + varint(len(LOCATION)) + LOCATION),
        "group": model_with(varint(13 << 3 | 3) + LOCATION + varint(13 << 3 | 4)),
        "long length": model_with(varint(13 << 3 | 2) + b"\x80\x00"),
        "field 0": model_with(b"\x02\x00"),
        "twice the words": model_with(model=field(14, field(1, b"terradapt") + field(2, b"{}"))),
        "a graph that is a number": model_with(model=varint(7 << 3) + b"\1"),
        "a tensor of nothing": model_with(varint(8) + varint(10**6) + varint(8) + varint(10**6)),
        "a negative side": model_with(varint(8) + varint((1 << 64) - 1)),
        "packed sides": model_with(field(1, varint(10**6) * 2)),
        "another format": b"\x08\x08\x12\x04ORTM" + model_with(),
        "a cut": model_with()[:-1],
    }.values(),
    ids=str,
)
def test_onnx_that_two_readers_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        found = scan(data, Path("m.onnx"))
        assert not found.external


def test_the_model_between_is_read() -> None:
    """What the refused ones are made from is a model, for protobuf and for us."""
    data = model_with()
    assert onnx.load_from_string(data).graph.node[0].op_type == "Conv"
    assert scan(data, Path("m.onnx")).grown() == ""


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile", "MatMul", "Resize"])
def test_onnx_that_makes_much_of_constants_is_refused(tmp_path: Path, operator: str) -> None:
    from terradapt.predictors.onnx import OnnxPredictor

    proto = tiny_proto()
    sides = helper.make_tensor("sides", TensorProto.INT64, [2], [200_000, 200_000])
    proto.graph.initializer.append(sides)
    proto.graph.node.insert(0, helper.make_node(operator, ["sides"], ["vast"]))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=operator):
        OnnxPredictor(tmp_path / "m.onnx")


def tar(path: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    with tarfile.open(path, "w") as file:
        file.addfile(info, BytesIO(bytes(min(size, 4096))) if size <= 4096 else None)
    return path


def zipped(path: Path, name: str, size: int = 3) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, bytes(size))
    return path


OUT = ("/abs.tif", "../up.tif", "a/../../up.tif", "C:/x.tif", "..\\up.tif", "\\\\host\\x.tif")


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("make", [zipped, lambda path, name: tar(path, name, 3)])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, make, name) -> None:
    make(tmp_path / "a.zip", name).rename(tmp_path / "a")
    suffix = ".zip" if (tmp_path / "a").read_bytes()[:2] == b"PK" else ".tar"
    path = (tmp_path / "a").rename(tmp_path / f"a{suffix}")
    with pytest.raises(DataError, match="leads out"):
        archives.gather(path, tmp_path / "in" / "to", lambda _: True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [path.name]


@pytest.mark.parametrize("name", [".//{}/x.tif", "././/{}/x.tif", ".\\{}/x.tif"])
def test_the_checked_name_is_the_used_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "home").mkdir()
    path = tar(tmp_path / "a.tar", name.format(tmp_path / "home"), 3)
    found = archives.gather(path, tmp_path / "in" / "to", lambda _: True)
    assert [f.path.is_relative_to(tmp_path / "in" / "to") for f in found] == [True]
    assert not list((tmp_path / "home").iterdir())


def test_archives_are_weighed_before_they_are_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "FREE_SIZE", 1 << 20)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 50)
    bomb = zipped(tmp_path / "bomb.zip", "x.tif", 40 << 20)
    vast = tar(tmp_path / "vast.tar", "x.tif", 1 << 50)
    with tarfile.open(tmp_path / "many.tar", "w") as file:
        for i in range(60):
            file.addfile(tarfile.TarInfo(f"{i}.tif"))
    for path in (bomb, vast, tmp_path / "many.tar"):
        with pytest.raises(DataError, match="refused: it says"):
            archives.gather(path, tmp_path / "in" / "to", lambda _: True)
    header = tar(tmp_path / "long.tar", "x", 5 << 30, b"L")
    with pytest.raises(DataError, match="header"):
        archives.gather(header, tmp_path / "in" / "to", lambda _: True)
    assert not (tmp_path / "in").exists()


def test_a_cards_names_are_shown_not_obeyed() -> None:
    text = 'x](http://evil) <script>"a"</script> | `b`\n# title'
    shown = plain(text)
    assert "\n" not in shown
    for sign in "<>|`[](#":
        assert shown.count(sign) == shown.count(f"\\{sign}") == text.count(sign)
