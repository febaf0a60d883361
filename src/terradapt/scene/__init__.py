"""Scenes of any size: windows in, blended blocks out. Imports no model library."""

from terradapt.scene.job import predict_blocks
from terradapt.scene.options import PredictOptions
from terradapt.scene.predict import predict_scene
from terradapt.scene.predictor import Predictor
from terradapt.scene.stream import Block

__all__ = ["Block", "PredictOptions", "Predictor", "predict_blocks", "predict_scene"]
