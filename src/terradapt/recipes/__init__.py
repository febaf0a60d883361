"""Recipes: one YAML file per paper and dataset."""
