import numpy as np
import pytest

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import ResidualGenerator, make_generator


def test_the_papers_layers():
    generator = make_generator("residual")
    layers = list(generator._flatten_layers(False, False))
    # One, one of stride 2, 15 blocks of two, one after the upsampling, one to the image.
    assert len(layers) == 1 + 1 + 15 * 2 + 1 + 1
    assert {layer.kernel_size for layer in layers} == {(3, 3)}
    assert [layer.filters for layer in layers].count(64) == 33
    assert generator.tail.filters == 3
    assert (generator.conditioned, generator.residual) == (False, False)


def test_sizes_by_hand():
    generator = make_generator("residual")
    dense = 9 * 64 * 64
    assert parameters(generator) == 2 * 9 * 3 * 64 + 32 * dense + 33 * 64 + 3
    # Half the resolution each way is a quarter of the pixels.
    pixels = 1280 * 720
    assert multiply_accumulates(generator) == pixels * (2 * 9 * 3 * 64 + dense) + pixels // 4 * 31 * dense
    # As computed from the description.
    assert parameters(generator) == pytest.approx(1.19e6, rel=0.01)
    assert multiply_accumulates(generator) == pytest.approx(300e9, rel=0.01)


def test_block_by_hand():
    generator = ResidualGenerator(filters=1, blocks=2)
    generator.build([(None, None, None, 3), (None, None, None, 1)])
    for layers, value in ((generator.first, 2.0), (generator.second, 0.5)):
        for layer in layers:
            layer.kernel.assign(np.pad(np.full((1, 1, 1, 1), value), ((1, 1), (1, 1), (0, 0), (0, 0))))
    generator.second[1].bias.assign([7.0])
    features = np.array([-1.0, 2.0], np.float32).reshape(1, 1, 2, 1)
    # -1 + 0.5 * 0.2 * -2 = -1.2, then -1.2 * 1.2 + 7; 2 + 0.5 * 4 = 4, then 4 * 2 + 7. Nothing follows the sums.
    np.testing.assert_allclose(np.ravel(generator.body(features)), [-1.44 + 7, 15.0], atol=1e-6)


@pytest.mark.parametrize("blocks", [1, 3])
def test_number_of_blocks(blocks):
    generator = make_generator("residual", filters=4, blocks=blocks)
    assert len(generator.first) == len(generator.second) == blocks
    assert parameters(generator) == 2 * 9 * 3 * 4 + (2 + 2 * blocks) * (9 * 16) + (3 + 2 * blocks) * 4 + 3
