"""Structural similarity at several scales."""

import numpy as np
import numpy.typing as npt

from keras_deartifact.metrics.frames import Frame, luma_pair
from keras_deartifact.metrics.ssim import SIZE, mean_similarity

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIDE = (SIZE - 1) * 2 ** (len(WEIGHTS) - 1) + 1
"""The least side that still holds the window after four halvings, in pixels: 161."""


def ms_ssim(original: Frame, restored: Frame) -> float:
    """MS-SSIM over luma: contrast and structure at five scales, luminance at the coarsest.

        ms_ssim = product over scales s = 1..4 of max(0, cs_s)^w_s, times max(0, ssim_5)^w_5
        w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333

    `cs` is the mean of contrast times structure, `ssim` the mean SSIM, both with the window, the constants and the
    border of `ssim`. The next scale is the mean of 2x2 pixels; an odd side repeats its last row or column. This is the
    authors' code, except that a negative mean counts as 0, as in TensorFlow, where theirs becomes a complex number.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`, at least 161x161 pixels.
        restored: the same shape.

    Returns:
        From 0 to 1; 1 for equal luma.

    Raises:
        ValueError: the arrays are no such pair.

    Reference: Wang, Simoncelli and Bovik, "Multiscale Structural Similarity for Image Quality Assessment", Asilomar
    Conference on Signals, Systems and Computers, 2003.
    """
    first, second = (frame.astype(np.float64) for frame in luma_pair(original, restored))
    if min(first.shape) < SIDE:
        raise ValueError(f"expected pictures of at least {SIDE}x{SIDE} pixels. Received: shape={original.shape}")
    result = 1.0
    for weight in WEIGHTS[:-1]:
        result *= max(0.0, mean_similarity(first, second)[1]) ** weight
        first, second = _half_size(first), _half_size(second)
    return float(result * max(0.0, mean_similarity(first, second)[0]) ** WEIGHTS[-1])


def _half_size(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The means of 2x2 pixels."""
    height, width = samples.shape
    padded = np.pad(samples, ((0, height % 2), (0, width % 2)), mode="edge")
    rows = padded[0::2] + padded[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) / 4
