"""The QGIS plugin without QGIS: the zip, its fields, and all that needs no QGIS to run."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import terradapt
from terradapt.meta import KEY

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "integrations" / "qgis" / "terradapt"
PURE = ("engine", "events", "making", "model_file", "process", "remedies")
# What plugins.qgis.org asks for, and what QGIS itself reads.
FIELDS = (
    "name", "qgisMinimumVersion", "description", "about", "version", "author", "email",
    "repository", "tracker", "homepage", "license", "tags", "icon", "hasProcessingProvider",
)  # fmt: skip


def loaded(name, path, **options):
    spec = spec_from_file_location(name, path, **options)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Its folder has the name of the package, so it is loaded under another.
loaded("qgis_plugin", PLUGIN / "__init__.py", submodule_search_locations=[str(PLUGIN)])
engine, events, making, model_file, process, remedies = (
    import_module(f"qgis_plugin.{name}") for name in PURE
)
packer = loaded("pack_qgis_plugin", ROOT / "checks" / "qgis_plugin.py")


def imports(path):
    """Yield the modules that a file imports from outside its own package."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_the_zip_is_one_folder_with_all_that_qgis_asks_for(tmp_path):
    path = packer.pack(tmp_path)
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    assert path.name == f"terradapt-qgis-{terradapt.__version__}.zip"
    assert {name.split("/")[0] for name in names} == {"terradapt"}
    for name in ("__init__.py", "metadata.txt", "LICENSE", "icon.svg", "algorithms/base.py"):
        assert f"terradapt/{name}" in names
    assert not [name for name in names if "pycache" in name or name.endswith(".pyc")]
    assert packer.pack(tmp_path / "again").read_bytes() == path.read_bytes()


def test_metadata_is_complete_and_of_this_version():
    fields = packer.metadata()
    assert all(fields.get(name) for name in FIELDS)
    assert fields["version"] == terradapt.__version__
    assert fields["qgisMinimumVersion"] == "3.22"
    assert "GNU GENERAL PUBLIC LICENSE" in (PLUGIN / "LICENSE").read_text("utf-8")


@pytest.mark.parametrize("path", sorted(PLUGIN.rglob("*.py")), ids=lambda p: p.name)
def test_each_file_is_python_of_any_qgis_and_imports_no_dependency(path):
    text = path.read_text("utf-8")
    ast.parse(text, feature_version=(3, 9))  # that of QGIS 3.22 on Windows
    qgis = {"qgis", "processing", "osgeo"}
    assert set(imports(path)) <= qgis | set(sys.stdlib_module_names)
    if path.stem in PURE and path.parent == PLUGIN:
        assert not qgis & set(imports(path))
    assert "PyQt5" not in text
    assert "PyQt6" not in text


def test_lines_of_the_engine_become_events():
    line = '{"phase": "map", "done": 5, "total": 20, "unit": "windows", "seconds_left": 75.0}'
    phase = events.parse(line + "\r\n")
    assert phase == events.Phase("map", 5, 20, "windows", 75.0)
    assert (phase.percent, str(phase)) == (25.0, "map: 5 of 20 windows, 1 min 15 s left")
    unknown = events.parse('{"phase": "read", "done": 3, "total": null, "unit": "files"}')
    assert (unknown.percent, str(unknown)) == (None, "read: 3 files")
    assert events.parse('{"log": "hello"}') == events.Log("hello")
    assert events.parse("Traceback: {\n") == events.Log("Traceback: {")
    assert events.parse('{"phase": ') == events.Log('{"phase":')
    assert events.parse('{"further": 1}') == events.Log('{"further": 1}')
    assert events.parse("  \n") is None
    outcome = events.Outcome()
    for text in ('{"error": "e", "fix": "f"}', '{"result": {"files": ["a"]}}'):
        outcome.take(events.parse(text))
    assert (outcome.error, outcome.fix, outcome.result) == ("e", "f", {"files": ["a"]})
    outcome.take(events.parse("error: plain"))
    outcome.take(events.parse("fix: so"))
    assert (outcome.error, outcome.fix) == ("plain", "so")


@pytest.mark.parametrize("seconds, text", [(59.6, "1 min 0 s"), (5, "5 s"), (7325, "2 h 2 min")])
def test_times_have_two_units(seconds, text):
    assert events.duration(seconds) == text


CHILD = """
import json, sys
print(json.dumps({"phase": "p", "done": 0, "total": 2, "unit": "x", "seconds_left": None}))
print("\\u00fcber \\u2192", flush=True)
line = sys.stdin.readline()
print(json.dumps({"stopped": "go on"} if line == "stop\\n" else {"result": {"line": line}}))
sys.exit(130 if line == "stop\\n" else 0)
"""


def test_a_program_is_read_and_asked_to_stop():
    seen = []
    env = process.environment(os.environ)
    command = [sys.executable, "-c", CHILD]
    outcome = process.run(command, env, seen.append, lambda: len(seen) > 1)
    assert seen[1] == events.Log("über →")
    assert (outcome.stopped, outcome.status, outcome.fix) == (True, 130, "go on")
    stuck = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
    outcome = process.run(stuck, env, seen.append, lambda: True, grace=0.2)
    assert outcome.stopped
    assert outcome.status


def test_the_environment_is_that_of_no_qgis(tmp_path):
    inside, own = tmp_path / "qgis", tmp_path / "mine"
    given = {
        "PYTHONHOME": str(inside), "PythonPath": "x", "PROJ_LIB": str(inside / "proj"),
        "GDAL_DATA": str(own), "Path": os.pathsep.join([str(inside / "bin"), str(own)]),
        "HOME": "h",
    }  # fmt: skip
    kept = process.environment(given, inside=[str(inside), ""])
    assert kept.keys() >= {"GDAL_DATA", "HOME", "PYTHONUTF8"}
    assert not kept.keys() & {"PYTHONHOME", "PythonPath", "PROJ_LIB"}
    assert kept["Path"] == str(own)


def test_finds_the_engine_in_order(tmp_path):
    made, other = tmp_path / "engine", tmp_path / "other"
    nothing = {"PATH": str(tmp_path)}
    assert engine.find("", made, nothing) is None
    on_path = tmp_path / ("terradapt.exe" if os.name == "nt" else "terradapt")
    on_path.write_text("#!/bin/sh\n")
    on_path.chmod(0o755)
    assert engine.find("", made, nothing) == str(on_path)
    for folder in (made, other):
        program = engine.program_of(folder)
        program.parent.mkdir(parents=True)
        program.touch()
    assert engine.find("", made, nothing) == str(engine.program_of(made))
    assert engine.find(str(other), made, nothing) == str(engine.program_of(other))
    assert engine.find(str(tmp_path / "gone"), made, nothing) is None  # no silent other one
    asked = {**nothing, "TERRADAPT_EXECUTABLE": str(on_path)}
    assert engine.find(str(other), made, asked) == str(on_path)
    assert engine.program_of(made, platform="win32") == made / "Scripts" / "terradapt.exe"
    local = {"LOCALAPPDATA": "L"}
    assert engine.default_folder(local, "win32") == Path("L", "terradapt", "engine")


def test_pip_is_told_where_from(tmp_path):
    wheel = tmp_path / "terradapt-1-py3-none-any.whl"
    wheel.touch()
    folder = tmp_path / "engine"
    plan = engine.Plan(folder, "", "edge", str(wheel), "https://example.org/simple")
    venv, install, proof = engine.commands(plan, ["py", "-3.12"])
    assert venv == ["py", "-3.12", "-m", "venv", "--clear", str(folder)]
    assert install[-1] == f"{wheel}[vector]"
    assert install[install.index("--index-url") + 1] == "https://example.org/simple"
    assert install[install.index("--find-links") + 1] == str(tmp_path)
    assert proof == [str(engine.program_of(folder)), "--version"]
    offline = plan._replace(source=str(tmp_path), offline=True, kind="full")
    _, install, _, torch = engine.commands(offline, ["python3"])
    assert install[-1] == "terradapt[all]"
    assert "--no-index" in install
    assert "--index-url" not in install
    assert "import torch" in torch[-1]
    assert engine.requirement(plan._replace(source="")) == ("terradapt[vector]", "")
    assert engine.requirement(plan._replace(source=str(ROOT))) == (f"{ROOT}[vector]", "")


def test_an_engine_is_made_only_where_nothing_else_lies(tmp_path):
    assert engine.is_own(tmp_path / "new")
    assert engine.is_own(tmp_path)
    (tmp_path / "mine").touch()
    assert not engine.is_own(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    assert engine.is_own(tmp_path)


@pytest.mark.parametrize(
    "printed, good", [("3.11", True), ("warning\n3.13", True), ("3.9", False), ("", False)]
)
def test_a_python_is_new_enough_or_not(printed, good):
    assert engine.usable(["python"], lambda command: printed) is good


def test_the_proxy_of_qgis_becomes_variables():
    values = {"enabled": "true", "type": "HttpProxy", "host": "proxy", "port": "8080"}
    more = {"user": "a b", "password": "p@ss", "excluded": "http://intra.net/x, local"}
    found = engine.proxy_environment({**values, **more})
    assert found["HTTPS_PROXY"] == "http://a%20b:p%40ss@proxy:8080"
    assert found["no_proxy"] == "intra.net,local"
    assert engine.proxy_environment({**values, "enabled": "false"}) == {}
    assert engine.proxy_environment({**values, "type": "DefaultProxy"}) == {}
    socks = engine.proxy_environment({**values, "type": "Socks5Proxy"})
    assert socks["HTTP_PROXY"] == "socks5://proxy:8080"


@pytest.mark.parametrize(
    "line, word",
    [
        ("OSError: [Errno 28] No space left on device", "room"),
        ("Error: ensurepip is not available", "python3-venv"),
        ("ERROR: No matching distribution found for terradapt[vector]", "wheel file"),
        ("ERROR: No matching distribution found for rasterio>=1.4", "folder of wheels"),
        ("Cannot connect to proxy. OSError('Tunnel connection failed: 407", "Network"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("[WinError 206] The filename or extension is too long", "short folder"),
        ("PermissionError: [WinError 32] The process cannot access the file because it is being "
         "used by another process", "close other QGIS"),
        ("Failed to establish a new connection: [Errno 11001] getaddrinfo failed", "connection"),
        ("Package 'terradapt' requires a different Python: 3.9.5 not in '>=3.11'", "3.11 or newer"),
        ("something new", "last line"),
    ],
)  # fmt: skip
def test_what_pip_prints_has_a_remedy(line, word):
    assert word in " ".join(remedies.of_install(["Collecting terradapt", line]))


def told(status, *lines):
    outcome = events.Outcome(status=status)
    for line in lines:
        outcome.take(events.parse(line))
    return remedies.of_run(outcome, "Compare")


def test_what_the_engine_says_has_a_remedy():
    plain = told(2, '{"error": "a.tif: no such file", "fix": "check the path"}')
    assert plain == ("a.tif: no such file", "check the path")
    assert "needs a newer terradapt" in told(2, "error: No such command 'compare'.")[0]
    assert "needs a newer" in told(2, "error: No such option: --progress (Possible ...)")[0]
    extra = told(2, '{"error": "terradapt train needs the \'train\' extra", "fix": "pip"}')
    assert "full engine" in extra[1]
    assert "Visual C++" in told(70, "OSError: [WinError 126] ... fbgemm.dll")[1]
    assert "memory" in told(-9)[0]


def onnx_of(text):
    """Return bytes of the protobuf of a model with a large graph and one text of metadata."""

    def field(number, data):
        length, size = len(data), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    pair = field(1, KEY.encode()) + field(2, text.encode())
    other = field(1, b"names") + field(2, b"{}")
    return b"\x08\x08" + field(7, b"g" * 100_000) + field(14, other) + field(14, pair)


def test_classes_are_read_from_both_kinds_of_model(tmp_path):
    classes = {"names": ["ground", "road"], "colours": [[0, 0, 0], [255, 140, 0]]}
    text = json.dumps({"classes": classes})
    head = json.dumps({"__metadata__": {KEY: text}}).encode()
    found = [("ground", (0, 0, 0)), ("road", (255, 140, 0))]
    (tmp_path / "checkpoint.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    (tmp_path / "model.onnx").write_bytes(onnx_of(text))
    for name in ("", "checkpoint.safetensors", "model.onnx"):
        assert model_file.classes_of(str(tmp_path / name)) == found
    whole = (tmp_path / "model.onnx").read_bytes()
    for cut in (0, 1, 50, len(whole) - 20):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        assert model_file.classes_of(str(tmp_path / "cut.onnx")) == []
    assert model_file.classes_of(str(tmp_path / "gone.onnx")) == []
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 1 << 60))
    assert model_file.classes_of(str(tmp_path / "huge.safetensors")) == []


def test_no_program_of_the_plugin_starts_when_it_is_loaded():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import terradapt; terradapt.classFactory"
    command = [sys.executable, "-I", "-c", code, str(PLUGIN.parent)]
    assert subprocess.run(command, check=True, capture_output=True).stderr == b""
