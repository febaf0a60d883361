"""TorchPredictor in streams: the model's mode, the threads, the values."""

import numpy as np
import pytest
import torch

from scene_files import ArrayScene, noise
from terradapt import models
from terradapt.classes import ISPRS
from terradapt.config import EncoderConfig, InputSpec, ModelConfig
from terradapt.predictors.torch import TorchPredictor
from terradapt.scene import PredictOptions, predict_blocks


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
