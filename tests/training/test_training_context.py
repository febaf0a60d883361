"""A model that sees the ground around, from its crops to its exported file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from conftest import Call
from terradapt import checkpoint, predictors, training
from terradapt.config import EncoderConfig, ModelConfig, RunConfig, load_config
from terradapt.data import Dataset, input_spec, open_dataset
from terradapt.data.reading import ItemReader
from terradapt.data.sampling import CropDataset
from terradapt.errors import ConfigError
from terradapt.evaluation import evaluate
from terradapt.export import run as export
from terradapt.export.onnx import export_onnx
from terradapt.export.windows import collect
from terradapt.grid import Window
from terradapt.models import build
from terradapt.models.building import build_encoder
from terradapt.models.encoder import enlarged_middle
from terradapt.raster import SceneReader, write_raster
from terradapt.scene import predict_blocks
from terradapt.training.trainer import Trainer
from training_files import SMALL, write_folder

STILL = [
    "augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "augment.sharpness=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def config(*more: str, context: int = 4) -> RunConfig:
    over = [*SMALL, "train.epochs=1", "train.steps_per_epoch=2", f"data.context={context}", *more]
    return load_config("landcover").with_overrides(over)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    training.train(config(), folder, run)
    return run / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def slope(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A picture whose bands are its rows and columns."""
    root = tmp_path_factory.mktemp("slope")
    rows, cols = np.mgrid[:250, :250].astype(np.uint8)
    for name in ("0", "1"):
        write_raster(root / "images" / f"{name}.tif", np.stack([rows, cols, rows // 2]))
        write_raster(root / "labels" / f"{name}.tif", rows // 128)
    (root / "classes.yaml").write_text("names: [above, below]\n")
    (root / "splits.json").write_text('{"train": ["0"], "val": ["1"]}')
    return open_dataset(root)


@pytest.mark.parametrize(
    "more",
    [
        ["augment.scale=[1,1]"],
        ["augment.scale=[0.7,1.5]"],
        ["augment.scale=[1,1]", "augment.rotate=40"],
    ],
)
def test_crops_are_turned_and_mirrored_with_the_ground_around(
    slope: Dataset, more: list[str]
) -> None:
    """The middle of the ground around shows the crop itself; the crop's border may be black."""
    wanted = RunConfig().with_overrides(["data.crop=64", "data.context=4", *STILL, *more])
    crops = CropDataset(slope, "train", wanted, input_spec(slope, wanted.data), length=24)
    turned = set()
    for index in range(24):
        image = crops[index]["image"].float()
        assert image.shape == (6, 64, 64)
        crop = torch.nn.functional.avg_pool2d(image[:3], 4)[:, 4:12, 4:12]
        around = image[3:, 28:36, 28:36]
        assert (crop - around).abs().max() <= 4  # half a cell, and a pixel where it is turned
        steps = [float(image[b].diff(dim=d).mean().sign()) for b in (0, 1) for d in (0, 1)]
        turned.add(tuple(steps) if "augment.rotate=40" not in more else index)
    assert len(turned) > 6


def test_a_loaded_image_has_the_same_ground_around_as_its_file(slope: Dataset) -> None:
    spec = input_spec(slope, config().data)
    with (
        ItemReader(slope, slope.items[0], spec) as file,
        ItemReader(slope, slope.items[0], spec) as loaded,
    ):
        loaded.load()
        for window in (Window(-9, 3, 64, 64), Window(101, 190, 33, 33), Window(0, 0, 250, 250)):
            np.testing.assert_array_equal(loaded.sample(window)[0], file.sample(window)[0])


def test_a_run_sees_it_from_crops_to_the_exported_file(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    model, meta = checkpoint.load(trained)
    assert meta.spec.context == 4 and meta.spec.bands == (1, 2, 3)
    assert meta.config.model.in_channels == 6
    assert meta.spec.mean == meta.spec.mean[:3] * 2 and len(meta.spec.std) == 6
    assert next(model.parameters()).shape[1] == 3  # one set of weights sees both
    assert any(c.weight.abs().max() > 0 for c in model.encoder.around)  # it has learned
    report = evaluate(predictors.load(trained), open_dataset(folder), "test", pictures=1)
    assert report.metrics["miou"] > 0
    found = collect(folder, meta.spec, meta.classes, 64, 2)
    assert found.images.shape == (2, 6, 64, 64)
    exported = export.export_with_proof(trained, tmp_path / "model.onnx", images=found.images)
    assert exported.parity is not None and exported.parity.equal_classes == 1
    words = onnx.load(str(tmp_path / "model.onnx")).metadata_props
    assert "tiles_size" not in {p.key for p in words}  # Deepness gives windows alone
    (told,) = json.loads((tmp_path / "model.stac.json").read_text())["properties"]["mlm:input"]
    assert told["input"]["shape"][1] == len(told["value_scaling"]) == len(told["bands"]) == 6
    scores = []
    for file in (trained, tmp_path / "model.onnx"):
        predictor = predictors.load(file)
        with SceneReader(folder / "images" / "3.tif", predictor.spec) as scene:
            scores += [np.concatenate([b.classes for b in predict_blocks(scene, predictor)])]
    assert (scores[0] == scores[1]).mean() > 0.999


def test_deepness_gives_windows_alone(terradapt: Call, trained: Path, tmp_path: Path) -> None:
    done = terradapt("export", trained, "-o", tmp_path / "m.onnx", "--for", "deepness")
    assert done.is_user_error("ground around")
    assert not any(tmp_path.iterdir())


def test_a_start_without_it_says_at_first_what_it_said(folder: Path, tmp_path: Path) -> None:
    training.train(config(context=0), folder, tmp_path / "bare")
    start = tmp_path / "bare" / "checkpoint.safetensors"
    wanted = config(f"train.start={start}")
    trainer = Trainer(wanted, open_dataset(folder, wanted.data), tmp_path / "run")
    assert trainer.spec.mean == trainer.spec.mean[:3] * 2
    image = torch.randn(1, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = checkpoint.load(start)[0](image[:, :3]).logits
        after = trainer.model.eval()(image).logits
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    taught = config("objective.name=distill", f"objective.distill.teacher={start}")
    training.train(taught, folder, tmp_path / "taught")  # by a teacher that sees the crop alone
    assert checkpoint.read_meta(tmp_path / "taught" / "checkpoint.safetensors").spec.context == 4


def test_a_start_with_it_goes_on_with_it_or_without(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    model, _ = checkpoint.load(trained)
    image = torch.randn(1, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    for context in (4, 2, 0):
        wanted = config(f"train.start={trained}", context=context)
        trainer = Trainer(wanted, open_dataset(folder, wanted.data), tmp_path / f"run{context}")
        after = trainer.model.eval()
        assert after.encoder.context == context
        with torch.no_grad():
            if context == 4:
                torch.testing.assert_close(after(image).logits, model(image).logits)
            if context == 0:
                for convolution in model.encoder.around:
                    torch.nn.init.zeros_(convolution.weight)
                torch.testing.assert_close(after(image[:, :3]).logits, model(image).logits)


@pytest.mark.parametrize("times", [2, 4, 8])
@pytest.mark.parametrize("size", [(2, 4), (6, 8), (12, 10)])
def test_the_middle_lies_over_the_window(times: int, size: tuple[int, int]) -> None:
    """As the whole map enlarged, and cut to the window."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(x, scale_factor=times, mode="bilinear")
    top, left = (side * (times - 1) // 2 for side in size)
    want = large[:, :, top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(enlarged_middle(x, times, lambda near: near), want)


@pytest.mark.parametrize("film", [False, True])
def test_maps_take_those_of_the_ground_around_where_the_window_lies(film: bool) -> None:
    """A window of one scene, and the scene around in cells: the same things lie over each other."""
    plan = config(f"encoder.film={film}").model
    encoder = plan.encoder.model_copy(update={"context": 4})
    model = build(plan.model_copy(update={"encoder": encoder, "in_channels": 6 + film}), 3).eval()
    bare = plan.encoder.model_copy(update={"film": False})
    plain = build(plan.model_copy(update={"encoder": bare, "in_channels": 3}), 3).eval()
    held = {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}
    plain.load_state_dict(held)
    assert model.size_multiple == 64
    image = torch.randn(2, 6 + film, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own, around = plain.encoder(image[:, :3]), plain.encoder(image[:, 3:6])
        torch.testing.assert_close(model.encoder(image), own)  # at first
        for convolution in model.encoder.around:
            torch.nn.init.eye_(convolution.weight[:, :, 0, 0])
        for found, near, far in zip(model.encoder(image), own, around, strict=True):
            torch.testing.assert_close(found, near + enlarged_middle(far, 4, lambda x: x))


def test_an_exported_file_takes_any_size_and_batch(tmp_path: Path) -> None:
    torch.manual_seed(2)
    encoder = {"name": "mobilenetv3_small_050", "context": 4}
    model = build(ModelConfig(encoder=EncoderConfig(**encoder), in_channels=6), 3).eval()
    for convolution in model.encoder.around:
        torch.nn.init.eye_(convolution.weight[:, :, 0, 0])
    file = tmp_path / "model.onnx"
    export_onnx(model, file, channels=6, window=128, fixed=False)
    session = onnxruntime.InferenceSession(str(file))
    for size in ((1, 6, 128, 128), (3, 6, 64, 192)):
        x = 30 * torch.randn(*size, generator=torch.Generator().manual_seed(0))
        alone = torch.cat([x[:, :3], torch.zeros_like(x[:, 3:])], 1)
        with torch.no_grad():
            want, other = (model(i).logits.softmax(1).numpy() for i in (x, alone))
        assert np.abs(want - other).max() > 0.001  # far above what is allowed below
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, want, atol=1e-5)


def test_what_cannot_see_it_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder)
    for more, said in (
        (["model.name=smp-unet"], "no encoder that could see"),
        (["data.crop=96"], "multiples of 64"),
        (["encoder.context=2", "model.in_channels=6"], "encoder.context=2, but data.context=4"),
    ):
        with pytest.raises(ConfigError, match=said):
            Trainer(config(*more), dataset, tmp_path / "run")
    with pytest.raises(ConfigError, match="not those of a window"):
        build_encoder("mobilenetv3_small_050", in_channels=3, context=4)


def test_a_teacher_that_sees_more_and_two_dates_are_refused(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    taught = config("objective.name=distill", f"objective.distill.teacher={trained}", context=0)
    with pytest.raises(ConfigError, match="ground around"):
        Trainer(taught, open_dataset(folder, taught.data), tmp_path / "taught")
    dates = ["model.name=siamese", "data.bands=[1,2,3,1,2,3]", "model.in_channels=6"]
    pair = config(*dates)
    with pytest.raises(ConfigError, match="2 dates"):
        Trainer(pair, open_dataset(folder, pair.data), tmp_path / "pair")
