import keras
import numpy as np
import pytest

from keras_deartifact.models import MobileGenerator, ResidualGenerator

EVERY_CLASS = pytest.mark.parametrize("make", [ResidualGenerator, MobileGenerator], ids=lambda make: make.__name__)


def _build(make, **arguments):
    generator = make(**{"filters": 4, "blocks": 2, **arguments})
    generator.build([(None, None, None, generator.channels), (None, None, None, 1)])
    return generator


def _inputs(channels=3, height=32, width=48):
    random = np.random.default_rng(0)
    images = random.random((2, height, width, channels), np.float32)
    return images, random.uniform(0, 7, (2, height // 16, width // 16, 1)).astype(np.float32)


def _leaky(values):
    return np.where(values > 0, values, 0.2 * values)


def _pass_through(generator, channel=0):
    """One filter; every kernel passes what is under its centre, of one of the inputs; the body passes everything."""
    for weight in generator.weights:
        weight.assign(np.zeros(weight.shape))
    for layer in (generator.head, generator.down, generator.up, generator.tail):
        kernel = np.zeros(layer.kernel.shape)
        kernel[1, 1, channel if layer is generator.head else 0, 0] = 1.0
        layer.kernel.assign(kernel)


def _expected(values):
    """Of every 2x2 pixels the last one is kept: a stride of 2 over an even size pads at the end only."""
    kept = _leaky(_leaky(_leaky(values[:, 1::2, 1::2])))
    return np.tanh(kept.repeat(2, axis=1).repeat(2, axis=2))


@EVERY_CLASS
def test_by_hand(make):
    generator = _build(make, filters=1, channels=1)
    _pass_through(generator)
    images, quantiser_map = _inputs(1)
    expected = (_expected(2 * images - 1) + 1) / 2
    # Both sides of LeakyReLU.
    assert expected.min() < 0.5 < expected.max()
    np.testing.assert_allclose(generator((images, quantiser_map)), expected, atol=1e-6)


@EVERY_CLASS
def test_residual_by_hand(make):
    generator = _build(make, filters=1, channels=1, residual=True)
    _pass_through(generator)
    images, quantiser_map = _inputs(1)
    np.testing.assert_allclose(generator((images, quantiser_map)), images + _expected(2 * images - 1) / 2, atol=1e-6)


@EVERY_CLASS
def test_conditioned_by_hand(make):
    generator = _build(make, filters=1, channels=1, conditioned=True)
    _pass_through(generator, channel=1)
    images, quantiser_map = _inputs(1)
    per_pixel = (quantiser_map / 4 - 1).repeat(16, axis=1).repeat(16, axis=2)
    np.testing.assert_allclose(generator((images, quantiser_map)), (_expected(per_pixel) + 1) / 2, atol=1e-6)


@EVERY_CLASS
def test_untrained_residual_returns_its_input(make):
    images, quantiser_map = _inputs()
    np.testing.assert_array_equal(_build(make, residual=True)((images, quantiser_map)), images)
    assert np.abs(_build(make)((images, quantiser_map)) - images).mean() > 0.1


@EVERY_CLASS
@pytest.mark.parametrize("residual", [False, True])
def test_range(make, residual):
    generator = _build(make, residual=residual)
    images, quantiser_map = _inputs()
    generator.tail.kernel.assign(100 * np.random.default_rng(1).normal(size=generator.tail.kernel.shape))
    result = np.asarray(generator((images, quantiser_map))) - (images - 0.5 if residual else 0)
    np.testing.assert_allclose((result.min(), result.max()), (0, 1), atol=1e-4)


@EVERY_CLASS
def test_only_the_second_convolution_strides(make):
    generator = _build(make)
    layers = [layer for layer in generator._flatten_layers(False) if isinstance(layer, keras.layers.Layer)]
    assert [layer for layer in layers if layer.strides != (1, 1)] == [generator.down]
    assert generator.down.strides == (2, 2)
    assert {layer.padding for layer in layers} == {"same"}
    assert all(layer.use_bias for layer in layers)


@EVERY_CLASS
@pytest.mark.parametrize(("channels", "conditioned"), [(3, False), (3, True), (1, False), (1, True)])
def test_channels(make, channels, conditioned):
    generator = _build(make, channels=channels, conditioned=conditioned)
    assert generator.head.kernel.shape == (3, 3, channels + conditioned, 4)
    assert generator.tail.kernel.shape == (3, 3, 4, channels)


@EVERY_CLASS
def test_config_is_the_constructors_arguments(make):
    arguments = {"filters": 6, "blocks": 3, "channels": 1, "conditioned": True, "residual": True, "name": "mine"}
    if make is MobileGenerator:
        arguments["expansion"] = 2
    config = make(**arguments).get_config()
    assert {key: config[key] for key in arguments} == arguments
    # What is left is Keras's own.
    assert set(config) - set(arguments) == {"trainable", "dtype"}
    assert make.from_config(config).get_config() == config


@EVERY_CLASS
def test_the_signal_neither_dies_nor_explodes_in_the_body(make):
    keras.utils.set_random_seed(1)
    generator = _build(make, filters=32, blocks=15)
    features = np.random.default_rng(0).normal(size=(4, 16, 16, 32)).astype(np.float32)
    gain = np.square(generator.body(features)).mean() / np.square(features).mean()
    # (1 + 1/15)^15 = 2.6 where the power within a block stays as it is; borders and ReLU6 take some.
    assert 1.3 < gain < 4.0
