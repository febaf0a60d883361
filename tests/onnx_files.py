"""A three-class ONNX model of one convolution, and what may be wrong with such a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from terradapt.classes import ClassMap
from terradapt.config import InputSpec, RunConfig
from terradapt.meta import KEY, Exported

CLASSES = ClassMap(("red", "green", "blue"))
SPEC = InputSpec(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
WEIGHTS = 4 * np.eye(3, dtype=np.float32)[:, :, None, None]


META = Exported(
    config=RunConfig(), classes=CLASSES, spec=SPEC, window=64, multiple=32, parameters=WEIGHTS.size
)


def values(**changes: Any) -> dict[str, Any]:
    """Return terradapt's metadata of the model."""
    told: dict[str, Any] = json.loads(META.to_json())
    return told | changes


def tiny_proto(
    shape: tuple[Any, ...] = ("batch", 3, "height", "width"),
    answer: tuple[Any, ...] = ("batch", 3, "height", "width"),
    *,
    meta: Mapping[str, Any] | None = None,
    node: str = "Conv",
    domain: str = "",
) -> Any:
    """Return the model: softmax of a 1x1 convolution, so that the strongest band wins."""
    graph = helper.make_graph(
        [
            helper.make_node(node, ["image", "w"], ["logits"], domain=domain),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, answer)],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(proto, {KEY: json.dumps(values() if meta is None else dict(meta))})
    return proto


def write_tiny(path: Path, *args: Any, **kwargs: Any) -> Path:
    """Write the model of :func:`tiny_proto`."""
    path.write_bytes(tiny_proto(*args, **kwargs).SerializeToString())
    return path


def with_external_data(path: Path) -> Path:
    """Write the model with its weights in another file beside it."""
    onnx.save_model(
        tiny_proto(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return path
