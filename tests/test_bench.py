import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import av
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import bench, cli, complexity, demo, engines, models, restore
from keras_deartifact.cli import bench as command

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = engines.DEFAULT_MODEL

needs_shipped_models = pytest.mark.skipif(
    SHIPPED not in engines.pretrained_models(), reason=f"needs the model {SHIPPED}"
)


@pytest.fixture
def run(capfd):
    def call(*argv):
        code = cli.main(["bench", *map(str, argv)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def generator():
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0)
    generator((np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 2, 2, 1), np.float32)))
    return generator


def identity(frames, quantiser_map=None):
    """Stands for a network where only what is made of its times is tested."""
    return frames


def subject(name, multiply_accumulates_720p=None, engine="litert", provider=None):
    return bench.Subject(name, name, engine, provider, multiply_accumulates_720p, identity)


class Clock:
    """Shows the time that actions say they take, and what was called in which order."""

    def __init__(self):
        self.now = 0.0
        self.called = []

    def __call__(self):
        return self.now

    def action(self, name, *seconds):
        durations = itertools.cycle(seconds)

        def act():
            self.called.append(name)
            self.now += next(durations)

        return act


# Arithmetic.


def test_spread():
    assert bench.spread([3.0, 1.0, 10.0]) == bench.Spread(3.0, 1.0, 10.0)
    assert bench.spread([2.0, 4.0]) == bench.Spread(3.0, 2.0, 4.0)
    assert bench.spread([5.0]) == bench.Spread(5.0, 5.0, 5.0)


def test_ratio_is_that_of_medians_with_the_spread_over_rounds():
    # Medians 12 and 4; by round 10/5, 12/4, 18/3.
    assert bench.ratio([10.0, 12.0, 18.0], [5.0, 4.0, 3.0]) == bench.Spread(3.0, 2.0, 6.0)
    # A clock that halves in a round changes no ratio.
    assert bench.ratio([8.0, 4.0, 8.0], [2.0, 1.0, 2.0]) == bench.Spread(4.0, 4.0, 4.0)


def test_the_ratio_lies_within_its_spread():
    random = np.random.default_rng(0)
    for _ in range(100):
        values, reference = random.lognormal(0, 1, (2, 5)).tolist()
        found = bench.ratio(values, reference)
        assert found.low <= found.median <= found.high


def test_gmac_goes_with_pixels():
    assert bench.gmac(4_764_672_000, 1280, 720) == pytest.approx(4.764672)
    # 1920 * 1088 / (1280 * 720) = 34 / 15
    assert bench.gmac(4_764_672_000, 1920, 1088) == pytest.approx(4.764672 * 34 / 15)
    assert bench.gmac(4_764_672_000, 640, 360) == pytest.approx(1.191168)


def test_turns_are_taken():
    clock, steps = Clock(), []
    actions = {"fast": clock.action("fast", 1.0), "slow": clock.action("slow", 5.0)}
    times = bench.interleaved(actions, 3, 6.0, step=lambda: steps.append(clock.now), clock=clock)
    # Twice each before; then 6 s in 3 rounds are 2 calls of 1 s, and one at least of 5 s.
    assert clock.called == ["fast"] * 2 + ["slow"] * 2 + ["fast", "fast", "slow"] * 3
    assert times == {"fast": [1.0] * 3, "slow": [5.0] * 3}
    assert steps == [14.0, 19.0, 21.0, 26.0, 28.0, 33.0]


def test_calls_at_the_start_of_a_turn_are_not_timed():
    clock = Clock()
    # The first two are before all turns; in each turn, the first one takes 9 s.
    actions = {"a": clock.action("a", 1.0, 1.0, 9.0, 1.0, 9.0, 1.0), "b": clock.action("b", 4.0)}
    times = bench.interleaved(actions, 2, 0.0, settle=0.5, clock=clock)
    assert times == {"a": [1.0, 1.0], "b": [4.0, 4.0]}
    assert clock.called == ["a"] * 2 + ["b"] * 2 + ["a", "a", "b", "b"] * 2
    clock = Clock()
    bench.interleaved({"a": clock.action("a", 1.0)}, 1, 0.0, settle=2.5, clock=clock)
    assert clock.called == ["a"] * (2 + 3 + 1)


def test_no_time_at_all_is_still_a_number():
    clock = Clock()
    assert bench.interleaved({"a": clock.action("a", 0.0)}, 1, 0.0, clock=clock) == {"a": [1e-9]}


def test_report_by_hand():
    first, second = subject("first", 1_000_000_000), subject("first", None, "onnx", "cuda")
    third = subject("first", None, "onnx", "cpu")
    settings = replace(bench.QUICK, matrix_side=1000)
    rates = {name: [100.0] for name in bench.stages.STAGES} | {
        # One product is 1 GMAC.
        bench.stages.MATRIX: [50.0, 40.0, 80.0],
        bench.subjects.key(first): [20.0, 10.0, 40.0],
        bench.subjects.key(second): [40.0, 30.0, 40.0],
        bench.subjects.key(third): [1.0, 1.0, 1.0],
        bench.stages.PREDICTOR: [10.0, 10.0, 10.0],
    }
    rates = {name: values * (3 // len(values)) for name, values in rates.items()}
    runs = {
        bench.subjects.key(first): [{"fps": 8.0, "inference_busy": 0.9, "peak_bytes": 100}],
        bench.subjects.key(second): [{"fps": 16.0, "inference_busy": 0.8, "peak_bytes": None}],
    }
    # 2560 x 1440, four times 720p.
    report = bench.measurement._report(2560, 1440, settings, [first, second, third], rates, runs)
    assert report.peak_gmac_per_second == bench.Spread(50.0, 40.0, 80.0)
    one, two, three, predictor = report.networks
    assert [(each.engine, each.provider) for each in report.networks] == [
        ("litert", None), ("onnx", "cuda"), ("onnx", "cpu"), ("litert", None)
    ]  # fmt: skip
    assert three.ratio == bench.Spread(0.05, 0.025, 0.1)
    assert (one.fps, one.ratio, one.gmac) == (bench.Spread(20.0, 10.0, 40.0), bench.Spread(1.0, 1.0, 1.0), 4.0)
    assert one.gmac_per_second == bench.Spread(80.0, 40.0, 160.0)
    # 80 / 50, and by round 80 / 50, 40 / 40, 160 / 80.
    assert one.share_of_peak == bench.Spread(1.6, 1.0, 2.0)
    assert two.ratio == bench.Spread(2.0, 1.0, 3.0)
    assert (two.gmac, two.gmac_per_second, two.share_of_peak) == (None, None, None)
    assert (predictor.name, predictor.ratio) == (engines.PREDICTOR, bench.Spread(0.5, 0.25, 1.0))
    assert {stage.ratio for stage in report.stages} == {bench.Spread(5.0, 2.5, 10.0)}
    # Not of the third.
    runs = [(each.engine, each.provider, each.ratio.median, each.peak_bytes) for each in report.runs]
    assert runs == [("litert", None, 1.0, 100), ("onnx", "cuda", 2.0, None)]


def test_the_work_is_that_of_the_padded_frame():
    settings = bench.QUICK
    one = subject("a", 921_600_000)
    key = bench.subjects.key(one)
    rates = dict.fromkeys([bench.stages.MATRIX, bench.stages.PREDICTOR, key, *bench.stages.STAGES], [1.0])
    runs = {key: [{"fps": 1.0, "inference_busy": 1.0, "peak_bytes": 1}]}
    report = bench.measurement._report(1920, 1080, settings, [one], rates, runs)
    assert report.networks[0].gmac == pytest.approx(1920 * 1088 / 1e6)


def _size_report(peak_bytes=2_500_000):
    fps, share = bench.Spread(12.34, 10.0, 15.0), bench.Spread(0.5, 0.25, 0.75)
    return bench.SizeReport(
        width=1280,
        height=720,
        peak_gmac_per_second=bench.Spread(100.0, 90.0, 110.0),
        networks=[
            bench.NetworkRow("model", "litert", fps, bench.Spread(1.0, 1.0, 1.0), 4.7646, fps, share),
            bench.NetworkRow("other", "onnx", fps, share, None, None, None, "cuda"),
        ],
        stages=[bench.StageRow("decode", fps, share)],
        runs=[bench.RunRow("model", "onnx", fps, share, share, peak_bytes, "openvino")],
    )


def test_rows_as_cells():
    report = _size_report()
    assert bench.network_table(report.networks) == [
        ["network", "engine", "fps", "ratio", "GMAC", "GMAC/s", "of peak, %"],
        ["model", "litert", "12.3 (10.0..15.0)", "1.00 (1.00..1.00)", "4.76", "12.3 (10.0..15.0)", "50 (25..75)"],
        ["other", "onnx with cuda", "12.3 (10.0..15.0)", "0.50 (0.25..0.75)", "-", "-", "-"],
    ]
    assert bench.stage_table(report.stages)[1] == ["decode", "12.3 (10.0..15.0)", "0.50 (0.25..0.75)"]
    assert bench.run_table(report.runs)[1][1] == "onnx with openvino"
    assert bench.run_table(report.runs)[1][-2:] == ["50 (25..75)", "2"]
    assert bench.run_table(_size_report(peak_bytes=None).runs)[1][-1] == "-"


def test_what_was_written_is_read_again():
    reports = [_size_report(), _size_report(peak_bytes=None)]
    written = json.loads(json.dumps({"sizes": [asdict(report) for report in reports]}))
    assert bench.read_sizes(written) == reports
    # As of before there were providers.
    for row in (*written["sizes"][0]["networks"], *written["sizes"][0]["runs"]):
        del row["provider"]
    assert bench.read_sizes(written)[0].networks[0] == reports[0].networks[0]


@pytest.mark.parametrize(
    "values",
    [{}, [], {"sizes": 1}, {"sizes": [{}]}, {"sizes": [{**asdict(_size_report()), "networks": [{"name": 1}]}]}],
)
def test_what_another_wrote_is_refused(values):
    with pytest.raises(ValueError, match="^expected what 'deartifact bench --json' writes$"):
        bench.read_sizes(values)


# The measurement.


def test_a_clip_is_scaled_and_starts_again(tmp_path):
    bench.make_clip(demo.CLIP, tmp_path / "clip.mp4", 64, 48, 45)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 64, 48)
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    assert len(frames) == 45
    # The source has 39 frames; at CRF 30 two encodes of the same one differ, yet less than the clip's ends.
    assert np.abs(frames[39] - frames[0]).mean() < np.abs(frames[38] - frames[0]).mean()


def _assert_numbers(value, where=""):
    """Every number is finite and positive, and whatever is missing is so on purpose."""
    if isinstance(value, dict):
        for name, each in value.items():
            _assert_numbers(each, f"{where}.{name}")
    elif isinstance(value, list):
        for each in value:
            _assert_numbers(each, where)
    elif isinstance(value, int | float):
        assert math.isfinite(value) and value > 0, where
    else:
        assert isinstance(value, str), where


@needs_shipped_models
def test_a_quick_run_of_what_ships_needs_no_tensorflow(tmp_path):
    code = (
        "import sys; from keras_deartifact import cli;"
        "code = cli.main(['bench', '--quick', '--engine', 'litert', '--threads', '1', '--json', '-', "
        "'--size', '40x24', '--size', '32x32']);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {name.split(".")[0] for name in done.stderr.split()} & {"tensorflow", "keras", "onnxruntime"}
    assert done.stderr.count("\n") == 1 or done.stderr.startswith("deartifact: bench: ")
    values = json.loads(done.stdout, parse_constant=pytest.fail)
    assert values["machine"]["threads"] == 1
    assert values["machine"]["packages"]["ai-edge-litert"]
    # numpy was loaded after its threads were set.
    assert values["notes"] == []
    assert values["skipped"] == []
    assert [(each["width"], each["height"]) for each in values["sizes"]] == [(40, 24), (32, 32)]
    for size in values["sizes"]:
        names = bench.forms.default_models()
        assert [row["name"] for row in size["networks"]] == [*names, engines.PREDICTOR]
        assert [row["name"] for row in size["runs"]] == names
        assert [row["name"] for row in size["stages"]] == list(bench.stages.STAGES)
        if sys.platform != "linux":
            for row in size["runs"]:
                del row["peak_bytes"]
        for row in (*size["networks"], *size["runs"]):
            assert row.pop("provider") is None
        _assert_numbers(size)
    assert list(tmp_path.iterdir()) == []


@needs_shipped_models
def test_the_table_and_its_file(tmp_path, run, monkeypatch):
    monkeypatch.setattr(bench.runs, "in_own_process", lambda function, *arguments: (function(*arguments), None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ("--quick", "--model", SHIPPED, "--engine", "litert", "--json", tmp_path / "values.json")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    values = json.loads((tmp_path / "values.json").read_text(), parse_constant=pytest.fail)
    assert values["sha256"] == {f"{SHIPPED}.tflite": engines.digest(engines.pretrained_path(SHIPPED))}
    size = values["sizes"][0]
    lines = out.splitlines()
    assert any(line.startswith("88x56; peak, by a product of 128x128 float32 matrices: ") for line in lines)
    rows = [line.split() for line in lines if line.startswith(SHIPPED)]
    assert [row[:2] for row in rows] == [[SHIPPED, "litert"]] * 2
    assert rows[0][2] == f"{size['networks'][0]['fps']['median']:.1f}"
    # 96 x 64 of 1280 x 720 pixels.
    assert rows[0][6] == f"{4.764672 / 150:.3g}"
    # Where the system tells no memory.
    assert rows[1][-1] == "-"
    assert any(line.startswith("note: the matrix product has the threads that numpy's BLAS chose") for line in lines)
    # Nothing is remembered of a quick run.
    assert not any("--engine auto" in line for line in lines)
    assert not any(engines.remembered(SHIPPED).values())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and "--overwrite" in err and err.count("\n") == 1


def test_other_engines_are_measured(tmp_path, generator, monkeypatch):
    """In this process, because TensorFlow takes seconds to load."""
    monkeypatch.setattr(bench.runs, "in_own_process", lambda function, *arguments: (function(*arguments), 1))
    paths = {"keras": tmp_path / "model.keras"}
    generator.save(paths["keras"])
    if importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime"):
        import tf2onnx

        paths["onnx"] = tmp_path / "model.onnx"
        function = tf.function(lambda images, quantiser_map: generator((images, quantiser_map), training=False))
        shapes = (("images", 3), ("quantiser_map", 1))
        signature = [tf.TensorSpec((None, None, None, channels), name=name) for name, channels in shapes]
        tf2onnx.convert.from_function(function, signature, output_path=str(paths["onnx"]))
    subjects, skipped = bench.load([str(path) for path in paths.values()], only=["litert", *paths])
    assert [(each.engine, each.reason) for each in skipped] == [
        ("litert", "no model for it was given: --model with a .tflite file")
    ]
    assert [each.engine for each in subjects] == list(paths)
    assert bench.digests(subjects) == {path.name: engines.digest(path) for path in paths.values()}
    assert subjects[0].multiply_accumulates_720p == complexity.multiply_accumulates(generator)
    steps = []
    reports = bench.measure(
        subjects,
        demo.CLIP,
        restore_frames=restore.restore_frames,
        restore_video=restore.restore_video,
        settings=bench.QUICK,
        step=lambda: steps.append(1),
    )
    assert len(steps) == bench.turns(subjects, bench.QUICK)
    for row in (*reports[0].networks, *reports[0].runs):
        assert 0 < row.fps.low <= row.fps.median <= row.fps.high < math.inf
    keras_row = reports[0].networks[0]
    assert keras_row.gmac == pytest.approx(subjects[0].multiply_accumulates_720p / 150e9)
    assert keras_row.share_of_peak.median > 0
    if "onnx" in paths:
        assert reports[0].networks[1].gmac is None


def test_a_model_of_another_make_has_no_count(tmp_path):
    images, maps = keras.Input((None, None, 3)), keras.Input((None, None, 1))
    keras.Model([images, maps], keras.layers.Conv2D(3, 1)(images)).save(tmp_path / "other.keras")
    form = bench.forms.Form("other.keras", "keras", str(tmp_path / "other.keras"))
    assert bench.subjects._multiply_accumulates(form) is None


# The machine.


def test_a_process_of_its_own_has_its_own_memory():
    if bench.peak_memory_bytes() is None:
        pytest.skip("this system does not tell the peak of a process")
    # What `ru_maxrss` would hand down to every process started from here.
    ballast = np.ones(60_000_000)
    small, peak = bench.in_own_process(max, 1, 2)
    assert small == 2 and 0 < peak < ballast.nbytes <= bench.peak_memory_bytes()
    size, larger = bench.in_own_process(eval, "len(b'x' * 300_000_000)")
    assert size == 300_000_000 and larger > peak + 290_000_000


@pytest.mark.parametrize(
    ("code", "message"),
    [("1 // 0", "ZeroDivisionError: "), ("__import__('os').kill(__import__('os').getpid(), 9)", "killed by signal 9")],
)
def test_a_process_that_fails(code, message):
    with pytest.raises(ValueError, match=f"a run in a process of its own failed: {message}"):
        bench.in_own_process(eval, code)


def test_machine():
    values = bench.machine()
    assert values["threads"] == values["processors"] == os.cpu_count()
    assert bench.machine(3)["threads"] == 3
    assert values["processor"] and values["packages"]["numpy"] == np.__version__
    first, second = bench.machine_lines(values)
    assert first.startswith(f"{values['processor']}, {os.cpu_count()} processors; ")
    assert f"numpy {np.__version__}" in second


def test_threads_of_the_matrix_product(monkeypatch):
    before = dict(os.environ)
    assert command._limit_matrix_product(3) is False
    assert os.environ == before
    for name in command._BLAS_THREADS:
        monkeypatch.setenv(name, "5")
    monkeypatch.delitem(sys.modules, "numpy")
    assert command._limit_matrix_product(3) is True
    assert {os.environ[name] for name in command._BLAS_THREADS} == {"3"}


# The command.


@pytest.mark.parametrize(
    "argv",
    [
        ["--size", "1280"],
        ["--size", "15x16"],
        ["--size", "17x32"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--threads", "0"],
        ["--quick", "--model", "nonesuch"],
        ["--quick", "--model", "missing.onnx"],
        ["--quick", "--model", "setup.cfg"],
        ["--quick", "--engine", "steam"],
        ["--quick", "--engine", "ensemble"],
        ["--quick", "--json", "nowhere/values.json"],
    ],
)
def test_errors_are_one_line(run, argv, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("deartifact: error: ") and err.count("\n") == 1


@needs_shipped_models
def test_an_interruption_leaves_nothing(tmp_path, run, monkeypatch):
    def interrupted(*arguments):
        assert list(tmp_path.glob("deartifact-bench-*/clip.mp4"))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.measurement.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bench.runs, "in_own_process", interrupted)
    code, out, err = run("--quick", "--engine", "litert", "--json", tmp_path / "values.json")
    assert (code, out) == (130, "")
    assert err.startswith("deartifact: interrupted") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
