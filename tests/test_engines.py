import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from export import tflite
from keras_deartifact import codecs, engines, image, models, quantiser

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def generator():
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    return generator


@pytest.fixture(scope="module")
def files(generator, tmp_path_factory):
    """The same model as .tflite, .onnx and .keras, by suffix."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "model.tflite").write_bytes(tflite.convert(generator))
    generator.save(folder / "model.keras")
    made = {suffix: folder / f"model{suffix}" for suffix in (".tflite", ".keras")}
    try:
        import tf2onnx
    except ImportError:
        return made
    function = tf.function(lambda images, quantiser_map: generator((images, quantiser_map), training=False))
    shapes = (("images", 3), ("quantiser_map", 1))
    signature = [tf.TensorSpec((None, None, None, channels), name=name) for name, channels in shapes]
    tf2onnx.convert.from_function(function, signature, output_path=str(folder / "model.onnx"))
    return {**made, ".onnx": folder / "model.onnx"}


EVERY_FILE = pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".keras"])


@pytest.fixture
def path(suffix, files):
    if suffix not in files:
        pytest.skip(f"nothing is installed that makes a {suffix} file")
    return files[suffix]


def _frames(count=2, height=32, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def _map(count=2, height=32, width=48):
    return np.random.default_rng(1).uniform(0, 7, (count, height // 16, width // 16)).astype(np.float32)


@EVERY_FILE
def test_float_frames(path, generator):
    restorer = engines.load(path)
    images = image.to_float(_frames())
    restored = restorer(images, _map())
    assert restored.dtype == np.float32
    expected = np.asarray(generator((images, _map()[..., None])))
    # Not clipped: a network overshoots, and what follows may want to know.
    assert expected.max() > 1.0
    np.testing.assert_allclose(restored, expected, atol=1e-5)


@EVERY_FILE
def test_uint8_frames(path, generator):
    restorer = engines.load(path)
    restored = restorer(_frames(), _map())
    assert restored.dtype == np.uint8
    expected = np.asarray(generator((image.to_float(_frames()), _map()[..., None]))) * 255
    # Rounded half up and clipped; a value within 1e-3 of the middle may go either way.
    np.testing.assert_allclose(restored, np.clip(expected, 0, 255), atol=0.501)


@EVERY_FILE
def test_default_map(path):
    restorer = engines.load(path)
    unknown = np.full((2, 2, 3), quantiser.DEFAULT_LOG2_STEP, np.float32)
    np.testing.assert_array_equal(restorer(_frames()), restorer(_frames(), unknown))
    assert not np.array_equal(restorer(_frames()), restorer(_frames(), unknown + 2))


@EVERY_FILE
def test_size_may_change_from_call_to_call(path):
    restorer = engines.load(path, threads=1)
    first = restorer(_frames())
    small = restorer(_frames(1, 16, 16), _map(1, 16, 16))
    assert small.shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(restorer(_frames()), first)


@EVERY_FILE
def test_results_stay_what_they_were(path):
    """An engine may reuse its buffers; what it has handed out must not change."""
    restorer = engines.load(path)
    images = image.to_float(_frames())
    first = restorer(images, _map())
    before = first.copy()
    restorer(1 - images, _map())
    np.testing.assert_array_equal(first, before)


@EVERY_FILE
def test_views_are_taken(path):
    restorer = engines.load(path)
    images = image.to_float(_frames(2, 64, 96))[:, ::2, 95::-2]
    np.testing.assert_array_equal(restorer(images, _map()), restorer(images.copy(), _map()))


@pytest.mark.parametrize(
    ("frames", "quantiser_map", "message"),
    [
        (_frames(1, 33, 48), None, r"Expected sides that divide by 16. Received: shape=\(1, 33, 48, 3\)"),
        (_frames(1, 32, 40), None, r"Expected sides that divide by 16"),
        (_frames()[0], None, r"Expected uint8 or float32 frames \(n, height, width, 3\). Received: frames.dtype=uint8"),
        (_frames()[..., :1], None, r"Received: frames.dtype=uint8, frames.shape=\(2, 32, 48, 1\)"),
        (_frames() / 255.0, None, r"Received: frames.dtype=float64"),
        (_frames().astype(np.uint16), None, r"Received: frames.dtype=uint16"),
        (_frames(), _map(1), r"Expected a quantiser map \(2, 2, 3\). Received: quantiser_map.shape=\(1, 2, 3\)"),
        (_frames(), _map()[..., None], r"Received: quantiser_map.shape=\(2, 2, 3, 1\)"),
    ],
)
def test_wrong_frames(frames, quantiser_map, message, files):
    with pytest.raises(ValueError, match=message):
        engines.load(files[".tflite"])(frames, quantiser_map)


@EVERY_FILE
def test_what_an_engine_says_of_frames_is_one_line(path, monkeypatch):
    """A runtime may notice damage, or a lack of memory, only when it runs."""

    def failing(images, quantiser_map):
        raise RuntimeError("no\nmemory")

    engine = {".tflite": "litert", ".onnx": "onnx", ".keras": "keras"}[path.suffix]
    monkeypatch.setitem(engines.ENGINES, engine, lambda path, threads: engines.Network(failing, 3))
    with pytest.raises(ValueError, match=f"the engine '{engine}' fails on 2 frames of 32x48 .*: no memory$") as error:
        engines.load(path)(_frames())
    _assert_one_line(error, path)


# Signatures of a SavedModel


def _signatures(path, function, with_network):
    """As an export has them: one for servers, uint8 and without a map, and the bare network."""
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    floats = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    maps = tf.TensorSpec((None, None, None, 1), tf.float32, name="quantiser_map")
    module = tf.Module()
    module.serve = tf.function(lambda images: {"restored": images}, input_signature=[images])
    module.run = tf.function(
        lambda images, quantiser_map: {"a": quantiser_map, "restored": function(images, quantiser_map)},
        input_signature=[floats, maps],
    )
    signatures = {"serving_default": module.serve}
    if with_network:
        signatures["network"] = module.run
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def test_the_signature_network_goes_before_the_default(tmp_path):
    path = _signatures(tmp_path / "model", lambda images, maps: images + tf.reduce_mean(maps), with_network=True)
    restored = engines.load(path)(np.zeros((1, 16, 32, 3), np.float32), np.full((1, 1, 2), 0.5, np.float32))
    np.testing.assert_array_equal(restored, np.full((1, 16, 32, 3), 0.5, np.float32))


def test_a_server_s_signature_alone_is_refused(tmp_path):
    path = _signatures(tmp_path / "model", lambda images, maps: images, with_network=False)
    with pytest.raises(ValueError, match="Expected inputs of 3 channels and of 1") as error:
        engines.load(path)
    _assert_one_line(error, path)


def test_a_saved_model_without_a_known_signature(tmp_path):
    module = tf.Module()
    module.run = tf.function(lambda images: images, input_signature=[tf.TensorSpec((None, 4))])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"other": module.run})
    with pytest.raises(
        ValueError, match=r"Expected a signature of \['network', 'serving_default'\]. Received: \['other'"
    ):
        engines.load(tmp_path / "model")


# Networks of luma


def _saved_model(path, function, channels, names):
    """A SavedModel of `function(images, quantiser_map)`, its inputs named `names`."""
    signature = [
        tf.TensorSpec((None, None, None, each), name=name) for each, name in zip((channels, 1), names, strict=True)
    ]
    module = tf.Module()
    module.serve = tf.function(lambda *inputs: {"output": function(*inputs)}, input_signature=signature)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


# As an ExportArchive has them, and as `Model.export` does.
EVERY_PAIR_OF_NAMES = pytest.mark.parametrize("names", [("images", "quantiser_map"), ("args_0", "args_0_1")])


@EVERY_PAIR_OF_NAMES
def test_luma_by_hand(names, tmp_path):
    def brighten(images, quantiser_map):
        return images + 0.125 + tf.reduce_mean(quantiser_map) / 100

    restorer = engines.load(_saved_model(tmp_path / "model", brighten, 1, names))
    images = image.to_float(_frames())
    # Y grows by 0.125 + 0.05, and so do R, G and B; nothing is clipped.
    expected = images + 0.175
    assert expected.max() > 1.1
    restored = restorer(images, np.full((2, 2, 3), 5.0, np.float32))
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected, atol=1e-6)
    # 0.2 are 51 of 255 levels.
    restored = restorer(_frames(), np.full((2, 2, 3), 7.5, np.float32))
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, np.minimum(_frames().astype(int) + 51, 255))


@EVERY_PAIR_OF_NAMES
def test_luma_and_chroma(names, tmp_path):
    restorer = engines.load(_saved_model(tmp_path / "model", lambda images, quantiser_map: 2.0 * images, 1, names))
    images = np.zeros((1, 16, 16, 3), np.float32)
    for channel in range(3):
        images[0, channel, :, channel] = 0.5
    restored = restorer(images)
    # The network doubles Y: each channel gains Y, that of red, green and blue of one half.
    np.testing.assert_allclose((restored - images)[0, :3, 0], [[0.1495] * 3, [0.2935] * 3, [0.057] * 3], atol=1e-6)
    before, after = image.rgb_to_ycbcr(images), image.rgb_to_ycbcr(restored)
    np.testing.assert_allclose(after[..., 0], 2 * before[..., 0], atol=1e-6)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-6)


def test_other_numbers_of_channels_are_refused(tmp_path, monkeypatch):
    four = _saved_model(tmp_path / "four", lambda images, quantiser_map: images, 4, ("images", "quantiser_map"))
    with pytest.raises(ValueError, match="Expected inputs of 3 channels and of 1, or of 1 and of 1"):
        engines.load(four)
    monkeypatch.setitem(engines.ENGINES, "onnx", lambda path, threads: engines.Network(lambda images, maps: images, 4))
    with pytest.raises(ValueError, match="Expected images of 3 channels or of 1. Received: channels=4"):
        engines.load(four, engine="onnx")


def _assert_one_line(error, path):
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    assert len(text) < 400


@EVERY_FILE
@pytest.mark.parametrize("kind", ["missing", "empty", "half", "nearly whole", "start", "garbage", "text"])
def test_bad_files(path, kind, tmp_path):
    contents = path.read_bytes()
    bad = {
        "empty": b"",
        "half": contents[: len(contents) // 2],
        "nearly whole": contents[:-100],
        "start": contents[:24],
        "garbage": np.random.default_rng(0).bytes(5000),
        "text": b"hello\nworld\n" * 100,
    }
    broken = tmp_path / f"broken{path.suffix}"
    if kind in bad:
        broken.write_bytes(bad[kind])
    with pytest.raises(ValueError) as error:  # noqa: PT011
        engines.load(broken)
    _assert_one_line(error, broken)
    assert ("There is no model file" if kind == "missing" else "is no model that the engine") in str(error.value)


_CUTS_AND_FLIPS = """
import os, sys
import numpy as np
from keras_deartifact import engines
source, damaged = sys.argv[1:]
contents = open(source, "rb").read()
rng = np.random.default_rng(0)
pieces = [contents[:length] for length in np.linspace(0, len(contents) - 1, 60).astype(int)]
for _ in range(120):
    flipped = bytearray(contents)
    flipped[rng.integers(len(contents))] ^= 1 << rng.integers(8)
    pieces.append(bytes(flipped))
outcomes = []
for index, piece in enumerate(pieces):
    with open(damaged, "wb") as stream:
        stream.write(piece)
    try:
        engines.load(damaged, threads=1)(np.zeros((1, 32, 32, 3), np.float32))
        outcomes.append("runs")
    except ValueError as error:
        outcomes.append("is refused" if "\\n" not in str(error) and damaged in str(error) else f"says {error}")
    # Without its last bytes, which are padding, a file may run.
    assert index > 57 or outcomes[-1] == "is refused", (index, outcomes[-1])
print(*sorted(set(outcomes)), sep=", ")
"""


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_damaged_files_crash_nothing(path, tmp_path):
    """In another process: these runtimes are C++ that trusts what it reads. The zip of a .keras has check sums."""
    command = [sys.executable, "-c", _CUTS_AND_FLIPS, str(path), str(tmp_path / f"damaged{path.suffix}")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    # Most flipped bits are in a weight.
    assert result.stdout == "is refused, runs\n"


def test_a_wrong_check_sum(files, tmp_path):
    contents = bytearray(files[".keras"].read_bytes())
    contents[len(contents) // 2] ^= 1
    (tmp_path / "flipped.keras").write_bytes(contents)
    with pytest.raises(ValueError, match="model.weights.h5 is damaged|Bad CRC|Error -3") as error:
        engines.load(tmp_path / "flipped.keras")
    _assert_one_line(error, tmp_path)


@EVERY_FILE
def test_a_folder_in_place_of_a_file(path, tmp_path):
    folder = tmp_path / path.name
    folder.mkdir()
    for engine in ("auto", {".tflite": "litert", ".onnx": "onnx", ".keras": "keras"}[path.suffix]):
        with pytest.raises(ValueError, match="is no model that the engine") as error:
            engines.load(folder, engine)
        _assert_one_line(error, folder)


@pytest.mark.parametrize("kind", ["class", "lambda"])
def test_keras_files_run_no_code(kind, files, tmp_path):
    """A .keras file can name any class or hold a function's bytecode; a file from a stranger must not get to run it."""
    trap = tmp_path / "trap"
    evil = tmp_path / "evil.keras"
    if kind == "lambda":
        layer = keras.layers.Lambda(lambda x: x + 1)
        keras.Sequential([keras.Input((4,)), layer]).save(evil)
    else:
        with zipfile.ZipFile(files[".keras"]) as source, zipfile.ZipFile(evil, "w") as target:
            for name in source.namelist():
                contents = source.read(name)
                if name == "config.json":
                    config = json.loads(contents)
                    config.update(module="os", class_name="system", registered_name=None, config=f"touch {trap}")
                    contents = json.dumps(config).encode()
                target.writestr(name, contents)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        engines.load(evil)
    _assert_one_line(error, evil)
    assert not trap.exists()


def test_other_models_are_refused(tmp_path):
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).export(tmp_path / "dense", verbose=False)
    with pytest.raises(ValueError, match="Expected inputs of 3 channels and of 1") as error:
        engines.load(tmp_path / "dense")
    _assert_one_line(error, tmp_path / "dense")


def test_folders_that_are_no_model(tmp_path):
    (tmp_path / "v1.2").mkdir()
    with pytest.raises(ValueError, match="is no model that the engine 'saved_model' can load") as error:
        engines.load(tmp_path / "v1.2")
    _assert_one_line(error, tmp_path)


@pytest.mark.parametrize("name", ["model.pth", "model", "model.h5"])
def test_unknown_suffix(name, tmp_path):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ValueError, match="Expected a model file of .tflite, .onnx, .keras, .json or a Saved"):
        engines.load(tmp_path / name)


def test_unknown_engine(files):
    with pytest.raises(ValueError, match=r"Expected an engine of \['auto', .*\]. Received: engine='tensorrt'"):
        engines.load(files[".tflite"], engine="tensorrt")


def test_engine_by_name(files, tmp_path):
    odd = tmp_path / "model.bin"
    odd.write_bytes(files[".tflite"].read_bytes())
    expected = engines.load(files[".tflite"])(_frames())
    np.testing.assert_array_equal(engines.load(odd, engine="litert")(_frames()), expected)
    upper = tmp_path / "MODEL.TFLITE"
    upper.write_bytes(odd.read_bytes())
    np.testing.assert_array_equal(engines.load(upper)(_frames()), expected)


def test_missing_package(files, monkeypatch):
    def without_runtime(path, threads):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setitem(engines.ENGINES, "onnx", without_runtime)
    with pytest.raises(ValueError, match=r"needs a package that is not installed \(onnxruntime\): pip install"):
        engines.load(files[".tflite"], engine="onnx")


@pytest.mark.parametrize("call", [engines.load, engines.pretrained_path, engines.card])
def test_unknown_model(call):
    with pytest.raises(ValueError, match=r"Expected a model file or one of \[.*\]. Received: model='unet'"):
        call("unet")


# The models that ship

SHIPPED = engines.DEFAULT_MODEL
needs_pretrained = pytest.mark.skipif(
    SHIPPED not in engines.pretrained_models(), reason=f"keras_deartifact/pretrained/{SHIPPED}.tflite is not there yet"
)


@needs_pretrained
def test_shipped_models():
    for name in engines.pretrained_models():
        assert engines.pretrained_path(name).is_file()
        assert engines.card(name)["sha256"] == hashlib.sha256(engines.pretrained_path(name).read_bytes()).hexdigest()


@needs_pretrained
def test_shipped_model_restores(photo):
    original = photo(96, 128)[None]
    compressed = codecs.jpeg(original, 10)
    restored = engines.load(threads=1)(compressed.frames, compressed.quantisers)
    before, after = (np.mean((each.astype(float) - original) ** 2) for each in (compressed.frames, restored))
    assert after < 0.95 * before


@needs_pretrained
@pytest.mark.parametrize("name", engines.pretrained_models())
def test_shipped_forms_are_one_network(name, photo):
    frames = image.to_float(codecs.jpeg(photo(64, 96)[None], 20).frames)
    quantiser_map = np.random.default_rng(0).uniform(2.0, 6.0, (1, 4, 6)).astype(np.float32)
    restored = {engine: engines.load(name, engine)(frames, quantiser_map) for engine in engines.forms(name)}
    assert sorted(restored) == ["keras", "litert", "onnx"]
    assert np.abs(restored["litert"] - frames).max() > 0.05
    for result in restored.values():
        np.testing.assert_allclose(result, restored["litert"], atol=1e-5, rtol=0)


def test_a_folder_does_not_take_the_place_of_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / SHIPPED).mkdir()
    assert engines.load()(_frames()).shape == (2, 32, 48, 3)


def test_an_ensemble_asks_the_member_of_the_nearest_step(tmp_path, monkeypatch):
    """Two members that add what tells them apart, the second of them luma-only."""
    for index, value in enumerate((0.25, 0.5)):
        path = tmp_path / f"{index}.onnx"
        path.write_text(str(value))

    def adding(path, threads):
        value = np.float32(path.read_text())
        return engines.Network(lambda images, maps: images + value, 3 if path.name == "0.onnx" else 1)

    monkeypatch.setitem(engines.ENGINES, "onnx", adding)
    (tmp_path / "ensemble.json").write_text(
        json.dumps([{"log2_step": 2.0, "model": "0.onnx"}, {"log2_step": 5.0, "model": "1.onnx"}])
    )
    frames = np.zeros((3, 16, 32, 3), np.float32)
    quantiser_map = np.array([[[3.0, 3.2]], [[0.0, 8.0]], [[2.0, 2.0]]], np.float32)
    for model in (tmp_path, tmp_path / "ensemble.json"):
        restored = engines.load(model)(frames, quantiser_map)
        np.testing.assert_allclose(restored[:, 0, 0], np.array([0.25, 0.5, 0.25])[:, None].repeat(3, 1), atol=1e-6)


@pytest.mark.parametrize("contents", ["[", '[{"log2_step": 2.0, "model": "missing.onnx"}]', "[{}]", "[]"])
def test_ensemble_that_cannot_be_loaded(contents, tmp_path):
    (tmp_path / "ensemble.json").write_text(contents)
    with pytest.raises(ValueError, match="ensemble.json is no model that the engine 'ensemble' can load: "):
        engines.load(tmp_path)


def test_the_shipped_predictor_reads_the_quality_off_the_pixels(photo):
    predict = engines.load_predictor(threads=1)
    pictures = np.stack([photo(256, 320, seed) for seed in range(2)])
    for quality in (10, 30, 60):
        compressed = codecs.jpeg(pictures, quality).frames
        predicted = predict(image.to_float(compressed))
        assert predicted.shape == (2, 16, 20)
        assert predicted.dtype == np.float32
        assert np.abs(np.median(predicted, axis=(1, 2)) - quantiser.jpeg_quality_log2_step(quality)).max() < 0.25
    # Another size.
    assert predict(np.zeros((1, 48, 32, 3), np.float32)).shape == (1, 3, 2)
    # Partial blocks are not looked at: they say what their neighbours say.
    partial = predict(image.to_float(compressed[:, :250, :310]))
    whole = predict(image.to_float(compressed[:, :240, :304]))
    np.testing.assert_array_equal(partial, np.pad(whole, ((0, 0), (0, 1), (0, 1)), mode="edge"))
    # Of less than a block there is nothing but the padded one.
    small = image.to_float(compressed[:1, :5, :40])
    np.testing.assert_array_equal(predict(small), predict(image.pad_to_multiple(small, 16)))
    assert predict(small).shape == (1, 1, 3)
    assert engines.PREDICTOR not in engines.pretrained_models()


def test_what_is_no_predictor_is_refused(tmp_path):
    for file in (tmp_path / "missing.tflite", engines.pretrained_path(engines.DEFAULT_MODEL)):
        with pytest.raises(ValueError, match=f"{file} is no quality predictor: "):
            engines.load_predictor(file)


def test_a_network_knows_what_it_was_told():
    restorer = engines.load(engines.DEFAULT_MODEL, "litert", 1)
    assert restorer.log2_step is None
    restorer(np.zeros((1, 32, 32, 3), np.float32), np.full((1, 2, 2), 4.5, np.float32))
    assert restorer.log2_step == 4.5
