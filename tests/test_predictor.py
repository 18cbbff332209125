from importlib import resources
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_deartifact import codecs, quantiser
from keras_deartifact.complexity import multiply_accumulates
from keras_deartifact.models import QualityPredictor
from keras_deartifact.models.quantisation_marks import BINS

SHIPPED = Path(str(resources.files("keras_deartifact"))) / "pretrained" / "quality_predictor.tflite"
SMALL = {"local_units": 5, "filters": 3, "comb_units": 6, "picture_units": 7, "spectrum_filters": 4, "heads": 2}
SIZES = [(1, 16, 16), (2, 48, 80), (1, 128, 64)]


def _make(**arguments):
    predictor = QualityPredictor(**arguments)
    predictor.build((None, None, None, 3))
    return predictor


@pytest.fixture(scope="module")
def predictor():
    # The test of sizes bounds what random weights make of a picture's borders.
    keras.utils.set_random_seed(1)
    return _make()


def _images(batch, height, width, seed=0):
    return np.random.default_rng(seed).random((batch, height, width, 3), np.float32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_shape_and_range(size, predictor):
    batch, height, width = size
    log2_step = np.asarray(predictor(_images(*size)))
    assert log2_step.shape == (batch, *quantiser.map_shape(height, width), 1)
    assert log2_step.dtype == np.float32
    assert log2_step.min() >= quantiser.MINIMUM_LOG2_STEP
    assert log2_step.max() <= quantiser.MAXIMUM_LOG2_STEP


def test_a_score_wins(predictor):
    saved = predictor.picture_scores.get_weights()
    kernel, bias = saved
    bias = bias.copy()
    # 13 bins of a quarter above the smallest, and far above what else speaks.
    bias[13] = 1e4
    predictor.picture_scores.set_weights([kernel, bias])
    try:
        log2_step = predictor(_images(1, 32, 32))
    finally:
        predictor.picture_scores.set_weights(saved)
    np.testing.assert_allclose(log2_step, quantiser.MINIMUM_LOG2_STEP + 13 / 4, atol=1e-5)


def test_pictures_do_not_see_each_other(predictor):
    images = _images(2, 48, 80)
    np.testing.assert_allclose(predictor(images)[1:], predictor(images[1:]), atol=1e-4)


def test_the_size_does_not_matter(predictor, photo):
    # Four times the same picture, mirrored so that the seams show nothing: the same means, but for the one column and
    # row that begin the picture, and blocks in the middle see the same blocks around them.
    quarter = photo(128, 128)[None].astype(np.float32) / 255
    half = np.concatenate([quarter, quarter[:, :, ::-1]], axis=2)
    whole = np.concatenate([half, half[:, ::-1]], axis=1)
    np.testing.assert_allclose(np.mean(predictor(whole)), np.mean(predictor(np.tile(whole, (1, 2, 2, 1)))), atol=0.05)


def test_config_round_trip():
    predictor = _make(**SMALL, name="named")
    config = predictor.get_config()
    assert {key: config[key] for key in SMALL} == SMALL
    copy = QualityPredictor.from_config(config)
    copy.build((None, None, None, 3))
    assert copy.name == "named"
    assert copy.get_config() == config
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in predictor.weights]


def test_keras_file_round_trip(tmp_path):
    predictor = _make(**SMALL)
    predictor.save(tmp_path / "predictor.keras")
    loaded = keras.models.load_model(tmp_path / "predictor.keras")
    images = _images(1, 48, 80)
    np.testing.assert_array_equal(loaded(images), predictor(images))


def test_every_trained_value_gets_a_gradient(photo):
    predictor = _make(**SMALL)
    images = photo(64, 96)[None].astype(np.float32) / 255
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.abs(predictor(images) - 3.0))
    gradients = tape.gradient(loss, predictor.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    assert {id(weight) for weight in predictor.non_trainable_variables} == {id(w) for w in predictor.marks.variables}


def test_it_learns(photo):
    qualities = (10, 90)
    frames = photo(96, 96)[None]
    pictures = np.concatenate([codecs.jpeg(frames, quality).frames for quality in qualities]) / np.float32(255)
    known = np.array([quantiser.jpeg_quality_log2_step(quality) for quality in qualities], np.float32)
    keras.utils.set_random_seed(0)
    predictor = _make(**SMALL)
    # What is measured stays the same.
    marks = predictor.marks(pictures)
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(150):
        with tf.GradientTape() as tape:
            predicted = tf.reduce_sum(tf.nn.softmax(predictor.scores(*marks)) * BINS, axis=-1)
            loss = tf.reduce_mean(tf.abs(predicted - known[:, None, None]))
        variables = predictor.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    np.testing.assert_allclose(np.mean(predictor(pictures), axis=(1, 2, 3)), known, atol=0.4)


def test_litert_parity(predictor):
    images = tf.TensorSpec((None, None, None, 3), tf.float32, "images")
    concrete = tf.function(lambda images: predictor(images)).get_concrete_function(images)
    frozen = convert_variables_to_constants_v2(concrete)
    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    (entry,) = interpreter.get_input_details()
    for size in SIZES:
        frames = _images(*size)
        interpreter.resize_tensor_input(entry["index"], frames.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], frames)
        interpreter.invoke()
        restored = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(restored, predictor(frames), atol=1e-4)


def _shipped(frames):
    """What the predictor that ships says of whole frames, the median over their blocks."""
    interpreter = Interpreter(model_path=str(SHIPPED))
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], frames.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], frames.astype(np.float32) / 255)
    interpreter.invoke()
    return np.median(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


@pytest.mark.skipif(not SHIPPED.exists(), reason=f"{SHIPPED.name} is not there yet")
def test_the_shipped_predictor(photo):
    frames = photo(256, 256, 3)[None]
    assert _shipped(frames) < 0.5
    for quality in (10, 20, 50, 80):
        once = codecs.jpeg(frames, quality).frames
        # Three points of quality, at their narrowest.
        assert abs(_shipped(once) - quantiser.jpeg_quality_log2_step(quality)) < 0.1
    # A fine second compression on another grid hides the first from the file, not from the predictor.
    again = codecs.jpeg(np.ascontiguousarray(codecs.jpeg(frames, 20).frames[:, 5:-11, 3:-13]), 92).frames
    assert abs(_shipped(again) - quantiser.jpeg_quality_log2_step(20)) < 0.2


def test_multiply_accumulates_by_hand(predictor):
    height, width = 720, 1280
    pixels, cells, blocks = height * width, height * width // 64, height * width // 256
    measured = (
        3 * pixels  # to_luma
        + 64 * 64 * cells  # transform
        + 64 * 10 * (height // 8 - 1) * (width // 8 - 1)  # low_transform, on the grid that was found
        + 2 * 16 * 16 * blocks  # columns, rows
        + 10 * 64 * 10  # the spectrum's groups
        + 37 * 10 * 10  # its octaves, brought to the bins
    )
    local = blocks * (96 * 32 + 32 * 4 + 32 * 16 + 9 * 16 * 16 + 16 * 37)
    picture = 2 * 650 * 64 + (2 * 64 + 144 + 5 * 32) * 64 + 64 * 64 + 64 * 16 + 64 * 37
    along_steps = 37 * 5 * (12 * 32 + 32 * 32 + 32 * 32 + 32)
    total = multiply_accumulates(predictor, height, width, takes_map=False)
    assert total == measured + local + picture + along_steps
    assert total <= 0.1e9
