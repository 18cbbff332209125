import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import UNetDiscriminator, make_discriminator
from keras_deartifact.models.spectral import SpectralConv2D


def _discriminator(filters=4, seed=0):
    """Every variable gets random values, the biases too."""
    discriminator = make_discriminator("unet", filters=filters)
    random = np.random.default_rng(seed)
    for weight in discriminator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.05, weight.shape))
    return discriminator


def _inputs(height=48, width=80, batch=1, seed=0):
    images = np.random.default_rng(seed).random((2, batch, height, width, 3), np.float32)
    return images[0], images[1]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 8), (48, 80), (96, 96)])
def test_a_logit_for_every_pixel(height, width):
    assert _discriminator()(_inputs(height, width)).shape == (1, height, width, 1)


def test_every_convolution_but_first_and_last_is_normalised():
    discriminator = make_discriminator("unet")
    layers = [layer for layer in discriminator._flatten_layers(include_self=False) if layer.weights]
    spectral = [layer for layer in layers if isinstance(layer, SpectralConv2D)]
    assert [layer.filters for layer in spectral] == [128, 256, 512, 256, 128, 64, 64, 64]
    plain = [layer for layer in layers if layer not in spectral]
    assert plain == [discriminator.entry, discriminator.to_logits]


def test_training_brings_the_kernels_to_a_singular_value_of_one():
    discriminator, inputs = _discriminator(), _inputs(8, 8)
    train = tf.function(lambda: discriminator(inputs, training=True))
    for _ in range(200):
        train()
    for layer in (*discriminator.down, *discriminator.up, *discriminator.after):
        matrix = layer.kernel.numpy().reshape(-1, layer.filters)
        largest = np.linalg.svd(matrix, compute_uv=False)[0]
        assert np.linalg.norm(matrix @ layer.u.numpy()) == pytest.approx(largest, rel=0.01)


def test_skip_connections_carry_what_the_bottom_cannot():
    discriminator, inputs = _discriminator(), _inputs(16, 16)
    # Nothing comes up from below any more, at any level.
    for layer in discriminator.up:
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    candidate = tf.constant(inputs[1])
    with tf.GradientTape() as tape:
        tape.watch(candidate)
        logit = discriminator((inputs[0], candidate))[0, 7, 8, 0]
    seen = np.abs(tape.gradient(logit, candidate)[0]).max(axis=-1) > 0
    # Four 3x3 convolutions at full resolution: entry, two after, logits.
    expected = np.zeros((16, 16), bool)
    expected[3:12, 4:13] = True
    np.testing.assert_array_equal(seen, expected)


def test_bottom_sees_far():
    discriminator, inputs = _discriminator(), _inputs(64, 64)
    candidate = tf.constant(inputs[1])
    with tf.GradientTape() as tape:
        tape.watch(candidate)
        logit = discriminator((inputs[0], candidate))[0, 32, 32, 0]
    # Back from 32, convolution by convolution: g0 29 to 35, g1 14 to 18, g2 6 to 9, f3 2 to 5, each of which sees
    # its own 8 pixels and 8 on either side.
    for pixels in np.nonzero(np.abs(tape.gradient(logit, candidate)[0]).max(axis=-1)):
        assert (pixels.min(), pixels.max()) == (8, 55)


def test_moving_by_eight_pixels_moves_the_logits():
    discriminator, inputs = _discriminator(), _inputs(128, 128)
    logits = np.asarray(discriminator(inputs))
    moved = np.asarray(discriminator(tuple(np.roll(images, (8, 16), (1, 2)) for images in inputs)))
    # Far from the border, whose padding stays where it is.
    np.testing.assert_allclose(moved[:, 56:72, 64:80], logits[:, 48:64, 48:64], atol=1e-5)


def test_parameters_by_hand():
    down = 16 * (64 * 128 + 128 * 256 + 256 * 512)
    up = 9 * (512 * 256 + 256 * 128 + 128 * 64)
    full = 9 * (6 * 64 + 2 * 64 * 64 + 64) + 64 + 1
    trained = make_discriminator("unet").trainable_weights
    assert sum(np.prod(weight.shape) for weight in trained) == down + up + full


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 41)])
def test_size_that_is_no_multiple(height, width):
    with pytest.raises(ValueError, match=rf"Expected multiples of 8. Received: shape=\(1, {height}, {width}, 3\)"):
        _discriminator()(_inputs(height, width))


def test_unknown_sizes_are_left_to_the_run():
    discriminator = _discriminator()
    images = tf.TensorSpec((None, None, None, 3))
    judge = tf.function(
        lambda compressed, candidate: discriminator((compressed, candidate)), input_signature=[images] * 2
    )
    inputs = _inputs(16, 24)
    np.testing.assert_allclose(judge(*inputs), discriminator(inputs), atol=1e-6)


def test_first_layer_keeps_its_scale_as_the_filters_grow():
    keras.utils.set_random_seed(0)
    for filters in (8, 32):
        discriminator = UNetDiscriminator(filters)
        assert 0.05 < np.std(discriminator(_inputs(32, 32))) < 1.0
