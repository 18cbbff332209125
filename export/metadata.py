"""What a LiteRT file says of itself, for programs that get the file alone: JSON in its own list of metadata."""

import json
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

__all__ = ["NAME", "read", "write"]

NAME = "keras_deartifact"


def write(model: bytes, values: dict[str, Any]) -> bytes:
    """Returns a LiteRT model with values added, as JSON under `NAME`."""
    parsed = flatbuffer_utils.convert_bytearray_to_object(model)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(values).encode(), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME.encode(), len(parsed.buffers)
    parsed.buffers.append(buffer)
    parsed.metadata = [*(parsed.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


def read(model: bytes) -> dict[str, Any]:
    """Returns the values that `write` added.

    Raises:
        ValueError: there are none.
    """
    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    for entry in parsed.metadata or []:
        if entry.name == NAME.encode():
            values: dict[str, Any] = json.loads(parsed.buffers[entry.buffer].data.tobytes())
            return values
    raise ValueError(f"The model has no metadata of the name {NAME!r}.")
