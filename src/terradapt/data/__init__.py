"""Datasets, splits, crops and augmentation."""
