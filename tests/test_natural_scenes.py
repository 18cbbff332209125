import math

import numpy as np
import pytest
from PIL import Image

from keras_deartifact.metrics.natural_scenes import Moments, half_size, moments, normalise, shape_grid


def _moments(left, right, absolute, square):
    return Moments(*(np.array([float(each)]) for each in (left, right, absolute, square)))


def test_window_by_hand():
    # The mean of a single bright pixel is the window, upside down.
    impulse = np.zeros((9, 11))
    impulse[4, 5] = 100
    weights = np.exp(-0.5 * (np.arange(-3, 4) * 6 / 7) ** 2)
    weights /= weights.sum()
    mean = normalise(impulse, "edge").mean
    np.testing.assert_allclose(mean[1:8, 2:9], 100 * np.outer(weights, weights), rtol=0, atol=1e-9)
    assert mean[0].max() == mean[:, 0].max() == 0


def test_borders_by_hand():
    flat = np.full((9, 9), 50.0)
    assert np.all(normalise(flat, "edge").mscn == 0)
    inside = normalise(flat, "constant")
    assert inside.mean[4, 4] == 50 and inside.mean[0, 4] < 50
    # At the middle of an edge, the weights of the rows that are there are left.
    weights = np.exp(-0.5 * (np.arange(-3, 4) * 6 / 7) ** 2)
    share = weights[3:].sum() / weights.sum()
    deviation = 50 * math.sqrt(share - share**2)
    assert inside.mscn[0, 4] == pytest.approx(50 * (1 - share) / (deviation + 1), abs=1e-8)


def test_normalisation_by_hand():
    samples = np.random.default_rng(0).uniform(0, 255, (20, 23))
    weights = np.exp(-0.5 * (np.arange(-3, 4) * 6 / 7) ** 2)
    window = np.outer(weights, weights) / weights.sum() ** 2
    patch = samples[5:12, 8:15]
    mean = (window * patch).sum()
    expected = (samples[8, 11] - mean) / (math.sqrt((window * (patch - mean) ** 2).sum()) + 1)
    assert normalise(samples, "edge").mscn[8, 11] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", [0, 1, 37, 255])
def test_flat_areas_are_exactly_zero(level):
    # What the rounding is for: here the sign of +-1e-14 would choose the tail.
    samples = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.float64)
    samples[16:48, 16:48] = level
    assert np.all(normalise(samples, "edge").mscn[19:45, 19:45] == 0)
    assert np.all(normalise(half_size(samples), "edge").mscn[14:18, 14:18] == 0)


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (14, 15), (2, 3), (1, 1)])
def test_half_size_against_pillow(size):
    samples = np.random.default_rng(0).uniform(0, 255, size)
    padding = [(4, 4 + side % 2) for side in size]
    mirrored = np.pad(samples, padding, mode="symmetric").astype(np.float32)
    height, width = (-(-side // 2) for side in size)
    picture = Image.fromarray(mirrored).resize((width + 4, height + 4), Image.Resampling.BICUBIC)
    # Pillow computes in float32.
    np.testing.assert_allclose(half_size(samples), np.asarray(picture)[2:-2, 2:-2], rtol=0, atol=2e-4)


def test_half_size_by_hand():
    assert np.all(half_size(np.full((7, 10), 123.0)) == 123)
    # A cubic that reproduces straight lines: the middle of two pixels each.
    ramp = np.tile(np.arange(20.0), (20, 1))
    np.testing.assert_allclose(half_size(ramp)[2:-2, 2:-2], np.tile(np.arange(4.5, 16, 2), (6, 1)), atol=1e-9)


def test_moments_by_hand():
    found = moments(np.array([[-2.0, -1, 0, 3], [0, 0, 0, 4]]))
    np.testing.assert_allclose(found.left, [2.5, math.nan])
    np.testing.assert_allclose(found.right, [9, 16])
    np.testing.assert_allclose(found.absolute, [1.5, 1])
    np.testing.assert_allclose(found.square, [3.5, 4])


@pytest.mark.parametrize(("last", "step"), [(10, 0.001), (5, 0.01)])
def test_fits_by_hand(last, step):
    grid = shape_grid(last, step)
    assert len(grid.shapes) == round((last - 0.2) / step) + 1
    assert grid.shapes[[0, -1]] == pytest.approx([0.2, last])
    # Laplace: E|x| = 1, E[x^2] = 2; its scale is 1. Gauss: E|x| = sqrt(2 / pi), E[x^2] = 1; its scale is sqrt(2).
    for shape, absolute, square, scale in ((1, 1, 2, 1), (2, math.sqrt(2 / math.pi), 1, math.sqrt(2))):
        values = _moments(square, square, absolute, square)
        fit = grid.asymmetric_fit(values)
        assert fit.shape[0] == grid.symmetric_shape(values)[0] == pytest.approx(shape, abs=1e-12)
        assert fit.left[0] == fit.right[0] == pytest.approx(scale, abs=1e-12)
        assert fit.mean[0] == 0


def test_asymmetric_fit_by_hand():
    # Laplace with scales 1 and 3: a quarter of the mass is at left, with E[x^2] = 2 b^2 and E|x| = b on each side.
    values = _moments(2, 18, (1 + 3 * 3) / 4, (2 + 3 * 18) / 4)
    fit = shape_grid(10, 0.001).asymmetric_fit(values)
    assert fit.shape[0] == pytest.approx(1, abs=1e-12)
    assert (fit.left[0], fit.right[0]) == (pytest.approx(1, abs=1e-12), pytest.approx(3, abs=1e-12))
    assert fit.mean[0] == pytest.approx((9 - 1) / 4, abs=1e-12)


@pytest.mark.parametrize(("last", "step"), [(10, 0.001), (5, 0.01)])
def test_bisection_finds_what_a_scan_finds(last, step):
    grid = shape_grid(last, step)
    random = np.random.default_rng(0)
    # Beyond both ends, too: shapes that the grid lacks.
    ratios = np.append(random.uniform(0, 0.8, 200), [0, 1e-9, 0.75, 2])
    gammas = [[math.gamma(order / shape) for shape in grid.shapes] for order in (1, 2, 3)]
    known = np.square(gammas[1]) / np.multiply(gammas[0], gammas[2])
    values = Moments(np.ones(len(ratios)), np.ones(len(ratios)), np.sqrt(ratios), np.ones(len(ratios)))
    scanned = grid.shapes[np.abs(known[None] - ratios[:, None]).argmin(axis=1)]
    np.testing.assert_array_equal(grid.asymmetric_fit(values).shape, scanned)
    positive = ratios > 0
    inverse = grid.shapes[np.abs(1 / known[None] - 1 / ratios[positive, None]).argmin(axis=1)]
    np.testing.assert_array_equal(grid.symmetric_shape(values)[positive], inverse)


def test_an_empty_tail():
    for values in (_moments(math.nan, 1, 1, 1), _moments(1, math.nan, 1, 1), _moments(math.nan, math.nan, 0, 0)):
        fit = shape_grid(10, 0.001).asymmetric_fit(values)
        assert fit.shape[0] == 0.2
        assert math.isnan(fit.mean[0]) and math.isnan(fit.left[0] + fit.right[0])
    assert shape_grid(10, 0.001).symmetric_shape(_moments(math.nan, math.nan, 0, 0))[0] == 0.2
