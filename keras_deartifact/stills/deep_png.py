"""PNG of 16 bits a sample in colour, of which Pillow keeps only the upper 8 and which it does not write."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin

from keras_deartifact.stills import both_bytes, png_chunks
from keras_deartifact.stills.both_bytes import Samples

# So many rows are filtered at a time: copies of a large picture would be much memory.
_ROWS = 64


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded yet is a PNG of 16 bits a sample."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return False
    return str(image.tile[0].args).endswith(";16B")


def has_grey_alpha(image: ImageFile.ImageFile) -> bool:
    """Whether a deep image is grey with alpha, which `read` cannot take."""
    return str(image.tile[0].args).startswith("LA")


def read(image: ImageFile.ImageFile, stream: BinaryIO) -> Samples:
    """All 16 bits of an RGB or RGBA PNG.

    Args:
        image: what Pillow made of the stream, `is_deep` and not loaded yet.
        stream: the file.

    Returns:
        Uint16 array `(height, width, 3)` or `(height, width, 4)`.
    """
    return both_bytes.read(image, stream, lambda arguments: str(arguments).replace(";16B", ";16L"))


def encode(samples: Samples, **options: Any) -> bytes:
    """A 16-bit RGB or RGBA PNG: all but the pixels is taken from an 8-bit one that Pillow writes.

    Args:
        samples: uint16 array `(height, width, 3)` or `(height, width, 4)`.
        options: as for Pillow's `save`.

    Returns:
        The file.

    Reference: "Portable Network Graphics (PNG) Specification", W3C; every row has filter type 2, "Up".
    """
    height, width, channels = samples.shape
    compressor = zlib.compressobj()
    compressed = [compressor.compress(rows.tobytes()) for rows in _filtered(samples)]
    replaced = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0),
        b"IDAT": b"".join([*compressed, compressor.flush()]),
    }
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG", **options)
    shell = png_chunks.chunks(buffer.getvalue())
    parts = [png_chunks.chunk(kind, replaced.get(kind, content)) for kind, content in shell]
    return b"".join([png_chunks.SIGNATURE, *parts])


def _filtered(samples: Samples) -> Iterator[npt.NDArray[np.uint8]]:
    """The rows of a picture, each with its filter type and less the row above it, some at a time."""
    above = np.zeros((1, 2 * samples[0].size), np.uint8)
    for start in range(0, len(samples), _ROWS):
        band = samples[start : start + _ROWS]
        data = np.concatenate([above, band.astype(">u2").view(np.uint8).reshape(len(band), -1)])
        rows = np.full((len(band), data.shape[1] + 1), 2, np.uint8)
        np.subtract(data[1:], data[:-1], out=rows[:, 1:])
        above = data[-1:]
        yield rows
