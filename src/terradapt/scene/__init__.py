"""Whole scenes through a predictor, block by block."""
