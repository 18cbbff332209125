import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import PatchDiscriminator, make_discriminator
from keras_deartifact.models.patch_discriminator import probability


def _discriminator(filters=4, seed=0):
    """Every variable gets random values, the biases too."""
    discriminator = make_discriminator("patch", filters=filters)
    random = np.random.default_rng(seed)
    for weight in discriminator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.05, weight.shape))
    return discriminator


def _inputs(height=40, width=37, batch=1, seed=0):
    images = np.random.default_rng(seed).random((2, batch, height, width, 3), np.float32)
    return images[0], images[1]


# What the paper says of its discriminator


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (48, 80), (33, 16)])
def test_no_padding(height, width):
    assert _discriminator()(_inputs(height, width)).shape == (1, height - 15, width - 15, 1)


def test_convolutions_only_without_stride_or_padding():
    discriminator = make_discriminator("patch")
    layers = discriminator._flatten_layers(include_self=False)
    assert [type(layer) for layer in layers] == [keras.layers.Conv2D] * 5
    assert {layer.strides for layer in discriminator.convolutions} == {(1, 1)}
    assert {layer.dilation_rate for layer in discriminator.convolutions} == {(1, 1)}
    assert {layer.padding for layer in discriminator.convolutions} == {"valid"}


@pytest.mark.parametrize("filters", [4, 64])
def test_filters_double_every_two_layers(filters):
    convolutions = PatchDiscriminator(filters).convolutions
    assert [layer.filters for layer in convolutions] == [filters, filters, 2 * filters, 2 * filters, 1]


def test_activation_is_a_leaky_relu():
    discriminator, (compressed, candidate) = _discriminator(), _inputs()
    features = np.concatenate((2 * compressed - 1, 2 * candidate - 1), axis=-1)
    for layer in discriminator.convolutions[:-1]:
        features = tf.nn.conv2d(features, layer.kernel.numpy(), 1, "VALID") + layer.bias.numpy()
        assert 0.1 < np.mean(features < 0) < 0.9
        features = tf.where(features < 0, 0.2 * features, features)
    last = discriminator.convolutions[-1]
    expected = tf.nn.conv2d(features, last.kernel.numpy(), 1, "VALID") + last.bias.numpy()
    np.testing.assert_allclose(discriminator((compressed, candidate)), expected, atol=1e-5)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 7), (24, 21)])
def test_receptive_field_by_a_probe(row, column):
    discriminator, inputs = _discriminator(), [tf.constant(images) for images in _inputs()]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logit = discriminator(tuple(inputs))[0, row, column, 0]
    for gradient in tape.gradient(logit, inputs):
        seen = np.zeros((40, 37), bool)
        seen[row : row + 16, column : column + 16] = True
        np.testing.assert_array_equal(np.abs(gradient[0]).max(axis=-1) > 0, seen)


def test_receptive_field_is_that_of_the_layers():
    discriminator = PatchDiscriminator()
    assert discriminator.receptive_field == 16
    # 3x3 with a stride of 2, then 4x4: a step of the second is two pixels.
    discriminator.convolutions = [keras.layers.Conv2D(1, 3, 2), keras.layers.Conv2D(1, 4)]
    assert discriminator.receptive_field == 1 + 2 + 3 * 2


def test_logits_of_a_crop_are_a_crop_of_the_logits():
    discriminator, inputs = _discriminator(), _inputs()
    logits = np.asarray(discriminator(inputs))
    cropped = discriminator(tuple(images[:, 3:30, 10:31] for images in inputs))
    np.testing.assert_allclose(cropped, logits[:, 3 : 30 - 15, 10 : 31 - 15], atol=1e-6)
    assert logits.std() > 0.1


def test_conditioned_on_the_compressed_image():
    discriminator, (compressed, candidate) = _discriminator(), _inputs()
    changed = compressed.copy()
    changed[:, 20, 20] = 1 - changed[:, 20, 20]
    difference = np.asarray(discriminator((changed, candidate)) - discriminator((compressed, candidate)))[0, ..., 0]
    seen = np.zeros(difference.shape, bool)
    seen[5:21, 5:21] = True
    np.testing.assert_array_equal(np.abs(difference) > 1e-7, seen)
    # The two images are not one pile of channels: which is which matters.
    swapped = discriminator((candidate, compressed)) - discriminator((compressed, candidate))
    assert np.abs(swapped).max() > 0.1


def test_probability_by_hand():
    logits = np.log([[[1.0, 3.0], [0.25, 1.0]], [[9.0, 9.0], [9.0, 9.0]]])[..., None].astype(np.float32)
    # The sigmoid of log(a) is a / (1 + a).
    np.testing.assert_allclose(probability(logits), [(1 / 2 + 3 / 4 + 1 / 5 + 1 / 2) / 4, 0.9], rtol=1e-6)


def test_probability_averages_after_the_sigmoid():
    logits = np.array([100.0, 0.0, -100.0, -100.0], np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(probability(logits), [1.5 / 4], rtol=1e-6)


# Arguments


def test_parameters_by_hand():
    kernels = 16 * (6 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128)
    assert make_discriminator("patch").count_params() == kernels + 64 + 64 + 128 + 128 + 1


@pytest.mark.parametrize(("height", "width"), [(15, 16), (40, 8)])
def test_images_smaller_than_the_receptive_field(height, width):
    with pytest.raises(ValueError, match=rf"Expected 16 pixels each way. Received: shape=\(1, {height}, {width}, 3\)"):
        _discriminator()(_inputs(height, width))
