import keras
import numpy as np
import pytest

from keras_deartifact.models.quantisation_marks import (
    _COMB_FREQUENCIES,
    _COMB_STEPS,
    _FINE_BINS,
    _FINE_GROUPS,
    BINS,
    QuantisationMarks,
    transform_kernel,
)

KERNEL = transform_kernel()
# Of each frequency: a comb for every step, then a weight for every fourth.
COMBS_EACH = len(_COMB_STEPS) + len(_COMB_STEPS[::4])


@pytest.fixture(scope="module")
def marks():
    layer = QuantisationMarks()
    layer.build((None, None, None, 3))
    return layer


def _picture(coefficients):
    """Grey pictures `(1, height, width, 3)` in `[0, 1]` that have these `(rows, columns, 64)` DCT coefficients."""
    rows, columns, _ = coefficients.shape
    cells = (coefficients @ KERNEL.T).reshape(rows, columns, 8, 8)
    luma = cells.transpose(0, 2, 1, 3).reshape(1, 8 * rows, 8 * columns, 1)
    return np.repeat((luma + 128.0) / 255.0, 3, axis=-1).astype(np.float32)


def _spread(rows, columns, seed=0):
    """Coefficients as pictures have them, small at high frequencies."""
    order = np.add.outer(np.arange(8), np.arange(8)).ravel()
    return np.random.default_rng(seed).laplace(0, 200.0 / (1 + order) ** 1.5, (rows, columns, 64))


def _quantised(step, rows=24, columns=24, seed=0):
    return step * np.rint(_spread(rows, columns, seed) / step)


def _combs_at(combs, step):
    """The combs `(grids, frequencies)` of one picture at a step."""
    values = np.asarray(combs)[0].reshape(2, len(_COMB_FREQUENCIES), COMBS_EACH)
    return values[..., np.flatnonzero(_COMB_STEPS == step)[0]]


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 48, 80)])
def test_shapes(size, marks):
    images = np.random.default_rng(0).random((*size, 3), np.float32)
    block, combs, spectrum, picture = marks(images)
    batch, height, width = size
    assert block.shape == (batch, height // 16, width // 16, marks.block_features)
    assert combs.shape == (batch, 2, marks.comb_features)
    assert spectrum.shape == (batch, len(BINS), marks.spectrum_features)
    assert picture.shape == (batch, marks.picture_features)
    assert all(np.isfinite(mark).all() for mark in (block, combs, spectrum, picture))


def test_nothing_is_trained(marks):
    assert not marks.trainable_variables
    assert len(marks.variables) == 5


def test_transform_is_the_orthonormal_dct():
    np.testing.assert_allclose(KERNEL.T @ KERNEL, np.eye(64), atol=1e-12)
    # The first is 8 times the mean; the second is half a wave along the columns.
    np.testing.assert_allclose(KERNEL[:, 0], 1 / 8, atol=1e-12)
    wave = np.cos(np.pi * (2 * np.arange(8) + 1) / 16)
    np.testing.assert_allclose(KERNEL[:, 1].reshape(8, 8), np.tile(wave / 4 / np.sqrt(2), (8, 1)), atol=1e-12)


def test_luma_and_transform_start_exact(marks):
    np.testing.assert_allclose(marks.transform.kernel[0, 0], KERNEL, atol=1e-7)
    np.testing.assert_allclose(marks.low_transform.kernel[0, 0], KERNEL[:, _COMB_FREQUENCIES], atol=1e-7)
    np.testing.assert_allclose(np.ravel(marks.to_luma.kernel), [76.245, 149.685, 29.07], atol=1e-4)
    expected = _spread(2, 3)
    luma = marks.to_luma(_picture(expected)) - 128.0
    cells = keras.ops.space_to_depth(luma, 8)
    np.testing.assert_allclose(marks.transform(cells)[0], expected, atol=2e-3)


def test_combs_by_hand(marks):
    # u = 2, 0.25, -1.5 and 0 at step 8: (weight, 1 - 12 d^2) = (1, 1), (1/16, 1/4), (1, -2), (0, 1).
    coefficients = np.zeros((2, 2, 64))
    coefficients[..., 9] = np.reshape([16.0, 2.0, -12.0, 0.0], (2, 2))
    _, combs, _, _ = marks(_picture(coefficients))
    mean_weight, mean_comb = (1 + 1 / 16 + 1) / 4, (1 + 1 / 64 - 2) / 4
    place = _COMB_FREQUENCIES.index(9)
    np.testing.assert_allclose(_combs_at(combs, 8)[0, place], mean_comb / (mean_weight + 0.01), atol=1e-4)
    # The weight at step 8 is not kept, that at step 9 is: u^2 = 1 (clipped), 4/81, 1 (clipped), 0.
    weights = np.asarray(combs)[0, 0].reshape(-1, COMBS_EACH)[place, len(_COMB_STEPS) :]
    np.testing.assert_allclose(weights[2], np.log((2 + 4 / 81) / 4 + 0.001), atol=1e-4)


@pytest.mark.parametrize("step", [6, 16, 50])
def test_multiples_have_a_comb(step, marks):
    _, combs, _, _ = marks(_picture(_quantised(step)))
    assert _combs_at(combs, step)[0].min() > 0.85
    others = [_combs_at(combs, other)[0].max() for other in _COMB_STEPS if other > 1.2 * step]
    assert max(others) < 0.8


def test_spread_values_have_none(marks):
    _, combs, _, _ = marks(_picture(_spread(24, 24)))
    assert np.abs([_combs_at(combs, step)[0] for step in range(1, 11)]).max() < 0.35


@pytest.mark.parametrize("shift", [(3, 5), (0, 4), (7, 1)])
def test_the_grid_is_found(shift, marks):
    row, column = shift
    picture = _picture(_quantised(40, 26, 26))
    _, combs, _, turned = marks(picture[:, row : row + 192, column : column + 192])
    aligned, found = _combs_at(combs, 40)
    assert found.min() > 0.85
    assert aligned.min() < 0.5
    # The profiles begin at their edges, where luma changes most.
    assert (np.argmax(np.asarray(turned)[0, :16].reshape(2, 8), axis=1) == 0).all()


def test_a_coarse_comb_survives_a_finer_one(marks):
    picture = _picture(_quantised(40, 26, 26))[:, 3 : 3 + 192, 5 : 5 + 192]
    luma = np.asarray(marks.to_luma(picture)) - 128.0
    again = np.asarray(marks.transform(keras.ops.space_to_depth(luma, 8)))[0]
    _, combs, _, _ = marks(_picture(6 * np.rint(again / 6)))
    aligned, found = _combs_at(combs, 40)
    assert found.min() > 0.7
    assert aligned.max() < 0.6
    assert _combs_at(combs, 6)[0].min() > 0.85


def test_spectrum_follows_the_scale(marks):
    coefficients = _spread(8, 8, 1)
    coefficients[..., 0] = 0.0
    coefficients *= 0.3
    (_, _, once, _), (_, _, twice, _) = marks(_picture(coefficients)), marks(_picture(2.0 * coefficients))
    # Twice as large is an octave further along the steps, four bins; combs are measured at some of them only.
    combs = len(_FINE_GROUPS)
    np.testing.assert_allclose(twice[:, 4:, combs:], once[:, :-4, combs:], atol=1e-3)
    within = slice(_FINE_BINS.start + 4, _FINE_BINS.stop)
    before = slice(_FINE_BINS.start, _FINE_BINS.stop - 4)
    np.testing.assert_allclose(twice[:, within, :combs], once[:, before, :combs], atol=2e-2)
    assert np.ptp(np.asarray(once)[..., :combs]) > 0.2


def test_changes_of_a_block(marks):
    images = np.zeros((1, 32, 32, 3), np.float32)
    # A step of 10 levels into column 5 of the right blocks, of 30 into row 2 of the lower ones.
    images[:, :, 21:] += 10 / 255
    images[:, 18:] += 30 / 255
    block, _, _, _ = marks(images)
    columns, rows = np.asarray(block)[0, ..., 64:80], np.asarray(block)[0, ..., 80:]
    np.testing.assert_allclose(columns[:, 1], 4 * 0.5 * np.eye(16)[[5, 5]], atol=1e-4)
    np.testing.assert_allclose(rows[1], 4 * 0.75 * np.eye(16)[[2, 2]], atol=1e-4)
    assert np.abs(columns[:, 0]).max() < 1e-4
    assert np.abs(rows[0]).max() < 1e-4


def test_flat_pictures_are_finite(marks):
    for value in (0.0, 0.5, 1.0):
        assert all(np.isfinite(mark).all() for mark in marks(np.full((1, 32, 48, 3), value, np.float32)))


def test_pictures_do_not_see_each_other(marks):
    images = np.random.default_rng(2).random((2, 32, 48, 3), np.float32)
    for together, alone in zip(marks(images), marks(images[1:]), strict=True):
        np.testing.assert_allclose(together[1:], alone, atol=1e-4)


def test_float32_whatever_the_policy():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = QuantisationMarks()
        marks = layer(np.random.default_rng(0).random((1, 32, 32, 3), np.float32))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {keras.backend.standardize_dtype(mark.dtype) for mark in marks} == {"float32"}
