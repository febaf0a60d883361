"""Objectives, optimiser and trainer."""
