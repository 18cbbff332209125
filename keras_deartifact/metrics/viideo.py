"""VIIDEO, which judges a clip without its original."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_deartifact.metrics.frames import Frame, frame_luma
from keras_deartifact.metrics.natural_scenes import Float, moments_of_sums, normalise, shape_grid

BLOCK = 18
OVERLAP = 8
SHIFTS = ((1, 0), (0, 1), (1, 1), (1, -1))
FRAMES = 22
"""The least number of frames."""
CONSTANT = 1e-12
"""A variance below this share of the mean square is what rounding leaves of none."""


def viideo(frames: Iterable[Frame]) -> float:
    """How little the statistics of frame differences keep to the regularities of natural video; lower is better.

        viideo = mean of s_i + mean of |s_i - s_(i-1)|, circular

    Frames are taken in pairs (1, 2), (3, 4), ...; the difference of each is normalised, and its mean over the window,
    the second scale, again. Products with four neighbours are fitted in blocks (`natural_scenes`). From one pair to
    the next each of 12 features of each block changes by some amount; s_i is the correlation, over all blocks of a
    tenth of the clip, of that amount at the first scale with that at the second, averaged over the features.
    With n = pairs - 1 and gap = floor(n / 10): windows i..i + gap, cut at n, start every round(gap / 2) pairs.

    Protocol: luma, full range, 0..255, or a decoded Y plane as it is; border pixels repeated; neighbours wrap round
    the whole frame; blocks of 18x18 pixels and 8 more on every side, zeros outside, so also where the last blocks are
    not whole. Blocks with a feature that cannot be fitted are left out. This is the authors' release in float64, with
    filtered values rounded to 1e-9 (`natural_scenes` says why). A feature that does not vary over a window is left out
    of its mean, and a window without any is skipped; in the release the whole result is then NaN.

    Frames are read one at a time; what is kept grows by 0.6 kB per pair.

    Args:
        frames: uint8 arrays `(height, width, 3)` or `(height, width)` of one size, at least 22; an odd last one does
            not count.

    Returns:
        About 0 to 1; infinity where nothing can be correlated, as of a clip without motion.

    Raises:
        ValueError: a frame is no such array, its size differs from the first one's, or there are fewer than 22.

    Reference: Mittal, Saad and Bovik, "A Completely Blind Video Integrity Oracle", IEEE Transactions on Image
    Processing, 2016.
    """
    sums: list[Float] = []
    first: Float | None = None
    before: Float | None = None
    shape: tuple[int, ...] | None = None
    count = 0
    for frame in frames:
        samples = frame_luma("frame", frame).astype(np.float64)
        shape = samples.shape if shape is None else shape
        if samples.shape != shape:
            raise ValueError(f"expected frames of one size, {shape}. Received: frame.shape={frame.shape}")
        count += 1
        if first is None:
            first = samples
            continue
        features = _features(samples - first)
        first = None
        if before is not None:
            sums.append(_correlation_sums(np.abs(features - before)))
        before = features
    gap = len(sums) // 10
    if gap == 0:
        raise ValueError(f"expected at least {FRAMES} frames. Received: {count}")
    scores = []
    for start in range(0, len(sums), (gap + 1) // 2):
        score = _correlation(np.sum(sums[start : start + gap + 1], axis=0))
        if math.isfinite(score):
            scores.append(score)
    if not scores:
        return math.inf
    return float(np.mean(scores) + np.mean(np.abs(np.subtract(scores, np.roll(scores, 1)))))


def _features(difference: Float) -> Float:
    """Shape, left and right scale of four products, `(2 scales, 12, blocks)`."""
    grid = shape_grid(5, 0.01)
    samples = difference
    scales = []
    for _ in range(2):
        mscn, samples = normalise(samples, "edge")
        features: list[Float] = []
        for shift in SHIFTS:
            products = mscn * np.roll(mscn, shift, axis=(0, 1))
            below, above = np.minimum(products, 0), np.maximum(products, 0)
            fit = grid.asymmetric_fit(
                moments_of_sums(
                    _block_sums(below * below),
                    _block_sums(above * above),
                    _block_sums(above - below),
                    _block_sums((products < 0).view(np.uint8)),
                    _block_sums((products > 0).view(np.uint8)),
                    (BLOCK + 2 * OVERLAP) ** 2,
                )
            )
            features += [fit.shape.ravel(), fit.left.ravel(), fit.right.ravel()]
        scales.append(features)
    return np.array(scales)


def _block_sums(samples: npt.NDArray[Any]) -> Float:
    """Sums over every block and its overlap, zeros outside: `(blocks down, blocks across)`.

    `samples` may be uint8 of 0 and 1: a column of a block has 34 of them, which fits.
    """
    return _row_sums(_row_sums(samples).T.astype(np.float64)).T


def _row_sums(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`_block_sums` along the first axis alone, of the same dtype."""
    if missing := -len(samples) % BLOCK:
        samples = np.pad(samples, ((0, missing), (0, 0)))
    strips = samples.reshape(-1, BLOCK, samples.shape[1])
    sums: npt.NDArray[Any] = strips.sum(axis=1, dtype=samples.dtype)
    sums[1:] += strips[:-1, -OVERLAP:].sum(axis=1, dtype=samples.dtype)
    sums[:-1] += strips[1:, :OVERLAP].sum(axis=1, dtype=samples.dtype)
    return sums


def _correlation_sums(changes: Float) -> Float:
    """What the correlation of the two scales needs of all blocks, additive over pairs: `(6, 12)`."""
    first, second = changes[..., np.isfinite(changes).all(axis=(0, 1))]
    count = np.full(len(first), float(first.shape[1]))
    products = (first, second, first * first, second * second, first * second)
    return np.stack([count, *(each.sum(axis=1) for each in products)])


def _correlation(sums: Float) -> float:
    """The mean over the features of the correlation of the two scales; NaN where no feature varies."""
    count, first, second, first_squares, second_squares, products = sums
    first_spread = count * first_squares - first**2
    second_spread = count * second_squares - second**2
    varies = (first_spread > CONSTANT * count * first_squares) & (second_spread > CONSTANT * count * second_squares)
    if not varies.any():
        return math.nan
    covariance = (count * products - first * second)[varies]
    return float(np.mean(covariance / np.sqrt(first_spread[varies] * second_spread[varies])))
