"""Samples of 16 bits in colour, of which Pillow keeps one byte."""

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

Samples = npt.NDArray[np.uint16]


def read(image: ImageFile.ImageFile, stream: BinaryIO, other: Callable[[Any], Any]) -> Samples:
    """All 16 bits of the samples of an image: Pillow keeps the upper byte, and told of the other order the lower one.

    Args:
        image: what Pillow made of a file, not loaded yet.
        stream: the file, once more.
        other: makes the decoder's arguments of a tile those of the other order.

    Returns:
        Uint16 array `(height, width, channels)`.
    """
    samples = np.asarray(image).astype(np.uint16)
    stream.seek(0)
    with Image.open(stream, formats=(str(image.format),)) as again:
        again.seek(image.tell())
        again.tile = [each._replace(args=other(each.args)) for each in again.tile]
        low = np.asarray(again)
    samples <<= 8
    samples |= low
    return samples
