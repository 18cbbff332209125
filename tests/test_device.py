import shutil
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from export import tflite
from export.device import operators
from keras_deartifact import colour, demo, engines, models, quantiser, restore, video

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "export" / "device" / "cpp"
TILE, MARGIN = 128, 32
# What makes a generator small without another operator in it.
SMALL = {
    "residual": {"filters": 8, "blocks": 1, "conditioned": True},
    "fast": {"filters": 8, "blocks": 1, "conditioned": True},
    "very_fast": {"filters": 8, "blocks": 1},
    "arcnn": {"conditioned": True},
    "shuffle_pico": {},
    "shuffle_nano": {"filters": 8, "depth": 2, "coarse_filters": 8, "coarse_depth": 1},
    "shuffle_small": {"filters": 8, "depth": 2, "coarse_filters": 8, "coarse_depth": 1, "channels": 1},
}
# What compilers of some NPUs do not take; there it runs on the CPU.
KNOWN = {
    "mediatek": {"DEPTH_TO_SPACE", "EXP", "SPACE_TO_DEPTH"},
    "samsung": {"DEPTH_TO_SPACE"},
}


def converted(function, *shapes, flex=False):
    """A LiteRT model of a function of float32 tensors."""
    concrete = tf.function(function).get_concrete_function(*(tf.TensorSpec(shape, tf.float32) for shape in shapes))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if flex:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return converter.convert()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A generator's file of one size, which changes pictures although it is not trained."""
    file = tmp_path_factory.mktemp("model") / "pico.tflite"
    file.write_bytes(tflite.convert(models.make_generator("shuffle_pico"), tile=(TILE, TILE)))
    return file


@pytest.mark.parametrize("name", sorted(models.GENERATORS))
def test_every_generator_of_a_fixed_size_runs_whole_on_gpus(name):
    file = tflite.convert(models.make_generator(name, **SMALL.get(name, {})), tile=(64, 64))
    assert not operators.sizes_are_open(file)
    found = operators.unsupported(file)
    assert list(found) == list(operators.LISTS)
    for each, names in found.items():
        assert set(names) <= KNOWN.get(each, set()), each


def test_operators_have_their_versions_and_types():
    file = tflite.convert(models.make_generator("arcnn"))
    found = operators.operators(file)
    assert [each.name for each in found] == ["CONV_2D"] * 4
    assert all(each.version == 1 and each.refused == {} for each in found)
    assert {(each.inputs, each.outputs) for each in found} == {(("float32",) * 3, ("float32",))}
    assert operators.sizes_are_open(file)


def test_an_operator_of_no_list_is_named_for_each():
    file = converted(lambda values: tf.where(values > 0.0), (4, 4))
    assert operators.unsupported(file) == {
        "gpu": ["WHERE"],
        "qualcomm": ["WHERE"],
        "mediatek": ["WHERE"],
        "google_tensor": ["WHERE"],
        "samsung": ["WHERE"],
        "nnapi": ["WHERE"],
    }
    custom = converted(tf.math.erf, (4, 4), flex=True)
    assert operators.unsupported(custom)["google_tensor"] == ["CUSTOM FlexErf"]
    some = operators.unsupported(converted(lambda values: tf.cumsum(values, axis=1), (4, 4)))
    assert {each for each, names in some.items() if names == ["CUMSUM"]} == {"mediatek", "nnapi"}
    assert [names for names in some.values() if names not in ([], ["CUMSUM"])] == []


def test_limits_beyond_names():
    five = operators.refusals(converted(tf.abs, (1, 2, 2, 2, 2)))
    assert five["gpu"] == {"ABS": "a tensor of more than 4 dimensions"}
    assert five["nnapi"] == {}
    row = operators.refusals(converted(lambda values: values[:, 0], (1, 4, 4, 3)))
    assert row["gpu"] == {"STRIDED_SLICE": "an axis that goes or comes"}
    shapes = operators.refusals(converted(lambda one, two: one + two, (2, 4, 4, 3), (4, 4, 3)))
    assert shapes["gpu"] == {"ADD": "shapes [4, 4, 3] and [2, 4, 4, 3]"}
    integers = operators.refusals(converted(lambda values: tf.abs(tf.cast(values, tf.int32)), (4, 4)))
    assert integers["gpu"] == {"ABS": "tensors of int32"}
    assert integers["nnapi"] == {"ABS": "version 5, where it takes up to 1"}
    total = operators.refusals(converted(lambda values: tf.reduce_sum(tf.cast(values, tf.int32), 1), (4, 4)))
    assert total["nnapi"] == {"SUM": "tensors of int32"}


@pytest.mark.skipif(metadata.version("ai-edge-litert") != "2.3.0", reason="the lists are of ai-edge-litert 2.3.0")
@pytest.mark.parametrize(
    ("plugin", "first", "expected"),
    [
        ("mediatek/compiler/libLiteRtCompilerPlugin_MediaTek.so", "ADD MUL BATCH_MATMUL", operators.LISTS["mediatek"]),
        (
            "google_tensor/compiler/libLiteRtCompilerPlugin_google_tensor.so",
            "ASSIGN_VARIABLE BIDIRECTIONAL_SEQUENCE_LSTM BROADCAST_ARGS",
            frozenset(operators._OPERATORS.values()) - operators.LISTS["google_tensor"],
        ),
    ],
)
def test_lists_are_those_inside_the_compilers(plugin, first, expected):
    """Each compiler holds its list as a table of operators' codes."""
    content = Path(str(resources.files("ai_edge_litert") / "vendors" / plugin)).read_bytes()
    codes = {name: code for code, name in operators._OPERATORS.items()}
    start = content.index(np.array([codes[name] for name in first.split()], np.int32).tobytes())
    table = np.frombuffer(content, np.int32, len(expected), start)
    assert {operators._OPERATORS[int(code)] for code in table} == expected


def test_program(model, tmp_path, capsys):
    operators.main([str(model)])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{model}: ")
    assert " CONV_2D version 1: 3 float32 -> float32\n" in printed
    assert "\ngpu: takes all\n" in printed
    assert "open" not in printed
    operators.main([str(engines.pretrained_path("shuffle_nano"))])
    assert "An input's size is open" in capsys.readouterr().out
    file = tmp_path / "where.tflite"
    file.write_bytes(converted(lambda values: tf.where(values > 0.0), (4, 4)))
    operators.main([str(file)])
    printed = capsys.readouterr().out
    assert "\ngpu: not WHERE (not on its list)\n" in printed
    assert "\nWHERE: choose by arithmetic or by SELECT_V2\n" in printed


def test_program_refuses_what_is_no_model(model, tmp_path):
    for count in (0, 6, 300, 30_000, model.stat().st_size // 2):
        file = tmp_path / "truncated.tflite"
        file.write_bytes(model.read_bytes()[:count])
        with pytest.raises(SystemExit, match=f"error: {file} is no whole LiteRT model"):
            operators.main([str(file)])
    with pytest.raises(SystemExit, match="error: .*nowhere.tflite cannot be read: No such file"):
        operators.main([str(tmp_path / "nowhere.tflite")])
    with pytest.raises(SystemExit, match="usage: "):
        operators.main([])


def test_lists_need_no_tensorflow():
    code = "import sys, export.device.operators; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The C++ sample, built."""
    library = Path(str(resources.files("ai_edge_litert") / "libLiteRt.so"))
    if not library.is_file():
        pytest.skip("ai-edge-litert comes without libLiteRt.so here")
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    build = tmp_path_factory.mktemp("build")
    for command in (["cmake", "-S", SAMPLE, "-B", build, f"-DLITERT_LIBRARY={library}"], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "restore_frame"


@pytest.fixture(scope="module")
def frame():
    """A decoded frame of the demonstration's clip, of odd size: four tiles across, two down."""
    first = next(iter(video.read_frames(demo.CLIP, quantisers=False)))
    return np.ascontiguousarray(colour.to_rgb(first.image)[:173, :271])


def write_ppm(path, pixels):
    height, width = pixels.shape[:2]
    path.write_bytes(b"P6\n# a comment\n%d %d\n255\n" % (width, height) + pixels.tobytes())
    return path


def read_ppm(path):
    magic, size, peak, pixels = path.read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    assert (magic, peak) == (b"P6", b"255")
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.parametrize("log2_step", [quantiser.DEFAULT_LOG2_STEP, 2.5])
def test_sample_gives_the_pixels_of_the_python_engine(sample, model, frame, tmp_path, log2_step):
    given = write_ppm(tmp_path / "in.ppm", frame)
    done = run(sample, model, given, tmp_path / "out.ppm", log2_step, MARGIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("271x173: ") and done.stdout.endswith(" ms\n")
    maps = quantiser.constant_map(*frame.shape[:2], log2_step)[None]
    expected = restore.restore_frames(engines.load(model), frame[None], maps, tile=TILE, margin=MARGIN, whole_pixels=0)[
        0
    ]
    assert np.abs(expected.astype(int) - frame).max() > 2
    assert np.abs(read_ppm(tmp_path / "out.ppm").astype(int) - expected).max() <= 1


def test_sample_has_the_librarys_defaults(sample, frame, tmp_path):
    file = tmp_path / "wide.tflite"
    file.write_bytes(tflite.convert(models.make_generator("shuffle_pico"), tile=(160, 192)))
    given = write_ppm(tmp_path / "in.ppm", frame)
    assert run(sample, file, given, tmp_path / "defaults.ppm").returncode == 0
    stated = (quantiser.DEFAULT_LOG2_STEP, restore.MARGIN, "gpu")
    done = run(sample, file, given, tmp_path / "stated.ppm", *stated)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_ppm(tmp_path / "defaults.ppm"), read_ppm(tmp_path / "stated.ppm"))


# Statistics of inputs belong to training with quantisation.
@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected:UserWarning")
# The converter's own debugger uses TensorFlow's interpreter.
@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning")
def test_sample_runs_a_file_of_8_bit_integers(sample, frame, tmp_path):
    def restore_tile(images, quantiser_map):
        kernel = tf.constant(np.full((3, 3, 3, 3), 1 / 27, np.float32))
        blurred = tf.nn.conv2d(images, kernel, 1, "SAME")
        return 0.5 * images + 0.5 * blurred + 0.01 * tf.reduce_mean(quantiser_map)

    tile = frame[:64, :64]
    images = tile[None] / np.float32(255)
    quantiser_map = np.full((1, 4, 4, 1), 4.5, np.float32)
    concrete = tf.function(restore_tile).get_concrete_function(
        tf.TensorSpec(images.shape, tf.float32, "images"), tf.TensorSpec((1, 4, 4, 1), tf.float32, "quantiser_map")
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images, quantiser_map] for _ in range(2))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    file = tmp_path / "integers.tflite"
    file.write_bytes(converter.convert())

    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    for entry, values in zip(interpreter.get_input_details(), (images, quantiser_map), strict=True):
        scale, zero_point = entry["quantization"]
        levels = np.clip(np.rint(values / np.float32(scale)) + zero_point, 0, 255)
        interpreter.set_tensor(entry["index"], levels.astype(np.uint8))
    interpreter.invoke()
    entry = interpreter.get_output_details()[0]
    scale, zero_point = entry["quantization"]
    expected = 255 * scale * (interpreter.get_tensor(entry["index"])[0].astype(float) - zero_point)

    done = run(sample, file, write_ppm(tmp_path / "in.ppm", tile), tmp_path / "out.ppm", 4.5, 16)
    assert done.returncode == 0, done.stderr
    result = read_ppm(tmp_path / "out.ppm").astype(float)
    assert np.abs(result - np.clip(expected, 0, 255)).max() <= 1
    assert np.abs(result - tile).max() > 2


def test_sample_says_what_is_wrong_in_one_line(sample, model, frame, tmp_path):
    given, out = write_ppm(tmp_path / "in.ppm", frame), tmp_path / "out.ppm"
    short = tmp_path / "short.ppm"
    short.write_bytes(given.read_bytes()[:-1])
    text = tmp_path / "text.ppm"
    text.write_bytes(b"P3\n1 1\n255\n1 2 3\n")
    deep = tmp_path / "deep.ppm"
    deep.write_bytes(b"P6\n1 1\n65535\n" + bytes(6))
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(model.read_bytes()[:-100])
    predictor = engines.predictor_path()
    for arguments, message in [
        ((tmp_path / "no.tflite", given, out), f"there is no file {tmp_path / 'no.tflite'}"),
        ((model, tmp_path / "no.ppm", out), f"there is no file {tmp_path / 'no.ppm'}"),
        ((model, short, out), f"{short} ends too early"),
        ((model, text, out), f"{text} is no binary PPM (P6)"),
        ((model, deep, out), f"{deep} is no binary PPM (P6) of 8 bits"),
        ((damaged, given, out), f"{damaged} is no whole LiteRT model (LiteRT status 501)"),
        ((predictor, given, out), f"{predictor} has not two inputs and one output: it is no generator"),
        (
            (engines.pretrained_path("shuffle_nano"), given, out),
            f"{engines.pretrained_path('shuffle_nano')} leaves its sizes open: export it with a fixed tile",
        ),
        ((model, given, out), "nothing is left of a tile of 128x128 without margins of 64"),
        ((model, given, out, "x"), "expected a LOG2_STEP of -16 to 16. Received: x"),
        ((model, given, out, "4.5", "-1"), "expected a MARGIN of at least 0 pixels. Received: -1"),
        ((model, given, out, "4.5", "32", "npu"), "expected cpu or gpu. Received: npu"),
        ((model, given, tmp_path / "no" / "out.ppm", "4.5", "32"), f"cannot write {tmp_path / 'no' / 'out.ppm'}"),
    ]:
        done = run(sample, *arguments)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1] == f"error: {message}"
        assert not out.exists()
    assert run(sample).returncode == 2


def test_build_without_the_library_says_so(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    done = run("cmake", "-S", SAMPLE, "-B", tmp_path, "-DLITERT_LIBRARY=nowhere.so")
    assert done.returncode != 0
    assert "There is no LiteRT library at" in done.stderr
