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

Four fifths of drawings (`training.drawings`) have more, or few colours; through JPEG 10 to 80 none has, cropped or not,
and photographs have 0.01 at most. In grey, where one channel has to be equal and not three, drawings through JPEG 10 to
90 reach 0.22, photographs 0.07. Of 40 still frames of drawings through x264 at CRF 18 to 36 one or two have more."""

_BLOCK = 8
_EDGE = 48 / 255
_FEWEST_BLOCKS = 20
_MOST_LOOKED_AT = 1 << 20
_LEAST_ROWS, _LEAST_BAND, _MOST_BANDS = 64, 16, 16


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

    What a JPEG leaves is uneven in its own blocks; in others, across two of its own, it may be even. So of all 64 grids
    of blocks the least counts, but for those with too few edges, as what was enlarged eightfold has on its own.

    Args:
        pixels: uint8 or uint16 array `(height, width, 3)`, RGB over the full range; of a large picture some bands of
            rows are looked at.

    Returns:
        From 0 to 1; 0 where there are too few edges to tell. Below `LEAST_EVEN` it may not be the least.
    """
    bands = _bands(pixels)
    least = 1.0
    seen = False
    for row in range(_BLOCK):
        for column in range(_BLOCK):
            even = blocks = 0
            for band in bands:
                tiles = _with_an_edge(band[row:, column:])
                own, left, above = tiles[:, 1:, 1:], tiles[:, 1:, :-1], tiles[:, :-1, 1:]
                even += int(np.count_nonzero(((own == left) & (own == above)).all(axis=-1)))
                blocks += len(tiles)
            if blocks >= _FEWEST_BLOCKS:
                seen = True
                least = min(least, even / (blocks * (_BLOCK - 1) ** 2))
            if least < LEAST_EVEN:
                return least
    return least if seen else 0.0


def _bands(pixels: Pixels) -> list[Pixels]:
    """A picture, or bands of a large one that are spread over it and begin at whole blocks."""
    rows = max(_LEAST_ROWS, _MOST_LOOKED_AT // pixels.shape[1])
    if len(pixels) <= rows:
        return [pixels]
    height = max(_LEAST_BAND, rows // _MOST_BANDS)
    starts = np.linspace(0, len(pixels) - height, rows // height).astype(int) // _BLOCK * _BLOCK
    return [pixels[start : start + height] for start in starts]


def _with_an_edge(pixels: Pixels) -> Pixels:
    """The blocks, `(number, 8, 8, 3)`, that have one in any channel."""
    rows, columns = (size // _BLOCK for size in pixels.shape[:2])
    tiles = pixels[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, 3)
    ranges = tiles.max(axis=1).max(axis=2) - tiles.min(axis=1).min(axis=2)
    found: Pixels = tiles.swapaxes(1, 2)[(ranges >= _EDGE * np.iinfo(pixels.dtype).max).any(axis=-1)]
    return found


def _is_grey(pixels: Pixels) -> bool:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.array_equal(red, green) and np.array_equal(green, blue)
