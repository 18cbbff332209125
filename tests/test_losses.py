import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.losses import LOSSES, charbonnier, mse, one_minus_ssim, weighted_losses

EVERY_LOSS = pytest.mark.parametrize("name", sorted(LOSSES))


@pytest.fixture(scope="module")
def pair(photo):
    """Three different pictures, and each with noise of another strength; one leaves [0, 1]."""
    original = np.stack([photo(24, 40, seed) for seed in range(3)]).astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(size=original.shape).astype(np.float32)
    return original, original + noise * np.array([0.02, 0.1, 0.5], np.float32)[:, None, None, None]


def test_mse_by_hand():
    original = np.zeros((2, 1, 2, 1), np.float32)
    restored = np.array([[[[0.1], [0.3]]], [[[-0.2], [0.0]]]], np.float32)
    # The mean of 0.01 and 0.09, and that of 0.04 and 0.
    np.testing.assert_allclose(mse(original, restored), [0.05, 0.02], rtol=1e-6)


def test_charbonnier_by_hand():
    original = np.zeros((1, 1, 2, 1), np.float32)
    restored = np.array([[[[0.3], [0.0]]]], np.float32)
    # (sqrt(0.09 + 0.16) + sqrt(0.16)) / 2 = (0.5 + 0.4) / 2
    np.testing.assert_allclose(charbonnier(original, restored, epsilon=0.4), [0.45], rtol=1e-6)
    # With the default epsilon it is the absolute difference to 5e-7, and epsilon where there is none.
    np.testing.assert_allclose(charbonnier(original, restored), [(0.3 + 1e-3) / 2], atol=2e-6)


def test_ssim_by_hand_of_constant_pictures():
    # Without variance only the luminance term is left: (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    original, restored = (np.full((1, 16, 16, 3), value, np.float32) for value in (0.2, 0.6))
    expected = 1 - (0.24 + 1e-4) / (0.4 + 1e-4)
    # 9e-4 is all that keeps the variances, differences of nearly equal float32 numbers, from dividing by zero.
    np.testing.assert_allclose(one_minus_ssim(original, restored), [expected], atol=2e-3)


def test_ssim_against_tensorflow(pair):
    original, restored = pair
    # tf.image.ssim works on the same windows in another order; float32 leaves 1e-5 of the variances.
    np.testing.assert_allclose(
        1 - one_minus_ssim(original, restored), tf.image.ssim(original, restored, max_val=1.0), atol=2e-5
    )
    grey = original[..., :1], restored[..., :1]
    np.testing.assert_allclose(1 - one_minus_ssim(*grey), tf.image.ssim(*grey, max_val=1.0), atol=2e-5)


def test_ssim_of_an_inverted_picture_is_beyond_one(pair):
    original = pair[0]
    value = np.asarray(one_minus_ssim(original, original.mean(axis=(1, 2), keepdims=True) * 2 - original))
    assert (value > 1).all()
    assert (value <= 2).all()


@EVERY_LOSS
def test_one_value_an_image(name, pair):
    value = LOSSES[name](*pair)
    assert tuple(value.shape) == (3,)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    # The noise grows from image to image, and so does every loss.
    assert np.all(np.diff(value) > 0)


@EVERY_LOSS
def test_images_do_not_see_each_other(name, pair):
    together = np.asarray(LOSSES[name](*pair))
    alone = [np.asarray(LOSSES[name](*(each[index : index + 1] for each in pair)))[0] for index in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@EVERY_LOSS
def test_symmetry(name, pair):
    original, restored = pair
    np.testing.assert_allclose(LOSSES[name](original, restored), LOSSES[name](restored, original), rtol=1e-5)


@EVERY_LOSS
def test_equality_is_the_minimum_with_a_finite_gradient(name, pair):
    original = tf.constant(pair[0])
    with tf.GradientTape() as tape:
        tape.watch(original)
        value = LOSSES[name](tf.constant(pair[0]), original)
    least = 1e-3 if name == "charbonnier" else 0.0
    np.testing.assert_allclose(value, [least] * 3, atol=1e-6)
    gradient = tape.gradient(value, original).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


@EVERY_LOSS
def test_flat_and_black_pictures_have_a_finite_gradient(name):
    flat = tf.zeros((1, 16, 16, 3))
    with tf.GradientTape() as tape:
        tape.watch(flat)
        value = LOSSES[name](tf.zeros((1, 16, 16, 3)), flat)
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, flat)).all()


@EVERY_LOSS
def test_unknown_size_in_a_graph(name, pair):
    traced = tf.function(LOSSES[name], input_signature=[tf.TensorSpec((None, None, None, 3))] * 2)
    np.testing.assert_allclose(traced(*pair), LOSSES[name](*pair), rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, -1e-3])
def test_charbonnier_epsilon(epsilon):
    images = np.zeros((1, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=f"epsilon must be positive. Received: epsilon={epsilon}"):
        charbonnier(images, images, epsilon)


@pytest.mark.parametrize("shape", [(1, 10, 16, 3), (1, 16, 10, 3)])
def test_ssim_too_small(shape):
    images = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="SSIM needs 11 pixels each way. Received: shape="):
        one_minus_ssim(images, images)


def test_weighted_sum_by_hand(pair):
    expected = 2.0 * np.asarray(mse(*pair)) + 0.5 * np.asarray(one_minus_ssim(*pair))
    np.testing.assert_allclose(weighted_losses(*pair, {"mse": 2.0, "one_minus_ssim": 0.5}), expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [{}, {"mse": 1.0, "vgg": 0.1}])
def test_weighted_losses_errors(weights, pair):
    with pytest.raises(ValueError, match=r"Expected losses of \['charbonnier', 'mse', 'one_minus_ssim'\]. Received: "):
        weighted_losses(*pair, weights)
