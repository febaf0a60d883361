"""Metrics of the papers' protocols."""
