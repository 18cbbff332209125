"""A larger generator that begins as a smaller one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import ShuffleGenerator, make_generator
from keras_deartifact.models.growth import grow

SMALL = {"filters": 6, "depth": 2, "coarse_filters": 10, "coarse_depth": 1}
LARGER = {
    "wider": {"filters": 10, "coarse_filters": 12},
    "deeper": {"depth": 5, "coarse_depth": 3},
    "both": {"filters": 9, "depth": 4, "coarse_filters": 16, "coarse_depth": 2},
    "the same": {},
}


def _made(seed=0, **arguments):
    """A generator whose every weight was moved."""
    generator = make_generator("shuffle_pico", **{**SMALL, **arguments})
    random = np.random.default_rng(seed)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.05, weight.shape))
    return generator


def _inputs(channels=3):
    random = np.random.default_rng(1)
    images = random.random((2, 48, 64, channels), np.float32)
    return images, random.uniform(0, 7, (2, 3, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("size", LARGER)
def test_it_computes_the_same(size, folded, channels):
    small = _made(channels=channels)
    large = _made(2, channels=channels, **LARGER[size])
    inputs = _inputs(channels)
    wanted = small(inputs).numpy()
    assert np.abs(large(inputs).numpy() - wanted).max() > 0.01
    grow(large, small.fold() if folded else small)
    np.testing.assert_allclose(large(inputs).numpy(), wanted, atol=2e-6)


def test_what_is_new_learns():
    small = _made()
    large = _made(2, **LARGER["both"])
    grow(large, small)
    (images, steps), before = _inputs(), large.get_weights()
    optimizer = keras.optimizers.Adam(1e-3)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((large((images, steps)) - 0.5) ** 2)
        optimizer.apply(tape.gradient(loss, large.trainable_variables), large.trainable_variables)
    moved = {
        weight.path: np.abs(weight.numpy() - value).max() for weight, value in zip(large.weights, before, strict=True)
    }
    assert not [path for path, distance in moved.items() if distance == 0.0]


@pytest.mark.parametrize(
    "start",
    [{"filters": 11}, {"depth": 5}, {"coarse_filters": 20}, {"coarse_depth": 3}, {"coarse_depth": 0}, {"channels": 1}],
)
def test_what_does_not_fit_is_refused(start):
    large = _made(**LARGER["both"])
    before = large.get_weights()
    with pytest.raises(ValueError, match=r"no larger than .*'filters': 9.* Received: .*'depth'"):
        grow(large, _made(**start))
    assert all(np.array_equal(a, b) for a, b in zip(before, large.get_weights(), strict=True))


def test_a_folded_one_has_no_room():
    with pytest.raises(ValueError, match="'folded': True"):
        grow(_made(folded=True), _made())


def test_a_mixed_policy_takes_precision_from_the_trunk_alone():
    images, steps = _inputs()
    generator = make_generator("shuffle_pico", dtype="mixed_bfloat16")
    assert isinstance(generator, ShuffleGenerator)
    halves = {layer.compute_dtype for layer in generator.integer_layers}
    assert halves == {"bfloat16"}
    # As it is made, nothing of the trunk counts yet: a classical filter, in float32.
    single = make_generator("shuffle_pico")
    restored = generator((images, steps))
    assert restored.dtype == "float32"
    np.testing.assert_allclose(restored, single((images, steps)), atol=1e-6)
