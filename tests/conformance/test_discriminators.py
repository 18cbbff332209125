"""Every discriminator x everything that is asked of a discriminator. An entry in `DISCRIMINATORS` gets all of it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import DISCRIMINATORS, make_discriminator
from keras_deartifact.models.patch_discriminator import probability

ROOT = Path(__file__).resolve().parents[2]
EVERY_DISCRIMINATOR = pytest.mark.parametrize("name", sorted(DISCRIMINATORS))
# Rounded up to what the discriminator divides by.
SIZES = [(1, 16, 16), (2, 17, 33), (3, 48, 80), (1, 41, 24)]


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.mixed_precision.set_global_policy("float32")


def _inputs(discriminator, batch=2, height=24, width=40, seed=0):
    multiple = discriminator.size_multiple
    height, width = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    channels = discriminator.channels
    images = np.random.default_rng(seed).random((2, batch, height, width, channels), np.float32)
    return images[0], images[1]


def _make(name, **arguments):
    """A small one, all variables moved, so that those that start as zeros matter."""
    discriminator = make_discriminator(name, **{"filters": 6, **arguments})
    random = np.random.default_rng(0)
    for weight in discriminator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.05, weight.shape))
    return discriminator


def _wrong(logits, target):
    """The mean over images, rows and columns of the binary cross-entropy."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logits), target), logits))


@EVERY_DISCRIMINATOR
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits(name, size):
    discriminator = _make(name)
    inputs = _inputs(discriminator, *size)
    logits = discriminator(inputs)
    batch, rows, columns, one = logits.shape
    assert (batch, one) == (size[0], 1)
    assert 1 <= rows <= inputs[0].shape[1]
    assert 1 <= columns <= inputs[0].shape[2]
    assert logits.dtype == tf.float32
    # Logits, not probabilities: they fall on both sides of zero or leave [0, 1].
    assert np.min(logits) < 0 or np.max(logits) > 1
    assert probability(logits).shape == (batch,)


@EVERY_DISCRIMINATOR
def test_images_do_not_see_each_other(name):
    discriminator = _make(name)
    inputs = _inputs(discriminator, 3)
    for training in (False, True):
        weights = discriminator.get_weights()
        together = np.asarray(discriminator(inputs, training=training))
        for index in range(3):
            discriminator.set_weights(weights)
            alone = discriminator(tuple(images[index : index + 1] for images in inputs), training=training)
            np.testing.assert_allclose(alone[0], together[index], atol=1e-5)


@EVERY_DISCRIMINATOR
def test_both_inputs_are_used(name):
    discriminator = _make(name)
    compressed, candidate = _inputs(discriminator)
    other, another = _inputs(discriminator, seed=1)
    logits = np.asarray(discriminator((compressed, candidate)))
    for changed in ((other, candidate), (compressed, another), (candidate, compressed)):
        assert np.abs(discriminator(changed) - logits).max() > 0.01


@EVERY_DISCRIMINATOR
def test_extreme_inputs_give_finite_logits(name):
    discriminator = _make(name)
    images = _inputs(discriminator)[0]
    for first, second in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        assert np.isfinite(discriminator((np.full_like(images, first), np.full_like(images, second)))).all()


@EVERY_DISCRIMINATOR
def test_grey_images(name):
    discriminator = _make(name, channels=1)
    assert discriminator(_inputs(discriminator)).shape[-1] == 1


@EVERY_DISCRIMINATOR
def test_config_is_the_constructors_arguments(name):
    arguments = {"filters": 5, "channels": 1, "name": "mine"}
    discriminator = DISCRIMINATORS[name](**arguments)
    config = discriminator.get_config()
    assert {key: config[key] for key in arguments} == arguments
    assert set(config) - set(arguments) == {"trainable", "dtype"}
    assert type(discriminator).from_config(config).get_config() == config


@EVERY_DISCRIMINATOR
def test_keras_file(name, tmp_path):
    discriminator = _make(name)
    discriminator.save(tmp_path / "discriminator.keras")
    loaded = keras.models.load_model(tmp_path / "discriminator.keras", safe_mode=True)
    assert type(loaded) is type(discriminator)
    assert loaded.get_config() == discriminator.get_config()
    for first, second in zip(loaded.weights, discriminator.weights, strict=True):
        assert (first.name, first.trainable) == (second.name, second.trainable)
        np.testing.assert_array_equal(first, second)
    inputs = _inputs(discriminator)
    for training in (False, True):
        np.testing.assert_array_equal(loaded(inputs, training=training), discriminator(inputs, training=training))


@EVERY_DISCRIMINATOR
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(name, policy, tmp_path):
    discriminator = _make(name)
    weights, inputs = discriminator.get_weights(), _inputs(discriminator)
    expected = np.asarray(discriminator(inputs, training=True))
    keras.mixed_precision.set_global_policy(policy)
    discriminator = _make(name)
    discriminator.set_weights(weights)
    assert {weight.dtype for weight in discriminator.weights} == {"float32"}
    logits = discriminator(inputs, training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    # 11 and 8 significant bits.
    assert np.abs(logits - expected).mean() < (2e-3 if policy == "mixed_float16" else 2e-2)
    # What was trained so is loaded elsewhere, where nobody sets a policy.
    logits = discriminator(inputs)
    discriminator.save(tmp_path / "discriminator.keras")
    keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "discriminator.keras")(inputs), logits)


@EVERY_DISCRIMINATOR
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_every_weight_and_pixel_gets_a_gradient(name, policy):
    keras.mixed_precision.set_global_policy(policy)
    discriminator = _make(name)
    compressed, candidate = (tf.constant(images) for images in _inputs(discriminator))
    with tf.GradientTape() as tape:
        tape.watch(candidate)
        # float16 loses gradients below 6e-8.
        loss = 1024.0 * _wrong(discriminator((compressed, candidate), training=True), 1.0)
    *gradients, to_candidate = tape.gradient(loss, [*discriminator.trainable_variables, candidate])
    for weight, gradient in zip(discriminator.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path
    assert np.isfinite(to_candidate).all()
    # The last rows and columns too: the generator hears of every pixel.
    assert (np.abs(to_candidate).max(axis=-1) > 0).all()


@EVERY_DISCRIMINATOR
def test_learns_to_tell_an_original(name):
    keras.utils.set_random_seed(1)
    discriminator = make_discriminator(name, filters=8)
    original, _ = _inputs(discriminator, 2, 32, 32)
    compressed = original.mean(axis=(1, 2), keepdims=True) + 0.3 * (
        original - original.mean(axis=(1, 2), keepdims=True)
    )
    optimizer = keras.optimizers.Adam(3e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = _wrong(discriminator((compressed, original), training=True), 1.0)
            loss += _wrong(discriminator((compressed, compressed), training=True), 0.0)
        gradients = tape.gradient(loss, discriminator.trainable_variables)
        optimizer.apply_gradients(zip(gradients, discriminator.trainable_variables, strict=True))
        return loss

    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert np.all(probability(discriminator((compressed, original))) > probability(discriminator((compressed,) * 2)))


@EVERY_DISCRIMINATOR
def test_the_same_seed_makes_the_same_weights(name):
    def weights():
        keras.utils.set_random_seed(3)
        return make_discriminator(name, filters=4).get_weights()

    for first, second in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, second)


_TWO_REPLICAS = """
    import sys
    import keras, numpy as np, tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    from keras_deartifact import models

    images = np.random.default_rng(0).random((3, 4, 32, 32, 3), np.float32)

    class Game(keras.Model):
        def __init__(self, discriminator):
            super().__init__()
            self.discriminator = discriminator
            self.built = True

        def train_step(self, data):
            compressed, restored, original = data

            def wrong(candidate, target):
                logits = self.discriminator((compressed, candidate), training=True)
                each = tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logits), target), logits)
                return tf.nn.compute_average_loss(tf.reduce_mean(each, axis=(1, 2, 3)))

            with tf.GradientTape() as tape:
                loss = wrong(original, 1.0) + wrong(restored, 0.0)
            variables = self.discriminator.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return {"loss": loss}

    def step(strategy, name):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            discriminator = models.make_discriminator(name, filters=4)
            game = Game(discriminator)
            # With plain gradient descent a step is the gradient; Adam would hide its size.
            game.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        before = discriminator.get_weights()
        game.fit(tf.data.Dataset.from_tensors(tuple(images)).repeat(), steps_per_epoch=2, shuffle=False, verbose=0)
        after = discriminator.get_weights()
        assert all(np.abs(a - b).max() > 1e-5 for a, b in zip(before, after, strict=True))
        # Every replica holds the same, what training moves by assignment too.
        for weight in discriminator.weights:
            for copy in getattr(weight.value, "values", ()):
                np.testing.assert_array_equal(copy, weight.numpy())
        return after

    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2, devices
    mirrored = tf.distribute.MirroredStrategy(devices)
    for name in sys.argv[1:]:
        one = step(tf.distribute.get_strategy(), name)
        two = step(mirrored, name)
        for first, second in zip(one, two, strict=True):
            np.testing.assert_allclose(first, second, atol=1e-5)
        print("equal:", name)
"""


def test_a_step_on_two_replicas_is_a_step_on_one():
    # In a process of its own, which has to say how many devices there are before TensorFlow starts.
    names = sorted(DISCRIMINATORS)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_TWO_REPLICAS), *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.splitlines() == [f"equal: {name}" for name in names]


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Expected a discriminator of \['patch', 'unet'\]. Received: name='stylegan'"):
        make_discriminator("stylegan")
