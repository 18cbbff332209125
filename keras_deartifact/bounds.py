"""How much a file may ask for: a few bytes can state a size that no machine has the memory for.

The bounds hold for the whole process, as Pillow's own do, because every reader of a file has to keep them.
"""

import contextlib
from collections.abc import Iterator

PICTURE_PIXELS = 178_956_970
"""Of a picture, at most: twice Pillow's `Image.MAX_IMAGE_PIXELS`, above which Pillow refuses it."""

FRAME_PIXELS = 1 << 26
"""Of a video's frame, at most: 8192 x 8192. Several frames are in memory at a time, as float32."""

TEXT_BYTES = 1 << 26
"""The most that a compressed text of a PNG may unpack to."""

READ_SECONDS = 120.0
"""How long a video's file may give nothing."""

_frame_pixels = FRAME_PIXELS


def frame_pixels() -> int:
    """The most pixels that a frame of a video may have."""
    return _frame_pixels


@contextlib.contextmanager
def allowing(pixels: int | None) -> Iterator[None]:
    """Sets the bound on pixels for the block, of pictures and of frames.

    Args:
        pixels: the most that either may have; None leaves the bounds as they are.
    """
    if pixels is None:
        yield
        return
    from PIL import Image

    global _frame_pixels
    before = _frame_pixels, Image.MAX_IMAGE_PIXELS
    _frame_pixels, Image.MAX_IMAGE_PIXELS = pixels, -(-pixels // 2)
    try:
        yield
    finally:
        _frame_pixels, Image.MAX_IMAGE_PIXELS = before
