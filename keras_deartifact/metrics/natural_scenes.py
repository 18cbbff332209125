"""Statistics of natural scenes, which NIQE, BRISQUE and VIIDEO share.

Locally normalised luma of an undistorted photograph follows a generalised Gaussian distribution, products of
neighbours an asymmetric one; distortions change the parameters. What is computed here is what the authors' releases
compute, in float64, with one difference: the outputs of the window filter and of the resize are rounded to multiples
of 1e-9. Where a 7x7 neighbourhood is constant, `x - mu` is 0, but the order of summation leaves +-1e-14, and the
*sign* of it moves pixels from one tail of the distribution to the other: without the rounding NIQE of a JPEG
depends on that order by up to 0.6 and BRISQUE by up to 13.
"""

import functools
import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Border = Literal["edge", "constant"]
"""What lies outside the picture, in `np.pad`'s words: its nearest pixel, or zero."""

RADIUS = 3
SIGMA = 7 / 6
STEPS = 1e9
"""Steps in one grey level, to which filtered values are rounded."""


class Normalised(NamedTuple):
    """Mean subtracted, contrast normalised samples, and the local mean. Float64 arrays `(height, width)`."""

    mscn: Float
    mean: Float


class Moments(NamedTuple):
    """What the fits need of a set of values. Float64 arrays of one shape, an element a set.

    Attributes:
        left: mean of the squares of the values below zero; NaN where there are none.
        right: mean of the squares of the values above zero; NaN where there are none.
        absolute: mean absolute value, zeros included.
        square: mean square, zeros included.
    """

    left: Float
    right: Float
    absolute: Float
    square: Float


class AsymmetricFit(NamedTuple):
    """An asymmetric generalised Gaussian distribution. Float64 arrays of one shape; NaN where a tail is empty.

    Attributes:
        shape: from the grid; its least value where a tail is empty.
        mean: of the fitted distribution.
        left: scale below zero.
        right: scale above zero.
    """

    shape: Float
    mean: Float
    left: Float
    right: Float


class ShapeGrid:
    """The shapes a fit chooses from, with what the choice needs, for any number of values at once.

    The releases compare a measured ratio with that of every shape on the grid. The ratios rise with the shape, so the
    nearest one is found by bisection among the midpoints, and a tie goes to the lower shape, as theirs does.
    """

    def __init__(self, last: float, step: float) -> None:
        self.shapes: Float = 0.2 + step * np.arange(round((last - 0.2) / step) + 1, dtype=np.float64)
        first, second, third = (
            np.array([math.gamma(order / shape) for shape in self.shapes.tolist()]) for order in (1, 2, 3)
        )
        ratios = second**2 / (first * third)
        self.scales: Float = np.sqrt(first / third)
        self.means: Float = second / first
        self._midpoints = (ratios[1:] + ratios[:-1]) / 2
        self._inverse_midpoints = -(1 / ratios[1:] + 1 / ratios[:-1]) / 2

    def asymmetric_fit(self, moments: Moments) -> AsymmetricFit:
        """Fits an asymmetric generalised Gaussian distribution by its moments.

            g = sqrt(left / right)
            shape = argmin over a of (r(a) - absolute^2 / square (g^3 + 1) (g + 1) / (g^2 + 1)^2)^2
            r(a) = Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a))
            beta = sqrt(moment Gamma(1/a) / Gamma(3/a)), left and right
            mean = (beta_right - beta_left) Gamma(2/a) / Gamma(1/a)

        Reference: Lasmar, Stitou and Berthoumieu, "Multiscale Skewed Heavy Tailed Model for Texture Analysis", ICIP
        2009.
        """
        left: Float = np.sqrt(moments.left)
        right: Float = np.sqrt(moments.right)
        with np.errstate(invalid="ignore", divide="ignore"):
            skew = left / right
            ratio = moments.absolute**2 / moments.square * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        # A NaN is sorted last, but the minimum of the releases is at the first shape where all differences are NaN.
        nearest = np.where(np.isnan(ratio), 0, np.searchsorted(self._midpoints, ratio))
        left *= self.scales[nearest]
        right *= self.scales[nearest]
        return AsymmetricFit(self.shapes[nearest], (right - left) * self.means[nearest], left, right)

    def symmetric_shape(self, moments: Moments) -> Float:
        """The shape of a generalised Gaussian distribution, `argmin over a of |1 / r(a) - square / absolute^2|`.

        Reference: Sharifi and Leon-Garcia, "Estimation of Shape Parameter for Generalized Gaussian Distributions in
        Subband Decompositions of Video", IEEE Transactions on Circuits and Systems for Video Technology, 1995.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = moments.square / moments.absolute**2
        nearest = np.where(np.isnan(ratio), 0, np.searchsorted(self._inverse_midpoints, -ratio))
        shapes: Float = self.shapes[nearest]
        return shapes


@functools.cache
def shape_grid(last: float, step: float) -> ShapeGrid:
    """The grid 0.2, 0.2 + step, ..., last."""
    return ShapeGrid(last, step)


def normalise(samples: Float, border: Border) -> Normalised:
    """Subtracts the local mean and divides by the local contrast.

        mscn = (x - mu) / (sigma + 1), sigma = sqrt(|E[x^2] - mu^2|)

    mu and E are means weighted by a Gaussian of 7x7 pixels and sigma 7/6, rounded to 1e-9.

    Args:
        samples: float64 array `(height, width)`, 0..255 (the 1 belongs to that scale), or differences of such.
        border: what lies outside.

    Returns:
        The normalised samples and mu.
    """
    mean = _window_mean(samples, border)
    contrast = _window_mean(samples * samples, border)
    contrast -= mean * mean
    np.sqrt(np.abs(contrast, out=contrast), out=contrast)
    contrast += 1
    mscn = samples - mean
    mscn /= contrast
    return Normalised(mscn, mean)


def half_size(samples: Float) -> Float:
    """MATLAB's `imresize(samples, 0.5)`: the Keys cubic, stretched by 2 against aliasing; rounded to 1e-9.

    Args:
        samples: float64 array `(height, width)`.

    Returns:
        Array `(ceil(height / 2), ceil(width / 2))`. Outside, the picture is mirrored with its last pixel repeated.
    """
    return _rounded(_halve_rows(_halve_rows(samples).T).T)


def moments(values: Float) -> Moments:
    """The moments of sets of values.

    Args:
        values: float64 array `(sets, count)`.

    Returns:
        Moments of shape `(sets,)`.
    """
    below, above = np.minimum(values, 0), np.maximum(values, 0)
    return moments_of_sums(
        np.einsum("ij,ij->i", below, below),
        np.einsum("ij,ij->i", above, above),
        above.sum(axis=1) - below.sum(axis=1),
        np.count_nonzero(below, axis=1).astype(np.float64),
        np.count_nonzero(above, axis=1).astype(np.float64),
        values.shape[1],
    )


def moments_of_sums(
    left: Float, right: Float, absolute: Float, left_count: Float, right_count: Float, count: int
) -> Moments:
    """The moments, from sums over each set.

    Args:
        left: sums of the squares of the values below zero.
        right: sums of the squares of the values above zero.
        absolute: sums of the absolute values.
        left_count: how many values are below zero.
        right_count: how many values are above zero.
        count: how many values a set has.

    Returns:
        Moments of the shape of the sums.
    """
    with np.errstate(invalid="ignore"):
        return Moments(left / left_count, right / right_count, absolute / count, (left + right) / count)


@functools.cache
def _window() -> tuple[float, ...]:
    """Half of the window, from its edge to its middle; the sum of the whole is 1."""
    weights = [math.exp(-0.5 * (offset / SIGMA) ** 2) for offset in range(-RADIUS, RADIUS + 1)]
    return tuple(weight / sum(weights) for weight in weights[: RADIUS + 1])


def _window_mean(samples: Float, border: Border) -> Float:
    """The local mean, rounded."""
    height, width = samples.shape
    padded = np.pad(samples, RADIUS, mode=border)
    *outer, middle = _window()
    down = middle * padded[RADIUS : RADIUS + height]
    for start, weight in enumerate(outer):
        end = 2 * RADIUS - start
        pair = padded[start : start + height] + padded[end : end + height]
        pair *= weight
        down += pair
    across = middle * down[:, RADIUS : RADIUS + width]
    for start, weight in enumerate(outer):
        end = 2 * RADIUS - start
        pair = down[:, start : start + width] + down[:, end : end + width]
        pair *= weight
        across += pair
    return _rounded(across)


def _halve_rows(samples: Float) -> Float:
    """Half as many rows, rounded up. The taps lie 0.5, 1.5, 2.5 and 3.5 rows above and below a new row."""
    height = samples.shape[0]
    count = (height + 1) // 2
    padded = np.pad(samples, ((3, 4 + height % 2), (0, 0)), mode="symmetric")
    result = np.zeros((count, samples.shape[1]))
    for start, distance in enumerate((3.5, 2.5, 1.5, 0.5)):
        end = 7 - start
        pair = padded[start : start + 2 * count : 2] + padded[end : end + 2 * count : 2]
        pair *= _cubic(distance / 2) / 2
        result += pair
    return result


def _cubic(distance: float) -> float:
    """Keys' interpolating cubic with a = -0.5, at 0 <= distance <= 2."""
    if distance <= 1:
        return 1.5 * distance**3 - 2.5 * distance**2 + 1
    return -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2


def _rounded(samples: Float) -> Float:
    """Multiples of 1e-9, in place."""
    samples = np.ascontiguousarray(samples)
    samples *= STEPS
    np.rint(samples, out=samples)
    samples /= STEPS
    return samples
