"""Peak signal-to-noise ratio, over RGB and over luma."""

import math

import numpy as np

from keras_deartifact.metrics.frames import Frame, luma_pair, require_pair


def psnr(original: Frame, restored: Frame) -> float:
    """PSNR with one mean squared error over all pixels and channels.

        psnr = 10 log10(255^2 / mse)

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Returns:
        Decibels; infinity for equal pictures.

    Raises:
        ValueError: the arrays are no such pair.
    """
    require_pair(original, restored)
    return decibels(mean_squared_error(original, restored))


def psnr_y(original: Frame, restored: Frame) -> float:
    """PSNR over luma, full range: 1.32 dB below the studio-range value of super-resolution papers.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Returns:
        Decibels; infinity for equal luma.

    Raises:
        ValueError: the arrays are no such pair.
    """
    return decibels(mean_squared_error(*luma_pair(original, restored)))


def decibels(error: float) -> float:
    """`10 log10(255^2 / error)`, infinity where the error is 0."""
    return 10 * math.log10(255**2 / error) if error else math.inf


def mean_squared_error(original: Frame, restored: Frame) -> float:
    """The mean of `(restored - original)^2` over all samples, in squared grey levels."""
    difference = restored.astype(np.int32) - original
    return float(np.mean(np.square(difference), dtype=np.float64))
