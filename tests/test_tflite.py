"""LiteRT files of every precision: what they cost on real pictures, what is integer in them, what they say."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

from export import metadata, pictures, tflite
from keras_deartifact import engines, models
from keras_deartifact.metrics import psnr

TILE = (96, 112)
COST_DB = {"float32": 0.001, "float16": 0.02, "dynamic_int8": 0.02, "int8": 0.10}


@pytest.fixture(scope="module")
def network():
    return keras.models.load_model(engines.pretrained_path("shuffle_nano").with_suffix(".keras"), compile=False)


@pytest.fixture(scope="module")
def seen():
    """Three of the demo's frames after JPEG and H.264, one of each for calibration and another for measuring."""
    frames = pictures.exactly(pictures.load(count=3), *TILE)
    return pictures.degraded(frames[:1]), pictures.degraded(frames[1:], qualities=(10, 80), crfs=(36,))


def _operators(model):
    """`{layer's name in a result: (operator, type of weights, type of result)}` of the convolutions of a file."""
    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    tensors = parsed.subgraphs[0].tensors
    return {
        tensors[operator.outputs[0]].name.decode(): (
            tensors[operator.inputs[1]].type,
            tensors[operator.outputs[0]].type,
        )
        for operator in parsed.subgraphs[0].operators
        if parsed.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    }


def _psnr(originals, frames):
    return np.mean([psnr(*pair) for pair in zip(originals, frames, strict=True)])


@pytest.mark.parametrize("tile", [None, TILE], ids=["any size", "one size"])
@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_cost(precision, tile, network, seen, tmp_path):
    calibration, measured = seen
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(network, precision, tile, pictures.network_inputs(calibration, 3)))
    restorer = engines.load(file)
    original, compressed = (np.stack([getattr(each, role) for each in measured]) for role in ("original", "compressed"))
    maps = np.stack([each.quantiser_map for each in measured])
    expected = engines.load(engines.pretrained_path("shuffle_nano").with_suffix(".keras"))(compressed, maps)
    # One size means one picture at a time, too.
    restored = np.concatenate(
        [restorer(compressed[i : i + 1], maps[i : i + 1]) for i in range(len(maps))]
        if tile
        else [restorer(compressed, maps)]
    )
    assert _psnr(original, expected) - _psnr(original, compressed) > 0.5
    assert abs(_psnr(original, expected) - _psnr(original, restored)) <= COST_DB[precision]
    assert np.abs(restored.astype(int) - expected).max() <= (1 if precision in ("float32", "float16") else 12)


def test_sizes(network, seen):
    examples = pictures.network_inputs(seen[0], 3)
    sizes = {precision: len(tflite.convert(network, precision, TILE, examples)) for precision in tflite.PRECISIONS}
    assert sizes["float16"] < 0.55 * sizes["float32"]
    assert sizes["dynamic_int8"] < 0.45 * sizes["float32"]
    assert sizes["int8"] < 0.45 * sizes["float32"]


def test_int8_has_levels_at_its_edges_and_integers_within(network, seen):
    model = tflite.convert(network, "int8", TILE, pictures.network_inputs(seen[0], 3))
    interpreter = Interpreter(model_content=model)
    (images, quantiser_map), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    for edge in (images, result):
        assert edge["dtype"] is np.uint8
        assert edge["quantization"] == (pytest.approx(1 / 255), 0)
    assert quantiser_map["dtype"] is np.float32
    types = _operators(model)
    within = [name for name in types if "/integer_" in name]
    assert len(within) == len(network.integer_layers) == 8
    assert all(types[name] == (schema.TensorType.INT8, schema.TensorType.INT8) for name in within)
    assert {types[name] for name in types if name not in within} == {(schema.TensorType.FLOAT32,) * 2}


def test_dynamic_int8_rounds_the_weights_of_the_integer_layers_alone():
    network = models.make_generator("arcnn")
    kernel = network.enhancement.kernel.numpy()
    kernel[..., 3] = 0.0
    network.enhancement.kernel.assign(kernel)
    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite.convert(network, "dynamic_int8", TILE)))
    (tensor,) = (each for each in parsed.subgraphs[0].tensors if list(each.shape) == [32, 7, 7, 64])
    assert tensor.type == schema.TensorType.INT8
    assert tensor.quantization.quantizedDimension == 0
    scale = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    scale[3] = 1 / 127
    np.testing.assert_allclose(tensor.quantization.scale, scale, rtol=1e-6)
    stored = parsed.buffers[tensor.buffer].data.view(np.int8).reshape(tensor.shape)
    np.testing.assert_array_equal(stored, np.rint(kernel / scale).transpose(3, 0, 1, 2))
    weights = [types[0] for types in _operators(tflite.convert(network, "dynamic_int8", TILE)).values()]
    assert sorted(weights) == [schema.TensorType.FLOAT32] * 2 + [schema.TensorType.INT8] * 2


def test_calibration_counts():
    """Ranges come from the examples: those of other pictures clip."""
    network = models.make_generator("arcnn")
    rng = np.random.default_rng(0)
    images = rng.random((1, 32, 32, 3), np.float32)
    quantiser_map = np.full((1, 2, 2, 1), 4.0, np.float32)

    def difference(seen):
        model = tflite.convert(network, "int8", (32, 32), [(seen, quantiser_map)])
        interpreter = Interpreter(model_content=model)
        interpreter.allocate_tensors()
        frames = np.rint(255 * images).astype(np.uint8)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frames)
        interpreter.set_tensor(interpreter.get_input_details()[1]["index"], quantiser_map)
        interpreter.invoke()
        result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        expected = np.asarray(network((frames / np.float32(255), quantiser_map)))
        return np.abs(np.clip(expected, 0, 1) - result / 255).mean()

    assert difference(images) < 0.3 * difference(0.05 * images)


def test_a_network_keeps_its_names():
    network = models.make_generator("arcnn")
    names = [layer.name for layer in network.integer_layers]
    tflite.convert(network, "dynamic_int8", TILE)
    assert [layer.name for layer in network.integer_layers] == names


def test_unknown_precision():
    with pytest.raises(ValueError, match="Expected a precision of .*int8.*precision='int4'"):
        tflite.convert(models.make_generator("shuffle_pico"), "int4")


def test_int8_needs_pictures():
    with pytest.raises(ValueError, match="calibrated on pictures: none was given"):
        tflite.convert(models.make_generator("shuffle_pico"), "int8")


@pytest.mark.parametrize("precision", ["int8", "dynamic_int8"])
def test_a_layer_that_is_not_found_is_no_silent_float(precision, monkeypatch, seen):
    network = models.make_generator("shuffle_pico", folded=True)
    stranger = keras.layers.Conv2D(3, 3, name="stranger")
    monkeypatch.setattr(type(network), "integer_layers", property(lambda self: [stranger, *self.after]))
    with pytest.raises(ValueError, match=r"could not be made of integers: \['integer_0'\]"):
        tflite.convert(network, precision, TILE, pictures.network_inputs(seen[0][:1], 3))


def test_metadata_come_back_and_change_nothing(seen):
    network = models.make_generator("shuffle_pico")
    model = tflite.convert(network, tile=(32, 32))
    values = {"size_multiple": 16, "quantiser_map": {"minimum": -1.0}, "name": "Größe"}
    described = metadata.write(model, values)
    assert metadata.read(described) == values
    with pytest.raises(ValueError, match="no metadata"):
        metadata.read(model)
    results = []
    for content in (model, described):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.random.default_rng(1).random(detail["shape"], np.float32))
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(*results)
