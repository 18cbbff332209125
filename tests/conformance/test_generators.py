"""Every generator x everything that is asked of a generator. An entry in `GENERATORS` gets all of it.

Each is there twice: as its name makes it, and on luma, conditioned by the quantiser map where that is a choice, and
with few blocks where it repeats them, which is tried at full depth already.
"""

import ast
import inspect
import itertools
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

from export import networks, onnx, pictures, saved_model, tflite
from keras_deartifact import engines, image, losses, models
from keras_deartifact.models import GENERATORS, make_generator

ROOT = Path(__file__).resolve().parents[2]


def _takes(name, argument):
    return argument in inspect.signature(GENERATORS[name]).parameters


def _luma(name):
    wanted = {"channels": 1, "conditioned": True, "blocks": 2}
    return {argument: value for argument, value in wanted.items() if argument == "channels" or _takes(name, argument)}


VARIANTS = {name: (name, {}) for name in GENERATORS} | {f"{name}_luma": (name, _luma(name)) for name in GENERATORS}
EVERY_GENERATOR = pytest.mark.parametrize("variant", sorted(VARIANTS))
# Whole training steps take long to compile: by default those of the smallest.
EVERY_GENERATOR_TRAINED = pytest.mark.parametrize(
    "variant",
    [pytest.param(variant, marks=[pytest.mark.slow] * (variant != "shuffle_pico")) for variant in sorted(VARIANTS)],
)
SIZES = [(1, 16, 16), (2, 48, 80)]


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.mixed_precision.set_global_policy("float32")


def _make(variant):
    name, arguments = VARIANTS[variant]
    return make_generator(name, **arguments)


def _inputs(batch, height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.random((batch, height, width, channels), np.float32)
    return images, generator.uniform(0, 7, (batch, height // 16, width // 16, 1)).astype(np.float32)


def _perturb(generator, seed=0):
    """Moves every variable, by a tenth of its spread or, so that it matters, by 0.02 where it starts as a constant."""
    random = np.random.default_rng(seed)
    for weight in generator.weights:
        value = weight.numpy()
        weight.assign(value + random.normal(0, 0.1 * value.std() or 0.02, weight.shape))
    return generator


@pytest.fixture(scope="module")
def generator_of():
    """`generator_of(variant)`: one with all variables moved, made once."""
    made = {}

    def get(variant):
        if variant not in made:
            made[variant] = _perturb(_make(variant))
        return made[variant]

    return get


def _assert_same(restorer, generator, tolerance):
    """A restorer gives what its generator gives, on RGB whatever the generator's channels.

    The tolerance is for values up to 1: kernels add up in another order from one processor to the next.
    """
    for batch, height, width in SIZES:
        frames, quantiser_map = _inputs(batch, height, width)
        images = frames if generator.channels == 3 else image.rgb_to_ycbcr(frames)[..., :1]
        change = np.asarray(generator((images, quantiser_map))) - images
        assert np.abs(change).max() > 0.01
        wanted = frames + change
        within = tolerance * max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(restorer(frames, quantiser_map[..., 0]), wanted, atol=within, rtol=0)


@EVERY_GENERATOR
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_size_is_kept(variant, size, generator_of):
    images, quantiser_map = _inputs(*size, generator_of(variant).channels)
    restored = generator_of(variant)((images, quantiser_map))
    assert tuple(restored.shape) == images.shape
    assert np.isfinite(restored).all()


@EVERY_GENERATOR
def test_channels(variant):
    generator = _make(variant)
    assert generator.channels == (1 if variant.endswith("_luma") else 3)
    assert generator.size_multiple == 16


@EVERY_GENERATOR
def test_images_do_not_see_each_other(variant, generator_of):
    images, quantiser_map = _inputs(2, 48, 80, generator_of(variant).channels)
    together = np.asarray(generator_of(variant)((images, quantiser_map)))
    alone = [generator_of(variant)((images[i : i + 1], quantiser_map[i : i + 1]))[0] for i in range(2)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@EVERY_GENERATOR
def test_the_map_is_used_or_ignored(variant, generator_of):
    name, arguments = VARIANTS[variant]
    images, quantiser_map = _inputs(1, 48, 80, generator_of(variant).channels)
    restored = [np.asarray(generator_of(variant)((images, quantiser_map + shift))) for shift in (0.0, 1.0)]
    difference = np.abs(restored[0] - restored[1]).max()
    if _takes(name, "conditioned") and not arguments.get("conditioned"):
        assert difference == 0.0
    else:
        assert difference > 0.01


@EVERY_GENERATOR
def test_extreme_inputs_give_finite_results(variant, generator_of):
    for value, log2_step in itertools.product((0.0, 1.0), (-1.0, 8.0)):
        images = np.full((1, 32, 32, generator_of(variant).channels), value, np.float32)
        quantiser_map = np.full((1, 2, 2, 1), log2_step, np.float32)
        assert np.isfinite(generator_of(variant)((images, quantiser_map))).all()


@EVERY_GENERATOR
def test_config_round_trip(variant):
    generator = _make(variant)
    copy = type(generator).from_config(generator.get_config())
    assert copy.get_config() == generator.get_config()


@EVERY_GENERATOR
def test_keras_file(variant, generator_of, tmp_path):
    generator_of(variant).save(tmp_path / "generator.keras")
    loaded = keras.models.load_model(tmp_path / "generator.keras", safe_mode=True)
    assert type(loaded) is type(generator_of(variant))
    inputs = _inputs(2, 48, 80, loaded.channels)
    np.testing.assert_array_equal(loaded(inputs), generator_of(variant)(inputs))
    _assert_same(engines.load(tmp_path / "generator.keras"), generator_of(variant), 1e-6)


@EVERY_GENERATOR
def test_litert(variant, generator_of, tmp_path):
    (tmp_path / "generator.tflite").write_bytes(tflite.convert(generator_of(variant)))
    # A file without the weights would be a few kB.
    assert (tmp_path / "generator.tflite").stat().st_size > 4 * sum(w.shape.num_elements() for w in _folded(variant))
    _assert_same(engines.load(tmp_path / "generator.tflite"), generator_of(variant), 1e-5)


# As a share of what the network changes, by the root of the mean square. Weights that were moved at random round worse
# than trained ones (`test_tflite.py`).
LOSS = {"float16": 0.01, "dynamic_int8": 0.25, "int8": 0.25}


@pytest.fixture(scope="module")
def examples():
    return pictures.degraded(pictures.exactly(pictures.load(count=1), 48, 80), qualities=(10, 50), crfs=())


@EVERY_GENERATOR
@pytest.mark.parametrize("precision", sorted(LOSS))
def test_litert_of_lower_precision(variant, precision, generator_of, examples, tmp_path):
    generator = generator_of(variant)
    given = pictures.network_inputs(examples, generator.channels)
    (tmp_path / "generator.tflite").write_bytes(tflite.convert(generator, precision, examples=given))
    frames = image.to_float(np.stack([each.compressed for each in examples]))
    change = np.concatenate([np.asarray(generator(each)) - each[0] for each in given])
    expected = np.clip(frames + change, 0, 1)
    maps = np.stack([each.quantiser_map for each in examples])
    restored = np.clip(engines.load(tmp_path / "generator.tflite")(frames, maps), 0, 1)
    lost = np.sqrt(np.mean((restored - expected) ** 2) / np.mean((expected - frames) ** 2))
    assert 0 < lost < LOSS[precision]


def _folded(variant):
    generator = _make(variant)
    return (generator.fold() if hasattr(generator, "fold") else generator).weights


@EVERY_GENERATOR
def test_saved_model(variant, generator_of, tmp_path):
    saved_model.write(networks.for_deployment(generator_of(variant)), tmp_path / "1")
    _assert_same(engines.load(tmp_path / "1"), generator_of(variant), 1e-6)


@pytest.mark.slow
@EVERY_GENERATOR
def test_saved_model_with_keras_own_names(variant, generator_of, tmp_path):
    generator_of(variant)(_inputs(*SIZES[0], generator_of(variant).channels))  # Keras wants to see it called before.
    generator_of(variant).export(tmp_path / "saved.v1", verbose=False)
    _assert_same(engines.load(tmp_path / "saved.v1"), generator_of(variant), 1e-6)


@EVERY_GENERATOR
def test_onnx(variant, generator_of, tmp_path):
    content = onnx.convert(networks.for_deployment(generator_of(variant)), {})
    (tmp_path / "generator.onnx").write_bytes(content)
    _assert_same(engines.load(tmp_path / "generator.onnx", provider="cpu"), generator_of(variant), 1e-5)
    (tmp_path / "half.onnx").write_bytes(onnx.to_float16(content))
    # 11 significant bits.
    _assert_same(engines.load(tmp_path / "half.onnx", provider="cpu"), generator_of(variant), 2e-2)


@EVERY_GENERATOR
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(variant, policy, generator_of, tmp_path):
    images, quantiser_map = _inputs(2, 48, 80, generator_of(variant).channels)
    expected = np.asarray(generator_of(variant)((images, quantiser_map)))
    keras.mixed_precision.set_global_policy(policy)
    generator = _make(variant)
    generator.set_weights(generator_of(variant).get_weights())
    assert {weight.dtype for weight in generator.weights} == {"float32"}
    restored = np.asarray(tf.cast(generator((images, quantiser_map)), tf.float32))
    assert np.isfinite(restored).all()
    # 11 and 8 significant bits.
    assert np.abs(restored - expected).mean() < (2e-3 if policy == "mixed_float16" else 2e-2)
    for log2_step in (-1.0, 8.0):
        assert np.isfinite(generator((images, np.full_like(quantiser_map, log2_step)))).all()
    # What was trained so is loaded elsewhere, where nobody sets a policy.
    generator.save(tmp_path / "generator.keras")
    keras.mixed_precision.set_global_policy("float32")
    loaded = keras.models.load_model(tmp_path / "generator.keras")
    np.testing.assert_array_equal(tf.cast(loaded((images, quantiser_map)), tf.float32), restored)


@EVERY_GENERATOR
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_every_weight_gets_a_gradient(variant, policy):
    keras.mixed_precision.set_global_policy(policy)
    generator = _perturb(_make(variant))
    with tf.GradientTape() as tape:
        inputs = _inputs(2, 32, 48, generator.channels)
        original = _inputs(2, 32, 48, generator.channels, seed=1)[0]
        loss = tf.reduce_mean(losses.mse(original, tf.cast(generator(inputs), tf.float32)))
        loss *= 1024.0  # float16 loses gradients below 6e-8.
    gradients = tape.gradient(loss, generator.trainable_variables)
    assert len(gradients) == len(generator.weights)
    for weight, gradient in zip(generator.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


@EVERY_GENERATOR_TRAINED
def test_fit_learns(variant):
    """A few steps on one batch bring the loss down; nothing in the architecture stands in the way at the start."""
    keras.utils.set_random_seed(1)
    generator = _make(variant)
    original = np.repeat(np.repeat(_inputs(2, 8, 16, generator.channels)[0], 4, axis=1), 4, axis=2)
    compressed = np.clip(original + np.random.default_rng(0).normal(0, 0.05, original.shape), 0, 1).astype(np.float32)
    data = tf.data.Dataset.from_tensors(((compressed, np.full((2, 2, 4, 1), 4.0, np.float32)), original)).repeat()
    # The paper's generator does not stand 1e-3 without warming up: its tanh saturates.
    generator.compile(keras.optimizers.Adam(2e-4), losses.mse, jit_compile=False)
    history = generator.fit(data, epochs=2, steps_per_epoch=8, shuffle=False, verbose=0).history["loss"]
    assert history[1] < history[0]


@pytest.mark.parametrize(
    "path",
    [ROOT / "keras_deartifact/losses.py", *sorted((ROOT / "keras_deartifact/models").glob("*.py"))],
    ids=lambda path: path.name,
)
def test_models_and_losses_run_on_every_backend(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"keras", "numpy", "keras_deartifact"}
    assert "keras.src" not in path.read_text(encoding="utf-8")


_TWO_REPLICAS = """
    import json, sys
    import keras, numpy as np, tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    from keras_deartifact import gan, models

    name, arguments = json.loads(sys.argv[1])
    random = np.random.default_rng(0)
    images = random.random((2, 4, 32, 32, arguments.get("channels", 3)), np.float32)
    maps = random.uniform(0, 7, (4, 2, 2, 1)).astype(np.float32)
    weights = np.array([0.5, 1.0, 2.0, 4.0], np.float32)

    def step(strategy):
        keras.utils.set_random_seed(1)
        noise = np.random.default_rng(2)
        with strategy.scope():
            generator = models.make_generator(name, **arguments)
            for weight in generator.weights:
                value = weight.numpy()
                weight.assign(value + noise.normal(0, 0.1 * value.std() or 0.02, weight.shape))
            trainer = gan.DeartifactGAN(generator)
            # With plain gradient descent a step is the gradient; Adam would hide its size, and so would clipping.
            trainer.compile(
                keras.optimizers.SGD(0.1), losses={"mse": 1.0, "one_minus_ssim": 0.1}, ema_momentum=0.5)
        data = tf.data.Dataset.from_tensors(((images[0], maps), images[1], weights)).repeat()
        before = generator.get_weights()
        trainer.fit(data, steps_per_epoch=2, shuffle=False, verbose=0, validation_data=data.take(1))
        after = generator.get_weights() + trainer.averaged.get_weights()
        return [b - a for a, b in zip(2 * before, after, strict=True)]

    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2, devices
    one = step(tf.distribute.get_strategy())
    two = step(tf.distribute.MirroredStrategy(devices))
    moved = max(np.abs(change).max() for change in one)
    assert moved > 1e-4, moved
    for first, second in zip(one, two, strict=True):
        np.testing.assert_allclose(first, second, atol=0.02 * moved, rtol=0)
    print("equal:", name)
"""


@EVERY_GENERATOR_TRAINED
def test_a_step_on_two_replicas_is_a_step_on_one(variant):
    # In a process of its own, which has to say how many devices there are before TensorFlow starts.
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_TWO_REPLICAS), json.dumps(VARIANTS[variant])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == f"equal: {VARIANTS[variant][0]}\n"


def test_the_registry_holds_functions_that_name_their_model():
    for name, make in models.GENERATORS.items():
        assert make(name=name).name == name
