"""NIQE, which needs no original."""

import functools
import math
from pathlib import Path

import numpy as np

from keras_deartifact.metrics.frames import Frame, frame_luma
from keras_deartifact.metrics.natural_scenes import Float, half_size, moments, normalise, shape_grid

BLOCK = 96
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: Frame) -> float:
    """How far the statistics of a picture lie from those of undistorted photographs; lower is better.

        niqe = sqrt((m - m0)^T pinv((S + S0) / 2) (m - m0))

    m and S are mean and covariance, over blocks of 96x96 pixels, of 36 features: at full and at half size the fitted
    distributions of the normalised luma and of its products with four neighbours (`natural_scenes`). m0 and S0 are
    those of the authors' 125 photographs.

    Protocol: luma, full range, 0..255; border pixels repeated; blocks from the top left, what is left over at the
    bottom and the right is cut off first; neighbours wrap round within a block. The mean leaves out what cannot be
    fitted (a block without a value below zero, say), the covariance the whole block. This is the authors' release in
    float64, except that filtered values are rounded to 1e-9 (`natural_scenes` says why): on pictures with flat areas,
    JPEGs above all, the release itself gives values up to 0.6 apart, depending on how it sums.

    Args:
        image: uint8 array `(height, width, 3)` or `(height, width)`, with room for two whole blocks: at least 96x192
            or 192x96 pixels.

    Returns:
        Zero or more; infinity where fewer than two blocks can be fitted, as of a constant or a strictly
        periodic picture.

    Raises:
        ValueError: `image` is no such array.

    Reference: Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
    Processing Letters, 2013. The model is that of the release (`data/LICENSE-LIVE.txt`), as basicsr 1.4.2 ships it.
    """
    samples = frame_luma("image", image)
    rows, columns = (side // BLOCK for side in samples.shape)
    if rows * columns < 2:
        raise ValueError(
            f"expected image with room for two blocks of {BLOCK}x{BLOCK} pixels. Received: image.shape={image.shape}"
        )
    whole = samples[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    features = np.hstack([_features(whole, BLOCK), _features(half_size(whole), BLOCK // 2)])
    complete = features[np.isfinite(features).all(axis=1)]
    if len(complete) < 2:
        return math.inf
    mean, covariance = _model()
    difference = np.nanmean(features, axis=0) - mean
    average = (covariance + np.cov(complete, rowvar=False)) / 2
    # MATLAB's tolerance; NumPy's own is smaller.
    inverse = np.linalg.pinv(average, rtol=len(average) * float(np.finfo(np.float64).eps))
    return math.sqrt(max(0.0, float(difference @ inverse @ difference)))


def _features(samples: Float, block: int) -> Float:
    """The 18 features of every block, `(blocks, 18)`."""
    rows, columns = (side // block for side in samples.shape)
    mscn = normalise(samples, "edge").mscn
    blocks = mscn.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(-1, block, block)
    grid = shape_grid(10, 0.001)
    fit = grid.asymmetric_fit(moments(blocks.reshape(len(blocks), -1)))
    features = [fit.shape, (fit.left + fit.right) / 2]
    for shift in SHIFTS:
        products = blocks * np.roll(blocks, shift, axis=(1, 2))
        features.extend(grid.asymmetric_fit(moments(products.reshape(len(blocks), -1))))
    return np.stack(features, axis=1)


@functools.cache
def _model() -> tuple[Float, Float]:
    """Mean `(36,)` and covariance `(36, 36)` of the features of undistorted photographs."""
    with np.load(Path(__file__).with_name("data") / "niqe.npz", allow_pickle=False) as parameters:
        return parameters["mean"], parameters["covariance"]
