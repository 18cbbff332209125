"""Structural similarity."""

import numpy as np
import numpy.typing as npt

from keras_deartifact.metrics.frames import Frame, luma_pair

SIZE = 11
SIGMA = 1.5
K1, K2, PEAK = 0.01, 0.03, 255


def ssim(original: Frame, restored: Frame) -> float:
    """SSIM over luma, the mean over all places where the window lies inside the picture.

        ssim = mean of (2 mu_x mu_y + c1) (2 cov_xy + c2) / ((mu_x^2 + mu_y^2 + c1) (var_x + var_y + c2))
        c1 = (0.01 * 255)^2, c2 = (0.03 * 255)^2

    Means, variances and the covariance (of the population: E[xy] - mu_x mu_y) are weighted by a Gaussian of 11x11
    pixels and sigma 1.5. Not the studio range, which gives 0.01 to 0.03 more, nor the mean over RGB.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`, at least 11x11 pixels.
        restored: the same shape.

    Returns:
        At most 1, which equal luma gives; may be negative.

    Raises:
        ValueError: the arrays are no such pair.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    Transactions on Image Processing, 2004.
    """
    first, second = (frame.astype(np.float64) for frame in luma_pair(original, restored))
    if min(first.shape) < SIZE:
        raise ValueError(f"expected pictures of at least {SIZE}x{SIZE} pixels. Received: shape={original.shape}")
    return mean_similarity(first, second)[0]


def mean_similarity(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The mean SSIM of two pictures, and the mean of its second factor alone, contrast and structure.

        (2 cov_xy + c2) / (var_x + var_y + c2)

    Args:
        first: float64 array `(height, width)` in `[0, 255]`, at least 11x11 pixels.
        second: the same shape.

    Returns:
        The two means, each over all places where the window lies inside the picture.
    """
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_first, mean_second = _blur(first), _blur(second)
    product = mean_first * mean_second
    squares = mean_first**2 + mean_second**2
    covariance = _blur(first * second) - product
    variances = _blur(first**2 + second**2) - squares
    contrast_structure = (2 * covariance + c2) / (variances + c2)
    similarity = (2 * product + c1) / (squares + c1) * contrast_structure
    return float(similarity.mean()), float(contrast_structure.mean())


def _blur(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian blur where the window fits: 10 rows and columns fewer."""
    offsets = np.arange(SIZE) - SIZE // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    rows = samples.shape[0] - SIZE + 1
    down = sum(weight * samples[start : start + rows] for start, weight in enumerate(weights))
    columns = samples.shape[1] - SIZE + 1
    return np.asarray(sum(weight * down[:, start : start + columns] for start, weight in enumerate(weights)))
