"""The classes that a model knows, read from its file without a library. No QGIS in here."""

import io
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO, List, Tuple

KEY = "terradapt"
_LONGEST = 1 << 24  # bytes of a text that is read
_METADATA = 14  # ModelProto.metadata_props


def model_path(text: str) -> Path:
    """Return the model's file: a run's folder holds ``checkpoint.safetensors``."""
    path = Path(text)
    return path / "checkpoint.safetensors" if path.is_dir() else path


def classes_of(text: str) -> List[Tuple[str, Tuple[int, int, int]]]:
    """Return name and colour of each class of a model; empty where they cannot be read.

    Args:
        text: A run's folder, a checkpoint, or a model.onnx.
    """
    try:
        path = model_path(text)
        with path.open("rb") as file:
            words = _of_onnx(file) if path.suffix.lower() == ".onnx" else _of_safetensors(file)
        return class_list(json.loads(words)["classes"])
    except (OSError, ValueError, KeyError, TypeError, struct.error, IndexError):
        return []


def class_list(values: Any) -> List[Tuple[str, Tuple[int, int, int]]]:
    """Return the classes of a class map as terradapt writes it."""
    names = [str(name) for name in values["names"]]
    colours = [(int(r), int(g), int(b)) for r, g, b in values["colours"]]
    return list(zip(names, colours))


def _of_safetensors(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST:
        raise ValueError("header too long")
    return str(json.loads(file.read(length))["__metadata__"][KEY])


def _of_onnx(file: BinaryIO) -> str:
    """Walk the protobuf's top level; the graph, which is nearly all of it, is leapt over."""
    while True:
        field, kind = divmod(_varint(file), 8)
        if kind == 2:
            length = _varint(file)
            if field != _METADATA:
                file.seek(length, 1)
            elif length <= _LONGEST:
                key, value = _entry(file.read(length))
                if key == KEY:
                    return value
            else:
                raise ValueError("text too long")
        elif kind == 0:
            _varint(file)
        elif kind in (1, 5):
            file.seek(8 if kind == 1 else 4, 1)
        else:
            raise ValueError("no ONNX file")


def _entry(data: bytes) -> Tuple[str, str]:
    file, found = io.BytesIO(data), {1: "", 2: ""}
    while file.tell() < len(data):
        field, kind = divmod(_varint(file), 8)
        if kind != 2:
            raise ValueError("no pair of texts")
        found[field] = file.read(_varint(file)).decode("utf-8")
    return found[1], found[2]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("no number")
