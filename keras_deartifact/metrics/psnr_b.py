"""PSNR-B, which counts visible block edges as error."""

import math

import numpy as np
import numpy.typing as npt

from keras_deartifact.metrics.frames import Frame, luma_pair
from keras_deartifact.metrics.psnr import decibels, mean_squared_error

BLOCK = 8


def psnr_b(original: Frame, restored: Frame) -> float:
    """PSNR over luma, with the blocking of the restored picture added to its error.

        psnr_b = 10 log10(255^2 / (mse + bef))
        bef = log2(8) / log2(min(height, width)) * max(0, d_edge - d_rest)

    `d_edge` is the mean squared difference of neighbours, across and down, on either side of an edge of the 8x8 grid
    that starts at the top left, `d_rest` that of all other neighbours. Both come from the restored picture alone.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`, at least 9x9 pixels.
        restored: the same shape.

    Returns:
        Decibels, at most `psnr_y`. Equal pictures give infinity only if they have no more contrast at the edges of the
        grid than elsewhere. Where a side is no multiple of 8, other software counts the edges otherwise.

    Raises:
        ValueError: the arrays are no such pair.

    Reference: Yim and Bovik, "Quality Assessment of Deblocked Images", IEEE Transactions on Image Processing, 2011.
    """
    first, second = luma_pair(original, restored)
    height, width = second.shape
    if min(height, width) <= BLOCK:
        raise ValueError(f"expected pictures of at least 9x9 pixels. Received: restored.shape={restored.shape}")
    return decibels(mean_squared_error(first, second) + _blocking(second))


def _blocking(frame: Frame) -> float:
    """The blocking effect factor, in squared grey levels."""
    samples = frame.astype(np.int64)
    edge: list[npt.NDArray[np.int64]] = []
    rest: list[npt.NDArray[np.int64]] = []
    for squares in (np.square(np.diff(samples, axis=0)), np.square(np.diff(samples, axis=1)).T):
        on_edge = np.arange(len(squares)) % BLOCK == BLOCK - 1
        edge.append(squares[on_edge].ravel())
        rest.append(squares[~on_edge].ravel())
    excess = float(np.concatenate(edge).mean() - np.concatenate(rest).mean())
    return max(0.0, excess) * math.log2(BLOCK) / math.log2(min(frame.shape))
