"""Peak signal-to-noise ratio, over RGB and over luma, and what every metric on a pair asks of its pictures."""

import math

import numpy as np
import numpy.typing as npt

from keras_deartifact.image import luma

Frame = npt.NDArray[np.uint8]


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


def require_pair(original: Frame, restored: Frame) -> None:
    """Checks that two pictures can be compared.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Raises:
        ValueError: a dtype, a shape, or a difference between the two.
    """
    for name, frame in (("original", original), ("restored", restored)):
        if frame.dtype != np.uint8:
            raise ValueError(f"expected {name} of dtype uint8. Received: {name}.dtype={frame.dtype}")
        if frame.size == 0 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[-1] == 3)):
            raise ValueError(
                f"expected {name} of shape (height, width, 3) or (height, width). Received: {name}.shape={frame.shape}"
            )
    if original.shape != restored.shape:
        raise ValueError(
            "expected pictures of one shape. "
            f"Received: original.shape={original.shape}, restored.shape={restored.shape}"
        )


def luma_pair(original: Frame, restored: Frame) -> tuple[Frame, Frame]:
    """The luma of both pictures, checked.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Returns:
        Two uint8 arrays `(height, width)`.

    Raises:
        ValueError: as `require_pair`.
    """
    require_pair(original, restored)
    return (original, restored) if original.ndim == 2 else (luma(original), luma(restored))


def mean_squared_error(original: Frame, restored: Frame) -> float:
    """The mean of `(restored - original)^2` over all samples, in squared grey levels."""
    difference = restored.astype(np.int32) - original
    return float(np.mean(np.square(difference), dtype=np.float64))
