from __future__ import annotations

import pytest
import yaml

from terradapt.config import (
    ModelConfig,
    RunConfig,
    load_config,
    parse_config,
    recipe_names,
    recipe_text,
)
from terradapt.errors import ConfigError, TerradaptError


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_header_says_paper_command_time_and_expectation(name: str) -> None:
    text = recipe_text(name)
    for word in ("Paper:", "Command:", "Time:", "Expected:"):
        assert word in text, f"{name} lacks {word}"
    assert load_config(name).name == name
    assert load_config(name).description


@pytest.mark.parametrize("name", recipe_names())
def test_yaml_round_trip(name: str) -> None:
    config = load_config(name)
    assert parse_config(config.to_yaml(), name) == config


def test_recipes_of_the_protocol_are_all_there() -> None:
    wanted = {"demo", "landcover", "roads", "arafnet-potsdam", "arafnet-vaihingen"}
    wanted |= {"kd-arafnet-potsdam", "kd-arafnet-vaihingen", "sam2unet-roads"}
    wanted |= {f"sam2ms-{d}" for d in ("deepglobe", "spacenet", "massachusetts")}
    assert wanted <= set(recipe_names())


def test_overrides_reach_nested_keys_and_have_short_forms() -> None:
    config = RunConfig().with_overrides(
        [
            "encoder.weights=some/file.safetensors",
            "epochs=3",
            "train.batch=2",
            "data.bands=[4,3,2]",
            "objective.lossnet.name=vgg16",
            "model.options.dropout=0.2",
            "encoder.args.pad_type=same",
        ]
    )
    assert config.model.encoder.weights == "some/file.safetensors"
    assert (config.train.epochs, config.train.batch) == (3, 2)
    assert config.data.bands == (4, 3, 2)
    assert config.objective.lossnet is not None
    assert config.objective.lossnet.name == "vgg16"
    assert config.model.options == {"dropout": 0.2}
    assert config.model.encoder.args == {"pad_type": "same"}
    assert RunConfig().train.epochs != 3


def test_options_do_not_follow_to_another_model() -> None:
    recipe = load_config("landcover")
    assert recipe.model.options == {"mlp_width": 256}
    other = recipe.with_overrides(["model.options.decoder_channels=64", "model.name=smp-fpn"])
    assert other.model.options == {"decoder_channels": 64}
    same = recipe.with_overrides(["model.name=kd-arafnet", "model.options.width=64"])
    assert same.model.options == {"mlp_width": 256, "width": 64}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epoch=3", "train.epoch"),
        ("nosuch=1", "nosuch"),
        ("train.batch=0", "train.batch"),
        ("train.batch=many", "train.batch"),
        ("optim.lr", "optim.lr"),
        ("optim.lr.x=1", "optim.lr"),
        ("encoder.name=hf-hub:someone/thing", "encoder.name"),
        ("encoder.args.checkpoint_path=evil.pth", "checkpoint_path"),
        ("encoder.args.pretrained=true", "pretrained"),
    ],
)
def test_a_wrong_override_names_the_key(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig().with_overrides([override])
    assert named.rsplit(".", maxsplit=1)[-1] in error.value.message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("epoch", "train.epochs"),
        ("optim.epochs", "train.epochs"),
        ("trian.epochs", "train.epochs"),
        ("lr", "optim.lr"),
        ("batch_size", "train.batch"),
        ("crop_size", "data.crop"),
        ("encoder.weight", "model.encoder.weights"),
        ("data.Crop", "data.crop"),
        ("objective.distill.teachr", "objective.distill.teacher"),
        ("objective.lossnet.frm", "objective.lossnet.form"),
    ],
)
def test_a_mistyped_key_is_asked_about_on_the_line_and_in_a_file(key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig().with_overrides([f"{key}=1"])
    assert error.value.fix.startswith(f"did you mean '{meant}'?")
    value: object = 1
    for part in reversed(key.split(".")):
        value = {part: value}
    with pytest.raises(ConfigError, match=r"mine\.yaml") as error:
        parse_config(yaml.safe_dump(value), "mine.yaml")
    part = {"trian.epochs": "train", "encoder.weight": "model.encoder"}  # unknown before its keys
    assert error.value.fix.startswith(f"did you mean '{part.get(key, meant)}'?")


def test_a_key_like_none_is_not_guessed() -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig().with_overrides(["zzqx=1"])
    assert "did you mean" not in error.value.fix


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["recipes", "landcovr"], "landcover"),
        (["train", "Roads"], "roads"),
        (["models", "--model", "kd-arafnt"], "kd-arafnet"),
        (["data", "potsdm", ".", "-o", "x"], "potsdam"),
        (["data", "chek", "."], "check"),
        (["tables", "arafnet4"], "arafnet-4"),
    ],
)
def test_a_mistyped_name_is_asked_about(terradapt, args: list[str], meant: str) -> None:
    done = terradapt(*args)
    assert done.is_user_error()
    assert f"did you mean '{meant}'?" in done.errors[1]


def test_mistyped_classes_and_options_are_asked_about() -> None:
    from terradapt.classes import ClassMap
    from terradapt.models import parse_options
    from terradapt.scene import PredictOptions
    from terradapt.scene.stream import Wanted
    from terradapt.vector.files import RasterClasses

    names = ("water", "forest", "road")
    classes = ClassMap(names, ((0, 0, 1), (0, 0, 2), (0, 0, 3)))
    asked = [
        lambda: classes.index("forrest"),
        lambda: Wanted.of(PredictOptions(classes=("forests",)), classes),
        lambda: RasterClasses(dict(enumerate(names)), {}).value("Forst", "map.tif"),
    ]
    for ask in asked:
        with pytest.raises(TerradaptError) as error:
            ask()
        assert error.value.fix.startswith("did you mean 'forest'?")
        assert all(name in error.value.fix for name in names)
    with pytest.raises(ConfigError, match="widht") as error:
        parse_options(ModelConfig(options={"widht": 64}))
    assert error.value.fix.startswith("did you mean 'width'?")


@pytest.mark.parametrize(
    "text", ["train: [", "- a\n- b", "train: {batch: -1}", "unknown: 1", "model: 3"]
)
def test_a_wrong_file_names_itself(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        parse_config(text, "mine.yaml")


def test_cli_prints_and_refuses_recipes(terradapt) -> None:
    shown = terradapt("recipes", "landcover")
    assert shown.status == 0
    assert yaml.safe_load(shown.out)["name"] == "landcover"
    listed = terradapt("recipes", "--json")
    assert [row["name"] for row in yaml.safe_load(listed.out)] == recipe_names()
    assert terradapt("recipes", "nosuch").is_user_error("nosuch")


def test_build_by_name_takes_fields_of_model_and_encoder() -> None:
    import terradapt

    model = terradapt.build("kd-arafnet", 4, encoder="mobilenetv3_small_050", in_channels=5)
    assert model.num_classes == 4
    assert next(model.encoder.parameters()).shape[1] == 5
    with pytest.raises(ConfigError, match="nosuch"):
        terradapt.build("nosuch", 2)
    with pytest.raises(ConfigError, match="widht"):
        terradapt.build("kd-arafnet", 2, encoder="mobilenetv3_small_050", options={"widht": 64})
    with pytest.raises(ConfigError, match="colour"):
        terradapt.build("kd-arafnet", 2, colour="red")
