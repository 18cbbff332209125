"""How fast restoring is on this machine: each model, the stages around it, whole runs, and the memory those take.

What is timed at each size takes turns, round by round, so that a processor whose clock drifts treats all alike:

- a product of two large float32 matrices by numpy: the machine's peak, in multiply-accumulates a second;
- each model, on a decoded frame and its quantiser map, through what `restore_video` calls (`restore_frames`);
- the quality predictor, on the same frame;
- the stages around the network, as `restore_video` has them: decoding with and without the export of quantisers,
  conversion to float RGB, adding the network's correction to the planes, encoding.

Then each model restores the whole clip, again in turns, and each time in a process of its own, because the peak memory
of a process never falls. Absolute numbers are those of one machine in one state: compare ratios, which are taken round
by round. A model's work is

    GMAC = multiply-accumulates of a 720p frame * rows * columns / (720 * 1280) / 10^9

with rows and columns of the frame padded to a multiple of 16, which is what the network sees.
"""

import contextlib
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata, util
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from keras_deartifact import colour, encoders, engines, files, image, quantiser, video

SIZES = ((1280, 720), (1920, 1080))
"""Width and height in pixels."""

CRF = 30
"""Of the clip that is decoded and restored."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: `(width, height)` in pixels, even and at least 16.
        rounds: of everything that takes turns.
        seconds: about how long each of them is timed, over all rounds; every round runs it once at least.
        settle: seconds at the start of each turn that are not timed. OpenBLAS's threads spin for about 2^26 ticks,
            0.03 s.
        clip_frames: length of the clip; what encoding is timed on is held in memory.
        matrix_side: of the matrices in the product.
        run_rounds: of the whole runs.
    """

    sizes: Sequence[tuple[int, int]] = SIZES
    rounds: int = 7
    seconds: float = 3.0
    settle: float = 0.1
    clip_frames: int = 39
    matrix_side: int = 2048
    run_rounds: int = 3


QUICK = Settings(sizes=((88, 56),), rounds=1, seconds=0.0, settle=0.0, clip_frames=4, matrix_side=128, run_rounds=1)
"""Shows that all of it works; its numbers mean nothing."""


@dataclass(frozen=True)
class Spread:
    """A number measured once a round: the median, the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        name: for the reader.
        model: what `engines.load` takes.
        engine: what runs it.
        multiply_accumulates_720p: of a 720p frame, None where nothing tells.
        restorer: the loaded model.
    """

    name: str
    model: str
    engine: str
    multiply_accumulates_720p: int | None
    restorer: engines.Restorer


@dataclass(frozen=True)
class Skipped:
    """An engine, or a model for it, that is not measured, and why."""

    engine: str
    model: str | None
    reason: str


@dataclass(frozen=True)
class NetworkRow:
    """A network by itself.

    Attributes:
        name: of the model.
        engine: what runs it.
        fps: frames a second.
        ratio: `fps` over that of the first row.
        gmac: multiply-accumulates of a frame, in 10^9; None where unknown.
        gmac_per_second: `gmac * fps`.
        share_of_peak: `gmac_per_second` over the matrix product's.
    """

    name: str
    engine: str
    fps: Spread
    ratio: Spread
    gmac: float | None
    gmac_per_second: Spread | None
    share_of_peak: Spread | None


@dataclass(frozen=True)
class StageRow:
    """A stage around the network by itself; `ratio` is to the first model's `fps`."""

    name: str
    fps: Spread
    ratio: Spread


@dataclass(frozen=True)
class RunRow:
    """Whole runs of `restore_video`, each in a process of its own.

    Attributes:
        name: of the model.
        engine: what runs it.
        fps: frames a second, decoding and encoding included, loading not.
        ratio: `fps` over that of the first row.
        inference_busy: share of the time inside the restorer, in `[0, 1]`.
        peak_bytes: the most memory that any of the processes held; None where the system does not tell.
    """

    name: str
    engine: str
    fps: Spread
    ratio: Spread
    inference_busy: Spread
    peak_bytes: int | None


@dataclass(frozen=True)
class SizeReport:
    """What was measured at one size.

    Attributes:
        width: of the clip, in pixels.
        height: likewise.
        peak_gmac_per_second: of the matrix product.
        networks: the models in the order given, then the quality predictor.
        stages: in the order in which a frame passes them.
        runs: the models in the order given.
    """

    width: int
    height: int
    peak_gmac_per_second: Spread
    networks: list[NetworkRow]
    stages: list[StageRow]
    runs: list[RunRow]


@dataclass(frozen=True)
class _Runtime:
    """What an engine runs, and the packages it needs."""

    takes: str
    suffix: str
    packages: tuple[str, ...]


_RUNTIMES = {
    "litert": _Runtime("a .tflite file", ".tflite", ("ai_edge_litert",)),
    "onnx": _Runtime("an .onnx file", ".onnx", ("onnxruntime",)),
    "keras": _Runtime("a .keras file", ".keras", ("keras", "tensorflow")),
    "saved_model": _Runtime("a SavedModel's folder", "", ("tensorflow",)),
    "ensemble": _Runtime("the folder of an ensemble's run", ".json", ()),
}
_DISTRIBUTIONS = ("numpy", "av", "ai-edge-litert", "onnxruntime", "keras", "tensorflow")

_REFERENCE_PIXELS = 720 * 1280


# Arithmetic.


def spread(values: Sequence[float]) -> Spread:
    """The median of some numbers, and how far they spread."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """How numbers compare with others of the same rounds.

        median = median(values) / median(reference),   low, high = min, max over rounds of values / reference

    The median lies between the other two, because a median keeps the order of what it is taken of.
    """
    each = [value / other for value, other in zip(values, reference, strict=True)]
    return Spread(statistics.median(values) / statistics.median(reference), min(each), max(each))


def gmac(multiply_accumulates_720p: int, width: int, height: int) -> float:
    """The work for a frame of so many pixels, in 10^9 multiply-accumulates; see the module."""
    return multiply_accumulates_720p * width * height / _REFERENCE_PIXELS / 1e9


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    *,
    settle: float = 0.0,
    step: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times actions in turns: in every round, each of them once, in the order given.

    First each is called twice: once for what only a first call does, and once to learn how many calls fill its share of
    a round, `seconds / rounds`. Every turn begins with calls that are not timed, for `settle` seconds: the threads of
    the turn before go on spinning for a while, and a network is a fifth slower beside those of a matrix product.

    Args:
        actions: by name.
        rounds: at least 1.
        seconds: about how long each action is timed, over all rounds.
        settle: seconds at the start of each turn that are not timed; more than 0 means one call at least.
        step: called after each turn.
        clock: seconds, as `time.perf_counter`.

    Returns:
        Seconds of one call, by name: the mean over a turn's calls, for each round.
    """
    calls = {}
    for name, action in actions.items():
        action()
        calls[name] = max(1, round(seconds / rounds / _timed(action, 1, clock)))
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            started = clock()
            while clock() - started < settle:
                action()
            times[name].append(_timed(action, calls[name], clock))
            step()
    return times


def _timed(action: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(calls):
        action()
    # A clock may be too coarse for what takes no time at all.
    return max(clock() - started, 1e-9) / calls


# What is measured.


def load(models: Sequence[str] | None = None, threads: int | None = None) -> tuple[list[Subject], list[Skipped]]:
    """Loads the models that are measured, each by the engine that its file calls for.

    Args:
        models: as `engines.load` takes them; by default all that ship.
        threads: of the engines; one for each processor by default.

    Returns:
        What can be measured, in the order given, and every engine and model that cannot.

    Raises:
        ValueError: a file is no model that its engine can load, or nothing can be measured.
    """
    subjects, skipped = [], []
    for model in dict.fromkeys(models or engines.pretrained_models()):
        engine = _engine_of(model)
        name = model if model in engines.pretrained_models() else Path(model).name
        _limit_tensorflow(engine, threads)
        try:
            # "auto" for what has no engine, so that `engines.load` says what is wrong.
            restorer = engines.load(model, engine or "auto", threads)
        except ValueError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            skipped.append(Skipped(engine, name, str(error)))
            continue
        restorer(np.zeros((1, 64, 64, 3), np.float32))
        subjects.append(Subject(name, model, engine, _multiply_accumulates(model, engine), restorer))
    if not subjects:
        raise ValueError(f"expected a model that an installed engine runs. {skipped[0].reason}")
    seen = {each.engine for each in subjects} | {each.engine for each in skipped}
    skipped += [Skipped(engine, None, _absence(engine)) for engine in engines.ENGINES if engine not in seen]
    return subjects, skipped


def _engine_of(model: str) -> str:
    """The engine for a model, empty where its name tells none."""
    path = Path(model)
    if model in engines.pretrained_models():
        return "litert"
    if path.is_dir():
        return "ensemble" if (path / "ensemble.json").exists() else "saved_model"
    suffixes = {runtime.suffix: engine for engine, runtime in _RUNTIMES.items() if runtime.suffix}
    return suffixes.get(path.suffix.lower(), "")


def _absence(engine: str) -> str:
    missing = [package for package in _RUNTIMES[engine].packages if util.find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'keras_deartifact[train]'"
    return f"no model for it was given: --model with {_RUNTIMES[engine].takes}"


def _limit_tensorflow(engine: str, threads: int | None) -> None:
    """TensorFlow takes its threads for the whole process, before it first computes; `uncontrolled` says if too late."""
    if threads is None or engine not in ("keras", "saved_model"):
        return
    # Too late, or not there, which `engines.load` is going to say.
    with contextlib.suppress(ImportError, RuntimeError):
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def uncontrolled(subjects: Sequence[Subject], threads: int | None, matrix_limited: bool) -> list[str]:
    """Says whose number of threads is not the one asked for, or is not known to be.

    Args:
        subjects: what is measured.
        threads: what the engines were asked for; None for their default.
        matrix_limited: whether numpy's BLAS was told the same number, which it takes only when it is loaded.
    """
    notes = []
    if not matrix_limited:
        notes.append("the matrix product has the threads that numpy's BLAS chose; it was loaded already")
    # Keras may have another backend.
    uses_tensorflow = {"keras", "saved_model"} & {each.engine for each in subjects} and util.find_spec("tensorflow")
    if threads is not None and uses_tensorflow:
        import tensorflow as tf

        actual = tf.config.threading.get_intra_op_parallelism_threads()
        if actual != threads:
            notes.append(f"TensorFlow has {actual or 'its default'} threads, not {threads}; it was in use already")
    return notes


def _multiply_accumulates(model: str, engine: str) -> int | None:
    if model in engines.pretrained_models():
        return _stated(engines.card(model))
    if engine != "keras" or util.find_spec("tensorflow") is None:
        return None
    import keras

    from keras_deartifact import complexity

    generator = keras.models.load_model(model, compile=False, safe_mode=True)
    try:
        return complexity.multiply_accumulates(generator)
    except (AttributeError, ValueError):
        # Another's model, which states no `size_multiple`, or one that 720p is no multiple of.
        return None


def _stated(card: Mapping[str, Any]) -> int | None:
    value = card.get("multiply_accumulates_720p")
    return None if value is None else int(value)


def make_clip(source: files.StrPath, target: files.StrPath, width: int, height: int, frames: int) -> None:
    """Scales a video, and encodes it as `restore_video` would by default but for the CRF.

    Args:
        source: a video; one that is too short starts again.
        target: the file to write.
        width: pixels, even.
        height: likewise.
        frames: how many.
    """
    codec = encoders.default(target)
    encoder = encoders.choose(codec, CRF)
    originals = [frame.image for frame in islice(video.read_frames(source, quantisers=False), frames)]
    with av.open(os.fspath(target), "w") as container:
        stream = container.add_stream(codec, rate=25)
        if not isinstance(stream, VideoStream):
            raise ValueError(f"expected an encoder of video. Received: codec={codec!r}")
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.options = {"crf": str(encoder.crf), "preset": str(encoder.preset), **encoder.options}
        for index, original in enumerate(islice(cycle(originals), frames)):
            frame = original.reformat(width, height, "yuv420p", interpolation=Interpolation.BICUBIC)
            frame.time_base, frame.pts = Fraction(1, 25), index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(
    subjects: Sequence[Subject],
    source: files.StrPath,
    *,
    restore_frames: Callable[..., npt.NDArray[Any]],
    restore_video: Callable[..., Any],
    settings: Settings = Settings(),
    threads: int | None = None,
    step: Callable[[], None] = lambda: None,
) -> list[SizeReport]:
    """Measures everything, at each size.

    Args:
        subjects: of `load`; the first is what the others are compared with.
        source: a clip, which is scaled to each size.
        restore_frames: that of `restore.py`, which is of the same layer as this module.
        restore_video: likewise; another process has to be able to import it.
        settings: how much.
        threads: of the engines; one for each processor by default.
        step: called after each turn, `turns(len(subjects), settings)` times.

    Returns:
        A report for each size.
    """
    predictor = engines.load_predictor(threads=threads)
    reports = []
    for width, height in settings.sizes:
        with tempfile.TemporaryDirectory(prefix="deartifact-bench-") as name:
            clip = Path(name) / "clip.mp4"
            make_clip(source, clip, width, height, settings.clip_frames)
            rates = _rates(clip, subjects, predictor, restore_frames, settings, step)
            runs = _runs(clip, subjects, restore_video, settings, threads, step)
        reports.append(_report(width, height, settings, subjects, rates, runs))
    return reports


def turns(subjects: int, settings: Settings) -> int:
    """How many turns `measure` takes for so many models."""
    alone = settings.rounds * (len((_MATRIX, _PREDICTOR, *_STAGES)) + subjects)
    return len(settings.sizes) * (alone + settings.run_rounds * subjects)


_MATRIX, _PREDICTOR = "matrix product", "predictor"
_DECODE, _DECODE_PLAIN, _TO_RGB = "decode, with quantisers", "decode, without", "to float RGB"
_CORRECT, _ENCODE = "add the correction", "encode"
_STAGES = (_DECODE, _DECODE_PLAIN, _TO_RGB, _CORRECT, _ENCODE)


def _rates(
    clip: Path,
    subjects: Sequence[Subject],
    predictor: engines.Predictor,
    restore_frames: Callable[..., npt.NDArray[Any]],
    settings: Settings,
    step: Callable[[], None],
) -> dict[str, list[float]]:
    """What is measured by itself, by name, for each round: frames a second, or products."""
    frames = list(video.read_frames(clip))
    first = frames[0].image
    images, shown, maps = _inputs(frames[0])
    correction = np.ascontiguousarray(shown[0] * np.float32(0.01))
    left, right = np.random.default_rng(0).random((2, settings.matrix_side, settings.matrix_side), np.float32)
    product = np.empty_like(left)

    def restoring(subject: Subject) -> Callable[[], object]:
        return lambda: restore_frames(subject.restorer, images, maps)

    actions: dict[str, Callable[[], object]] = {_MATRIX: lambda: np.matmul(left, right, out=product)}
    actions |= {_key(subject): restoring(subject) for subject in subjects}
    actions |= {
        _PREDICTOR: lambda: predictor(shown),
        _DECODE: lambda: sum(1 for _ in video.read_frames(clip)),
        _DECODE_PLAIN: lambda: sum(1 for _ in video.read_frames(clip, quantisers=False)),
        _TO_RGB: lambda: _to_images(first),
        _CORRECT: lambda: colour.add_correction(first, correction),
        _ENCODE: lambda: _encode(clip, frames),
    }
    times = interleaved(actions, settings.rounds, settings.seconds, settle=settings.settle, step=step)
    work = dict.fromkeys((_DECODE, _DECODE_PLAIN, _ENCODE), len(frames))
    return {name: [work.get(name, 1) / seconds for seconds in each] for name, each in times.items()}


def _encode(clip: Path, frames: Sequence[video.Frame]) -> None:
    """Encodes decoded frames as `restore_video` does."""
    target = clip.with_name("encoded.mp4")
    codec = encoders.default(target, frames[0].image.format.name)
    encoder = encoders.choose(codec)
    with video.VideoWriter(
        target, clip, codec=codec, crf=encoder.crf or 0, preset=encoder.preset or "", options=encoder.options
    ) as writer:
        for frame in frames:
            writer.write(frame.image)


def _runs(
    clip: Path,
    subjects: Sequence[Subject],
    restore_video: Callable[..., Any],
    settings: Settings,
    threads: int | None,
    step: Callable[[], None],
) -> dict[str, list[dict[str, Any]]]:
    """What whole runs report, for each subject and round."""
    runs: dict[str, list[dict[str, Any]]] = {_key(subject): [] for subject in subjects}
    for _ in range(settings.run_rounds):
        for subject in subjects:
            result, peak_bytes = in_own_process(
                _restore_clip, restore_video, subject.model, subject.engine, threads, os.fspath(clip)
            )
            runs[_key(subject)].append({**result, "peak_bytes": peak_bytes})
            step()
    return runs


def _key(subject: Subject) -> str:
    return f"model {subject.model}"


def _to_images(frame: av.VideoFrame) -> npt.NDArray[np.float32]:
    return image.to_float(image.pad_to_multiple(colour.to_rgb(frame), image.GRID))[None]


def _inputs(
    frame: video.Frame,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What `restore_video` makes of a frame of H.264: padded for the network, as it is for the predictor, its map."""
    height, width = frame.image.height, frame.image.width
    images = _to_images(frame.image)
    stated = None if frame.qp is None else quantiser.log2_step_from_qp(frame.qp, "h264")
    known = quantiser.constant_map(height, width) if stated is None else stated
    return images, images[:, :height, :width], known[None]


def _restore_clip(
    restore_video: Callable[..., Any], model: str, engine: str, threads: int | None, clip: str
) -> dict[str, float]:
    """Restores a clip once, after a first frame that does what only a first one does."""
    _limit_tensorflow(engine, threads)
    restorer, predictor = engines.load(model, engine, threads), engines.load_predictor(threads=threads)
    images, shown, maps = _inputs(next(video.read_frames(clip)))
    restorer(images, maps)
    predictor(shown)
    report = restore_video(restorer, clip, Path(clip).with_name("restored.mp4"), predictor=predictor, overwrite=True)
    return {"fps": report.fps, "inference_busy": report.inference_busy}


def _report(
    width: int,
    height: int,
    settings: Settings,
    subjects: Sequence[Subject],
    rates: Mapping[str, Sequence[float]],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
) -> SizeReport:
    first = _key(subjects[0])
    peak = [settings.matrix_side**3 / 1e9 * rate for rate in rates[_MATRIX]]

    def network(name: str, engine: str, key: str, work: float | None) -> NetworkRow:
        fps = rates[key]
        speed = None if work is None else [work * each for each in fps]
        return NetworkRow(
            name=name,
            engine=engine,
            fps=spread(fps),
            ratio=ratio(fps, rates[first]),
            gmac=work,
            gmac_per_second=None if speed is None else spread(speed),
            share_of_peak=None if speed is None else ratio(speed, peak),
        )

    def padded(multiply_accumulates_720p: int | None) -> float | None:
        rows, columns = (side * image.GRID for side in quantiser.map_shape(height, width))
        return None if multiply_accumulates_720p is None else gmac(multiply_accumulates_720p, columns, rows)

    def run(subject: Subject) -> RunRow:
        values = runs[_key(subject)]
        fps = [each["fps"] for each in values]
        peaks = [each["peak_bytes"] for each in values if each["peak_bytes"] is not None]
        return RunRow(
            name=subject.name,
            engine=subject.engine,
            fps=spread(fps),
            ratio=ratio(fps, [each["fps"] for each in runs[first]]),
            inference_busy=spread([each["inference_busy"] for each in values]),
            peak_bytes=max(peaks, default=None),
        )

    networks = [
        network(subject.name, subject.engine, _key(subject), padded(subject.multiply_accumulates_720p))
        for subject in subjects
    ]
    predictor_card = json.loads(engines.predictor_path().with_suffix(".json").read_text("utf-8"))
    # It sees whole blocks alone.
    whole = (width // image.GRID * image.GRID, height // image.GRID * image.GRID)
    stated = _stated(predictor_card)
    networks.append(network(engines.PREDICTOR, "litert", _PREDICTOR, None if stated is None else gmac(stated, *whole)))
    return SizeReport(
        width=width,
        height=height,
        peak_gmac_per_second=spread(peak),
        networks=networks,
        stages=[StageRow(name, spread(rates[name]), ratio(rates[name], rates[first])) for name in _STAGES],
        runs=[run(subject) for subject in subjects],
    )


# The machine.


def machine(threads: int | None = None) -> dict[str, Any]:
    """What the numbers depend on: processors, threads of the engines, versions; as JSON takes it."""
    versions = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    processors = os.cpu_count() or 1
    return {
        "processor": _processor(),
        "processors": processors,
        "threads": threads or processors,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int | None:
    """The most physical memory that this process ever held; None where the system does not tell.

    Linux: VmHWM of /proc/self/status. Not `ru_maxrss`, which a new process takes over from the one that started it:
    beside a parent of 2.5 GB a Python of 9 MB claims 2.5 GB. macOS: `ru_maxrss`, which is in bytes there and in KiB
    elsewhere. Windows has neither.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from keras_deartifact import bench; "
    "bench.run_pickled(sys.stdin.buffer.read())"
)


def in_own_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int | None]:
    """Calls a function in a new Python.

    Args:
        function: importable, because it is pickled; what it returns has to have a form in JSON.
        arguments: pickled likewise.

    Returns:
        What it returned, and the peak memory of that process in bytes.

    Raises:
        ValueError: the process failed or was killed, as a system does that runs out of memory.
    """
    # In a session of its own, so that Ctrl-C reaches this process alone, which then kills it.
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
        input=pickle.dumps((function, arguments)),
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        if done.returncode < 0:
            lines = [f"killed by signal {-done.returncode}; is there enough memory?"]
        raise ValueError(f"a run in a process of its own failed: {lines[-1] if lines else done.returncode}")
    result, peak_bytes = json.loads(done.stdout.splitlines()[-1])
    return result, peak_bytes


def run_pickled(task: bytes) -> None:
    """The other end of `in_own_process`: the last line of stdout is the result and the peak memory."""
    function, arguments = pickle.loads(task)
    result = function(*arguments)
    sys.stdout.write("\n" + json.dumps([result, peak_memory_bytes()], allow_nan=False) + "\n")
