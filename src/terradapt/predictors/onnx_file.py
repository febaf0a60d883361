"""What an ONNX file says of itself, read from its bytes without the onnx package.

Only the wire format is walked: metadata, operator sets, and whether any tensor, however deep, wants
data from another file. Nothing is executed and no path in the file is ever opened.
"""

from __future__ import annotations

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
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a Tensor
REWRITE = "export it again: terradapt export CHECKPOINT -o model.onnx"


@dataclass
class Found:
    """What a walk through the bytes met."""

    metadata: dict[str, str] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    graphs: int = 0
    external: bool = False


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
        CheckpointError: The bytes are no whole ONNX model.
    """
    found = Found()
    try:
        _walk(memoryview(data), "Model", found, 0)
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: is no whole ONNX file ({error})", REWRITE) from error
    if found.graphs == 0:
        raise CheckpointError(f"{path}: is no ONNX file (it holds no graph)", REWRITE)
    return found


def _walk(message: memoryview, kind: str, found: Found, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    nested = NESTED[kind]
    found.graphs += kind == "Graph"
    for number, value in _fields(message):
        if kind == "Tensor":
            found.external |= number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)
        elif number in nested and isinstance(value, memoryview):
            inner = nested[number]
            if inner == "OperatorSet":
                found.domains.add(_text(value, 1))
            elif inner == "Entry":
                found.metadata[_text(value, 1)] = _text(value, 2)
            else:
                _walk(value, inner, found, depth + 1)


def _text(message: memoryview, wanted: int) -> str:
    values = [bytes(v) for n, v in _fields(message) if n == wanted and isinstance(v, memoryview)]
    return values[-1].decode("utf-8") if values else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) of a protobuf message; fixed-width values as bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in {1, 5}:
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + length > end:
            raise ValueError("it ends too early")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends too early")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")
