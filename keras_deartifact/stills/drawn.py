"""Whether a picture without loss was drawn by a program, and never compressed with loss.

Text, screens, charts and cartoons have sharp edges between areas of one colour, which a predictor of the quality takes
for what a coarse quantiser leaves. Two marks tell them from what was compressed:

- They have few colours. What a JPEG or a video leaves has more than a palette holds, unless it is small or dim, and
  those who make a palette of it fill it.
- At their edges they are even. A quantiser's error is spread over the whole block, as ringing: hardly a pixel next to
  an edge equals its neighbours exactly.
"""

import numpy as np

from keras_deartifact.stills.reading import counted
from keras_deartifact.stills.still import Pixels, Still

MOST_COLOURS, MOST_GREYS = 250, 32
"""Fewer are drawn, or fewer shades of grey alone."""

PALETTE = 256
"""Colours of a full palette, which is even in photographs, too. Shades of grey are none."""

LEAST_EVEN = 0.25
"""Of pixels in blocks with an edge, the share that equal those to the left and above.

Four fifths of drawings (`training.drawings`) have more, or few colours; through JPEG 10 to 80 none has, and photographs
have 0.01 at most. In grey, where one channel has to be equal and not three, drawings through JPEG 10 to 90 reach 0.22,
and photographs 0.07. Of 40 still frames of drawings through x264 at CRF 18 to 36 one or two have more."""

_BLOCK = 8
_EDGE = 48 / 255
_FEWEST_BLOCKS = 20
_BAND_PIXELS = 1 << 22
_MOST_ROWS_LOOKED_AT = 4096


def is_drawn(still: Still) -> bool:
    """Whether a picture is known to be without loss, and was drawn; see the module."""
    if not still.lossless:
        return False
    colours = len(counted(still.pixels)) if still.colours is None else still.colours
    if colours < MOST_GREYS:
        return True
    if colours <= PALETTE and not _is_grey(still.pixels):
        return colours < MOST_COLOURS
    return evenness(still.pixels) >= LEAST_EVEN


def evenness(pixels: Pixels) -> float:
    """The share of pixels in blocks with an edge that equal those to the left and above.

    Args:
        pixels: uint8 or uint16 array `(height, width, 3)`, RGB over the full range.

    Returns:
        From 0 to 1; 0 where there are too few edges to tell.
    """
    edge = _EDGE * np.iinfo(pixels.dtype).max
    height = max(_BLOCK, _BAND_PIXELS // pixels.shape[1] // _BLOCK * _BLOCK)
    starts = range(0, len(pixels), height)
    even = blocks = 0
    for start in starts[:: max(1, len(pixels) // _MOST_ROWS_LOOKED_AT)]:
        band = pixels[start : start + height]
        rows, columns = (size // _BLOCK for size in band.shape[:2])
        tiles = band[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, 3)
        ranges = tiles.max(axis=1).max(axis=2) - tiles.min(axis=1).min(axis=2)
        tiles = tiles.swapaxes(1, 2)[(ranges >= edge).any(axis=-1)]
        own, left, above = tiles[:, 1:, 1:], tiles[:, 1:, :-1], tiles[:, :-1, 1:]
        even += int(np.count_nonzero(((own == left) & (own == above)).all(axis=-1)))
        blocks += len(tiles)
    return even / (blocks * (_BLOCK - 1) ** 2) if blocks >= _FEWEST_BLOCKS else 0.0


def _is_grey(pixels: Pixels) -> bool:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.array_equal(red, green) and np.array_equal(green, blue)
