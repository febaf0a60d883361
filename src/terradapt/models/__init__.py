"""Models, one file per paper, found by name."""
