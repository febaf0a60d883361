"""The hub's client is the real one; the hub is a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file

import terradapt as package
from terradapt import checkpoint, hub, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.errors import CheckpointError, ConfigError, MissingExtraError, OutputError
from terradapt.meta import Meta
from terradapt.models.building import build_encoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSES = ClassMap(("ground", "roof", "tree"), ((1, 2, 3), (255, 0, 128), (0, 255, 0)), (1, 2))
METRICS = {
    "miou": 0.5,
    "mf1": 0.625,
    "oa": 0.75,
    "per_class": {n: {"iou": 0.5, "f1": 0.6} for n in CLASSES.names},
}
SMALL = ModelConfig(encoder=EncoderConfig(name="mobilenetv3_small_050"))


def write_checkpoint(path: Path, model: ModelConfig = SMALL, **objective: object) -> Path:
    torch.manual_seed(0)
    config = RunConfig(model=model, objective=objective)
    meta = Meta(config, CLASSES, InputSpec(resolution=0.25), 64, METRICS, 30, data="Harvey")
    state = {"optimizer.x": torch.zeros(3)}
    checkpoint.save(path, models.build(model, 3), meta, state=state)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.safetensors")


# The repository on disk


def test_what_is_published_is_the_checkpoint_and_its_card(saved: Path, tmp_path: Path) -> None:
    folder = hub.save(saved, tmp_path / "repo", repo="someone/roofs", licence="cc-by-4.0")
    assert {f.name for f in folder.iterdir()} == {"checkpoint.safetensors", "README.md"}
    published = load_file(folder / "checkpoint.safetensors")
    original = load_file(saved)
    assert original.keys() - published.keys() == {"state.optimizer.x"}
    assert all(torch.equal(v, original[k]) for k, v in published.items())
    _, meta = checkpoint.load(folder / "checkpoint.safetensors")
    assert meta == replace(checkpoint.read_meta(saved), progress={})


def test_the_card_says_what_the_checkpoint_says(saved: Path, tmp_path: Path) -> None:
    folder = hub.save(saved, tmp_path, repo="someone/roofs", licence="cc-by-4.0")
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(re.match(r"---\n(.*?)---\n", text, re.S)[1])
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "terradapt"
    for said in (
        'terradapt.load("hf://someone/roofs")',
        "| 1 | roof | #ff0080 | yes |",
        "| 0 | ground | #010203 | no |",
        "mIoU 50.00 %, mF1 62.50 %, OA 75.00 % on the validation images",
        "| roof | 50.00 % | 60.00 % |",
        "| resolution | 0.25 m/px |",
        "trained on Harvey",
    ):
        assert said in text, said
    assert text.count("| class | IoU | F1 |") == 1


def test_a_report_beside_the_checkpoint_is_told(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.parent.mkdir()
    path.write_bytes(saved.read_bytes())
    told = {**METRICS, "miou": 0.4321}
    report = {"metrics": told, "data": {"name": "Ida", "split": "test"}}
    path.with_name("report.json").write_text(json.dumps(report))
    text = (hub.save(path, tmp_path / "repo") / "README.md").read_text()
    assert "mIoU 43.21 %, mF1 62.50 %, OA 75.00 % on Ida, split test" in text
    path.with_name("report.json").write_text("{")
    assert "Ida" not in (hub.save(path, tmp_path / "repo") / "README.md").read_text()


def test_no_path_of_this_machine_is_published(tmp_path: Path) -> None:
    encoder = build_encoder("mobilenetv3_small_050")
    weights = tmp_path / "secret" / "backbone.safetensors"
    weights.parent.mkdir()
    from safetensors.torch import save_file

    save_file(encoder.body.state_dict(), weights)
    config = SMALL.model_copy(
        update={"encoder": SMALL.encoder.model_copy(update={"weights": str(weights)})}
    )
    distill = {"teacher": f"{weights.parent}/teacher.safetensors", "cache": str(weights.parent)}
    path = write_checkpoint(tmp_path / "c.safetensors", config, name="distill", distill=distill)
    folder = hub.save(path, tmp_path / "repo")
    assert "secret" in checkpoint.read_meta(path).to_json()
    meta = checkpoint.load(folder / "checkpoint.safetensors")[1]
    assert "secret" not in meta.to_json() + (folder / "README.md").read_text()
    assert meta.config.objective.distill.teacher == "teacher.safetensors"
    assert meta.config.model.encoder.weights == "backbone.safetensors"


def named_trunk(folder: Path) -> Path:
    """A tuned SAM2 that only names its trunk, as training writes it."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    trunk = timm.create_model("sam2_hiera_tiny", num_classes=0)
    save_file(trunk.state_dict(), folder / "trunk.safetensors")
    encoder = EncoderConfig(name="sam2_hiera_tiny", weights=str(folder / "trunk.safetensors"))
    return write_checkpoint(folder / "tuned.safetensors", ModelConfig(encoder=encoder))


def test_a_trunk_is_named_or_bundled(tmp_path: Path) -> None:
    path = named_trunk(tmp_path)
    apart = hub.save(path, tmp_path / "apart", repo="someone/tuned")
    whole = hub.save(path, tmp_path / "whole", repo="someone/tuned", bundle=True)
    (tmp_path / "trunk.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(CheckpointError, match=r"needs the trunk sam2_hiera_tiny"):
        checkpoint.load(apart / "checkpoint.safetensors")
    named, _ = checkpoint.load(
        apart / "checkpoint.safetensors", trunk=tmp_path / "moved.safetensors"
    )
    bundled, meta = checkpoint.load(whole / "checkpoint.safetensors")
    held = named.state_dict()
    assert all(torch.equal(v, held[k]) for k, v in bundled.state_dict().items())
    card = (apart / "README.md").read_text()
    assert 'terradapt.load("hf://someone/tuned", trunk="trunk.safetensors")' in card
    assert meta.trunk is not None
    assert meta.trunk.sha256 in card
    assert "Apache 2.0" in card
    assert "trunk=" not in (whole / "README.md").read_text()


def test_what_cannot_be_published_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        hub.save(cut, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        hub.save(saved, tmp_path / "file")


# The hub


class Hub(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub asks for a download: HEAD and GET of one file of a revision."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/someone/roofs/resolve/(main|v1)/(.+)", self.path)
        body = self.files.get(found[2]) if found else None
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound" if found else "RepoNotFound")
            self.send_header("Content-Length", "0")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and body is not None:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    held = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{held.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=held.serve_forever, daemon=True)
    thread.start()
    Hub.files, Hub.asked = {}, []
    yield Hub
    held.shutdown()
    held.server_close()
    thread.join()


def test_load_an_address(server: type[Hub], saved: Path) -> None:
    server.files = {"checkpoint.safetensors": saved.read_bytes()}
    ours = package.load(saved)
    images = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 64)).astype(np.uint8)
    expected = ours.predict(images)
    for address in ("hf://someone/roofs", "hf://someone/roofs@v1", Path("hf://someone/roofs")):
        predictor = package.load(address)
        assert predictor.classes == CLASSES
        assert torch.equal(predictor.predict(images), expected)
    assert any("/resolve/v1/" in a for a in server.asked)
    fetched = [a for a in server.asked if re.match(r"GET .*/resolve/", a)]
    assert len(fetched) == 1, "the same file is fetched once"


def test_predict_with_an_address_on_the_command_line(
    terradapt, server: type[Hub], saved: Path, tmp_path: Path
) -> None:
    from terradapt.raster import read_label, write_raster

    server.files = {"checkpoint.safetensors": saved.read_bytes()}
    scene = tmp_path / "scene.tif"
    write_raster(scene, np.full((3, 96, 96), 90, np.uint8))
    done = terradapt("predict", "hf://someone/roofs", scene, "-o", tmp_path / "out.tif")
    assert done.status == 0, done.err
    assert read_label(tmp_path / "out.tif").max() <= 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://someone/nothing", "RepositoryNotFound"),
        ("hf://someone/roofs@v1", "EntryNotFound"),
    ],
)
def test_what_is_not_there_is_told(
    terradapt, server: type[Hub], tmp_path: Path, address: str, said: str
) -> None:
    scene = tmp_path / "scene.tif"
    with pytest.raises(CheckpointError, match=said):
        package.load(address)
    done = terradapt("predict", address, scene, "-o", tmp_path / "out.tif")
    assert done.is_user_error("someone/")
    assert not (tmp_path / "out.tif").exists()


def test_a_pickle_on_the_hub_is_not_opened(server: type[Hub]) -> None:
    server.files = {"checkpoint.safetensors": b"\x80\x05cos\nsystem\n(S'true'\ntR."}
    with pytest.raises(CheckpointError, match="is a pickle"):
        package.load("hf://someone/roofs")


def test_offline_is_told(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"hf://someone/roofs: .* cannot be fetched"):
        hub.fetch("hf://someone/roofs")


@pytest.mark.parametrize(
    "address", ["hf://roofs", "hf://a/b/c", "hf://", "hf://a/../b", "hf://a/b@", "hf://a b/c"]
)
def test_another_form_of_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="no address of the hub"):
        hub.fetch(address)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="'hub' extra"):
        package.load("hf://someone/roofs")
    with pytest.raises(MissingExtraError, match="'hub' extra"):
        hub.push(saved, "someone/roofs")


class Api:
    """Stands in for HfApi where it writes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        self.calls.append((repo_id, private))
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.calls.append((repo_id, commit_message))
        self.files = {f.name: f.read_bytes() for f in Path(folder_path).iterdir()}


def test_what_is_pushed_loads_again(
    terradapt,
    server: type[Hub],
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Api()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    done = terradapt("push", saved, "someone/roofs", "--private", "--license", "mit")
    assert done.status == 0, done.err
    assert "https://hub.example/someone/roofs" in done.out
    assert [c[0] for c in api.calls] == ["someone/roofs"] * 2
    assert api.calls[0][1] is True
    assert b"license: mit" in api.files["README.md"]
    server.files = api.files
    assert package.load("hf://someone/roofs").classes == CLASSES


def test_a_refused_push_is_told(
    terradapt, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("401 Unauthorized\nmore of it")

    api = Api()
    monkeypatch.setattr(api, "create_repo", refuse)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert terradapt("push", saved, "someone/roofs").is_user_error("someone/roofs", "401")
    assert terradapt("push", saved, "roofs").is_user_error("roofs")
    assert terradapt("push", tmp_path / "none", "a/b").is_user_error("none")
    done = terradapt("push", saved, "a/b", "--save", tmp_path / "repo")
    assert done.status == 0
    assert (tmp_path / "repo" / "README.md").is_file()
