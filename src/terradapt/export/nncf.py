"""INT8 by NNCF's post-training quantization, when it is installed; the file stays plain QDQ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.config import InputSpec
from terradapt.errors import ConfigError
from terradapt.export.onnx import INPUT, import_onnx
from terradapt.predictors.onnx import normalize


def quantize_nncf(
    source: Path, path: Path, spec: InputSpec, images: NDArray[np.uint8], kept: Sequence[str]
) -> Path:
    """Write an INT8 model whose ranges and corrected biases NNCF chose; return its path.

    Args:
        source: The float model.
        path: File to write.
        spec: Normalisation of the windows.
        images: Windows (N, C, S, S) to calibrate on.
        kept: Names of the layers that stay in float.

    Raises:
        ConfigError: NNCF is not installed.
    """
    nncf = import_nncf()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    onnx = import_onnx()
    batches = [{INPUT: normalize(image[None], spec)} for image in images]
    quantized = nncf.quantize(
        onnx.load(str(source)),
        nncf.Dataset(batches),
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(names=list(kept)),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
    )
    onnx.save(quantized, str(path))
    return path


def import_nncf() -> Any:
    """Import NNCF.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise ConfigError(
            "--method nncf needs NNCF, which is not installed", "run: pip install nncf"
        ) from error
    return nncf
