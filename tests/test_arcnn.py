import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import ARCNN, make_generator


def test_layers():
    generator = make_generator("arcnn", channels=1)
    shapes = [tuple(layer.kernel.shape) for layer in generator._flatten_layers(False, False)]
    assert shapes == [(9, 9, 1, 64), (7, 7, 64, 32), (1, 1, 32, 16), (5, 5, 16, 1)]


@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_by_hand(channels):
    generator = make_generator("arcnn", channels=channels)
    kernels = 81 * channels * 64 + 49 * 64 * 32 + 32 * 16 + 25 * 16 * channels
    assert parameters(generator) == kernels + 64 + 32 + 16 + channels
    assert multiply_accumulates(generator) == kernels * 1280 * 720


def test_sizes_of_the_paper():
    generator = make_generator("arcnn", channels=1)
    assert parameters(generator) == pytest.approx(0.107e6, rel=0.01)
    assert multiply_accumulates(generator) == pytest.approx(98e9, rel=0.01)


def test_receptive_field_is_19_by_19():
    generator = make_generator("arcnn", channels=1)
    for weight in generator.weights:
        # No ReLU cuts anything off.
        weight.assign(np.abs(weight.numpy()) + 1e-4)
    images = tf.constant(np.random.default_rng(0).random((1, 48, 48, 1), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        pixel = generator((images, tf.zeros((1, 3, 3, 1))))[0, 20, 25, 0]
    rows, columns = np.nonzero(tape.gradient(pixel, images).numpy()[0, ..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20 - 9, 20 + 9, 25 - 9, 25 + 9)
    assert len(rows) == 19 * 19


def test_by_hand():
    generator = make_generator("arcnn", channels=1)
    for weight in generator.weights:
        weight.assign(np.zeros(weight.shape))
    for layer, tap in zip(generator._flatten_layers(False, False), ((4, 4), (3, 3), (0, 0), (2, 1)), strict=True):
        kernel = np.zeros(layer.kernel.shape)
        kernel[*tap, 0, 0] = 1.0
        layer.kernel.assign(kernel)
    generator.extraction.bias.assign([-0.5] + 63 * [0.0])
    generator.reconstruction.bias.assign([-0.25])
    images = np.random.default_rng(0).random((1, 16, 32, 1), np.float32)
    # The last kernel looks one pixel to the left, where the border is zero; no ReLU follows it.
    expected = np.pad(np.maximum(images - 0.5, 0), ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1] - 0.25
    np.testing.assert_allclose(generator((images, np.zeros((1, 1, 2, 1), np.float32))), expected, atol=1e-6)


@pytest.mark.parametrize("conditioned", [False, True])
def test_conditioned(conditioned):
    generator = make_generator("arcnn", conditioned=conditioned)
    assert generator.extraction.kernel.shape == (9, 9, 3 + conditioned, 64)


def test_config_is_the_constructors_arguments():
    arguments = {"channels": 1, "conditioned": True, "name": "mine"}
    config = ARCNN(**arguments).get_config()
    assert {key: config[key] for key in arguments} == arguments
    # What is left is Keras's own.
    assert set(config) - set(arguments) == {"trainable", "dtype"}
    assert ARCNN.from_config(config).get_config() == config
