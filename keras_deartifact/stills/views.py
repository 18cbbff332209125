"""A picture file as it is seen."""

import os

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image
from keras_deartifact.stills import tags
from keras_deartifact.stills.several import read_at

__all__ = ["view"]

_ORIENTATION = 274


def view(path: str | os.PathLike[str], index: int = 0) -> NDArray[np.uint8]:
    """Reads a picture to look at it: upright, of 8 bits, the black of CMYK laid over its colours, without alpha.

    Args:
        path: what `read` or `read_each` reads.
        index: of the picture, where there are several.

    Returns:
        uint8 `(height, width, 3)`, RGB.

    Raises:
        ValueError: what `read` raises.
        OSError: likewise.
    """
    still = read_at(path, index, inks=True)
    pixels = still.pixels if still.pixels.dtype == np.uint8 else image.to_uint8(image.to_float(still.pixels))
    if still.black is not None:
        light = still.black.astype(np.float32)[..., None] / np.float32(255)
        pixels = np.rint(pixels * light).astype(np.uint8)
    orientation = tags.loaded(still.exif).get(_ORIENTATION, 1)
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, turns))
