"""Predictors: uint8 pixels in, class scores out."""
