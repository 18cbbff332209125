"""Which engine runs a model that comes in several forms, and on what."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import cli, engines, models
from keras_deartifact.engines import speeds

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

ROOT = Path(__file__).resolve().parents[1]

# What each form of the model adds, so that its result tells which one ran.
ADDED = {"litert": 0.25, "onnx": 0.5}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/keras_deartifact/engines.json"


@pytest.fixture(scope="module")
def litert_bytes():
    concrete = tf.function(lambda images, quantiser_map: images + 0.25 + 0.0 * tf.reduce_mean(quantiser_map))
    names = (("images", 3), ("quantiser_map", 1))
    specs = [tf.TensorSpec((None, None, None, channels), name=name) for name, channels in names]
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete.get_concrete_function(*specs)]).convert()


@pytest.fixture(scope="module")
def onnx_bytes():
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    names = (("images", 3), ("quantiser_map", 1))
    inputs = [helper.make_tensor_value_info(name, number, [None, None, None, channels]) for name, channels in names]
    output = helper.make_tensor_value_info("restored", number, [None, None, None, 3])
    node = helper.make_node("Add", ["images", "added"], ["restored"])
    added = helper.make_tensor("added", number, [1], [0.5])
    graph = helper.make_graph([node], "network", inputs, [output], [added])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


@pytest.fixture
def folder(tmp_path, monkeypatch, litert_bytes, onnx_bytes):
    """The folder of the models that ship, with one of our own in it."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "tiny.tflite").write_bytes(litert_bytes)
    (folder / "tiny.onnx").write_bytes(onnx_bytes)
    (folder / "tiny.json").write_text('{"description": "adds"}')
    monkeypatch.setattr(engines.shipped, "FOLDER", folder)
    return folder


def _added(restorer):
    return float(restorer(np.zeros((1, 16, 16, 3), np.float32)).mean())


def _record(engine, fps, size=(720, 1280), model="tiny", threads=None):
    return engines.record(engines.load(model, engine, threads), fps, *size)


# Forms.


def test_each_engine_takes_its_file(folder):
    for engine, added in ADDED.items():
        restorer = engines.load("tiny", engine, threads=2)
        assert _added(restorer) == added
        assert (restorer.engine, restorer.threads, restorer.notes) == (engine, 2, ())
        assert restorer.path == engines.pretrained_path("tiny", engine)
    assert restorer.provider == "cpu"


def test_a_form_that_does_not_ship(folder):
    message = (
        "tiny has no form for the engine 'keras', only for litert, onnx: choose one of these, or give a model file"
    )
    with pytest.raises(ValueError, match=message):
        engines.load("tiny", "keras")
    with pytest.raises(ValueError, match="tiny does not ship for the engine 'keras', only for litert, onnx"):
        engines.pretrained_path("tiny", "keras")
    (folder / "tiny.onnx").unlink()
    with pytest.raises(ValueError, match="tiny has no form for the engine 'onnx', only for litert"):
        engines.load("tiny", "onnx")


@pytest.mark.parametrize(
    ("engine", "module", "package"),
    [("onnx", "onnxruntime", "onnxruntime"), ("keras", "tensorflow", r"keras_deartifact\[train\]")],
)
def test_a_runtime_that_is_not_installed(engine, module, package, folder, monkeypatch):
    def without(path, threads):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setitem(engines.ENGINES, engine, without)
    (folder / "tiny.keras").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"not installed \({module}\): pip install '{package}'$"):
        engines.load("tiny", engine)


# The measurement.


def test_one_form_is_not_measured(folder, cache):
    (folder / "tiny.onnx").unlink()
    restorer = engines.load("tiny")
    assert (_added(restorer), restorer.notes) == (0.25, ())
    assert not cache.exists()


def test_without_onnx_runtime_nothing_is_measured(folder, cache, monkeypatch):
    monkeypatch.setattr(engines.onnx, "version", lambda: None)
    assert engines.load("tiny").notes == ()
    assert not cache.exists()


def test_the_fastest_is_measured_once(folder, cache, monkeypatch):
    first = engines.load("tiny")
    assert _added(first) == ADDED[first.engine]
    other = "onnx" if first.engine == "litert" else "litert"
    (note,) = first.notes
    assert note.startswith(f"engine: {first.engine}, ")
    assert f" fps at 256x256 ({other} " in note
    values = json.loads(cache.read_text())
    assert len(values["speeds"]) == 2 and "cpu" in next(iter(values["providers"].values()))
    assert [file.name for file in cache.parent.iterdir()] == ["engines.json"]
    # From now on that is remembered.
    before = cache.read_bytes()
    monkeypatch.setattr(speeds, "frames_a_second", None)
    again = engines.load("tiny")
    assert (again.engine, again.notes) == (first.engine, first.notes)
    assert cache.read_bytes() == before
    # But not of another model, or another number of threads.
    monkeypatch.undo()
    monkeypatch.setattr(engines.shipped, "FOLDER", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    engines.load("tiny", threads=1)
    assert len(speeds.read()) == 4
    (folder / "tiny.onnx").write_bytes((folder / "tiny.onnx").read_bytes().replace(b"network", b"changed"))
    engines.load("tiny", threads=1)
    assert len(speeds.read()) == 5


def test_frames_a_second_by_a_clock():
    now, calls = [0.0], []

    def action():
        # The first takes long, and so does one later.
        now[0] += {0: 5.0, 3: 1.0}.get(len(calls), 0.05)
        calls.append(now[0])

    assert speeds.frames_a_second(action, lambda: now[0]) == pytest.approx(20.0)
    assert len(calls) == 4


@pytest.mark.parametrize(("faster", "engine"), [(1.05, "litert"), (1.2, "onnx"), (0.9, "litert")])
def test_what_is_recorded_decides(faster, engine, folder):
    engines.load("tiny")
    assert _record("litert", 100.0) and _record("onnx", 100.0 * faster)
    restorer = engines.load("tiny")
    assert (restorer.engine, _added(restorer)) == (engine, ADDED[engine])
    assert "fps at 1280x720 (" in restorer.notes[0]
    # It was recorded for another number of threads.
    assert "256x256" in engines.load("tiny", threads=1).notes[0]


def test_a_record_counts_where_the_others_are_known(folder):
    assert _record("litert", 10.0) and _record("onnx", 50.0, (480, 640))
    assert "256x256" in engines.load("tiny").notes[0]
    assert {"litert": {"1280x720", "256x256"}, "onnx": {"640x480", "256x256"}} == {
        engine: set(sizes) for engine, sizes in engines.remembered("tiny").items()
    }


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_records_that_are_refused(fps, folder):
    with pytest.raises(ValueError, match="Expected fps above 0. Received: fps="):
        _record("litert", fps)


def test_keras_takes_part_when_it_was_recorded(folder, cache):
    generator = models.make_generator("shuffle_pico", filters=8, depth=1, coarse_depth=0)
    generator.save(folder / "tiny.keras")
    (folder / "tiny.onnx").unlink()
    assert _record("litert", 10.0) and engines.load("tiny").engine == "litert"
    assert _record("keras", 300.0, (256, 256)) and engines.load("tiny").engine == "litert"
    assert _record("keras", 300.0)
    restorer = engines.load("tiny")
    assert restorer.engine == "keras"
    assert restorer.notes == ("engine: keras, 300 fps at 1280x720 (litert 10)",)
    # Its file is gone.
    (folder / "tiny.keras").unlink()
    assert engines.load("tiny").engine == "litert"


def test_what_does_not_load_is_left_out(folder, cache):
    (folder / "tiny.onnx").write_bytes(b"damaged")
    restorer = engines.load("tiny")
    assert (restorer.engine, restorer.notes) == ("litert", ())
    assert engines.load("tiny").engine == "litert"
    assert engines.remembered("tiny")["onnx"] == {"256x256": 0.0}


def test_what_fails_after_it_was_chosen_gives_way(folder, monkeypatch):
    _record("litert", 10.0), _record("onnx", 50.0)

    def failing(path, threads, provider):
        raise RuntimeError("out of order")

    monkeypatch.setitem(engines.ENGINES, "onnx", failing)
    restorer = engines.load("tiny")
    assert restorer.engine == "litert"
    assert "is no model that the engine 'onnx' can load: out of order" in restorer.notes[0]


# The cache.


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"3",
        b'{"format": 2, "speeds": {"a": {"256x256": 1.0}}}',
        b'{"format": 1}',
        b'{"format": 1, "speeds": [], "providers": 3}',
        b'{"format": 1, "speeds": {"a": {"256x256": "fast"}, "b": 3}, "providers": {"onnxruntime": "cpu"}}',
        b'{"format": 1, "speeds": {"a": {"256x256": NaN}, "b": {"256x256": -1}}}',
    ],
)
def test_a_broken_cache_is_ignored_and_replaced(contents, folder, cache):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(contents)
    assert speeds.read() == {}
    assert "256x256" in engines.load("tiny").notes[0]
    assert len(speeds.read()) == 2


def test_nonsense_under_the_right_key(folder, cache):
    engines.load("tiny")
    values = json.loads(cache.read_text())
    for key in values["speeds"]:
        values["speeds"][key] = {"axb": 3.0, "": 5.0, "9999999999x9x9": 1.0}
    cache.write_text(json.dumps(values))
    assert engines.load("tiny").engine in ADDED


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "256x256" in engines.load("tiny").notes[0]
    assert not _record("litert", 3.0)
    folder_in_the_way = tmp_path / "other/keras_deartifact/engines.json"
    folder_in_the_way.mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert "256x256" in engines.load("tiny").notes[0]
    assert [file.name for file in folder_in_the_way.parent.iterdir()] == ["engines.json"]


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert speeds.cache_file() == tmp_path / "cache/keras_deartifact/engines.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert speeds.cache_file() == tmp_path / ".cache/keras_deartifact/engines.json"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert speeds.write({"a": {"256x256": 1.0}}) == {"a": {"256x256": 1.0}}
    assert speeds.read() == {}


def test_the_first_that_writes_is_right(cache):
    assert speeds.write({"a": {"256x256": 1.0}}) == {"a": {"256x256": 1.0}}
    assert speeds.write({"a": {"256x256": 2.0, "8x8": 3.0}}) == {"a": {"256x256": 1.0, "8x8": 3.0}}
    assert speeds.write({"a": {"256x256": 2.0}}, replace=True) == {"a": {"256x256": 2.0, "8x8": 3.0}}
    assert speeds.write({}, {"onnxruntime 1": ["cpu"]}) == {}
    assert speeds.read_providers("onnxruntime 1") == ["cpu"]
    assert speeds.read() == {"a": {"256x256": 2.0, "8x8": 3.0}}


def test_writers_at_the_same_time_leave_a_whole_file(cache):
    def write(number):
        for _ in range(20):
            speeds.write({str(number): {"256x256": 1.0 + number}})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not cache.exists() or json.loads(cache.read_text())["format"] == 1
    for thread in threads:
        thread.join()
    assert all(sizes == {"256x256": 1.0 + int(key)} for key, sizes in speeds.read().items())
    assert [file.name for file in cache.parent.iterdir()] == ["engines.json"]


def test_the_choice_imports_no_tensorflow_and_the_second_time_no_onnx_runtime(folder, cache):
    code = (
        "import sys; from pathlib import Path; from keras_deartifact import engines; import numpy as np;"
        "engines.shipped.FOLDER = Path(sys.argv[1]);"
        "engines.load('tiny')(np.zeros((1, 16, 16, 3), np.float32)); print(*sys.modules)"
    )

    def loaded():
        result = subprocess.run(
            [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return {name.split(".")[0] for name in result.stdout.split()}

    assert not loaded() & {"tensorflow", "keras"}
    assert cache.exists()
    speeds.write({key: {"256x256": 500.0 if "litert" in key else 100.0} for key in speeds.read()}, replace=True)
    assert not loaded() & {"tensorflow", "keras", "onnxruntime"}


# Providers and threads.


def test_the_command_knows_the_providers(capsys):
    for name in ("auto", *engines.PROVIDERS):
        assert cli._parser().parse_args(["restore", "a", "-o", "b", "--provider", name]).provider == name
    assert set(engines.PROVIDERS.values()) < set(onnxruntime.get_all_providers())
    with pytest.raises(SystemExit):
        cli._parser().parse_args(["restore", "a", "-o", "b", "--provider", "steam"])
    assert "cuda" in capsys.readouterr().err


def test_a_provider_by_name(folder):
    restorer = engines.load("tiny", provider="cpu")
    assert (restorer.engine, restorer.provider, _added(restorer), restorer.notes) == ("onnx", "cpu", 0.5, ())
    assert engines.load("tiny", "onnx", provider="auto").provider == "cpu"
    assert engines.load(folder / "tiny.onnx", provider="cpu").provider == "cpu"


def test_providers_that_are_refused(folder):
    missing = next(
        name for name, full in engines.PROVIDERS.items() if full not in onnxruntime.get_available_providers()
    )
    with pytest.raises(
        ValueError, match=rf"Expected a provider that the installed onnxruntime has, one of .*cpu.*{missing}"
    ):
        engines.load("tiny", provider=missing)
    with pytest.raises(ValueError, match=r"Expected a provider of \['auto', .*'cpu'\]. Received: provider='steam'"):
        engines.load("tiny", provider="steam")
    for engine, model in (("litert", "tiny"), ("auto", folder / "tiny.tflite")):
        with pytest.raises(ValueError, match="Only the engine 'onnx' has providers. Received: engine='litert'"):
            engines.load(model, engine, provider="cpu")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available provider names")
def test_a_provider_that_does_not_load(folder, monkeypatch, capfd):
    """As onnxruntime-gpu on a machine without a driver."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("here it may load")
    there = ["CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    restorer = engines.load("tiny", "onnx")
    assert (restorer.provider, _added(restorer)) == ("cpu", 0.5)
    assert restorer.notes == ("cuda of onnxruntime does not load, so that the model runs on cpu",)
    with pytest.raises(ValueError, match="The provider cuda of onnxruntime does not load: .* There are: cpu$"):
        engines.load("tiny", provider="cuda")
    engines.load("tiny")
    assert engines.remembered("tiny")["onnx with cuda"] == {"256x256": 0.0}
    out, err = capfd.readouterr()
    assert "CUDA" not in out + err


def test_accelerators_come_before_the_processor():
    assert list(engines.PROVIDERS)[-1] == "cpu"
    assert "tensorrt" not in engines.onnx.providers()


def test_threads_reach_tensorflow_or_a_note_says_so(folder, tmp_path):
    models.make_generator("shuffle_pico", filters=8, depth=1, coarse_depth=0).save(tmp_path / "model.keras")
    code = (
        "import sys; from keras_deartifact import engines; import numpy as np;"
        "restorer = engines.load(sys.argv[1], threads=1); import tensorflow as tf;"
        "restorer(np.zeros((1, 16, 16, 3), np.float32));"
        "assert tf.config.threading.get_intra_op_parallelism_threads() == 1;"
        "assert (restorer.notes, restorer.has_other_threads) == ((), False);"
        "assert engines.load(sys.argv[1], threads=1).notes == ();"
        "late = engines.load(sys.argv[1], threads=2); assert late.has_other_threads;"
        "assert not engines.record(late, 5.0, 256, 256); print(*late.notes)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "TensorFlow has 1 as its number of threads, not 2: it was in use already\n"


# The folder of an export.


@pytest.fixture
def artefact(tmp_path, litert_bytes, onnx_bytes):
    folder = tmp_path / "artefact"
    for name, contents in (("tflite/model.float32.tflite", litert_bytes), ("onnx/model.onnx", onnx_bytes)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(contents)
    (folder / "manifest.json").write_text("{}")
    module = tf.Module()
    specs = [tf.TensorSpec((None, None, None, 3), name="images"), tf.TensorSpec((None, None, None, 1), name="maps")]
    module.run = tf.function(lambda images, maps: {"restored": images + 0.75}, input_signature=specs)
    tf.saved_model.save(module, str(folder / "saved_model/1"), signatures={"network": module.run})
    return folder


def test_the_folder_of_an_export(artefact):
    for engine, added in (ADDED | {"saved_model": 0.75}).items():
        restorer = engines.load(artefact, engine)
        assert (restorer.engine, _added(restorer)) == (engine, added)
    fastest = engines.load(artefact)
    assert fastest.engine in ADDED and "256x256" in fastest.notes[0]
    for engine in ("litert", "onnx", "saved_model"):
        assert engines.record(engines.load(artefact, engine), 90.0 if engine == "saved_model" else 10.0, 64, 64)
    assert engines.load(artefact).engine == fastest.engine
    for engine in ("litert", "onnx", "saved_model"):
        assert engines.record(engines.load(artefact, engine), 90.0 if engine == "saved_model" else 10.0, 720, 1280)
    assert engines.load(artefact).engine == "saved_model"
    with pytest.raises(ValueError, match="has no form for the engine 'keras', only for litert, onnx, saved_model"):
        engines.load(artefact, "keras")


def test_an_export_of_one_form_and_of_none(artefact):
    (artefact / "tflite/model.float32.tflite").unlink()
    (artefact / "onnx/model.onnx").unlink()
    assert _added(engines.load(artefact)) == 0.75
    (artefact / "saved_model/1").rename(artefact / "elsewhere")
    with pytest.raises(ValueError, match=r"Expected an export with one of \['tflite/model.float32.tflite', "):
        engines.load(artefact)
