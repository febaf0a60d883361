"""What an ONNX file says of itself, read from its bytes without the onnx package.

Only the wire format is walked: metadata, operator sets, and whether any tensor, however deep, wants
data from another file. Nothing is executed and no path in the file is ever opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from terradapt.errors import CheckpointError
from terradapt.meta import KEY, Exported

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
MAX_DEPTH = 32

# onnx.proto3: message -> {field number: message of the field}
NESTED = {
    "Model": {7: "Graph", 8: "OperatorSet", 14: "Entry", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
    "OperatorSet": {},
    "Entry": {},
}
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14  # of a Tensor
TENSOR_NAME = 8
NODE_LISTS, OP_TYPE = (1, 2), 4  # of a Node: names of inputs and outputs
OTHER_FORMATS = (b"ORTM", b"TFL3")
"""What stands at byte 4 of files that the engines take for ONNX Runtime's or TensorFlow Lite's."""
SMALL = frozenset(
    {
        *("Constant", "Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
        *("DequantizeLinear", "QuantizeLinear", "Shape"),
    }
)
"""Operators that may stand on constants: what they make of them is no larger."""
MOST_MADE = 1 << 28
"""Elements that products of constants may make, by the largest count that their sides allow."""
_BYTES = 2  # wire type of texts and messages
_MASK = (1 << 64) - 1
REWRITE = "export it again: terradapt export CHECKPOINT -o model.onnx"


@dataclass
class Found:
    """What a walk through the bytes met."""

    metadata: dict[str, str] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    constants: dict[str, int] = field(default_factory=dict)  # elements by name
    nodes: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    graphs: int = 0
    external: bool = False

    def grown(self) -> str:
        """Return an operator that may make much of constants alone, or ""; engines run it at once.

        A few bytes become gigabytes so, before any image is there. Products of matrices are what
        0.1.0 left to the engine: they may make what a kernel of such a product can hold.
        """
        known: dict[str, float] = dict(self.constants)
        made = 0.0
        for operator, inputs, outputs in self.nodes:
            if not all(name in known for name in inputs):
                continue
            sizes = [known[name] for name in inputs]
            size = max(sizes, default=math.inf)  # a constant of a node: not measured
            if operator == "MatMul":
                size = math.prod(sizes)
                made += size
            if operator not in SMALL and (operator != "MatMul" or made > MOST_MADE):
                return operator
            known.update(dict.fromkeys(outputs, size))
        return ""


def read_onnx(path: Path) -> tuple[bytes, Exported]:
    """Read an exported model's bytes and what it says of itself.

    Raises:
        CheckpointError: Unreadable, no ONNX, with external data, foreign operators, without
            terradapt's metadata, or with values that no model can have.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror})", "give a model.onnx"
        ) from error
    found = scan(data, path)
    if found.external:
        raise CheckpointError(
            f"{path}: keeps weights in another file, which is never opened", REWRITE
        )
    if found.grown():
        raise CheckpointError(
            f"{path}: computes with constants alone ({found.grown()[:40]}), which an export does "
            "not leave",
            REWRITE,
        )
    foreign = sorted(found.domains - DOMAINS)
    if foreign:
        raise CheckpointError(f"{path}: needs foreign operators ({', '.join(foreign)})", REWRITE)
    if KEY not in found.metadata:
        raise CheckpointError(
            f"{path}: was not exported by terradapt (it has no '{KEY}' metadata)", REWRITE
        )
    return data, Exported.from_json(found.metadata[KEY], str(path))


def scan(data: bytes, path: Path) -> Found:
    """Walk a ModelProto's bytes.

    Raises:
        CheckpointError: The bytes are no whole ONNX model, or protobuf's readers might see
            something else in them.
    """
    found = Found()
    try:
        if data[4:8] in OTHER_FORMATS:
            raise ValueError("it begins like another format")
        _walk(memoryview(data), "Model", found, 0)
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: is no whole ONNX file ({error})", REWRITE) from error
    if found.graphs == 0:
        raise CheckpointError(f"{path}: is no ONNX file (it holds no graph)", REWRITE)
    return found


def _walk(message: memoryview, kind: str, found: Found, depth: int, above: str = "") -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    nested = NESTED[kind]
    found.graphs += kind == "Graph"
    for number, wire, value in _fields(message):
        if number not in nested:
            continue
        if wire != _BYTES or isinstance(value, int):
            raise ValueError(f"field {number} of a {kind} is no message")
        inner = nested[number]
        if inner == "OperatorSet":
            found.domains.add(_text(value, 1))
        elif inner == "Entry":
            key = _text(value, 1)
            if key in found.metadata:
                raise ValueError(f"two entries '{key[:40]}'")
            found.metadata[key] = _text(value, 2)
        else:
            _walk(value, inner, found, depth + 1, kind)
    if kind == "Tensor":
        _note_tensor(message, found, above == "Graph")
    elif kind == "Node":
        words: dict[int, list[str]] = {1: [], 2: [], OP_TYPE: []}
        for number, _, value in _fields(message):
            if number in words:
                words[number].append(_decoded(value))
        found.nodes.append(("".join(words[OP_TYPE][-1:]), words[1], words[2]))


def _note_tensor(message: memoryview, found: Found, named: bool) -> None:
    elements, name = 1, None
    for number, _, value in _fields(message):
        found.external |= number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)
        if number == DIMS:
            elements *= _product(value)
        elif number == TENSOR_NAME and named:
            name = _decoded(value)
    if name is not None:
        found.constants[name] = max(elements, found.constants.get(name, 0))
    if elements > 2 * len(message):  # the smallest type has two elements to a byte
        raise ValueError(f"a tensor of {elements} elements in {len(message)} bytes")


def _decoded(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a name is a number")
    return bytes(value).decode("utf-8")


def _product(dims: int | memoryview) -> int:
    """Multiply a tensor's sides, which stand one by one or packed."""
    if isinstance(dims, int):
        return dims
    product, at = 1, 0
    while at < len(dims):
        side, at = _varint(dims, at)
        product *= side
    return product


def _text(message: memoryview, wanted: int) -> str:
    values = [(w, v) for n, w, v in _fields(message) if n == wanted]
    if len(values) > 1 or any(w != _BYTES for w, _ in values):
        raise ValueError(f"field {wanted} of an entry is doubled or no text")
    return bytes(values[0][1]).decode("utf-8") if values else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, varint or bytes) of a protobuf message.

    Tags and lengths must stand in their shortest form and within 32 bits: of others, protobuf's
    readers drop bits, each in its own way. Groups are refused.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at, most=1 << 32)
        wire = tag & 7
        if tag < 8:
            raise ValueError(f"field 0 at byte {at}")
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at, most=1 << 31)
        elif wire in {1, 5}:
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + length > end:
            raise ValueError("it ends too early")
        yield tag >> 3, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int, most: int | None = None) -> tuple[int, int]:
    """Read a number and return what comes after it; below ``most``, its form must be the shortest.

    Raises:
        ValueError: Cut short, too large, or longer than needed.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends too early")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if most is not None and (value >= most or (byte == 0 and shift > 0)):
                raise ValueError(f"a number in a form that can be read in two ways at byte {at}")
            return value & _MASK, at
    raise ValueError("a number is too long")
