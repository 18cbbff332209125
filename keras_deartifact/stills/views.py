"""A picture file as it is seen."""

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import image
from keras_deartifact.stills.reading import read

__all__ = ["view"]

_ORIENTATION = 274


def view(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a picture to look at it: upright, of 8 bits, the black of CMYK laid over its colours, without alpha.

    Args:
        path: what `read` reads.

    Returns:
        uint8 `(height, width, 3)`, RGB.

    Raises:
        ValueError: what `read` raises.
        OSError: likewise.
    """
    still = read(path, inks=True)
    pixels = still.pixels if still.pixels.dtype == np.uint8 else image.to_uint8(image.to_float(still.pixels))
    if still.black is not None:
        light = still.black.astype(np.float32)[..., None] / np.float32(255)
        pixels = np.rint(pixels * light).astype(np.uint8)
    with Image.open(path) as file:
        orientation = file.getexif().get(_ORIENTATION, 1)
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, turns))
