"""Predicting does without torch's compiler, which comes when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from export_files import small
from terradapt import checkpoint

LEAN = """
import sys
from terradapt import predictors
import numpy as np
predictor = predictors.load("net.safetensors")
predictor.predict(np.zeros((1, 3, 64, 64), np.uint8))
assert "torch._dynamo" not in sys.modules
import torch
more = torch.compile(lambda x: x + 1, backend="eager")
assert more(torch.ones(2)).eq(2).all()
from torchvision.ops import roi_align
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).eq(1).all()
assert hasattr(sys.modules["torch._dynamo"], "optimize")
"""


@pytest.mark.slow
def test_the_compiler_is_loaded_when_it_is_used(tmp_path: Path) -> None:
    net, meta = small()
    checkpoint.save(tmp_path / "net.safetensors", net, meta)
    words = [sys.executable, "-c", LEAN]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
