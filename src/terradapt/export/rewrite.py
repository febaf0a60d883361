"""A 3x3 convolution of a map enlarged by repetition needs a sixth of its multiply-adds.

Behind a fourfold nearest enlargement most taps of the kernel meet the same pixel. Within a cell of
4 x 4 outputs the first row sees taps (0 | 1 + 2), the middle ones (0 + 1 + 2), the last (0 + 1 | 2)
of two, one and two small rows; the columns alike. Nine small convolutions of 25 taps in all replace
16 x 9 taps, and a depth-to-space step lays out the cells. The sums of the taps stay operations in
the graph, which every runtime folds when it loads the file, so the file does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from terradapt.export.onnx import import_onnx

FACTOR = 4
SUMS = {
    "first": np.array([[1, 0, 0], [0, 1, 1]], np.float32),
    "middle": np.array([[1, 1, 1]], np.float32),
    "last": np.array([[1, 1, 0], [0, 0, 1]], np.float32),
}
"""Which taps of three meet the same small row, by the place of the output row in its cell."""
CELL = ("first", "middle", "middle", "last")
PADS = {"first": (1, 0), "middle": (0, 0), "last": (0, 1)}


def share_taps(proto: Any) -> int:
    """Rewrite the convolutions behind fourfold nearest enlargements in place; return how many."""
    graph = proto.graph
    constants = _constants(graph)
    makers = {output: node for node in graph.node for output in node.output}
    nodes, count = [], 0
    for node in graph.node:
        enlargement = makers.get(node.input[0]) if node.op_type == "Conv" else None
        weight = constants.get(node.input[1]) if node.op_type == "Conv" else None
        if (
            enlargement is None
            or weight is None
            or not _is_plain(node, weight)
            or not _is_enlargement(enlargement, constants)
        ):
            nodes.append(node)
            continue
        nodes += _shared(node, enlargement.input[0], count)
        count += 1
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(_selectors())
    return count


def _shared(node: Any, small: str, number: int) -> Iterator[Any]:
    """Yield the nodes that compute a convolution's output from the small map."""
    helper = import_onnx().helper
    phases: dict[tuple[str, str], str] = {}
    for row, rows in SUMS.items():
        for col, cols in SUMS.items():
            name = f"shared{number}_{row}_{col}"
            across, kernel, output = f"{name}_across", f"{name}_kernel", f"{name}_output"
            yield helper.make_node("MatMul", [node.input[1], f"taps_{col}_T"], [across])
            yield helper.make_node("MatMul", [f"taps_{row}", across], [kernel])
            (top, bottom), (left, right) = PADS[row], PADS[col]
            yield helper.make_node(
                "Conv", [small, kernel, *node.input[2:]], [output], name=name,
                kernel_shape=[len(rows), len(cols)], pads=[top, left, bottom, right],
            )  # fmt: skip
            phases[row, col] = output
    joined = f"shared{number}_cells"
    yield helper.make_node("Concat", [phases[r, c] for r in CELL for c in CELL], [joined], axis=1)
    yield helper.make_node(
        "DepthToSpace", [joined], list(node.output), name=node.name, blocksize=FACTOR, mode="DCR"
    )


def _selectors() -> list[Any]:
    from onnx import numpy_helper

    return [
        numpy_helper.from_array(np.ascontiguousarray(values), name)
        for key, taps in SUMS.items()
        for name, values in ((f"taps_{key}", taps), (f"taps_{key}_T", taps.T))
    ]


def _constants(graph: Any) -> dict[str, Any]:
    """Return the values of initializers and Constant nodes by name."""
    from onnx import numpy_helper

    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _is_plain(node: Any, weight: Any) -> bool:
    """Say whether a convolution is 3x3 with padding 1, no stride, dilation or groups."""
    helper = import_onnx().helper
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return bool(
        weight.shape[2:] == (3, 3)
        and values.get("group", 1) == 1
        and list(values.get("pads", [])) == [1, 1, 1, 1]
        and list(values.get("strides", [1, 1])) == [1, 1]
        and list(values.get("dilations", [1, 1])) == [1, 1]
    )


def _is_enlargement(node: Any, constants: dict[str, Any]) -> bool:
    """Say whether a node repeats each pixel 4 x 4 times."""
    helper = import_onnx().helper
    if node.op_type != "Resize" or len(node.input) < 3 or node.input[2] not in constants:
        return False
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    scales = constants[node.input[2]]
    return bool(
        values.get("mode", b"nearest") == b"nearest"
        and values.get("coordinate_transformation_mode", b"half_pixel") == b"asymmetric"
        and values.get("nearest_mode", b"round_prefer_floor") == b"floor"
        and scales.tolist() == [1, 1, FACTOR, FACTOR]
    )
