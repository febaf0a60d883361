"""A server that listens and must hear nothing, whatever form a file gives its address."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio

from scene_files import noise, write_scene
from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.errors import CheckpointError, TerradaptError
from terradapt.grid import Window
from terradapt.meta import Meta, Trunk
from terradapt.metrics.network_files import read_lines
from terradapt.raster import Clipped, SceneReader
from terradapt.raster.features import read_layer
from terradapt.raster.opening import CLOSED

VRT = """<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32633</SRS>
<GeoTransform>5e5,.3,0,5e6,0,-.3</GeoTransform>{}</VRTDataset>"""
BAND = '<VRTRasterBand dataType="Byte" band="1">{}</VRTRasterBand>'
SIMPLE = "<SimpleSource>{}<SourceBand>1</SourceBand></SimpleSource>"


class Ear:
    """A socket that listens; what knocks waits in its queue."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"

    def heard(self) -> int:
        count = 0
        with suppress(BlockingIOError):
            while True:
                self.socket.accept()[0].close()
                count += 1
        return count


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """Listen; let no proxy of GDAL's options stand before it, so that each check stands alone."""
    ear = Ear()
    host = ear.url.removeprefix("http://").strip("/")
    for key, value in {
        **{"NO_PROXY": "*", "no_proxy": "*", "AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO"},
        **{"AWS_VIRTUAL_HOSTING": "NO", "AWS_NO_SIGN_REQUEST": "YES", "CPL_GS_ENDPOINT": ear.url},
        **{"GS_NO_SIGN_REQUEST": "YES", "GDAL_HTTP_TIMEOUT": "2", "GDAL_HTTP_CONNECTTIMEOUT": "2"},
    }.items():
        monkeypatch.setenv(key, value)
    yield ear
    ear.socket.close()


ADDRESSES = (
    *("/vsicurl/{}a.tif", "/vsicurl?url={}a.tif", "/vsicurl_streaming/{}a.tif", "{}a.tif"),
    *("/vsis3/bucket/a.tif", "/vsis3_streaming/bucket/a.tif", "/vsigs/bucket/a.tif"),
    *("/vsizip//vsicurl/{}a.zip/a.tif", "/vsigzip//vsicurl/{}a.gz", "/vsitar/vsicurl/{}a.tar/a"),
    *("/vsicached?file=/vsicurl/{}a.tif", "/vsisubfile/0_9,/vsicurl/{}a.tif", "WMS:{}?a=b"),
    *("WCS:{}?SERVICE=WCS", "WMTS:{}a", "DAAS:{}a", "STACTA:/vsicurl/{}a.json", "/vsiwebhdfs/{}a"),
    *("GTIFF_DIR:1:/vsicurl/{}a.tif", 'ZARR:"/vsicurl/{}a.zarr"', "vrt:///vsicurl/{}a.tif"),
)
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>{}${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>
<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX>
<LowerRightY>0</LowerRightY><TileLevel>2</TileLevel><TileCountX>1</TileCountX><TileCountY>1
</TileCountY></DataWindow><Projection>EPSG:3857</Projection><BlockSizeX>256</BlockSizeX>
<BlockSizeY>256</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"""


def source(name: str, relative: int = 0) -> str:
    return f'<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'


def vrt(inside: str) -> str:
    return VRT.format(BAND.format(inside))


def rasters(home: Path, url: str) -> dict[str, Path | str]:
    """Write every form; return what is opened, by name."""
    far = f"/vsicurl/{url}a.tif"
    found: dict[str, Path | str] = {}

    def add(name: str, text: str | bytes, suffix: str = ".vrt") -> Path:
        path = home / f"{name}{suffix}"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        found[name] = path
        return path

    def plain(name: str, **tags: str) -> Path:
        path = write_scene(home / f"{name}.tif", noise(512, 512, 1), tiled=True)
        if tags:
            with rasterio.open(path, "r+") as file:
                file.update_tags(ns="OVERVIEWS", **tags)
        found[name] = path
        return path

    for number, form in enumerate(ADDRESSES):
        found[f"address {number}"] = form.format(url)
        add(f"source{number}", vrt(SIMPLE.format(source(form.format(url).replace("&", "&amp;")))))
    add("cdata", vrt(SIMPLE.format(source(f"<![CDATA[{far}]]>"))))
    add("numbers", vrt(SIMPLE.format(source("".join(f"&#{ord(c)};" for c in far)))))
    add("space", vrt(SIMPLE.format(f"<SourceFilename >{far}</SourceFilename >")))
    add("small", vrt(SIMPLE.format(f"<sourcefilename>{far}</sourcefilename>")))
    add("attribute", vrt(f'<SimpleSource SourceFilename="{far}"/>'))
    add("comment", vrt(SIMPLE.format(source(f"<!-- -->{far}"))))
    add("newline", vrt(SIMPLE.format(source(f"\n  {far}"))))
    add("inside", vrt(f"<ComplexSource>{source(far)}</ComplexSource>"))
    add("overview", vrt(f"<Overview>{source(far)}<SourceBand>1</SourceBand></Overview>"))
    mask = '<MaskBand><VRTRasterBand dataType="Byte">{}</VRTRasterBand></MaskBand>'
    add("mask", VRT.format(BAND.format("") + mask.format(SIMPLE.format(source(far)))))
    entity = f'<!DOCTYPE V [<!ENTITY e "{far}">]>' + vrt(SIMPLE.format(source("&e;")))
    add("entity", entity)
    root = f'<OpenOptions><OOI key="ROOT_PATH">/vsicurl/{url}</OOI></OpenOptions>'
    plain("near")
    add("options", vrt(SIMPLE.format(source("near.tif", 1) + root)))
    warped = f"<GDALWarpOptions><SourceDataset>{far}</SourceDataset></GDALWarpOptions>"
    add("warped", VRT.format(warped).replace("<VRTD", '<VRTDataset subClass="VRTWarpedDataset"', 1))
    text = vrt(SIMPLE.format(source(far)))
    add("wide", ('<?xml version="1.0" encoding="utf-16"?>' + text).encode("utf-16"))
    add("nested", vrt(SIMPLE.format(source("space.vrt", 1))))
    add("deeper", vrt(SIMPLE.format(source("nested.vrt", 1))))
    add("inline", vrt(SIMPLE.format(source(text.replace("&", "&amp;").replace("<", "&lt;")))))
    add("service", WMS.format(url), ".tif")
    add("served", vrt(SIMPLE.format(source("service.tif", 1))))
    add("after", "\xff\xd8\xff" + text, ".jpg")
    (home / "link.vrt").symlink_to(home / "space.vrt")
    found["link"] = home / "link.vrt"
    for suffix in (".ovr", ".OVR", ".msk", ".MSK"):
        beside = plain(f"side{suffix[1:]}")
        beside.with_name(beside.name + suffix).write_text(text)
        served = plain(f"wms{suffix[1:]}")
        served.with_name(served.name + suffix).write_text(WMS.format(url))
    plain("tagged", OVERVIEW_FILE=far)
    plain("tagged_wms", OVERVIEW_FILE=str(home / "service.tif"))
    add("over_tagged", vrt(SIMPLE.format(source("tagged_wms.tif", 1))))
    pam = '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{}</MDI></Metadata>'
    aux = plain("pam")
    aux.with_name("pam.tif.aux.xml").write_text(pam.format(far) + "</PAMDataset>")
    over = plain("over")
    write_scene(home / "over.tif.ovr", noise(256, 256, 1))
    over.with_name("over.tif.ovr.ovr").write_text(text)
    return found


def vectors(home: Path, url: str) -> dict[str, Path]:
    far = f"/vsicurl/{url}a.geojson"
    layer = f'<OGRVRTLayer name="l"><SrcDataSource>{far}</SrcDataSource></OGRVRTLayer>'
    ogr = f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>"
    wfs = f"<OGRWFSDataSource><URL>{url}wfs</URL></OGRWFSDataSource>"
    steps = f"gdal vector pipeline ! read {far} ! write --output-format stream x"
    ring = [[[0, 0], [1, 0], [1, 1], [0, 0]]]
    shape = {"type": "Polygon", "coordinates": ring}
    crs = {"type": "link", "properties": {"href": f"{url}crs", "type": "proj4"}}
    features = [{"type": "Feature", "properties": {"class": "road"}, "geometry": shape}]
    whole = {"type": "FeatureCollection", "crs": crs, "features": features}
    texts = {
        **{f"ogr{s}": ogr for s in (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml")},
        **{f"wfs{s}": wfs for s in (".geojson", ".gpkg", ".kml")},
        "alg.json": json.dumps({"type": "gdal_streamed_alg", "command_line": steps}),
        "alg.geojson": " " + json.dumps({"command_line": steps, "type": "gdal_streamed_alg"}),
        "link.geojson": json.dumps(whole),
        "link_esri.geojson": json.dumps(whole | {"crs": crs | {"properties": {"href": url}}}),
        "name.geojson": json.dumps(
            whole | {"crs": {"type": "name", "properties": {"name": f"{url}crs"}}}
        ),
        "page.geojson": json.dumps(whole | {"links": [{"rel": "next", "href": f"{url}page"}]}),
        "hidden.kml": f"<kml><!-- {ogr} --></kml>",
        "follow.kml": f"<kml><NetworkLink><Link><href>{url}a.kml</href></Link></NetworkLink></kml>",
        "schema.gml": f'<gml xmlns:xsi="x" xsi:schemaLocation="{url} {url}a.xsd"/>',
        "arcgis.geojson": json.dumps({"url": url, "exceededTransferLimit": True, "features": []}),
        "text.geojson": f"{url}a.geojson",
    }
    for name, text in texts.items():
        (home / name).write_text(text)
    with closing(sqlite3.connect(home / "virtual.gpkg")) as database, suppress(sqlite3.Error):
        database.execute("create table t(a)")
        database.execute("pragma writable_schema=1")
        sql = f"create virtual table v using VirtualOGR('{far}')"
        database.execute("insert into sqlite_master values('table','v','v',0,?)", (sql,))
        database.commit()
    return {path.name: path for path in sorted(home.iterdir())}


def quietly(call: Callable[[], object]) -> str:
    try:
        call()
    except TerradaptError as error:
        return f"refused: {error.message}"
    return "read"


def read_all(path: Path | str) -> None:
    for options in ({"resolution": 1.2}, {}):
        with SceneReader(path, **options) as reader:
            reader.read(Window(0, 0, 64, 64))


def test_no_raster_asks_a_server(ear: Ear, tmp_path: Path) -> None:
    forms = rasters(tmp_path, ear.url)
    assert len(forms) >= 60
    for name, path in forms.items():
        told = quietly(lambda path=path: read_all(path))
        assert ear.heard() == 0, (name, told)
        assert (told == "read") == (name == "near"), (name, told)


@pytest.mark.filterwarnings("ignore")  # GDAL says much of such files
def test_no_vector_file_asks_a_server(ear: Ear, tmp_path: Path) -> None:
    forms = vectors(tmp_path, ear.url)
    assert len(forms) >= 20
    base = write_scene(tmp_path.parent / "base.tif", noise(64, 64))
    for name, path in forms.items():
        for read in (
            lambda path=path: Clipped(SceneReader(base), path),
            lambda path=path: read_layer(path),
            lambda path=path: read_lines(path),
        ):
            told = quietly(read)
            assert ear.heard() == 0, (name, told)


@pytest.mark.parametrize("form", ADDRESSES)
def test_gdals_own_network_is_closed(ear: Ear, form: str, monkeypatch) -> None:
    """The second wall: even where a name came through, GDAL asks nobody."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")
    with rasterio.Env(**CLOSED), suppress(rasterio.errors.RasterioError):
        rasterio.open(form.format(ear.url)).close()
    assert ear.heard() == 0


def test_a_local_mosaic_of_mosaics_is_read(tmp_path: Path) -> None:
    pixels = noise(64, 64, 1)
    write_scene(tmp_path / "a.tif", pixels)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.vrt").write_text(vrt(SIMPLE.format(source("../a.tif", 1))))
    (tmp_path / "two.vrt").write_text(vrt(SIMPLE.format(source("in/one.vrt", 1))))
    (tmp_path / "link.vrt").symlink_to(tmp_path / "two.vrt")
    for name in ("in/one.vrt", "two.vrt", "link.vrt"):
        with SceneReader(tmp_path / name) as reader:
            assert np.array_equal(reader.read(reader.window)[0], pixels)


def test_a_checkpoint_alone_fetches_nothing(tmp_path: Path, monkeypatch) -> None:
    def ask(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("terradapt.models.encoder.from_hub", ask)
    encoder = EncoderConfig(name="mobilenetv3_small_050", weights="hub", freeze=True)
    config = ModelConfig(encoder=encoder)
    own = config.model_copy(update={"encoder": encoder.model_copy(update={"weights": None})})
    model, path = models.build(own, 3), tmp_path / "c.safetensors"
    trunk = Trunk(encoder.name, "hub", "0" * 64, False)
    spec, classes = InputSpec(), ClassMap(("a", "b", "c"))
    meta = Meta(RunConfig(model=config), classes, spec, 64, trunk=trunk)
    held = checkpoint.frozen_keys(model)
    from safetensors.torch import save_file

    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items() if k not in held},
        path,
        metadata={"terradapt": meta.to_json()},
    )
    with pytest.raises(CheckpointError, match="from the hub") as caught:
        checkpoint.load(path)
    assert "--trunk hub" in caught.value.fix
    with pytest.raises(CheckpointError, match="the hub was asked"):
        checkpoint.load(path, trunk="hub")
