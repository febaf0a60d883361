"""TorchPredictor in streams: the model's mode, the threads, the values."""

import numpy as np
import pytest
import torch

from scene_files import ArrayScene, noise
from terradapt import models
from terradapt.classes import ISPRS
from terradapt.config import EncoderConfig, InputSpec, ModelConfig
from terradapt.predictors.torch import TorchPredictor, normalize_tensor
from terradapt.scene import PredictOptions, predict_blocks
from terradapt.scene.predictor import argmax


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = EncoderConfig(name="mobilenetv3_small_050")
    return models.build(ModelConfig(name="kd-arafnet", encoder=encoder), len(ISPRS))


def blocks(model, streams):
    predictor = TorchPredictor(model, ISPRS, InputSpec(), 64)
    predictor.streams = streams
    source = ArrayScene(noise(150, 200))
    return [b.classes for b in predict_blocks(source, predictor, PredictOptions(batch=2))]


def test_streams_give_the_same_bits(model):
    before = torch.get_num_threads()
    for one, many in zip(blocks(model, 1), blocks(model, 3), strict=True):
        np.testing.assert_array_equal(one, many)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("training", [True, False])
def test_streams_leave_the_models_mode(model, training):
    model.train(training)
    blocks(model, 3)
    assert model.training == training


def test_a_compiled_model_and_an_accelerator_run_in_one_stream(model):
    assert TorchPredictor(model, ISPRS, InputSpec(), 64, engine="compiled").streams == 1
    assert TorchPredictor(model, ISPRS, InputSpec(), 64, device="meta").streams == 1


def test_labels_and_fetches_are_those_of_numpy(model):
    predictor = TorchPredictor(model, ISPRS, InputSpec(), 64)
    scores = np.random.default_rng(0).random((6, 40, 30), np.float32).round(1)  # with ties
    ids, best = predictor.label(torch.from_numpy(scores))
    assert ids.dtype == torch.uint8
    expected = argmax(scores)
    np.testing.assert_array_equal(predictor.fetch(ids)(), expected[0])
    np.testing.assert_array_equal(predictor.fetch(best)(), expected[1])
    np.testing.assert_array_equal(expected[0], scores.argmax(0))


def test_normalization_is_the_formula_band_by_band():
    spec = InputSpec(bands=(1, 2), mean=(0.2, 0.7), std=(0.1, 0.3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 5, 7), dtype=np.uint8)
    found = normalize_tensor(torch.from_numpy(pixels), spec).numpy()
    mean, std = (np.array(v).reshape(1, 2, 1, 1) for v in (spec.mean, spec.std))
    np.testing.assert_allclose(found, (pixels / 255 - mean) / std, rtol=2e-5, atol=1e-5)
    again = normalize_tensor(torch.from_numpy(pixels).to("meta"), spec)
    assert again.device.type == "meta"


def test_hiera_takes_the_fused_attention_and_its_values_are_the_formula():
    encoder = EncoderConfig(name="sam2_hiera_tiny")
    trunk = models.build(ModelConfig(name="sam2-arafnet", encoder=encoder), 6).encoder.eval()
    attentions = [m for m in trunk.modules() if hasattr(m, "fused_attn")]
    assert len(attentions) == 12  # sam2_hiera_tiny: 1 + 2 + 7 + 2 blocks
    assert all(m.fused_attn for m in attentions)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fused = trunk(image)
        for attention in attentions:
            attention.fused_attn = False
        plain = trunk(image)
    for one, two in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
