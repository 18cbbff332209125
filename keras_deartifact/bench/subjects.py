"""The models that are measured, each by every engine that can run it here, and why others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import numpy as np

from keras_deartifact import engines
from keras_deartifact.bench import forms
from keras_deartifact.engines.choice import LEAD
from keras_deartifact.engines.loading import INSTALL
from keras_deartifact.engines.onnx import ProviderError, providers

__all__ = ["RUNTIMES", "Skipped", "Subject", "digests", "key", "load", "most_runs", "notes", "running", "stated_work"]


@dataclass(frozen=True)
class Subject:
    """A model with an engine that is measured.

    Attributes:
        name: of the model, for the reader.
        model: what the user named, which `engines.load` takes; one in several forms is several subjects.
        engine: what runs it.
        provider: of ONNX Runtime; None for another engine.
        multiply_accumulates_720p: of a 720p frame, None where nothing tells.
        restorer: the loaded model.
    """

    name: str
    model: str
    engine: str
    provider: str | None
    multiply_accumulates_720p: int | None
    restorer: engines.LoadedRestorer


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
    packages: tuple[str, ...] = ()


RUNTIMES = {
    "litert": _Runtime("a .tflite file", ("ai_edge_litert",)),
    "onnx": _Runtime("an .onnx file", ("onnxruntime",)),
    "keras": _Runtime("a .keras file", ("keras", "tensorflow")),
    "saved_model": _Runtime("a SavedModel's folder", ("tensorflow",)),
    "ensemble": _Runtime("the folder of an ensemble's run"),
}


def load(
    models: Sequence[str] | None = None, threads: int | None = None, only: Sequence[str] | None = None
) -> tuple[list[Subject], list[Skipped]]:
    """Loads the models that are measured, each by every engine that has a form of it, with every provider.

    Args:
        models: as `engines.load` takes them; by default `forms.default_models()`.
        threads: of the engines; one for each processor by default.
        only: keys of `engines.ENGINES` to do with; by default all.

    Returns:
        What can be measured, in the order given and that of `engines.ENGINES`, and every engine and model that cannot.

    Raises:
        ValueError: a file is no model that its engine can load, or nothing can be measured.
    """
    wanted = list(dict.fromkeys(only or engines.ENGINES))
    subjects: list[Subject] = []
    skipped: list[Skipped] = []
    for model, name in forms.names(models or forms.default_models()).items():
        every = forms.forms(model, name)
        # One that no engine takes is loaded all the same, so that `engines.load` says what is wrong.
        chosen = [form for form in every if form.engine in (*wanted, "auto")]
        for form, provider in ((each, name) for each in chosen for name in _providers(each.engine)):
            try:
                restorer = _ready(form, threads, provider)
            except ValueError as error:
                absent = isinstance(error, ProviderError) or isinstance(error.__cause__, ImportError)
                if not absent and len(every) == 1:
                    raise
                skipped.append(Skipped(form.engine, form.name, str(error)))
                continue
            work = _multiply_accumulates(form)
            subjects.append(Subject(form.name, model, form.engine, restorer.provider, work, restorer))
    seen = {each.engine for each in subjects} | {each.engine for each in skipped}
    skipped += [Skipped(engine, None, _absence(engine)) for engine in wanted if engine not in seen]
    if not subjects:
        raise ValueError(f"expected a model that an installed engine runs; {skipped[0].engine}: {skipped[0].reason}")
    return subjects, skipped


def _providers(engine: str) -> Sequence[str | None]:
    if engine != "onnx":
        return [None]
    try:
        return providers()
    except ImportError:
        # `engines.load` is going to say so.
        return [None]


def _ready(form: forms.Form, threads: int | None, provider: str | None) -> engines.LoadedRestorer:
    """The model, after a first call, which fails where the engine cannot run all that it could load."""
    restorer = engines.load(form.file, form.engine, threads, provider)
    height, width = restorer.tile or (64, 64)
    restorer(np.zeros((1, height, width, 3), np.float32))
    return restorer


def _absence(engine: str) -> str:
    runtime = RUNTIMES[engine]
    missing = [package for package in runtime.packages if util.find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install '{INSTALL[engine]}'"
    return f"no model for it was given: --model with {runtime.takes}"


def digests(subjects: Sequence[Subject]) -> dict[str, str]:
    """Returns the SHA-256 of every model that is one file, by the name of that."""
    shipped = engines.pretrained_models()
    files = {
        each.restorer.path.name if each.name in shipped else each.name: each.restorer.path
        for each in subjects
        if each.engine != "ensemble"
    }
    return {name: engines.digest(file) for name, file in files.items() if file.is_file()}


def key(subject: Subject) -> str:
    """What a model's times are called by; a stage or the predictor may have its name."""
    return f"model {subject.name} {subject.engine} {subject.provider}"


def most_runs(subjects: Sequence[Subject]) -> int:
    """Of how many subjects whole runs are measured at most, see `running`."""
    models = [each.model for each in subjects]
    return sum(min(models.count(model), 2) for model in set(models))


def running(subjects: Sequence[Subject], fps: Mapping[str, float]) -> list[Subject]:
    """Returns the subjects of which whole runs are measured.

    They are the first form of each model, which is LiteRT's where there is one, and the fastest where that is another
    one, by as much as `engines.load` asks of it.

    Args:
        subjects: all.
        fps: frames a second of the networks alone, by `key`.
    """
    chosen = []
    for model in dict.fromkeys(each.model for each in subjects):
        first, *others = (each for each in subjects if each.model == model)
        chosen.append(first)
        fastest = max(others, key=lambda each: fps[key(each)], default=first)
        if fps[key(fastest)] > LEAD * fps[key(first)]:
            chosen.append(fastest)
    return chosen


def notes(subjects: Sequence[Subject], matrix_limited: bool) -> list[str]:
    """Says whose number of threads is not the one asked for, or is not known to be, and what else the engines note.

    Args:
        subjects: what is measured.
        matrix_limited: whether numpy's BLAS was told the same number, which it takes only when it is loaded.
    """
    lines = []
    if not matrix_limited:
        lines.append("the matrix product has the threads that numpy's BLAS chose; it was loaded already")
    return list(dict.fromkeys([*lines, *(note for each in subjects for note in each.restorer.notes)]))


def _multiply_accumulates(form: forms.Form) -> int | None:
    if form.name in engines.pretrained_models():
        return stated_work(engines.card(form.name))
    if form.engine != "keras" or util.find_spec("tensorflow") is None:
        return None
    import keras

    from keras_deartifact import complexity

    generator = keras.models.load_model(form.file, compile=False, safe_mode=True)
    try:
        return complexity.multiply_accumulates(generator)
    except (AttributeError, ValueError):
        # Another's model, which states no `size_multiple`, or one that 720p is no multiple of.
        return None


def stated_work(card: Mapping[str, Any]) -> int | None:
    """The work that a card states, None where it does not."""
    value = card.get("multiply_accumulates_720p")
    return None if value is None else int(value)
