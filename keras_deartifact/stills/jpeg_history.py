"""Whether a picture without loss is a decoded JPEG.

The luma DCT coefficients of a decoded JPEG lie near the multiples of its quantiser steps, on the one grid of blocks of
8x8 on which it was compressed, wherever it was cropped since. In a picture that was never compressed they lie anywhere,
and on no grid otherwise than on the others; drawings, whose few colours and straight edges give coefficients some
regularity, have it on all grids alike. Scaling, turning by other than right angles and retouching all over undo it.

    comb     = sum of cos(2 pi c / q) / (number + 10), over the coefficients c of one frequency with |c| >= q / 2
    of grid  = 65th percentile over the frequencies of their highest comb, over the steps q
    margin   = highest of the 64 grids - second highest

Reference: Fan & de Queiroz, "Identification of Bitmap Compression History: JPEG Detection and Quantizer Estimation",
IEEE Transactions on Image Processing 2003, which looks for the grid by its edges and for the steps by their likelihood.
"""

import numpy as np
import numpy.typing as npt

from keras_deartifact import image
from keras_deartifact.stills.jpeg_coefficients import DCT
from keras_deartifact.stills.still import Pixels

MARGIN = 0.1

_BLOCK = 8
_WINDOW = 2 * _BLOCK
_LUMA = np.array(image.LUMA_WEIGHTS, np.float32)
_MOST_WINDOWS, _MOST_LOOKED_AT = 2000, 20_000
_ENOUGH_WHOLE, _MOST_CLIPPED = 200, 0.2
_STEPS = np.arange(2, 41)
# Of a pattern in one direction, every second frequency is a multiple of a fraction as the pixels are of 1.
_FREQUENCIES = [
    (row, column)
    for row in range(6)
    for column in range(6 - row)
    if (row, column) != (0, 0) and not (row in (0, 4) and column in (0, 4))
]
_BASIS = np.stack([np.outer(DCT[row], DCT[column]).ravel() for row, column in _FREQUENCIES], axis=1).astype(np.float32)

# Coefficients are counted in bins, whose combs are fixed.
_BINS_PER_UNIT = 4
_BINS = 80 * _BINS_PER_UNIT
_CENTRES = ((np.arange(_BINS) + 0.5) / _BINS_PER_UNIT)[:, np.newaxis]
_COUNTED = _CENTRES >= _STEPS / 2
_COMB = np.where(_COUNTED, np.cos(2 * np.pi * _CENTRES / _STEPS), 0.0)
_LEAST_COUNTED = 10.0


def was_jpeg(pixels: Pixels) -> bool:
    """Whether a picture was a JPEG of quality 60 to 95, and not scaled since.

    A coarser quantiser leaves fewer coefficients, and may not be recognised; nor may a JPEG that was enlarged or made a
    palette of, one of RGB without YCbCr or of inks, or two on different grids side by side.

    Args:
        pixels: uint8 or uint16 array `(height, width, 3)`, RGB over the full range.

    Returns:
        True where its coefficients show it. False says little of a picture that is small, flat or mostly black and
        white: there is not enough to be seen.
    """
    return margin(pixels) >= MARGIN


def margin(pixels: Pixels) -> float:
    """How much more regular the coefficients are on the best of all grids than on any other; see the module.

    Args:
        pixels: see `was_jpeg`.

    Returns:
        From 0 to 1; 0 where there is too little to be seen.
    """
    windows = _windows(pixels)
    combs = []
    for row in range(_BLOCK):
        for column in range(_BLOCK):
            blocks = windows[:, row : row + _BLOCK, column : column + _BLOCK].reshape(-1, _BLOCK**2)
            combs.append(_comb(blocks @ _BASIS))
    second, first = np.sort(combs)[-2:]
    return float(first - second)


def _windows(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Those with the most in them, `(number, 16, 16)`, in luma from 0 to 255.

    What is clipped has lost its comb, and is taken only where there is too little else.
    """
    rows, columns = (size // _WINDOW for size in pixels.shape[:2])
    tiles = pixels[: rows * _WINDOW, : columns * _WINDOW].reshape(rows, _WINDOW, columns, _WINDOW, 3)
    places = np.arange(rows * columns)[:: max(1, rows * columns // _MOST_LOOKED_AT)]
    tiles = tiles[places // max(columns, 1), :, places % max(columns, 1)]
    highest = np.iinfo(pixels.dtype).max
    clipped = ((tiles == 0) | (tiles == highest)).any(axis=-1).mean(axis=(1, 2))
    whole = clipped == 0
    taken = whole if np.count_nonzero(whole) >= _ENOUGH_WHOLE else clipped <= _MOST_CLIPPED
    luma: npt.NDArray[np.float32] = tiles[taken].astype(np.float32) @ (_LUMA * np.float32(255 / highest))
    busiest: npt.NDArray[np.intp] = np.lexsort((-luma.var(axis=(1, 2)), ~whole[taken]))[:_MOST_WINDOWS]
    return luma[busiest]


def _comb(coefficients: npt.NDArray[np.float32]) -> float:
    """The comb of a grid; see the module."""
    bins = (np.abs(coefficients) * _BINS_PER_UNIT).astype(np.int64)
    numbers = np.stack([np.bincount(each[each < _BINS], minlength=_BINS) for each in bins.T])
    combs = numbers @ _COMB / (numbers @ _COUNTED + _LEAST_COUNTED)
    return float(np.percentile(combs.max(axis=1), 65))
