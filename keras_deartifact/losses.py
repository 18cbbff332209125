"""Losses between an original and a restored image: `fn(original, restored) -> (batch,)`, one value per image.

Only the trainer reduces over the batch: a loss that returned a scalar would change its weight with the number of
replicas of a distributed run.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

__all__ = ["LOSSES", "charbonnier", "mse", "one_minus_ssim", "weighted_losses"]

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def mse(original: Any, restored: Any) -> Any:
    """Mean squared error, one value per image.

        loss = mean over h, w, c of (restored - original)^2

    Args:
        original: float tensor `(batch, height, width, channels)` in `[0, 1]`.
        restored: same shape and dtype; may leave `[0, 1]` during training.

    Returns:
        Tensor `(batch,)` of the same dtype, at least 0.
    """
    return ops.mean(ops.square(restored - original), axis=(1, 2, 3))


def charbonnier(original: Any, restored: Any, epsilon: float = 1e-3) -> Any:
    """Charbonnier loss, a smooth L1, one value per image.

        loss = mean over h, w, c of sqrt((restored - original)^2 + epsilon^2)

    Args:
        original: float tensor `(batch, height, width, channels)` in `[0, 1]`.
        restored: same shape and dtype; may leave `[0, 1]` during training.
        epsilon: float > 0, in intensity; the default is a quarter of an 8-bit step.

    Returns:
        Tensor `(batch,)` of the same dtype, at least `epsilon`.

    Raises:
        ValueError: `epsilon` is not positive.

    Reference: Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", CVPR 2017, Eq. 4.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive. Received: epsilon={epsilon}")
    return ops.mean(ops.sqrt(ops.square(restored - original) + epsilon**2), axis=(1, 2, 3))


def one_minus_ssim(original: Any, restored: Any) -> Any:
    """Structural dissimilarity, the direct supervision of Galteri et al., one value per image.

        loss = 1 - mean over positions and channels of
               (2 mu_o mu_r + C1) (2 s_or + C2) / ((mu_o^2 + mu_r^2 + C1) (s_o^2 + s_r^2 + C2))

    Gaussian window 11x11 with sigma 1.5, population (co)variance, C1 = 0.01^2, C2 = 0.03^2, windows inside the image
    only; each channel by itself.

    Args:
        original: float tensor `(batch, height, width, channels)` in `[0, 1]`, height and width at least 11.
        restored: same shape and dtype; may leave `[0, 1]` during training.

    Returns:
        Tensor `(batch,)` of the same dtype in `[0, 2]`; 0 for equal images.

    Raises:
        ValueError: the images are smaller than the window.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004,
    Eq. 13.
    """
    if min(original.shape[1] or _SSIM_WINDOW, original.shape[2] or _SSIM_WINDOW) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs {_SSIM_WINDOW} pixels each way. Received: shape={tuple(original.shape)}")
    offset = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    window = np.exp(-0.5 * (offset / _SSIM_SIGMA) ** 2)
    window /= window.sum()
    channels = original.shape[-1]

    def blur(images: Any) -> Any:
        for shape in ((_SSIM_WINDOW, 1, 1, 1), (1, _SSIM_WINDOW, 1, 1)):
            kernel = ops.cast(np.tile(window.reshape(shape), (1, 1, channels, 1)), images.dtype)
            images = ops.depthwise_conv(images, kernel, padding="valid")
        return images

    mean_original, mean_restored = blur(original), blur(restored)
    product = mean_original * mean_restored
    squares = ops.square(mean_original) + ops.square(mean_restored)
    covariance = blur(original * restored) - product
    variances = blur(ops.square(original) + ops.square(restored)) - squares
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return 1.0 - ops.mean(similarity, axis=(1, 2, 3))


LOSSES = {"mse": mse, "charbonnier": charbonnier, "one_minus_ssim": one_minus_ssim}


def weighted_losses(original: Any, restored: Any, weights: Mapping[str, float]) -> Any:
    """A weighted sum of `LOSSES`, one value per image.

    Args:
        original: float tensor `(batch, height, width, channels)` in `[0, 1]`.
        restored: same shape and dtype; may leave `[0, 1]` during training.
        weights: name in `LOSSES` -> weight; at least one.

    Returns:
        Tensor `(batch,)` of the same dtype.

    Raises:
        ValueError: an unknown name, or no loss at all.
    """
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown or not weights:
        raise ValueError(f"Expected losses of {sorted(LOSSES)}. Received: weights={dict(weights)}")
    return sum(weight * LOSSES[name](original, restored) for name, weight in weights.items())
