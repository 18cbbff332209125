"""The models that are measured, each by the engine that its file calls for, and why others are not."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from keras_deartifact import engines

__all__ = [
    "RUNTIMES",
    "Skipped",
    "Subject",
    "digests",
    "key",
    "limit_tensorflow",
    "load",
    "stated_work",
    "uncontrolled",
]


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
class _Runtime:
    """What an engine runs, and the packages it needs."""

    takes: str
    suffix: str
    packages: tuple[str, ...]


RUNTIMES = {
    "litert": _Runtime("a .tflite file", ".tflite", ("ai_edge_litert",)),
    "onnx": _Runtime("an .onnx file", ".onnx", ("onnxruntime",)),
    "keras": _Runtime("a .keras file", ".keras", ("keras", "tensorflow")),
    "saved_model": _Runtime("a SavedModel's folder", "", ("tensorflow",)),
    "ensemble": _Runtime("the folder of an ensemble's run", ".json", ()),
}


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
        limit_tensorflow(engine, threads)
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


def digests(subjects: Sequence[Subject]) -> dict[str, str]:
    """Returns the SHA-256 of every model that is one file, by its name."""
    files = {each.name: Path(each.model) for each in subjects}
    shipped = engines.pretrained_models()
    files |= {each.name: engines.pretrained_path(each.model) for each in subjects if each.model in shipped}
    return {name: engines.digest(file) for name, file in files.items() if file.is_file()}


def _engine_of(model: str) -> str:
    """The engine for a model, empty where its name tells none."""
    path = Path(model)
    if model in engines.pretrained_models():
        return "litert"
    if path.is_dir():
        return "ensemble" if (path / "ensemble.json").exists() else "saved_model"
    suffixes = {runtime.suffix: engine for engine, runtime in RUNTIMES.items() if runtime.suffix}
    return suffixes.get(path.suffix.lower(), "")


def _absence(engine: str) -> str:
    missing = [package for package in RUNTIMES[engine].packages if util.find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'keras_deartifact[train]'"
    return f"no model for it was given: --model with {RUNTIMES[engine].takes}"


def limit_tensorflow(engine: str, threads: int | None) -> None:
    """TensorFlow takes its threads for the whole process, before it first computes; `uncontrolled` says if too late."""
    if threads is None or engine not in ("keras", "saved_model"):
        return
    # Too late, or not there, which `engines.load` is going to say.
    with contextlib.suppress(ImportError, RuntimeError):
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def key(subject: Subject) -> str:
    """What a model's times are called by; a stage or the predictor may have its name."""
    return f"model {subject.model}"


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
        return stated_work(engines.card(model))
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


def stated_work(card: Mapping[str, Any]) -> int | None:
    """The work that a card states, None where it does not."""
    value = card.get("multiply_accumulates_720p")
    return None if value is None else int(value)
