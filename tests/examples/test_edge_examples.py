"""The programs of ``examples/edge`` do what terradapt does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime
import pytest
import rasterio

from export_files import pixels, small
from onnx_files import write_tiny
from scene_files import noise, write_scene
from terradapt import checkpoint
from terradapt.export.run import export_with_proof

EXAMPLES = Path(__file__).parents[2] / "examples" / "edge"
HEADER = "onnxruntime_c_api.h"
PLACES = [Path(os.environ.get("ORT_INCLUDE", "/usr/include")), Path("/usr/local/include")]


def post(address: str, body: bytes) -> bytes:
    with urlopen(Request(address, body), timeout=60) as answer:
        return bytes(answer.read())


def test_the_service_gives_the_map_of_a_posted_picture(tmp_path: Path, terradapt: Any) -> None:
    model = write_tiny(tmp_path / "model.onnx")
    scene = write_scene(tmp_path / "scene.tif", noise(96, 80))
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(model), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        try:
            assert service.stdout is not None
            address = service.stdout.readline().decode().split()[-1]
            (tmp_path / "served.tif").write_bytes(post(address, scene.read_bytes()))
            with pytest.raises(HTTPError) as refused:
                post(address, b"no picture")
        finally:
            service.terminate()
    assert refused.value.code == 400
    assert "picture" in refused.value.reason and "fix" not in refused.value.reason
    assert terradapt("predict", model, scene, "-o", tmp_path / "map.tif").status == 0
    with rasterio.open(tmp_path / "served.tif") as a, rasterio.open(tmp_path / "map.tif") as b:
        assert len(np.unique(b.read(1))) == 3
        np.testing.assert_array_equal(a.read(1), b.read(1))
        assert (a.transform, a.crs) == (b.transform, b.crs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_client_in_cpp_maps_as_terradapt_does(tmp_path: Path, terradapt: Any) -> None:
    """Windows side by side, without overlap; and a picture smaller than one."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next(iter(sorted(folder.glob("libonnxruntime.so.*"))), None)
    if library is None:
        pytest.skip("this onnxruntime brings no libonnxruntime.so")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    found = [p for p in PLACES if (p / HEADER).is_file()]
    include = found[0] if found else Path(__file__).parent
    program = tmp_path / "map"
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", include,
         EXAMPLES / "map.cpp", tmp_path / "libonnxruntime.so.1", f"-Wl,-rpath,{tmp_path}",
         "-o", program],
        check=True,
    )  # fmt: skip
    model, meta = small()
    source = tmp_path / "checkpoint.safetensors"
    checkpoint.save(source, model, meta)
    export_with_proof(source, tmp_path / "ids.onnx", argmax=True)
    export_with_proof(source, tmp_path / "model.onnx")

    plain = ("--overlap", 0, "--window", 128, "--resolution", "native")
    for height, width in ((256, 384), (100, 90)):
        picture = pixels(1, height, width, seed=height)[0]
        header = f"P6\n{width} {height}\n255\n".encode()
        (tmp_path / "in.ppm").write_bytes(header + np.moveaxis(picture, 0, 2).tobytes())
        subprocess.run([program, "ids.onnx", "in.ppm", "out.pgm"], cwd=tmp_path, check=True)
        result = (tmp_path / "out.pgm").read_bytes()
        assert result.startswith(header.replace(b"P6", b"P5"))
        ids = np.frombuffer(result[len(header) :], np.uint8).reshape(height, width)
        scene, out = write_scene(tmp_path / "scene.tif", picture), tmp_path / f"{height}.tif"
        done = terradapt("predict", tmp_path / "model.onnx", scene, "-o", out, *plain)
        assert done.status == 0, done.err
        with rasterio.open(out) as file:
            wanted = file.read(1)
        assert len(np.unique(wanted)) >= 3
        assert (ids == wanted).mean() >= 0.9999  # near ties, the order of the sums

    (tmp_path / "cut.ppm").write_bytes(header)
    for words, named in (
        (("ids.onnx", "cut.ppm", "x.pgm"), "cut short"),
        (("none.onnx", "in.ppm", "x.pgm"), "none.onnx"),
    ):
        failed = subprocess.run(
            [program, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1
        assert named in failed.stderr
        assert not (tmp_path / "x.pgm").exists()
