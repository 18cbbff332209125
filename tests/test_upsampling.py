import numpy as np
import pytest

from keras_deartifact.models.upsampling import nearest, with_quantiser_map


@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_repeats_every_pixel(factor):
    images = np.arange(2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)
    expected = images.repeat(factor, axis=1).repeat(factor, axis=2)
    np.testing.assert_array_equal(nearest(images, factor), expected)


def test_nearest_by_hand():
    images = np.array([[1, 2], [3, 4]], np.float32)[None, ..., None]
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    np.testing.assert_array_equal(nearest(images, 2)[0, ..., 0], expected)


def test_nearest_of_a_constant_is_that_constant():
    np.testing.assert_array_equal(nearest(np.full((1, 4, 6, 3), 0.3, np.float32), 2), np.full((1, 8, 12, 3), 0.3, "f4"))


def test_the_map_becomes_a_channel():
    images = np.random.default_rng(0).random((2, 32, 48, 3), np.float32)
    quantiser_map = np.array([[0, 4, 8], [2, 6, -4]], np.float32)[None, ..., None].repeat(2, axis=0)
    stacked = np.asarray(with_quantiser_map(images, quantiser_map))
    assert stacked.shape == (2, 32, 48, 4)
    np.testing.assert_array_equal(stacked[..., :3], images)
    # A step of 16 levels is in the middle.
    expected = np.array([[-1, 0, 1], [-0.5, 0.5, -2]], np.float32).repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(stacked[1, ..., 3], expected)
