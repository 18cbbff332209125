"""TIFF of 16 bits a sample in colour, of which Pillow keeps only the upper 8 and which it does not write."""

import io
import struct
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from keras_deartifact.stills import both_bytes
from keras_deartifact.stills.both_bytes import Samples

# N is the machine's own order, in which libtiff unpacks.
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
_RAW_MODES = tuple(f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in _OTHER_BYTE)


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet is an RGB or RGBA TIFF of 16 bits a sample, in one plane."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.tile:
        return False
    return all(_raw_mode(each.args) in _RAW_MODES for each in image.tile)


def read(image: ImageFile.ImageFile, stream: BinaryIO) -> Samples:
    """All 16 bits of an RGB or RGBA TIFF, upright.

    Args:
        image: what Pillow made of the stream, `is_deep` and not loaded yet.
        stream: the file.

    Returns:
        Uint16 array `(height, width, 3)` or `(height, width, 4)`.
    """
    # Two images on one stream would move each other's place in it.
    stream.seek(0)
    return both_bytes.read(image, io.BytesIO(stream.read()), _other)


def encode(samples: Samples, **options: Any) -> bytes:
    """A 16-bit RGB or RGBA TIFF: an 8-bit one of twice the width has the same bytes, and two tags are changed.

    Args:
        samples: uint16 array `(height, width, 3)` or `(height, width, 4)`.
        options: as for Pillow's `save`; without compression.

    Returns:
        The file.

    Reference: "TIFF Revision 6.0", Adobe 1992.
    """
    height, width, channels = samples.shape
    halves = samples.astype("<u2").view(np.uint8).reshape(height, 2 * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(halves).save(buffer, "TIFF", **{**options, "compression": None})
    data = bytearray(buffer.getvalue())
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", data, entry)
        if tag == TiffImagePlugin.IMAGEWIDTH:
            struct.pack_into("<I" if kind == 4 else "<H", data, entry + 8, width)
        elif tag == TiffImagePlugin.BITSPERSAMPLE:
            struct.pack_into(f"<{number}H", data, value, *[16] * number)
    return bytes(data)


def _raw_mode(arguments: Any) -> str:
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _other(arguments: Any) -> Any:
    raw_mode = _raw_mode(arguments)
    other = raw_mode[:-1] + _OTHER_BYTE[raw_mode[-1]]
    return (other, *arguments[1:]) if isinstance(arguments, tuple) else other
