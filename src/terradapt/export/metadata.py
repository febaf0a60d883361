"""What an exported model says to others: QGIS Deepness, STAC MLM, and terradapt itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terradapt.export.onnx import CLASSES, INPUT, OPSET, OUTPUT, import_onnx
from terradapt.files import digest, write_json
from terradapt.meta import KEY, Exported, Meta

OVERLAP = 25
"""Per cent of a tile that Deepness reads twice."""
STAC_VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)


def properties(meta: Exported) -> dict[str, str]:
    """Return all texts for the file's ``metadata_props``."""
    return {**deepness(meta), KEY: meta.to_json()}


def deepness(meta: Meta) -> dict[str, str]:
    """Return the keys that QGIS Deepness reads; every value is JSON text.

    Resolution is in centimetres per pixel, the overlap in per cent; mean and std apply after the
    division by 255 that Deepness always does. Imagery without a known resolution gets no key, and
    Deepness then asks its user.
    """
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(i): name for i, name in enumerate(meta.classes.names)},
        "tiles_size": meta.window,  # its page's word
        "tile_size": meta.window,  # its code's word
        "tiles_overlap": OVERLAP,
        "standardization_mean": list(meta.spec.mean),
        "standardization_std": list(meta.spec.std),
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if meta.spec.resolution is not None:
        values["resolution"] = round(meta.spec.resolution * 100, 6)
    return {key: json.dumps(value) for key, value in values.items()}


def mlm_item(path: Path, meta: Exported) -> dict[str, Any]:
    """Return a STAC item with the Machine Learning Model extension for an exported file.

    The item has no geometry: where a model holds is more than where its pixels came from.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": path.stem,
        "geometry": None,
        "properties": {
            "datetime": now,
            "description": meta.config.description or f"{meta.config.model.name} by terradapt",
            **_model_properties(path, meta),
        },
        "links": [],
        "assets": {"model": _asset(path, meta)},
    }


def write_item(path: Path, item: Mapping[str, Any]) -> Path:
    """Write an item beside the model as ``<stem>.stac.json`` and return its path."""
    return write_json(path.with_suffix(".stac.json"), item, indent=2)


def _model_properties(path: Path, meta: Exported) -> dict[str, Any]:
    model = meta.config.model
    return {
        "mlm:name": path.stem,
        "mlm:architecture": f"{model.name} ({model.encoder.name})",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX",
        "mlm:framework_version": import_onnx().__version__,
        "mlm:memory_size": path.stat().st_size,
        "mlm:total_parameters": meta.parameters,
        "mlm:pretrained": model.encoder.weights is not None,
        "mlm:accelerator_constrained": False,
        "mlm:batch_size_suggestion": 1,
        "mlm:hyperparameters": {
            "window": meta.window,
            "precision": meta.precision,
            "opset": OPSET,
        },
        "mlm:input": [_input(meta)],
        "mlm:output": [_output(meta)],
    }


def _input(meta: Exported) -> dict[str, Any]:
    """Describe the input; mean and deviation are in units of the 8-bit pixels."""
    spec = meta.spec
    side = meta.window if meta.fixed else -1
    return {
        "name": INPUT,
        "bands": band_names(meta),
        "input": {
            "shape": [-1, len(spec.bands), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": round(255 * m, 6), "stddev": round(255 * s, 6)}
            for m, s in zip(spec.mean, spec.std, strict=True)
        ],
        "resize_type": None,
        "pre_processing_function": None,
    }


def band_names(meta: Meta) -> list[str]:
    """Return the names of the input's bands, which the item's asset lists too."""
    return list(meta.spec.band_names or (f"band {i}" for i in meta.spec.bands))


def _output(meta: Exported) -> dict[str, Any]:
    side = meta.window if meta.fixed else -1
    scores = {
        "shape": [-1, len(meta.classes), side, side],
        "dim_order": ["batch", "class", "height", "width"],
        "data_type": "float32",
    }
    ids = {
        "shape": [-1, side, side],
        "dim_order": ["batch", "height", "width"],
        "data_type": "uint8",
    }
    return {
        "name": CLASSES if meta.argmax else OUTPUT,
        "tasks": ["semantic-segmentation"],
        "result": ids if meta.argmax else scores,
        "classification:classes": [
            {
                "value": i,
                "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or f"class-{i}",
                "title": name,
                "description": name,
                "color_hint": "{:02X}{:02X}{:02X}".format(*meta.classes.colours[i]),
            }
            for i, name in enumerate(meta.classes.names)
        ],
        "post_processing_function": None,
    }


def _asset(path: Path, meta: Meta) -> dict[str, Any]:
    return {
        "href": f"./{path.name}",
        "title": f"{meta.config.model.name}, ONNX",
        "type": "application/octet-stream; framework=onnx",
        "roles": ["mlm:model", "data"],
        "mlm:artifact_type": "ONNX",
        "bands": [{"name": name} for name in band_names(meta)],
        "file:size": path.stat().st_size,
        "file:checksum": f"1220{digest(path)}",
    }
