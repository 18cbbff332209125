import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import GENERATORS, ShuffleGenerator, make_generator
from keras_deartifact.models.folding import FoldingConv2D
from keras_deartifact.models.shuffle import _per_cell, _pixels_kernel, _planes_kernel, dct_basis

SHUFFLES = sorted(name for name in GENERATORS if name.startswith("shuffle_"))


def _randomise(model, scale, seed=0):
    """Every variable gets random values, those that start as zeros and ones included."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(weight.numpy() + generator.normal(0, scale, weight.shape))


def _inputs(batch=2, height=48, width=80, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.random((batch, height, width, 3), np.float32)
    return images, generator.uniform(0, 7, (batch, height // 16, width // 16, 1)).astype(np.float32)


# FoldingConv2D


@pytest.mark.parametrize(("channels", "filters", "branches"), [(4, 4, 4), (3, 5, 3)])
def test_folding_equals_three_convolutions(channels, filters, branches):
    layer = FoldingConv2D(filters, "relu")
    images = np.random.default_rng(1).normal(size=(2, 9, 7, channels)).astype(np.float32)
    layer.build(images.shape)
    assert len(layer.weights) == branches
    _randomise(layer, 0.5)
    expected = tf.nn.conv2d(images, layer.kernel.numpy(), 1, "SAME") + layer.bias.numpy()
    expected += tf.nn.conv2d(images, layer.pointwise.numpy()[None, None], 1, "SAME")
    if channels == filters:
        expected += images * layer.identity.numpy()
    np.testing.assert_allclose(layer(images), tf.nn.relu(expected), atol=1e-5)
    assert 0.1 < np.mean(layer(images) == 0) < 0.9


@pytest.mark.parametrize(("channels", "filters"), [(4, 4), (3, 5)])
@pytest.mark.parametrize("activation", ["relu", None])
def test_folded_layer_computes_the_same(channels, filters, activation):
    branched, folded = FoldingConv2D(filters, activation), FoldingConv2D(filters, activation, folded=True)
    images = np.random.default_rng(1).normal(size=(2, 9, 7, channels)).astype(np.float32)
    branched.build(images.shape)
    folded.build(images.shape)
    assert len(folded.weights) == 2
    _randomise(branched, 0.5)
    folded.fold_from(branched)
    np.testing.assert_allclose(folded(images), branched(images), atol=1e-6)
    np.testing.assert_array_equal(folded.folded_kernel(), branched.folded_kernel())


def test_folding_starts_near_the_identity():
    layer = FoldingConv2D(3)
    layer.build((None, None, None, 3))
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    images = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(images), images, atol=1e-6)


def test_folding_config():
    layer = FoldingConv2D(7, "relu", folded=True, name="here")
    copy = FoldingConv2D.from_config(layer.get_config())
    assert (copy.filters, copy.folded, copy.name) == (7, True, "here")
    assert copy.activation is keras.activations.relu
    assert FoldingConv2D.from_config(FoldingConv2D(2).get_config()).activation is keras.activations.linear


# The classical filter that the shuffle generator starts as


@pytest.mark.parametrize("size", [2, 4, 8])
def test_dct_is_orthonormal(size):
    basis = dct_basis(size)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(basis[0], 1 / np.sqrt(size), atol=1e-12)
    # Frequency k crosses zero k times.
    np.testing.assert_array_equal((np.diff(np.sign(basis), axis=1) != 0).sum(axis=1), np.arange(size))


def test_dct_by_hand():
    root = np.sqrt(0.5)
    np.testing.assert_allclose(dct_basis(2), [[root, root], [root, -root]], atol=1e-12)


def test_planes_and_pixels_are_inverse():
    forward, back = _planes_kernel(), _pixels_kernel()
    # The kernels' decimals are those of JFIF, six of them.
    np.testing.assert_allclose(back @ forward, np.eye(24), atol=2e-6)
    # A picture whose chroma is the same over 2x2 pixels comes back, luma of any kind.
    generator = np.random.default_rng(0)
    chroma = generator.normal(size=(2, 2, 3)).repeat(2, axis=0).repeat(2, axis=1)
    cells = (chroma + generator.normal(size=(4, 4, 1))).reshape(48)
    np.testing.assert_allclose(cells @ forward @ back, cells, atol=1e-5)


def test_planes_by_hand():
    cell = np.zeros((4, 4, 3))
    cell[1, 2] = (1.0, 0.0, 0.0)
    planes = cell.reshape(48) @ _planes_kernel()
    expected = np.zeros(24)
    expected[1 * 4 + 2] = 0.299
    # The upper right of the 2x2 quarters, a fourth of one red pixel's Cb and Cr.
    expected[16 + 1], expected[20 + 1] = -0.168736 / 4, 0.5 / 4
    np.testing.assert_allclose(planes, expected, atol=1e-12)


def test_every_cell_gets_its_block():
    quantiser_map = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    expected = quantiser_map.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(_per_cell(quantiser_map), expected)


def _take_everything_away(generator):
    """Opens every gate, those of the means too: what is lost is all that the bank sees."""
    generator.slope.assign(np.zeros(96))
    generator.gate_correction.bias.assign(np.full(96, 40.0))


def test_bank_is_a_tight_frame():
    generator = make_generator("shuffle_pico")
    _take_everything_away(generator)
    grey = np.random.default_rng(0).random((1, 48, 64, 1), np.float32).repeat(3, axis=-1)
    restored = np.asarray(generator((grey, np.full((1, 3, 4, 1), 4.0, np.float32))))
    # All that is left of the grey picture is the 0.5 that was taken off it: the transposed bank gave all of it back.
    np.testing.assert_allclose(restored[:, :-4, :-4], 0.5, atol=1e-5)
    # The last cells are in half as many blocks each way.
    np.testing.assert_allclose(restored[:, :-4, -4:], 0.25 + grey[:, :-4, -4:] / 2, atol=1e-5)
    np.testing.assert_allclose(restored[:, -4:, -4:], 0.125 + grey[:, -4:, -4:] * 3 / 4, atol=1e-5)


def test_bank_sees_chroma_at_half_the_resolution():
    generator = make_generator("shuffle_pico")
    _take_everything_away(generator)
    generator_of_colours = np.random.default_rng(0)
    coarse = generator_of_colours.random((1, 24, 32, 3), np.float32).repeat(2, axis=1).repeat(2, axis=2)
    restored = np.asarray(generator((coarse, np.full((1, 3, 4, 1), 4.0, np.float32))))
    np.testing.assert_allclose(restored[:, :-4, :-4], 0.5, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", SHUFFLES)
def test_untrained_generator_leaves_a_fine_picture_alone(name, channels):
    images = _inputs(1)[0][..., :channels]
    restored = make_generator(name, channels=channels)((images, np.full((1, 3, 5, 1), -12.0, np.float32)))
    # With a step of 2^-12 levels nothing is below the threshold.
    np.testing.assert_allclose(restored, images, atol=1e-5)


def test_untrained_generator_removes_small_ripples_and_keeps_the_mean():
    generator = make_generator("shuffle_pico")
    rows, columns = np.mgrid[:64, :64]
    # A ripple of 2 levels: its DCT coefficient in an 8x8 block, 2 * 8 / 255, is an eighth of the step of 2^7 levels.
    ripple = ((-1.0) ** (rows + columns))[None, ..., None].astype(np.float32).repeat(3, axis=-1) * np.float32(2 / 255)
    images = np.float32(0.7) + ripple
    restored = np.asarray(generator((images, np.full((1, 4, 4, 1), 7.0, np.float32))))
    inside = (slice(None), slice(8, -8), slice(8, -8))
    # What is left of the ripple: 1 - sigmoid(2 - 8 * 0.125 * 1) = 0.27, at its largest coefficient. The mean stays.
    assert np.abs(restored - 0.7)[inside].max() < 0.35 * 2 / 255
    np.testing.assert_allclose(restored[inside].mean(axis=(1, 2)), 0.7, atol=1e-5)
    # The same ripple under a step of one level is real detail.
    kept = np.asarray(generator((images, np.zeros((1, 4, 4, 1), np.float32))))
    np.testing.assert_allclose(kept, images, atol=5e-4)


def test_quantiser_map_acts_where_it_says():
    generator = make_generator("shuffle_pico")
    images, _ = _inputs(1, 32, 128)
    fine, mixed = (np.full((1, 2, 8, 1), value, np.float32) for value in (-12.0, -12.0))
    mixed[:, :, 6:] = 7.0
    changed = np.abs(np.asarray(generator((images, mixed))) - np.asarray(generator((images, fine)))).max(axis=(0, 1, 3))
    assert changed[96:].min() > 1e-3
    # Two blocks away is out of reach of the bank, and the untrained trunk has no say yet.
    assert changed[:64].max() < 1e-6


# Luma only


def test_untrained_luma_generator_is_the_luma_part_of_the_other():
    luma, colour = (make_generator("shuffle_pico", channels=channels) for channels in (1, 3))
    images, quantiser_map = _inputs()
    grey = images[..., :1]
    restored = np.asarray(luma((grey, quantiser_map)))
    assert np.abs(restored - grey).max() > 0.01
    np.testing.assert_allclose(restored.repeat(3, axis=-1), colour((grey.repeat(3, -1), quantiser_map)), atol=1e-5)


def test_luma_generator_has_the_luma_bank_alone():
    luma, colour = (make_generator("shuffle_nano", channels=channels) for channels in (1, 3))
    assert luma.luma_bank.kernel.shape == colour.luma_bank.kernel.shape == (2, 2, 16, 64)
    assert luma.slope.shape == (64,)
    assert luma.gate_correction.kernel.shape == (1, 1, 32, 64)
    assert luma.pixel_correction.kernel.shape == (1, 1, 32, 16)
    names = [weight.path for weight in luma.weights]
    assert len(names) == len(colour.weights) - 4
    # What the other has besides: to_planes, the chroma bank and its transpose, to_pixels, and 32 coefficients.
    extra = 48 * 24 + 4 * 8 * 32 + 4 * 32 * 8 + 24 * 48 + 32 * (32 + 1 + 32 + 32 + 1) + 32 * 32
    assert luma.count_params() == colour.count_params() - extra


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels(channels):
    with pytest.raises(ValueError, match=f"Expected 1 channel or 3. Received: channels={channels}"):
        make_generator("shuffle_pico", channels=channels)


def test_files_from_before_there_were_channels_load():
    generator = make_generator("shuffle_pico")
    config = generator.get_config()
    assert config.pop("channels") == 3
    assert ShuffleGenerator.from_config(config).channels == 3


# fold, configurations, names


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", SHUFFLES)
def test_folded_generator_computes_the_same(name, channels):
    branched = make_generator(name, channels=channels)
    _randomise(branched, 0.02)
    folded = branched.fold()
    assert not [weight.path for weight in folded.weights if "pointwise" in weight.path or "identity" in weight.path]
    images, quantiser_map = _inputs()
    inputs = images[..., :channels], quantiser_map
    expected = np.asarray(branched(inputs))
    assert np.abs(expected - inputs[0]).max() > 0.05
    np.testing.assert_allclose(folded(inputs), expected, atol=2e-5)


def test_fold_leaves_the_source_alone_and_shares_nothing():
    branched = make_generator("shuffle_pico")
    _randomise(branched, 0.02)
    before = branched.get_weights()
    folded = branched.fold()
    inputs = _inputs(1, 16, 16)
    expected = np.asarray(folded(inputs))
    for weight, value in zip(branched.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
        weight.assign(np.zeros_like(value))
    np.testing.assert_array_equal(folded(inputs), expected)


def test_folding_twice_changes_nothing():
    branched = make_generator("shuffle_pico")
    _randomise(branched, 0.02)
    folded = branched.fold()
    inputs = _inputs(1, 16, 16)
    np.testing.assert_array_equal(folded.fold()(inputs), folded(inputs))


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("coarse_depth", [0, 2])
def test_arguments(depth, coarse_depth):
    generator = make_generator("shuffle_pico", filters=8, depth=depth, coarse_filters=12, coarse_depth=coarse_depth)
    convolutions = [layer for layer in generator._flatten_layers(False) if isinstance(layer, FoldingConv2D)]
    assert [layer.filters for layer in convolutions].count(8) == depth
    assert [layer.filters for layer in convolutions].count(12) == coarse_depth
    _randomise(generator, 0.05)
    inputs = _inputs(1, 32, 32)
    generator(inputs)
    assert all(layer.built for layer in generator._flatten_layers(False))
    np.testing.assert_allclose(generator.fold()(inputs), generator(inputs), atol=2e-5)


def test_config_is_the_constructors_arguments():
    arguments = {"filters": 6, "depth": 3, "coarse_filters": 10, "coarse_depth": 0, "folded": True, "channels": 1}
    arguments["name"] = "mine"
    generator = ShuffleGenerator(**arguments)
    config = generator.get_config()
    assert {key: config[key] for key in arguments} == arguments
    assert ShuffleGenerator.from_config(config).get_config() == config


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_size_multiple(name):
    generator = make_generator(name)
    assert generator.size_multiple == 16
    assert generator.name == name


def test_the_same_seed_makes_the_same_weights():
    def weights():
        keras.utils.set_random_seed(3)
        return make_generator("shuffle_pico").get_weights()

    for first, second in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Expected a generator of \['arcnn', .*'very_fast'\]. Received: name='unet'"):
        make_generator("unet")
