import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from export import onnx as exporter
from keras_deartifact import engines, models

METADATA = {"source_sha256": "0123", "size_multiple": "16"}
SIZES = [(1, 16, 16), (3, 48, 80), (1, 208, 32)]


def _perturbed(**arguments):
    keras.utils.set_random_seed(0)
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0, **arguments)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.1, weight.shape))
    return generator.fold()


@pytest.fixture(scope="module", params=[3, 1], ids=["rgb", "luma"])
def made(request):
    """A generator, and its model in float32 and float16."""
    generator = _perturbed(channels=request.param)
    content = exporter.convert(generator, METADATA)
    return generator, {"float32": content, "float16": exporter.to_float16(content)}


PRECISIONS = pytest.mark.parametrize("precision", ["float32", "float16"])


def _inputs(channels, count, height, width):
    random = np.random.default_rng(1)
    images = random.random((count, height, width, channels), np.float32)
    return images, random.uniform(0, 7, (count, height // 16, width // 16, 1)).astype(np.float32)


@PRECISIONS
def test_any_size_and_batch(made, precision):
    generator, contents = made
    session = onnxruntime.InferenceSession(contents[precision], providers=["CPUExecutionProvider"])
    for size in SIZES:
        images, quantiser_map = _inputs(generator.channels, *size)
        (restored,) = session.run(["restored"], {"images": images, "quantiser_map": quantiser_map})
        expected = np.asarray(generator((images, quantiser_map)))
        assert restored.dtype == np.float32
        assert np.abs(expected - images).max() > 0.03
        # float16 has 11 significant bits.
        tolerance = 1e-5 if precision == "float32" else 2e-2
        np.testing.assert_allclose(restored, expected, atol=tolerance, rtol=0)


@PRECISIONS
def test_edges(made, precision):
    generator, contents = made
    graph = onnx.load_from_string(contents[precision]).graph
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "images": ["batch", "height", "width", generator.channels],
        "quantiser_map": ["batch", "rows", "columns", 1],
        "restored": ["batch", "height", "width", generator.channels],
    }
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {onnx.TensorProto.FLOAT}


@PRECISIONS
def test_it_says_where_it_comes_from(made, precision):
    model = onnx.load_from_string(made[1][precision])
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [exporter.OPSET]


def test_float16_is_half_the_size(made):
    contents = made[1]
    values = {
        initializer.data_type
        for initializer in onnx.load_from_string(contents["float16"]).graph.initializer
        if initializer.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    assert values == {onnx.TensorProto.FLOAT16}
    assert len(contents["float16"]) < 0.75 * len(contents["float32"])


def test_pictures_are_turned_around_at_the_edges_only(made):
    """ONNX has its channels second; tf2onnx's optimiser has to take the Transposes about every convolution away."""
    graph = onnx.load_from_string(made[1]["float32"]).graph
    convolutions = sum(node.op_type == "Conv" for node in graph.node)
    transposes = sum(node.op_type == "Transpose" for node in graph.node)
    assert convolutions > 8
    assert transposes <= 9


@PRECISIONS
def test_the_engine_loads_it(made, precision, photo, tmp_path):
    generator, contents = made
    (tmp_path / "model.onnx").write_bytes(contents[precision])
    generator.save(tmp_path / "generator.keras")
    frames = np.stack([photo(32, 48), photo(32, 48, 1)])
    restored = engines.load(tmp_path / "model.onnx")(frames)
    expected = engines.load(tmp_path / "generator.keras")(frames)
    assert np.abs(restored.astype(int) - expected).max() <= 1


def test_luma_keeps_its_rank_every_time():
    """tf2onnx now and then drops a Squeeze of these, by the order of a set."""
    generator = _perturbed(channels=1)
    images, quantiser_map = _inputs(1, 2, 16, 32)
    for _ in range(3):
        session = onnxruntime.InferenceSession(exporter.convert(generator, {}), providers=["CPUExecutionProvider"])
        assert session.run(None, {"images": images, "quantiser_map": quantiser_map})[0].shape == images.shape
