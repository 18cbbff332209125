import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from export import artefacts, metadata, networks, pictures, tflite, verify
from keras_deartifact import codecs, engines, image, models, quantiser, restore

ROOT = Path(__file__).resolve().parents[1]


def _generator(**arguments):
    keras.utils.set_random_seed(0)
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0, **arguments)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    return generator


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "nightly"
    folder.mkdir()
    _generator().save(folder / "generator.keras")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Pictures in several formats, among other files."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    Image.fromarray(photo(90, 70)).save(folder / "b.png")
    Image.fromarray(photo(64, 100, 1)).convert("L").save(folder / "below" / "a.webp", lossless=True)
    (folder / "notes.txt").write_text("not a picture")
    (folder / "empty.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="module")
def exported(run, folder, tmp_path_factory):
    """The folder of an export of everything, and the lines that it said."""
    out, said = tmp_path_factory.mktemp("out") / "artefact", []
    made = artefacts.export(run, out, folder=folder, tile=64, precisions=tflite.PRECISIONS, say=said.append)
    assert made == json.loads((out / "manifest.json").read_text())
    return out, said


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_files(exported):
    out, said = exported
    assert _names(out.parent) == ["artefact"]
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    for precision in tflite.PRECISIONS:
        assert {f"tflite/model.{precision}.tflite", f"tflite/model.{precision}.64x64.tflite"} <= names
    assert {"manifest.json", "onnx/model.onnx", "onnx/model.float16.onnx", "saved_model/1/saved_model.pb"} <= names
    paths = [entry["path"] for entry in json.loads((out / "manifest.json").read_text())["artefacts"]]
    assert [line.split(":")[0] for line in said if "from Keras" in line] == paths
    # Readable by whoever may read what is made beside it.
    beside = out.parent / "beside"
    beside.mkdir()
    assert out.stat().st_mode == beside.stat().st_mode
    beside.rmdir()


def test_the_manifest_is_of_these_files(exported, run):
    out, _ = exported
    made = json.loads((out / "manifest.json").read_text())
    assert made["source"] == {
        "name": "nightly",
        "file": "generator.keras",
        "sha256": hashlib.sha256((run / "generator.keras").read_bytes()).hexdigest(),
    }
    assert made["network"]["class"] == "ShuffleGenerator"
    assert made["network"]["config"]["filters"] == 8
    assert (made["size_multiple"], made["channels"]) == (16, 3)
    assert made["quantiser_map"]["default"] == quantiser.DEFAULT_LOG2_STEP
    told = {}
    for entry in made["artefacts"]:
        told |= entry["files"]
        assert entry["size_bytes"] == sum(file["size_bytes"] for file in entry["files"].values())
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(told) == names - {"manifest.json"}
    for name, file in told.items():
        content = (out / name).read_bytes()
        assert file == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    metadata = {entry.key: entry.value for entry in onnx.load(out / "onnx" / "model.onnx").metadata_props}
    assert metadata["source_sha256"] == made["source"]["sha256"]
    assert metadata["quantiser_map_maximum"] == "8.0"


def test_the_manifest_says_how_each_is_called(exported):
    entries = {
        entry["path"]: entry["signatures"]
        for entry in json.loads((exported[0] / "manifest.json").read_text())["artefacts"]
    }
    free = {
        "inputs": {
            "images": {"dtype": "float32", "shape": [None, None, None, 3]},
            "quantiser_map": {"dtype": "float32", "shape": [None, None, None, 1]},
        },
        "outputs": {"restored": {"dtype": "float32", "shape": [None, None, None, 3]}},
    }
    assert entries["saved_model/1"]["network"] == free
    assert sorted(entries["saved_model/1"]) == ["network", "restore_encoded", "restore_with_map", "serving_default"]
    assert entries["saved_model/1"]["serving_default"]["inputs"] == {
        "images": {"dtype": "uint8", "shape": [None, None, None, 3]}
    }
    assert entries["onnx/model.onnx"] == entries["onnx/model.float16.onnx"] == {"network": free}
    shapes = {
        name: [each["shape"] for each in entries[name]["network"]["inputs"].values()]
        for name in entries
        if name.startswith("tflite")
    }
    assert sorted(shapes["tflite/model.float16.tflite"]) == [[None, None, None, 1], [None, None, None, 3]]
    assert sorted(shapes["tflite/model.float32.64x64.tflite"]) == [[1, 4, 4, 1], [1, 64, 64, 3]]


def test_a_litert_file_says_what_it_is(exported):
    out, _ = exported
    made = json.loads((out / "manifest.json").read_text())
    tile, any_size = (
        metadata.read((out / "tflite" / name).read_bytes())
        for name in ("model.int8.64x64.tflite", "model.float16.tflite")
    )
    assert tile["source"] == any_size["source"] == made["source"]
    assert tile["quantiser_map"]["minimum"] == quantiser.MINIMUM_LOG2_STEP
    assert (tile["precision"], tile["tile"], tile["margin"], tile["overlap"]) == ("int8", [64, 64], [16, 16], [32, 32])
    assert (any_size["precision"], any_size["tile"], any_size["overlap"]) == ("float16", None, [128, 128])


def test_the_manifest_names_what_accelerators_refuse(exported):
    made = json.loads((exported[0] / "manifest.json").read_text())
    refused = {each["path"]: each.get("refused_by") for each in made["artefacts"]}
    assert refused["onnx/model.onnx"] is None
    assert refused["tflite/model.float32.64x64.tflite"]["gpu"] == []
    assert "DEPTH_TO_SPACE" in refused["tflite/model.float32.64x64.tflite"]["samsung"]


def test_the_figures_can_be_measured_again(exported, run, folder):
    out, _ = exported
    # Every second picture is kept for calibration.
    given = verify.batches(pictures.degraded(pictures.load(folder, 2 * pictures.COUNT)[::2]))
    expected = verify.restored_by(engines.load(run / "generator.keras"), given)
    for entry in json.loads((out / "manifest.json").read_text())["artefacts"]:
        measured = entry["measured"]
        limit = 1e-5 if entry["precision"] == "float32" else 0.2
        assert 0 < measured["mean_difference"] < measured["max_difference"] < limit
        assert abs(measured["psnr_cost_db"]) < 0.1
        if entry["path"] == "onnx/model.float16.onnx":
            parity = verify.measure(engines.load(out / entry["path"], provider="cpu"), given, expected)
            assert parity.psnr_cost_db == pytest.approx(measured["psnr_cost_db"], abs=1e-3)


def test_users_can_load_the_folder(exported, run, photo):
    out, _ = exported
    frames = np.stack([photo(37, 61), photo(37, 61, 1)])
    expected = restore.restore_frames(engines.load(run / "generator.keras"), frames)
    for engine in ("litert", "onnx", "saved_model"):
        restored = restore.restore_frames(engines.load(out, engine=engine), frames)
        assert np.abs(restored.astype(int) - expected).max() <= 1


def test_luma(photo, tmp_path):
    _generator(channels=1).save(tmp_path / "luma.keras")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(photo(50, 70)).save(tmp_path / "pictures" / "a.png")
    made = artefacts.export(
        tmp_path / "luma.keras", tmp_path / "out", ["saved_model", "onnx"], folder=tmp_path / "pictures"
    )
    assert made["source"]["name"] == "luma"
    assert made["artefacts"][0]["signatures"]["network"]["inputs"]["images"]["shape"] == [None, None, None, 1]


def test_an_older_export_is_replaced_only_if_told_and_only_by_a_good_one(run, folder, tmp_path):
    out = tmp_path / "artefact"
    arguments = {"formats": ["saved_model"], "folder": folder}
    artefacts.export(run, out, **arguments)
    before = (out / "manifest.json").read_bytes()
    (out / "mine.txt").write_text("kept until it is replaced")
    with pytest.raises(ValueError, match="exists already; pass --overwrite"):
        artefacts.export(run, out, **arguments)
    with pytest.raises(ValueError, match="There is no generator.keras"):
        artefacts.export(tmp_path, out, overwrite=True, **arguments)
    with pytest.raises(ValueError, match="There is no picture in"):
        artefacts.export(run, out, ["onnx"], folder=tmp_path / "nowhere", overwrite=True)
    assert _names(out) == ["manifest.json", "mine.txt", "saved_model"]
    assert (out / "manifest.json").read_bytes() == before
    artefacts.export(run, out, ["onnx"], folder=folder, overwrite=True)
    assert _names(out) == ["manifest.json", "onnx"]
    assert _names(tmp_path) == ["artefact"]


def test_a_folder_of_something_else_is_never_replaced(run, folder, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for name in ("home", "file"):
        with pytest.raises(ValueError, match="it is not replaced"):
            artefacts.export(run, tmp_path / name, folder=folder, overwrite=True)
    with pytest.raises(ValueError, match="The folder of the export must exist"):
        artefacts.export(run, tmp_path / "missing" / "out", folder=folder)
    assert _names(tmp_path) == ["file", "home"]
    assert _names(tmp_path / "home") == ["letter.txt"]


def _scaled(generator, factor):
    """The same function, with larger numbers between the first layer and the last ones: ReLU lets a factor through."""
    for layer in (generator.entry, generator.step_entry):
        for weight in layer.weights:
            weight.assign(weight * factor)
    for layer in generator.before + generator.after:
        layer.bias.assign(layer.bias * factor)
    for layer in (generator.gate_correction, generator.coefficient_correction, generator.pixel_correction):
        layer.kernel.assign(layer.kernel / factor)


def test_an_export_that_does_not_agree_leaves_nothing(folder, tmp_path):
    """Features beyond the range of float16: only running it shows that."""
    generator = _generator()
    images, quantiser_map = np.full((1, 16, 16, 3), 0.3, np.float32), np.full((1, 1, 1, 1), 3.0, np.float32)
    before = np.asarray(generator((images, quantiser_map)))
    _scaled(generator, 1e6)
    np.testing.assert_allclose(generator((images, quantiser_map)), before, atol=1e-5)
    generator.save(tmp_path / "large.keras")
    said = []
    with pytest.raises(ValueError, match=r"^onnx/model.float16.onnx: .*finite|^onnx/model.float16.onnx differs"):
        artefacts.export(tmp_path / "large.keras", tmp_path / "out", ["onnx"], folder=folder, say=said.append)
    # The one before it was good.
    assert said[0].startswith("onnx/model.onnx: ")
    assert _names(tmp_path) == ["large.keras"]


def test_a_network_that_does_nothing_is_refused(folder, tmp_path):
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0)
    # With its gates shut and its corrections at zero it returns what it is given.
    generator.gate_correction.bias.assign(np.full(96, -60.0))
    generator.save(tmp_path / "generator.keras")
    with pytest.raises(ValueError, match="The generator changes nothing"):
        artefacts.export(tmp_path / "generator.keras", tmp_path / "out", ["onnx"], folder=folder)
    assert _names(tmp_path) == ["generator.keras"]


def test_what_is_allowed():
    def parity(largest, cost, span=1.0):
        return verify.Parity(largest, largest / 10, 30.0, cost, span)

    verify.check("a", "float32", parity(9e-6, 0.0))
    verify.check("a", "float32", parity(2e-5, 0.0, span=3.0))
    with pytest.raises(ValueError, match="^a differs from the Keras model by 2e-05 > 1e-05.$"):
        verify.check("a", "float32", parity(2e-5, 0.0))
    verify.check("a", "int8", parity(0.5, 0.09))
    for precision, cost in (("float16", 0.021), ("int8", 0.11), ("dynamic_int8", -0.11), ("int8", float("nan"))):
        with pytest.raises(ValueError, match=f"^a differs from the Keras model by .* dB .* for {precision}.$"):
            verify.check("a", precision, parity(0.5, cost))


def test_wrong_arguments(run, tmp_path):
    for arguments, message in [
        ({"formats": ["coreml"]}, "Expected formats of"),
        ({"formats": []}, "Expected formats of"),
        ({"precisions": ["int4"]}, "Expected precisions of"),
        ({"tile": 100}, "multiple of 16. Received: tile=100"),
    ]:
        with pytest.raises(ValueError, match=message):
            artefacts.export(run, tmp_path / "out", **arguments)
    assert _names(tmp_path) == []


def test_sources(run, tmp_path):
    assert networks.find(run) == run / "generator.keras"
    assert networks.find(run / "generator.keras") == run / "generator.keras"
    name = engines.DEFAULT_MODEL
    if engines.pretrained_path(name).with_suffix(".keras").exists():
        generator, path = networks.load_generator(name)
        assert path.name == f"{name}.keras"
        assert generator.folded
    for source, message in [
        (tmp_path, "There is no generator.keras or predictor.keras in"),
        (tmp_path / "missing.keras", "There is no file"),
        ("nonesuch", "Expected a run's folder, a .keras file or one of"),
        (tmp_path / "missing.keras" / "below", "Expected a run's folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            networks.find(source)


def test_a_predictor_goes_another_way(tmp_path):
    predictor = models.QualityPredictor()
    predictor.build((None, None, None, 3))
    predictor.save(tmp_path / "predictor.keras")
    with pytest.raises(ValueError, match="python -m export.predictor"):
        networks.load_generator(tmp_path)


def test_other_models_are_refused(tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="Expected a generator or a quality predictor. Received: a Sequential"):
        networks.load_generator(tmp_path / "other.keras")
    generator = _generator()
    generator.slope.assign(generator.slope * np.nan)
    generator.save(tmp_path / "nan.keras")
    with pytest.raises(ValueError, match="slope in .* is not finite"):
        networks.load_generator(tmp_path / "nan.keras")


def _assert_refused_in_one_line(path):
    with pytest.raises(ValueError, match="is no whole .keras file of a network") as caught:
        networks.load_generator(path)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(run, tmp_path):
    content, path = (run / "generator.keras").read_bytes(), tmp_path / "damaged.keras"
    for damaged in (b"", b"no archive", content[:100], content[:-30], content[: len(content) // 2]):
        path.write_bytes(damaged)
        _assert_refused_in_one_line(path)


def test_a_flipped_bit_is_refused_or_of_no_consequence(run, tmp_path):
    """Of an archive, the dates and the like do not matter. Whatever is loaded has the weights of the whole file."""
    content, path = (run / "generator.keras").read_bytes(), tmp_path / "flipped.keras"
    expected = networks.load_generator(run)[0].get_weights()
    refused = 0
    for at in np.random.default_rng(0).integers(0, len(content), 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            weights = networks.load_generator(path)[0].get_weights()
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))
    assert refused > 20


def test_mixed_precision_is_exported_in_float32(run):
    generator = keras.models.load_model(run / "generator.keras", compile=False)
    copy = type(generator).from_config({**generator.get_config(), "dtype": "mixed_float16"})
    copy.build([(None, None, None, 3), (None, None, None, 1)])
    copy.set_weights(generator.get_weights())
    random = np.random.default_rng(0)
    inputs = random.random((1, 32, 48, 3), np.float32), random.uniform(0, 7, (1, 2, 3, 1)).astype(np.float32)
    restored = networks.for_deployment(copy)(inputs)
    assert restored.dtype == "float32"
    np.testing.assert_allclose(restored, generator(inputs), atol=1e-5)


def test_pictures(folder, photo):
    first, second = pictures.load(folder)
    np.testing.assert_array_equal(first, photo(90, 70))
    assert second.shape == (64, 100, 3)
    assert [part.shape for part in pictures.load(folder, count=1, side=48)] == [(48, 48, 3)]
    shapes = [part.shape for part in pictures.load(folder, side=48)]
    assert shapes == [(48, 48, 3), (43, 37, 3)]
    squares = pictures.exactly([first, second], 80, 80)
    assert {square.shape for square in squares} == {(80, 80, 3)}
    np.testing.assert_array_equal(squares[0][:, :70], first[:80])
    np.testing.assert_array_equal(squares[0][:, 70:], np.repeat(first[:80, -1:], 10, axis=1))


def test_the_demo_stands_in_for_pictures():
    frames = pictures.load(count=3, side=64)
    assert len({frame.tobytes() for frame in frames}) == 3
    assert all(frame.std() > 5 for frame in frames)


def test_degraded_pictures(photo):
    picture = photo(50, 70)
    examples = pictures.degraded([picture], qualities=(20,), crfs=(35,))
    assert [example.name for example in examples] == ["jpeg 20", "h264 35"]
    for example, made in zip(
        examples, (codecs.jpeg(picture[None], 20), codecs.h264(picture[None], crf=35)), strict=True
    ):
        np.testing.assert_array_equal(example.compressed, made.frames[0])
        np.testing.assert_array_equal(example.quantiser_map, made.quantisers[0])
        np.testing.assert_array_equal(example.original, picture)
    (images, quantiser_map), _ = pictures.network_inputs(examples, channels=1)
    assert images.shape == (1, 64, 80, 1)
    assert quantiser_map.shape == (1, 4, 5, 1)
    expected = image.rgb_to_ycbcr(image.to_float(examples[0].compressed))[..., 0]
    np.testing.assert_allclose(images[0, :50, :70, 0], expected, atol=1e-6)


def test_flat_pictures_show_nothing(run):
    """They come back as they were, from every artefact."""
    flat = np.full((32, 48, 3), 128, np.uint8)
    given = [verify.Batch(flat[None], flat[None], np.full((1, 2, 3), 2.0, np.float32))]
    expected = [image.to_float(flat)[None]]
    with pytest.raises(ValueError, match="Every picture is restored without any error"):
        verify.measure(lambda frames, quantiser_map: frames, given, expected)


@pytest.mark.parametrize("arguments", [["--run=nonesuch"], ["--run=nonesuch", "--formats=coreml"]])
def test_the_program_explains_itself(arguments, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "export", f"--out={tmp_path / 'out'}", *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "error: Expected " in result.stderr
    assert "Traceback" not in result.stderr
    assert _names(tmp_path) == []


@pytest.mark.slow
def test_the_program(run, folder, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "export", f"--run={run}", f"--out={tmp_path / 'out'}", f"--pictures={folder}"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "from Keras at most" in line]
    assert len(lines) == len(json.loads((tmp_path / "out" / "manifest.json").read_text())["artefacts"]) == 7
