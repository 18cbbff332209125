import keras
import numpy as np
import pytest

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import MobileGenerator, make_generator

# Filters, blocks, and the sizes as computed from the description.
DESCRIBED = pytest.mark.parametrize(
    ("name", "filters", "blocks", "described_parameters", "described_accumulates"),
    [("fast", 32, 12, 193e3, 51e9), ("very_fast", 8, 16, 22.5e3, 5.5e9)],
)


@DESCRIBED
def test_sizes_by_hand(name, filters, blocks, described_parameters, described_accumulates):
    generator = make_generator(name)
    expanded = 6 * filters
    block = filters * expanded + 9 * expanded + expanded * filters
    biases = (3 + blocks) * filters + 2 * blocks * expanded + 3
    ends, dense = 2 * 9 * 3 * filters, 9 * filters * filters
    assert parameters(generator) == ends + 2 * dense + blocks * block + biases
    pixels = 1280 * 720
    # Half the resolution each way is a quarter of the pixels.
    assert multiply_accumulates(generator) == pixels * (ends + dense) + pixels // 4 * (dense + blocks * block)
    assert parameters(generator) == pytest.approx(described_parameters, rel=0.01)
    assert multiply_accumulates(generator) == pytest.approx(described_accumulates, rel=0.01)


@DESCRIBED
def test_layers(name, filters, blocks, described_parameters, described_accumulates):
    del described_parameters, described_accumulates
    generator = make_generator(name)
    assert len(generator.expand) == len(generator.depthwise) == len(generator.project) == blocks
    assert len(list(generator._flatten_layers(False, False))) == 3 * blocks + 4
    assert {layer.kernel.shape for layer in generator.expand} == {(1, 1, filters, 6 * filters)}
    assert {layer.kernel.shape for layer in generator.depthwise} == {(3, 3, 6 * filters, 1)}
    assert {layer.kernel.shape for layer in generator.project} == {(1, 1, 6 * filters, filters)}


def test_block_by_hand():
    generator = MobileGenerator(filters=1, blocks=1, expansion=2)
    generator.build([(None, None, None, 3), (None, None, None, 1)])
    generator.expand[0].kernel.assign(np.reshape([1.0, -1.0], (1, 1, 1, 2)))
    generator.depthwise[0].kernel.assign(np.reshape([0, 0, 0, 0, 1, 0, 0, 0, 0], (3, 3, 1, 1)).repeat(2, axis=2))
    generator.project[0].kernel.assign(np.reshape([1.0, -2.0], (1, 1, 2, 1)))
    features = np.array([-2.0, 3.0, 10.0, -10.0], np.float32).reshape(1, 1, 4, 1)
    # f + min(relu(f), 6) - 2 min(relu(-f), 6): ReLU6 within, nothing after the projection or the sum.
    np.testing.assert_allclose(np.ravel(generator.body(features)), [-6.0, 6.0, 16.0, -22.0], atol=1e-6)


def test_depthwise_convolutions_keep_channels_apart():
    generator = MobileGenerator(filters=2, blocks=1, expansion=2)
    generator.build([(None, None, None, 3), (None, None, None, 1)])
    features = np.zeros((1, 5, 5, 4), np.float32)
    features[..., 2] = 1.0
    response = np.asarray(generator.depthwise[0](features))
    assert np.abs(response[..., 2]).min() > 0
    np.testing.assert_array_equal(response[..., [0, 1, 3]], 0)


def test_depthwise_kernels_start_by_their_own_nine_inputs():
    keras.utils.set_random_seed(1)
    generator = make_generator("fast")
    deviations = [np.std(layer.kernel) for layer in generator.depthwise]
    # He et al.: sqrt(2 / 9). Kernels of different blocks are drawn separately.
    np.testing.assert_allclose(deviations, np.sqrt(2 / 9), rtol=0.1)
    assert len({float(deviation) for deviation in deviations}) == 12
