"""LiteRT files of 8-bit integers and of one size, made by the real converter."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_deartifact import engines, image, models, restore

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="module")
def generator():
    generator = models.make_generator("shuffle_pico", filters=8, depth=1, coarse_depth=0)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    return generator


def _examples():
    random = np.random.default_rng(1)
    for _ in range(8):
        images = random.random((1, HEIGHT, WIDTH, 3), np.float32)
        # Both ends occur, so that the scale is 1/255.
        images[0, 0, 0], images[0, 0, 1] = 0.0, 1.0
        yield [images, random.uniform(0, 7, (1, HEIGHT // 16, WIDTH // 16, 1)).astype(np.float32)]


def _converter(function, batch, size=(HEIGHT, WIDTH), map_size=None, dtype=tf.float32):
    map_size = map_size or tuple(side and side // 16 for side in size)
    images = tf.TensorSpec((batch, *size, 3), dtype, "images")
    quantiser_map = tf.TensorSpec((batch, *map_size, 1), tf.float32, "quantiser_map")
    concrete = tf.function(function).get_concrete_function(images, quantiser_map)
    return tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(concrete)])


def _clipped(generator):
    def restored(images, quantiser_map):
        return tf.clip_by_value(generator((images, quantiser_map), training=False), 0.0, 1.0)

    return restored


def _integers(function, kind, brightness=1.0):
    converter = _converter(function, 1)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([brightness * images, maps] for images, maps in _examples())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = kind
    with warnings.catch_warnings():
        # Of inputs, which another way of quantising needs.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        return converter.convert()


@pytest.fixture(scope="module")
def files(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {
        "float": _converter(_clipped(generator), 1).convert(),
        "uint8": _integers(_clipped(generator), tf.uint8),
        "int8": _integers(_clipped(generator), tf.int8),
        "dynamic": _converter(_clipped(generator), None, (None, None)).convert(),
    }
    for name, contents in made.items():
        (folder / f"{name}.tflite").write_bytes(contents)
    return {name: folder / f"{name}.tflite" for name in made}


def _frames(count=1, height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def _map(count=1, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(2).uniform(0, 7, (count, height // 16, width // 16)).astype(np.float32)


# One size.


def test_a_file_of_one_size_says_so_and_refuses_others(files):
    assert engines.load(files["dynamic"]).tile is None
    restorer = engines.load(files["float"])
    assert restorer.tile == (HEIGHT, WIDTH)
    for shape in ((1, 48, 48), (1, 32, 32), (2, 64, 96)):
        with pytest.raises(ValueError, match=r"float.tflite takes frames of one size only, 32x48 \(height x width\)"):
            restorer(_frames(*shape))


@pytest.mark.parametrize("count", [1, 3])
def test_a_file_of_one_frame_takes_many_one_by_one(count, files, generator):
    restored = engines.load(files["float"])(image.to_float(_frames(count)), _map(count))
    expected = _clipped(generator)(image.to_float(_frames(count)), _map(count)[..., None])
    np.testing.assert_allclose(restored, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_fixed_batch_is_filled_up(count, tmp_path):
    file = tmp_path / "two.tflite"
    file.write_bytes(_converter(lambda images, maps: images + tf.reduce_mean(maps, (1, 2, 3), True), 2).convert())
    images, maps = image.to_float(_frames(count)), _map(count)
    restored = engines.load(file)(images, maps)
    np.testing.assert_allclose(restored, images + maps.mean((1, 2))[:, None, None, None], atol=1e-6)


@pytest.mark.parametrize("height", [20, 32, 70])
def test_frames_of_any_size_go_through_a_file_of_one(height, files):
    """As through a network of any size that is given the same tiles."""
    frames, seen = _frames(2, height, 130), []
    dynamic = engines.load(files["dynamic"])

    class Tiled:
        tile = (HEIGHT, WIDTH)

        def __call__(self, images, maps=None):
            seen.append(images.shape)
            return dynamic(images, maps)

    restored = restore.restore_frames(engines.load(files["float"]), frames)
    expected = restore.restore_frames(Tiled(), frames)
    assert set(seen) == {(2, HEIGHT, WIDTH, 3)}
    assert np.abs(restored.astype(int) - expected).max() <= 1
    assert restored.shape == frames.shape


@pytest.mark.parametrize(
    ("size", "map_size", "message"),
    [
        ((32, None), (2, None), "images of any height and width, or of one that divides by 16"),
        ((32, 40), (2, 2), r"one that divides by 16. Received: shape=\(1, 32, 40, 3\)"),
        ((32, 48), (2, 2), r"a quantiser map of shape \(1, 2, 3, 1\). Received: shape=\(1, 2, 2, 1\)"),
    ],
)
def test_sizes_that_are_refused(size, map_size, message, tmp_path):
    file = tmp_path / "odd.tflite"
    converter = _converter(lambda images, maps: images + tf.reduce_mean(maps), 1, size, map_size)
    file.write_bytes(converter.convert())
    with pytest.raises(ValueError, match=message):
        engines.load(file)


def test_a_predictor_of_one_size_is_refused(tmp_path):
    concrete = tf.function(lambda images: images[..., :1]).get_concrete_function(
        tf.TensorSpec((1, 32, 48, 3), name="images")
    )
    (tmp_path / "fixed.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    with pytest.raises(ValueError, match=r"is no quality predictor: Expected images of any size"):
        engines.load_predictor(tmp_path / "fixed.tflite")


# Integers.


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_frames_go_into_integers_as_they_are(kind, files):
    """Beside the interpreter, run by hand."""
    runtime = Interpreter(str(files[kind]))
    details = {entry["name"].split(":")[0].split("_", 2)[-1]: entry for entry in runtime.get_input_details()}
    runtime.allocate_tensors()
    images, maps = (next(entry for name, entry in details.items() if name.endswith(end)) for end in ("images", "map"))
    assert images["quantization"] == (pytest.approx(1 / 255, rel=1e-6), 0 if kind == "uint8" else -128)
    frames, shift = _frames(), 0 if kind == "uint8" else 128
    runtime.set_tensor(images["index"], (frames.astype(int) - shift).astype(kind))
    scale, zero = maps["quantization"]
    limits = np.iinfo(kind)
    steps = np.clip(np.rint(_map()[..., None] / np.float32(scale)) + zero, limits.min, limits.max)
    runtime.set_tensor(maps["index"], steps.astype(kind))
    runtime.invoke()
    output = runtime.get_output_details()[0]
    expected = runtime.get_tensor(output["index"]).astype(int) + shift
    restorer = engines.load(files[kind])
    assert restorer.tile == (HEIGHT, WIDTH)
    restored = restorer(frames, _map())
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, expected)
    # Floats are rounded to the same levels.
    floats = restorer(image.to_float(frames), _map())
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(image.to_uint8(floats), restored)
    np.testing.assert_allclose(floats, expected * np.float32(1 / 255), atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_pictures_go_through_integers_of_one_size(kind, files, photo):
    frames = photo(50, 70)[None]
    restored = restore.restore_frames(engines.load(files[kind]), frames)
    expected = restore.restore_frames(engines.load(files["float"]), frames)
    assert np.abs(restored.astype(int) - expected).mean() < 6


def test_another_scale_is_the_files_own(tmp_path):
    """Calibrated on dark pictures, a level is less than 1/255, and what is brighter is cut off."""
    file = tmp_path / "dark.tflite"
    file.write_bytes(_integers(lambda images, maps: images * 0.5 + 0.0 * tf.reduce_mean(maps), tf.uint8, 0.25))
    frames = _frames()
    restored = engines.load(file)(frames)
    # Half of what is left, to within the steps of both ends: 0.25 and 0.125 are cut into 255 each.
    expected = np.minimum(image.to_float(frames), 0.25) * 0.5 * 255
    np.testing.assert_allclose(restored, expected, atol=0.5 + 0.25)


def test_levels_without_a_scale_are_levels(tmp_path):
    file = tmp_path / "levels.tflite"
    converter = _converter(
        lambda images, maps: tf.cast(images, tf.float32) / 255.0 + tf.reduce_mean(maps), 1, dtype=tf.uint8
    )
    file.write_bytes(converter.convert())
    frames = _frames()
    restorer = engines.load(file)
    maps = np.full((1, 2, 3), 0.5, np.float32)
    np.testing.assert_allclose(restorer(image.to_float(frames), maps), image.to_float(frames) + 0.5, atol=1e-6)
    np.testing.assert_array_equal(restorer(frames, maps), image.to_uint8(image.to_float(frames) + 0.5))


def test_integers_without_a_scale_are_refused(tmp_path):
    file = tmp_path / "int32.tflite"
    converter = _converter(lambda images, maps: tf.cast(images, tf.float32) + tf.reduce_mean(maps), 1, dtype=tf.int32)
    file.write_bytes(converter.convert())
    with pytest.raises(ValueError, match="images of float32, or of integers with a scale. Received: dtype=int32"):
        engines.load(file)


# Files whose tables are whole and make no sense.


def _wrong_input(model):
    model.subgraphs[0].operators[3].inputs = model.subgraphs[0].operators[3].inputs + 1


def _result_given_twice(model):
    first, second = model.subgraphs[0].operators[2:4]
    second.outputs = first.outputs


def _output_of_nothing(model):
    last = model.subgraphs[0].operators[-1]
    model.subgraphs[0].operators = model.subgraphs[0].operators[:-1]
    assert model.subgraphs[0].outputs[0] == last.outputs[0]


def _huge_tensor(model):
    model.subgraphs[0].tensors[model.subgraphs[0].operators[0].outputs[0]].shape = np.array([2**29, 2, 2, 8], np.int32)


def _wrong_bias(model):
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    first = next(each for each in graph.operators if codes[each.opcodeIndex] == schema.BuiltinOperator.CONV_2D)
    graph.tensors[first.inputs[2]].shape = np.array([3], np.int32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_input, "operator 3 is not connected"),
        (_result_given_twice, "operator 3 is not connected"),
        (_output_of_nothing, "an output is not connected"),
        (_huge_tensor, "a tensor is larger than any"),
        (_wrong_bias, "the weights of operator [0-9]+ do not fit"),
    ],
)
def test_graphs_that_make_no_sense(damage, message, files, tmp_path):
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(files["dynamic"].read_bytes()))
    damage(model)
    file = tmp_path / "damaged.tflite"
    file.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    with pytest.raises(ValueError, match=message):
        engines.load(file)


def test_what_ships_is_known_to_the_bit(monkeypatch, tmp_path):
    """It is not checked further, which would take 30 ms of each start."""

    def fail(contents):
        raise ValueError("checked")

    monkeypatch.setattr(engines.graph, "check", fail)
    path = engines.pretrained_path(engines.DEFAULT_MODEL)
    engines.load(path)
    engines.load_predictor()
    (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="checked"):
        engines.load(tmp_path / path.name)
