"""What `deartifact bench` measures: models by every engine that can run them; and what is remembered of it."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import bench, cli, demo, engines, models, restore
from keras_deartifact.bench import forms, subjects
from keras_deartifact.engines import speeds

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

CONFIG = {"generator": "adds", "generator_arguments": {"number": 1}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/keras_deartifact/engines.json"


def _converter(size, batch=None):
    images = tf.TensorSpec((batch, *size, 3), name="images")
    quantiser_map = tf.TensorSpec((batch, *(side and side // 16 for side in size), 1), name="quantiser_map")
    function = tf.function(lambda images, quantiser_map: images + 0.0 * tf.reduce_mean(quantiser_map))
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(images, quantiser_map)])


@pytest.fixture(scope="module")
def litert_bytes():
    return _converter((None, None)).convert()


@pytest.fixture(scope="module")
def integer_bytes():
    """Of one size and of 8-bit integers."""
    converter = _converter((32, 48), 1)
    random = np.random.default_rng(0)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [random.random((1, 32, 48, 3), np.float32), random.uniform(0, 7, (1, 2, 3, 1)).astype(np.float32)]
        for _ in range(4)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # Of inputs, which another way of quantising needs.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        return converter.convert()


@pytest.fixture(scope="module")
def onnx_bytes():
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    names = (("images", 3), ("quantiser_map", 1))
    inputs = [helper.make_tensor_value_info(name, number, [None, None, None, channels]) for name, channels in names]
    output = helper.make_tensor_value_info("restored", number, [None, None, None, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["restored"])], "network", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


@pytest.fixture
def folder(tmp_path, monkeypatch, litert_bytes, onnx_bytes):
    """The folder of the models that ship, with ours in it: two of one architecture, and one by itself."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for file in (engines.predictor_path(), engines.predictor_path().with_suffix(".json")):
        shutil.copy(file, folder)
    for index, (name, config) in enumerate({"one": CONFIG, "twin": CONFIG, "alone": {}}.items()):
        (folder / f"{name}.tflite").write_bytes(litert_bytes + bytes(index))
        (folder / f"{name}.json").write_text(json.dumps({"config": config, "multiply_accumulates_720p": 7}))
    for name in ("one", "twin"):
        (folder / f"{name}.onnx").write_bytes(onnx_bytes.replace(b"network", f"net{name:>4}".encode()))
    monkeypatch.setattr(engines.shipped, "FOLDER", folder)
    monkeypatch.setattr(engines, "DEFAULT_MODEL", "one")
    return folder


@pytest.fixture
def export(tmp_path, litert_bytes, integer_bytes, onnx_bytes):
    folder = tmp_path / "export"
    files = {
        "onnx/model.onnx": onnx_bytes,
        "tflite/model.float32.tflite": litert_bytes,
        "tflite/model.int8.32x48.tflite": integer_bytes,
    }
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)
    (folder / "manifest.json").write_text(json.dumps({"artefacts": [{"path": name} for name in files]}))
    return folder


def _names(loaded):
    return [(each.name, each.engine, each.provider) for each in loaded]


def _measured(loaded, settings=bench.QUICK):
    """A report in this process, and how many turns it told of."""
    steps = []
    reports = bench.measure(
        loaded,
        demo.CLIP,
        restore_frames=restore.restore_frames,
        restore_video=restore.restore_video,
        settings=settings,
        step=lambda: steps.append(1),
    )
    return reports, len(steps)


# What is loaded.


def test_every_engine_has_a_line_and_can_be_chosen():
    assert subjects.RUNTIMES.keys() == engines.ENGINES.keys()
    for engine in engines.ENGINES:
        assert cli._parser().parse_args(["bench", "--engine", engine]).engine == [engine]


def test_the_default_is_a_model_of_every_architecture(folder):
    assert forms.default_models() == ["one", "alone"]
    assert (forms.twins("one"), forms.twins("twin"), forms.twins("alone")) == (["twin"], ["one"], [])
    other = {"config": {**CONFIG, "generator_arguments": {"number": 2}}}
    (folder / "twin.json").write_text(json.dumps(other))
    assert forms.default_models() == ["one", "alone", "twin"]
    # What has no architecture has no twin.
    (folder / "twin.json").write_text("{}")
    assert forms.twins("alone") == forms.twins("twin") == []


def test_a_model_that_ships_is_loaded_once_for_every_form(folder):
    loaded, skipped = bench.load(threads=1)
    assert _names(loaded) == [("one", "litert", None), ("one", "onnx", "cpu"), ("alone", "litert", None)]
    assert {each.model for each in loaded} == {"one", "alone"}
    assert {each.multiply_accumulates_720p for each in loaded} == {7}
    assert [each.restorer.path.name for each in loaded] == ["one.tflite", "one.onnx", "alone.tflite"]
    assert {each.engine: each.reason for each in skipped} == {
        "keras": "no model for it was given: --model with a .keras file",
        "saved_model": "no model for it was given: --model with a SavedModel's folder",
        "ensemble": "no model for it was given: --model with the folder of an ensemble's run",
    }
    assert bench.digests(loaded) == {
        name: engines.digest(folder / name) for name in ("one.tflite", "one.onnx", "alone.tflite")
    }


def test_keras_takes_part_and_its_work_is_that_of_the_card(folder):
    models.make_generator("shuffle_pico", filters=8, depth=1, coarse_depth=0).save(folder / "one.keras")
    loaded, skipped = bench.load(["one"], only=["keras"])
    assert (_names(loaded), skipped) == ([("one", "keras", None)], [])
    assert loaded[0].multiply_accumulates_720p == 7


def test_engines_can_be_chosen(folder):
    loaded, skipped = bench.load(only=["onnx", "saved_model"])
    assert _names(loaded) == [("one", "onnx", "cpu")]
    assert [each.engine for each in skipped] == ["saved_model"]
    with pytest.raises(
        ValueError, match=r"expected a model that an installed engine runs; onnx: no model for it was given: "
    ):
        bench.load(["alone"], only=["onnx"])
    # What no engine takes is said all the same.
    with pytest.raises(ValueError, match="Expected a model file of .tflite, "):
        bench.load([__file__], only=["onnx"])


def test_a_runtime_that_is_not_installed(folder, monkeypatch):
    def without_runtime(path, threads, provider=None):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    find_spec = subjects.util.find_spec
    monkeypatch.setattr(subjects.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    monkeypatch.setitem(engines.ENGINES, "onnx", without_runtime)
    loaded, skipped = bench.load(["one", str(folder / "one.onnx")])
    assert _names(loaded) == [("one", "litert", None)]
    assert [(each.engine, each.model) for each in skipped[:2]] == [("onnx", "one"), ("onnx", "one.onnx")]
    for each in skipped[:2]:
        assert "needs a package that is not installed (onnxruntime): pip install 'onnxruntime'" in each.reason
    reasons = {each.engine: each.reason for each in skipped[2:]}
    assert reasons.keys() == {"keras", "saved_model", "ensemble"}
    assert reasons["saved_model"] == "tensorflow not installed: pip install 'keras_deartifact[train]'"
    with pytest.raises(ValueError, match=r"expected a model that an installed engine runs; onnx: .*\(onnxruntime\)"):
        bench.load([str(folder / "one.onnx")])


def test_a_damaged_form_is_left_out_and_a_damaged_file_is_an_error(folder):
    (folder / "one.onnx").write_bytes(b"damaged")
    loaded, skipped = bench.load(["one"])
    assert _names(loaded) == [("one", "litert", None)]
    assert (skipped[0].engine, skipped[0].model) == ("onnx", "one")
    assert "one.onnx is no model that the engine 'onnx' can load: " in skipped[0].reason
    with pytest.raises(ValueError, match="one.onnx is no model that the engine 'onnx' can load: "):
        bench.load([str(folder / "one.onnx")])


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available provider names")
def test_a_provider_that_does_not_load_is_left_out(folder, monkeypatch):
    """As onnxruntime-gpu on a machine without a driver."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("here it may load")
    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    loaded, skipped = bench.load(["one", str(folder / "one.onnx")])
    assert _names(loaded) == [("one", "litert", None), ("one", "onnx", "cpu"), ("one.onnx", "onnx", "cpu")]
    assert [each.model for each in skipped[:2]] == ["one", "one.onnx"]
    assert skipped[0].reason.startswith("The provider cuda of onnxruntime does not load: ")


def test_two_files_of_one_name_are_told_apart(tmp_path, litert_bytes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/model.tflite", "b/model.tflite", "c/other.tflite"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(litert_bytes)
    loaded, _ = bench.load(["a/model.tflite", "b/model.tflite", "a/model.tflite", "c/other.tflite"])
    assert [each.name for each in loaded] == ["a/model.tflite", "b/model.tflite", "other.tflite"]
    assert len(bench.digests(loaded)) == 3


def test_versions_for_a_server_are_called_by_both_names():
    given = ["some/model/1", "other/2", "3", "a/x.onnx", "b/x.onnx", "."]
    expected = ["model/1", "other/2", "3", "a/x.onnx", "b/x.onnx", "."]
    assert list(forms.names(given).values()) == expected


def test_an_export_is_all_that_its_manifest_names(export):
    loaded, skipped = bench.load([str(export)])
    # LiteRT before the rest.
    assert _names(loaded) == [
        ("export/tflite/model.float32.tflite", "litert", None),
        ("export/tflite/model.int8.32x48.tflite", "litert", None),
        ("export/onnx/model.onnx", "onnx", "cpu"),
    ]
    assert [each.restorer.tile for each in loaded] == [None, (32, 48), None]
    assert {each.multiply_accumulates_720p for each in loaded} == {None}
    (export / "onnx/model.onnx").unlink()
    loaded, skipped = bench.load([str(export)])
    assert len(loaded) == 2 and "There is no model file" in skipped[0].reason


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"artefacts": [{"path": 3}]}', '{"artefacts": []}'])
def test_an_export_that_does_not_say_what_it_is(manifest, export):
    (export / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match="^expected an export"):
        bench.load([str(export)])


# Whole runs.


def _subject(name, engine, provider=None):
    return bench.Subject(name, name, engine, provider, None, None)


def test_whole_runs_are_of_the_first_engine_and_the_fastest():
    first, second, third = _subject("a", "litert"), _subject("a", "onnx", "cpu"), _subject("a", "onnx", "cuda")
    alone = _subject("b", "keras")
    every = [first, second, third, alone]
    # By as much as "auto" asks for.
    for fps, chosen in {
        (10.0, 5.0, 20.0, 1.0): [first, third, alone],
        (10.0, 30.0, 20.0, 1.0): [first, second, alone],
        (10.0, 5.0, 10.5, 1.0): [first, alone],
        (10.0, 5.0, 9.0, 99.0): [first, alone],
    }.items():
        assert bench.subjects.running(every, dict(zip(map(bench.subjects.key, every), fps, strict=True))) == chosen
    assert bench.subjects.most_runs(every) == 3


def test_files_of_one_size_and_of_integers_are_measured(export, monkeypatch):
    """In this process, where the child's Python would take seconds."""
    monkeypatch.setattr(bench.runs, "in_own_process", lambda function, *arguments: (function(*arguments), 1))
    loaded, _ = bench.load([str(export)])
    reports, steps = _measured(loaded)
    assert steps == bench.turns(loaded, bench.QUICK)
    assert [row.name for row in reports[0].networks] == [*(each.name for each in loaded), engines.PREDICTOR]
    assert all(row.fps.median > 0 for row in reports[0].networks)
    assert reports[0].runs[0].name == loaded[0].name and len(reports[0].runs) in (1, 2)
    # By itself too, in a process of its own as always.
    monkeypatch.undo()
    reports, _ = _measured([loaded[1]])
    assert reports[0].runs[0].name == loaded[1].name and reports[0].runs[0].fps.median > 0


# What is remembered.


def _report(loaded, *fps, width=1280, height=720):
    spreads = [bench.Spread(each, each, each) for each in fps]
    rows = [
        bench.NetworkRow(each.name, each.engine, speed, speed, None, None, None, each.provider)
        for each, speed in zip(loaded, spreads, strict=True)
    ]
    return bench.SizeReport(width, height, spreads[0], rows, [], [])


@pytest.mark.parametrize(("speed", "engine"), [(1.05, "litert"), (1.2, "onnx")])
def test_auto_goes_by_what_was_measured(speed, engine, folder):
    loaded, _ = bench.load(["one"])
    reports = [_report(loaded, 10.0, 99.0, width=640, height=360), _report(loaded, 10.0, 10.0 * speed)]
    assert bench.remember(loaded, reports) == [
        f"--engine auto goes by these speeds from now on, and takes {engine} for one"
    ]
    assert engines.load("one").engine == engine
    # The twin was not measured, but has to be as fast.
    assert engines.load("twin").engine == engine
    expected = {"litert": {"640x360": 10.0, "1280x720": 10.0}, "onnx": {"640x360": 99.0, "1280x720": 10.0 * speed}}
    assert engines.remembered("one") == engines.remembered("twin") == expected
    assert engines.remembered("one", 77) == {"litert": {}, "onnx": {}}


def test_speeds_are_remembered_for_their_number_of_threads(folder):
    threads = (os.cpu_count() or 1) + 1
    loaded, _ = bench.load(["one"], threads)
    (line,) = bench.remember(loaded, [_report(loaded, 10.0, 20.0)], threads)
    where = f"--engine auto goes by these speeds from now on with --threads {threads}"
    assert line == f"{where}, and takes onnx for one"
    assert engines.load("one", threads=threads).engine == "onnx"
    assert engines.remembered("one", threads)["onnx"] == {"1280x720": 20.0}
    assert engines.remembered("one") == {"litert": {}, "onnx": {}}


def test_without_a_choice_there_is_nothing_to_say(folder, cache):
    loaded, _ = bench.load(["alone"])
    assert bench.remember(loaded, [_report(loaded, 10.0)]) == []
    assert json.loads(cache.read_text())["speeds"].popitem()[1] == {"1280x720": 10.0}


def test_an_export_with_nothing_to_choose_from(export):
    """Whose files have other names than those that "auto" looks for."""
    (export / "tflite/model.float32.tflite").rename(export / "tflite/model.float16.tflite")
    (export / "onnx/model.onnx").rename(export / "onnx/model.float16.onnx")
    files = ["tflite/model.float16.tflite", "onnx/model.float16.onnx"]
    (export / "manifest.json").write_text(json.dumps({"artefacts": [{"path": name} for name in files]}))
    loaded, _ = bench.load([str(export)])
    assert bench.remember(loaded, [_report(loaded, 10.0, 20.0)]) == []


def test_a_twin_that_does_not_load_is_left_to_whoever_uses_it(folder):
    (folder / "twin.onnx").write_bytes(b"damaged")
    loaded, _ = bench.load(["one"])
    assert len(bench.remember(loaded, [_report(loaded, 10.0, 20.0)])) == 1
    assert engines.remembered("twin") == {"litert": {"1280x720": 10.0}, "onnx": {}}


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    loaded, _ = bench.load(["alone"])
    assert bench.remember(loaded, [_report(loaded, 10.0)]) == [
        "these speeds are not remembered for --engine auto: the cache cannot be written"
    ]


def test_what_has_other_threads_is_not_remembered_and_says_so(folder, cache):
    loaded, _ = bench.load(["alone"])
    loaded[0].restorer.has_other_threads = True
    loaded[0].restorer.notes = ("TensorFlow has 1 as its number of threads, not 2: it was in use already",)
    assert bench.notes(loaded * 2, matrix_limited=True) == list(loaded[0].restorer.notes)
    assert "numpy's BLAS" in bench.notes(loaded, matrix_limited=False)[0]
    assert bench.remember(loaded, [_report(loaded, 10.0)]) == []
    assert not cache.exists()


def test_the_command_remembers_and_says_so(folder, capfd, monkeypatch):
    monkeypatch.setattr(bench, "STANDARD", bench.QUICK)
    assert cli.main(["bench", "--model", "one", "--engine", "litert", "--engine", "onnx"]) == 0
    out, err = capfd.readouterr()
    line = out.splitlines()[-1]
    assert line.startswith("note: --engine auto goes by these speeds from now on, and takes ") and err == ""
    assert {frozenset(sizes) for sizes in engines.remembered("one").values()} == {frozenset({"88x56"})}
    assert len(speeds.read()) == 4
    rows = [row.split()[:2] for row in out.splitlines() if row.startswith("one ")]
    assert rows[:2] == [["one", "litert"], ["one", "onnx"]] and rows[2] == ["one", "litert"]
