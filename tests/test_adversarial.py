import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.adversarial import ADVERSARIAL, AdversarialLoss

EVERY_LOSS = pytest.mark.parametrize("name", sorted(ADVERSARIAL))
EVERY_SIDE = pytest.mark.parametrize("side", AdversarialLoss._fields)

LN_3 = np.log(3.0)


def _logits(*values):
    """Logits of one image, its positions in a row."""
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


@pytest.fixture(scope="module")
def logits():
    generator = np.random.default_rng(0)
    shape = (3, 4, 5, 1)
    return generator.normal(0.5, 2.0, shape).astype(np.float32), generator.normal(-1.0, 3.0, shape).astype(np.float32)


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def _mean(values):
    return values.mean(axis=(1, 2, 3))


def _relativistic(winner, loser):
    return -_mean(np.log(_sigmoid(winner - _mean(loser)[:, None, None, None]))) - _mean(
        np.log(1 - _sigmoid(loser - _mean(winner)[:, None, None, None]))
    )


# The equations as the papers have them, in float64, with what overflows left in.
NAIVE = {
    "sub_patch": AdversarialLoss(
        lambda real, fake: -np.log(_mean(_sigmoid(fake))),
        lambda real, fake: -np.log(_mean(_sigmoid(real))) - np.log(1 - _mean(_sigmoid(fake))),
    ),
    "per_pixel": AdversarialLoss(
        lambda real, fake: _mean(-np.log(_sigmoid(fake))),
        lambda real, fake: _mean(-np.log(_sigmoid(real))) + _mean(-np.log(1 - _sigmoid(fake))),
    ),
    "lsgan": AdversarialLoss(
        lambda real, fake: _mean((fake - 1) ** 2) / 2,
        lambda real, fake: (_mean((real - 1) ** 2) + _mean(fake**2)) / 2,
    ),
    "relativistic": AdversarialLoss(lambda real, fake: _relativistic(fake, real), _relativistic),
}


def test_sub_patch_by_hand():
    # Sigmoids 3/4 and 1/2, their mean 5/8; sigmoids 1/4 and 1/2, their mean 3/8.
    real, fake = _logits(LN_3, 0.0), _logits(-LN_3, 0.0)
    loss = ADVERSARIAL["sub_patch"]
    np.testing.assert_allclose(loss.generator(real, fake), [-np.log(3 / 8)], rtol=1e-6)
    np.testing.assert_allclose(loss.discriminator(real, fake), [-np.log(5 / 8) - np.log(5 / 8)], rtol=1e-6)


def test_per_pixel_by_hand():
    # The same sigmoids, but the mean of their logarithms.
    real, fake = _logits(LN_3, 0.0), _logits(-LN_3, 0.0)
    loss = ADVERSARIAL["per_pixel"]
    np.testing.assert_allclose(loss.generator(real, fake), [-np.log(1 / 4 * 1 / 2) / 2], rtol=1e-6)
    np.testing.assert_allclose(loss.discriminator(real, fake), [-np.log(3 / 4 * 1 / 2)], rtol=1e-6)


def test_lsgan_by_hand():
    # Real less 1: 0 and 2, mean square 2. Fake: 0 and 4, mean square 8; less 1: -1 and 3, mean square 5.
    real, fake = _logits(1.0, 3.0), _logits(0.0, 4.0)
    loss = ADVERSARIAL["lsgan"]
    np.testing.assert_allclose(loss.generator(real, fake), [5 / 2], rtol=1e-6)
    np.testing.assert_allclose(loss.discriminator(real, fake), [(2 + 8) / 2], rtol=1e-6)


def test_relativistic_by_hand():
    # The mean of real is ln 3, that of fake 0. Real less 0: sigmoids 9/10 and 1/2. Fake less ln 3: 1/2 and 1/10.
    real, fake = _logits(2 * LN_3, 0.0), _logits(LN_3, -LN_3)
    loss = ADVERSARIAL["relativistic"]
    # -(log 9/10 + log 1/2) / 2 - (log(1 - 1/2) + log(1 - 1/10)) / 2, and -(log 1/2 + log 1/10) / 2 - (...) / 2.
    np.testing.assert_allclose(loss.discriminator(real, fake), [-np.log(9 / 20)], rtol=1e-6)
    np.testing.assert_allclose(loss.generator(real, fake), [-np.log(1 / 20)], rtol=1e-6)


@EVERY_LOSS
@EVERY_SIDE
def test_against_numpy(name, side, logits):
    expected = getattr(NAIVE[name], side)(*(each.astype(np.float64) for each in logits))
    value = getattr(ADVERSARIAL[name], side)(*logits)
    assert tuple(value.shape) == (3,)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_sub_patch_equals_per_pixel_where_positions_agree():
    real, fake = np.full((1, 3, 4, 1), 0.7, np.float32), np.full((1, 3, 4, 1), -1.3, np.float32)
    for side in AdversarialLoss._fields:
        values = [getattr(ADVERSARIAL[name], side)(real, fake) for name in ("sub_patch", "per_pixel")]
        np.testing.assert_allclose(*values, rtol=1e-6)


@EVERY_LOSS
def test_each_side_wants_the_opposite(name):
    """The better the discriminator tells them apart, the lower its loss and the higher the generator's."""
    margins = [(0.5 + margin, 0.5 - margin) for margin in (-0.4, 0.0, 0.4)]
    pairs = [
        (np.full((1, 2, 2, 1), real, np.float32), np.full((1, 2, 2, 1), fake, np.float32)) for real, fake in margins
    ]
    assert np.all(np.diff([float(ADVERSARIAL[name].discriminator(*pair)[0]) for pair in pairs]) < 0)
    assert np.all(np.diff([float(ADVERSARIAL[name].generator(*pair)[0]) for pair in pairs]) > 0)


@EVERY_LOSS
@EVERY_SIDE
def test_images_do_not_see_each_other(name, side, logits):
    loss = getattr(ADVERSARIAL[name], side)
    alone = [np.asarray(loss(*(each[index : index + 1] for each in logits)))[0] for index in range(3)]
    np.testing.assert_allclose(loss(*logits), alone, rtol=1e-6)


@EVERY_LOSS
@EVERY_SIDE
@pytest.mark.parametrize("real", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("fake", [-1e4, 0.0, 1e4])
def test_extreme_logits(name, side, real, fake):
    real, fake = (tf.reshape(tf.constant([extreme, extreme, 0.5]), (1, 1, 3, 1)) for extreme in (real, fake))
    with tf.GradientTape() as tape:
        tape.watch([real, fake])
        value = getattr(ADVERSARIAL[name], side)(real, fake)
    gradients = tape.gradient(value, [real, fake], unconnected_gradients="zero")
    for each in (value, *gradients):
        assert np.isfinite(each).all()


@pytest.mark.parametrize("name", ["sub_patch", "per_pixel", "relativistic"])
def test_extreme_values(name):
    wrong, right = np.full((1, 2, 2, 1), -1e4, np.float32), np.full((1, 2, 2, 1), 1e4, np.float32)
    # Every logarithm of a sigmoid of -l is -l; relative to each other the logits are twice as far apart.
    far = 2.0 if name == "relativistic" else 1.0
    np.testing.assert_allclose(ADVERSARIAL[name].discriminator(wrong, right), [far * 2e4], rtol=1e-6)
    np.testing.assert_allclose(ADVERSARIAL[name].discriminator(right, wrong), [0.0], atol=1e-6)


def test_the_sub_patch_gradient_prefers_what_looks_real():
    fake = tf.constant(_logits(0.0, -4.0))
    with tf.GradientTape() as tape:
        tape.watch(fake)
        value = ADVERSARIAL["sub_patch"].generator(fake, fake)
    # d(-log sum s)/dl = -s (1 - s) / sum s: that of the better position is 14 times as large.
    sigmoid = _sigmoid(np.array([0.0, -4.0]))
    gradient = np.ravel(tape.gradient(value, fake))
    np.testing.assert_allclose(gradient, -sigmoid * (1 - sigmoid) / sigmoid.sum(), rtol=1e-5)
    assert gradient[0] < 10 * gradient[1] < 0


@EVERY_LOSS
@EVERY_SIDE
def test_half_precision_and_unknown_sizes(name, side, logits):
    loss = getattr(ADVERSARIAL[name], side)
    half = [each.astype(np.float16) for each in logits]
    traced = tf.function(loss, input_signature=[tf.TensorSpec((None, None, None, 1), tf.float16)] * 2)
    value = traced(*half)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(value, loss(*(each.astype(np.float32) for each in half)), rtol=1e-5)
