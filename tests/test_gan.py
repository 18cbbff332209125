import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import adversarial, losses, models
from keras_deartifact.gan import DeartifactGAN, psnr
from keras_deartifact.models.patch_discriminator import probability

ROOT = Path(__file__).resolve().parents[1]


def _generator(seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, **arguments)
    random = np.random.default_rng(seed)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.02, weight.shape))
    return generator


def _discriminator(seed=1, **arguments):
    discriminator = models.make_discriminator("patch", filters=4, **arguments)
    random = np.random.default_rng(seed)
    for weight in discriminator.weights:
        weight.assign(random.normal(0, 0.1, weight.shape))
    return discriminator


def _batch(count=4, side=32, seed=2):
    random = np.random.default_rng(seed)
    original = random.random((count, side, side, 3), np.float32)
    compressed = np.clip(original + random.normal(0, 0.1, original.shape), 0, 1).astype(np.float32)
    quantiser_map = random.uniform(3, 6, (count, side // 16, side // 16, 1)).astype(np.float32)
    return (compressed, quantiser_map), original, random.uniform(0.5, 2, count).astype(np.float32)


def _direct(optimizer=None, **settings):
    model = DeartifactGAN(_generator())
    model.compile(optimizer or keras.optimizers.SGD(1.0), **{"losses": {"mse": 1.0}, **settings})
    return model


def _gan(optimizers=None, **settings):
    model = DeartifactGAN(_generator(), _discriminator())
    model.compile(*(optimizers or (keras.optimizers.SGD(1.0), keras.optimizers.SGD(1.0))), **settings)
    return model


def _flat(weights):
    return np.concatenate([np.ravel(weight) for weight in weights])


# Values


def test_psnr_by_hand():
    original = np.zeros((2, 4, 4, 3), np.float32)
    restored = np.stack([np.full((4, 4, 3), 0.1, np.float32), np.full((4, 4, 3), 3.0, np.float32)])
    # 10 log10(1 / 0.01) = 20; beyond the range counts as its end: 10 log10(1 / 1) = 0.
    np.testing.assert_allclose(psnr(original, restored), [20.0, 0.0], atol=1e-4)
    # Equal images are capped, not infinite.
    np.testing.assert_allclose(psnr(original, original), [100.0, 100.0], atol=1e-3)


def test_direct_loss_by_hand():
    model = _direct()
    inputs, original, weight = _batch()
    restored = model.generator(inputs)
    per_image = np.asarray(losses.mse(original, restored))
    logs = model.train_step((inputs, original, weight))
    assert set(logs) == {"generator_loss", "pixel_loss", "psnr"}
    # The weights count in what is minimised, not in what is told of each loss.
    assert float(logs["generator_loss"]) == pytest.approx((weight * per_image).mean(), rel=1e-5)
    assert float(logs["pixel_loss"]) == pytest.approx(per_image.mean(), rel=1e-5)
    assert float(logs["psnr"]) == pytest.approx(np.mean(psnr(original, restored)), rel=1e-5)


def test_gan_losses_by_hand():
    model = _gan(
        losses={"mse": 2.0, "one_minus_ssim": 0.5},
        perceptual=lambda original, restored: keras.ops.mean(keras.ops.abs(original - restored), axis=(1, 2, 3)),
        perceptual_weight=0.3,
        adversarial_weight=0.1,
    )
    inputs, original, weight = _batch()
    restored = model.generator(inputs)
    real, fake = (model.discriminator((inputs[0], each)) for each in (original, restored))
    pixel = 2.0 * losses.mse(original, restored) + 0.5 * losses.one_minus_ssim(original, restored)
    expected = {
        "pixel_loss": pixel,
        "perceptual_loss": np.abs(original - restored).mean(axis=(1, 2, 3)),
        "adversarial_loss": adversarial.ADVERSARIAL["sub_patch"].generator(real, fake),
        "discriminator_loss": adversarial.ADVERSARIAL["sub_patch"].discriminator(real, fake),
        "discriminator_real": probability(real),
        "discriminator_fake": probability(fake),
        "psnr": psnr(original, restored),
    }
    expected["generator_loss"] = (
        weight * expected["pixel_loss"] + 0.3 * expected["perceptual_loss"] + 0.1 * expected["adversarial_loss"]
    )
    logs = model.train_step((inputs, original, weight))
    assert set(logs) == set(expected)
    for name, values in expected.items():
        assert float(logs[name]) == pytest.approx(float(np.mean(values)), rel=1e-5), name


def test_lambda_rises_along_the_ramp():
    model = _gan(losses={"mse": 1.0}, adversarial_weight=0.8, ramp_steps=4)
    found = []
    for step in (0, 1, 2, 4, 100):
        model.step.assign(step)
        found.append(float(model._ramp()))
    np.testing.assert_allclose(found, [0.0, 0.2, 0.4, 0.8, 0.8], rtol=1e-6)


def test_validation_measures_the_averaged_generator():
    model = _gan(losses={"mse": 1.0})
    inputs, original, weight = _batch()
    for variable in model.generator.weights:
        variable.assign(variable * 0.5)
    averaged = model(inputs)
    assert np.abs(averaged - model.generator(inputs)).max() > 0.01
    logs = model.test_step((inputs, original, weight))
    assert float(logs["psnr"]) == pytest.approx(float(np.mean(psnr(original, averaged))), rel=1e-5)
    similarity = 1.0 - losses.one_minus_ssim(original, np.clip(averaged, 0, 1))
    assert float(logs["ssim"]) == pytest.approx(float(np.mean(similarity)), rel=1e-5)


# Steps


def test_each_network_descends_its_own_loss():
    """Plain SGD: the change is the gradient, computed here again from the losses' definition."""
    model = _gan(losses={"mse": 1.0}, adversarial_weight=0.1)
    inputs, original, _ = _batch()
    before = [network.get_weights() for network in (model.generator, model.discriminator)]
    loss = adversarial.ADVERSARIAL["sub_patch"]
    gradients = []
    for network in (model.generator, model.discriminator):
        with tf.GradientTape() as tape:
            restored = model.generator(inputs)
            real, fake = (model.discriminator((inputs[0], each)) for each in (original, restored))
            if network is model.generator:
                value = tf.reduce_mean(losses.mse(original, restored) + 0.1 * loss.generator(real, fake))
            else:
                value = tf.reduce_mean(loss.discriminator(real, fake))
        gradients.append(tape.gradient(value, [weight.value for weight in network.trainable_variables]))
    model.train_step((inputs, original))
    for network, weights, gradient in zip((model.generator, model.discriminator), before, gradients, strict=True):
        assert np.abs(_flat(gradient)).max() > 0
        np.testing.assert_allclose(_flat(weights) - _flat(network.get_weights()), _flat(gradient), atol=2e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_is_clipped_as_a_whole(seed):
    inputs, original, _ = _batch(seed=seed)
    changes = []
    for clip in (None, 1e-4, 1e3):
        model = _direct(keras.optimizers.SGD(100.0), gradient_clip=clip)
        before = _flat(model.generator.get_weights())
        model.train_step((inputs, original))
        changes.append(_flat(model.generator.get_weights()) - before)
    free, clipped, loose = changes
    # A step is the learning rate times the gradient, whose norm is above the limit here.
    assert np.linalg.norm(free) > 100.0 * 5e-4
    assert np.linalg.norm(clipped) == pytest.approx(100.0 * 1e-4, rel=1e-2)
    np.testing.assert_allclose(clipped, free * (1e-2 / np.linalg.norm(free)), atol=1e-6)
    np.testing.assert_array_equal(loose, free)


def test_running_mean_of_the_weights_by_hand():
    model = _direct(ema_momentum=0.5)
    inputs, original, _ = _batch()
    expected = _flat(model.generator.get_weights())
    for step in range(12):
        model.train_step((inputs, original))
        momentum = min(0.5, (1 + step) / (10 + step))
        expected = momentum * expected + (1 - momentum) * _flat(model.generator.get_weights())
    assert int(model.step) == 12
    np.testing.assert_allclose(_flat(model.averaged.get_weights()), expected, atol=1e-6)
    assert not model.averaged.trainable_variables


def test_perceptual_loss_sees_another_part_each_step():
    seen = []

    def perceptual(original, restored):
        seen.append((np.asarray(original), np.asarray(restored)))
        return keras.ops.mean(keras.ops.square(original - restored), axis=(1, 2, 3))

    model = _direct(perceptual=perceptual, perceptual_shift=8)
    (compressed, quantiser_map), _, _ = _batch()
    rows, columns = np.mgrid[:32, :32].astype(np.float32)
    original = np.stack([rows, columns, rows * 0], -1)[None].repeat(4, 0)
    for _ in range(6):
        model.train_step(((compressed, quantiser_map), original))
    corners = {tuple(part[0, 0, 0, :2].astype(int)) for part, _ in seen}
    assert all(part.shape == restored.shape == (4, 24, 24, 3) for part, restored in seen)
    assert len(corners) > 2
    assert all(0 <= corner <= 8 for pair in corners for corner in pair)
    # The same step sees the same part: a run that goes on is the uninterrupted one.
    model.step.assign(0)
    model.train_step(((compressed, quantiser_map), original))
    np.testing.assert_array_equal(seen[-1][0], seen[0][0])


# Precision


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_follows_float32(policy):
    changes = {}
    for dtype in ("float32", policy):
        scaled = [keras.optimizers.SGD(0.1) for _ in range(2)]
        if dtype == "mixed_float16":
            scaled = [keras.optimizers.LossScaleOptimizer(each, initial_scale=1024.0) for each in scaled]
        model = DeartifactGAN(_generator(dtype=dtype), _discriminator(dtype=dtype))
        model.compile(*scaled, losses={"mse": 1.0}, adversarial_weight=0.1, gradient_clip=0.01)
        before = _flat(model.get_weights())
        inputs, original, weight = _batch()
        logs = model.train_step((inputs, original, weight))
        assert all(np.isfinite(value) for value in logs.values())
        changes[dtype] = _flat(model.get_weights()) - before
    # The direction is right: 11 and 8 significant bits.
    cosine = changes["float32"] @ changes[policy] / np.prod([np.linalg.norm(change) for change in changes.values()])
    assert cosine > (0.99 if policy == "mixed_float16" else 0.9)


def test_overflow_of_float16_skips_the_step_and_lowers_the_scale():
    model = _direct(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=3e38), gradient_clip=1.0
    )
    before = _flat(model.generator.get_weights())
    inputs, original, _ = _batch()
    model.train_step((inputs, original * 1e6))
    np.testing.assert_array_equal(_flat(model.generator.get_weights()), before)
    assert float(model.optimizer.dynamic_scale) == pytest.approx(1.5e38)
    # The step counts nevertheless: an epoch is a number of batches.
    assert int(model.step) == 1
    assert int(model.optimizer.iterations) == 0


# Saving


def test_state_is_saved_whole(tmp_path):
    def fresh(seed):
        model = DeartifactGAN(_generator(seed), _discriminator(seed))
        model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3), losses={"mse": 1.0})
        return model

    model, other = fresh(0), fresh(5)
    inputs, original, _ = _batch()
    for _ in range(3):
        model.train_step((inputs, original))
    model.save_weights(tmp_path / "state.weights.h5")
    other.load_weights(tmp_path / "state.weights.h5")
    for trainer in (model, other):
        trainer.train_step((inputs, original))
    for name in ("weights", "optimizer", "discriminator_optimizer"):
        first, second = (
            getattr(trainer, name) if name == "weights" else getattr(trainer, name).variables
            for trainer in (model, other)
        )
        assert len(first) > 10, name
        for one, two in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=one.path)
    assert int(other.step) == 4


def test_configuration_round_trip():
    model = _gan(losses={"mse": 1.0})
    again = DeartifactGAN.from_config(json.loads(json.dumps(model.get_config())))
    for network in ("generator", "discriminator"):
        assert getattr(again, network).get_config() == getattr(model, network).get_config()
    again.set_weights(model.get_weights())
    inputs, _, _ = _batch()
    np.testing.assert_array_equal(again(inputs), model(inputs))
    alone = DeartifactGAN.from_config(_direct().get_config())
    assert alone.discriminator is None


# Many devices

_STEP = """
    import sys
    import keras, numpy as np, tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    from keras_deartifact import models
    from keras_deartifact.gan import DeartifactGAN

    seed, discriminator, loss = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    precision = sys.argv[4]
    random = np.random.default_rng(seed)
    original = random.random((2, 8, 32, 32, 3), np.float32)
    # Unequal halves: clipping or averaging each replica by itself would give something else.
    noise = random.normal(0, 0.05, original.shape) * np.where(np.arange(8) < 4, 1, 6)[:, None, None, None]
    compressed = np.clip(original + noise, 0, 1).astype(np.float32)
    maps = random.uniform(3, 6, (2, 8, 2, 2, 1)).astype(np.float32)
    weight = random.uniform(0.5, 2, (2, 8)).astype(np.float32)

    def perceptual(original, restored):
        return keras.ops.mean(keras.ops.abs(original - restored), axis=(1, 2, 3))

    def steps(strategy):
        keras.utils.set_random_seed(seed)
        noise = np.random.default_rng(seed)
        with strategy.scope():
            generator = models.make_generator("shuffle_pico", filters=8, depth=2, dtype=precision)
            critic = models.make_discriminator(discriminator, filters=8, dtype=precision)
            for variable in [*generator.weights, *critic.trainable_weights]:
                variable.assign(variable.numpy() + noise.normal(0, 0.05, variable.shape))
            model = DeartifactGAN(generator, critic)
            # SGD's step is the gradient itself; Adam's first would hide its scale.
            optimizers = [keras.optimizers.SGD(0.5, momentum=0.9) for _ in range(2)]
            if precision == "mixed_float16":
                optimizers = [keras.optimizers.LossScaleOptimizer(each, initial_scale=256.0) for each in optimizers]
            model.compile(*optimizers, losses={"mse": 1.0, "one_minus_ssim": 0.1}, perceptual=perceptual,
                          perceptual_shift=4, adversarial=loss, adversarial_weight=0.1, gradient_clip=0.02)
        before = [model.generator.get_weights(), critic.get_weights()]
        data = tf.data.Dataset.from_tensor_slices(((compressed, maps), original, weight))
        history = model.fit(data, epochs=1, shuffle=False, verbose=0).history
        after = [model.generator.get_weights(), critic.get_weights(), model.averaged.get_weights()]
        return before, after, history

    flat = lambda weights: np.concatenate([np.ravel(weight) for weight in weights])
    before, one, logs = steps(tf.distribute.get_strategy())
    _, two, logs_two = steps(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for name, start, first, second in zip(("generator", "discriminator"), before, one, two):
        moved = np.abs(flat(first) - flat(start)).max()
        apart = np.abs(flat(first) - flat(second)).max()
        assert moved > 1e-3, (name, moved)
        limit = 2e-6 if precision == "float32" else 2e-4
        assert apart <= limit, (name, moved, apart)
    assert np.abs(flat(one[2]) - flat(two[2])).max() <= 2e-4
    for name, values in logs.items():
        np.testing.assert_allclose(values, logs_two[name], rtol=1e-3 if precision != "float32" else 1e-5, err_msg=name)
    print("equal")
"""


@pytest.mark.parametrize(
    ("seed", "discriminator", "loss", "precision"),
    [
        (0, "patch", "sub_patch", "float32"),
        pytest.param(1, "patch", "relativistic", "float32", marks=pytest.mark.slow),
        pytest.param(2, "unet", "lsgan", "float32", marks=pytest.mark.slow),
        pytest.param(3, "patch", "per_pixel", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_step_like_one_device(seed, discriminator, loss, precision):
    """The same global batch, clipped gradients, weighted samples: generator, discriminator, running mean and logs."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_STEP), str(seed), discriminator, loss, precision],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == "equal\n"


# Errors


def test_losses_are_needed():
    model = DeartifactGAN(_generator())
    with pytest.raises(ValueError, match=r"Expected losses, or a perceptual one. Received: losses=None"):
        model.compile(keras.optimizers.SGD())


def test_unknown_adversarial_loss():
    model = DeartifactGAN(_generator(), _discriminator())
    with pytest.raises(ValueError, match=r"Expected a loss of \[.*'sub_patch'\]. Received: adversarial='hinge'"):
        model.compile(keras.optimizers.SGD(), keras.optimizers.SGD(), losses={"mse": 1.0}, adversarial="hinge")


@pytest.mark.parametrize("optimizers", [1, 2])
def test_every_network_needs_an_optimizer(optimizers):
    model = DeartifactGAN(_generator(), _discriminator() if optimizers == 1 else None)
    with pytest.raises(ValueError, match="Expected an optimizer for each network. Received: discriminator="):
        model.compile(*[keras.optimizers.SGD() for _ in range(optimizers)], losses={"mse": 1.0})


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=rf"Expected a momentum in \[0, 1\). Received: ema_momentum={momentum}"):
        _direct(ema_momentum=momentum)
