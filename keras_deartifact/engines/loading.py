"""From what a user names to a `Restorer` or a `Predictor`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines import choice, litert, onnx, serving, shipped, tensorflow
from keras_deartifact.engines.network import Network
from keras_deartifact.engines.restorer import LoadedPredictor, LoadedRestorer, Predictor, reason

__all__ = ["ENGINES", "INSTALL", "SERVING", "engine_of", "load", "load_predictor"]


def _ensemble(path: Path, threads: int | None) -> Network:
    members = json.loads(path.read_text("utf-8"))
    log2_steps = np.array([member["log2_step"] for member in members], np.float32)
    if not members:
        raise ValueError("Expected at least one member.")
    restorers = [load(path.parent / member["model"], threads=threads) for member in members]
    tiles = {each.tile for each in restorers}
    if len(tiles) > 1:
        raise ValueError(f"Expected members that take frames of the same sizes. Received: {tiles}")

    def run(images: NDArray[Any], quantiser_map: NDArray[Any]) -> NDArray[Any]:
        means = quantiser_map.mean(axis=(1, 2))
        nearest = np.abs(means - log2_steps).argmin(axis=1)
        restored = np.empty_like(images)
        for index in np.unique(nearest):
            chosen = nearest == index
            restored[chosen] = restorers[index](images[chosen], quantiser_map[chosen][..., 0])
        return restored

    # Each member has taken care of its number of channels.
    return Network(run, 3, tile=tiles.pop(), notes=restorers[0].notes)


ENGINES: dict[str, Callable[..., Network]] = {
    "litert": litert.load,
    "onnx": onnx.load,
    "keras": tensorflow.load_keras,
    "saved_model": tensorflow.load_saved_model,
    "ensemble": _ensemble,
}
"""By name, `(path, threads) -> Network`; "onnx" takes a provider, too. `threads` is None for one each processor."""

SERVING = "serving"
"""The engine that has no file: a model on a server."""

_ENGINE_OF_SUFFIX = {".tflite": "litert", ".onnx": "onnx", ".keras": "keras", ".json": "ensemble"}
_EXPORTED = {"litert": "tflite/model.float32.tflite", "onnx": "onnx/model.onnx", "saved_model": "saved_model/1"}

INSTALL = {
    "litert": "ai-edge-litert",
    "onnx": "onnxruntime",
    "keras": "keras_deartifact[train]",
    "saved_model": "keras_deartifact[train]",
}
"""What to install with pip for the engines that need a package."""


def engine_of(path: Path) -> str | None:
    """Returns the engine that the name of a file, or what is in a folder, calls for; None where that tells none."""
    if path.is_dir():
        return "ensemble" if (path / "ensemble.json").exists() else "saved_model"
    return _ENGINE_OF_SUFFIX.get(path.suffix.lower())


def load(
    model: str | os.PathLike[str] = shipped.DEFAULT_MODEL,
    engine: str = "auto",
    threads: int | None = None,
    provider: str | None = None,
    server: serving.Server | None = None,
    perception: float = 0.0,
) -> LoadedRestorer:
    """Loads a model.

    Args:
        model: name of a model that ships (`pretrained_models()`), or a .tflite, .onnx or .keras file, or the folder of
            a SavedModel, of an export (which has a manifest.json) or of an ensemble's run; of a server, the name that
            the model has there.
        engine: key of `ENGINES`, "serving", or "auto": with a server, "serving"; of a file, what its name calls for; of
            a model that ships and of an export, which come in several forms, the fastest on this machine that needs no
            TensorFlow, see `choice.py`.
        threads: of the engine; one for each processor by default. TensorFlow takes them for the whole process.
        provider: of ONNX Runtime, key of `PROVIDERS`, or "auto" or None for the first that loads.
        server: of the engine "serving"; it has its own number of threads.
        perception: 0 to 1, from the model that ships to its perceptual variant; between them on LiteRT only, see
            `blending.py`.

    Returns:
        A `Restorer`, see the package.

    Raises:
        ValueError: no such model, engine or provider, or the file is not a model that the engine can load; there is no
            server, or it has no such model.
        OSError: a certificate cannot be read.
    """
    if engine not in ("auto", SERVING, *ENGINES):
        raise ValueError(f"Expected an engine of {['auto', *ENGINES, SERVING]}. Received: engine={engine!r}")
    provider = None if provider == "auto" else provider
    if perception:
        variant = shipped.perceptual_variant(str(model))
        if perception < 1.0:
            return _load_between(str(model), variant, perception, engine, threads, provider, server)
        model = variant
    if provider is not None and provider not in onnx.PROVIDERS:
        raise ValueError(f"Expected a provider of {['auto', *onnx.PROVIDERS]}. Received: provider={provider!r}")
    if engine == SERVING or server is not None:
        return _connect(model, engine, provider, server)
    forms = _forms(model, engine)
    if provider is not None and engine == "auto" and "onnx" in forms:
        engine = "onnx"
    if engine == "auto":
        return (
            _load_fastest(forms, threads) if provider is None else _load(*next(iter(forms.items())), threads, provider)
        )
    if engine not in forms:
        raise ValueError(
            f"{model} has no form for the engine {engine!r}, only for {', '.join(forms)}: choose one of these, or give "
            "a model file."
        )
    return _load(engine, forms[engine], threads, provider)


def _load_between(
    model: str,
    variant: str,
    perception: float,
    engine: str,
    threads: int | None,
    provider: str | None,
    server: serving.Server | None,
) -> LoadedRestorer:
    if not 0.0 < perception < 1.0:
        raise ValueError(f"Expected a perception of 0 to 1. Received: perception={perception}")
    if engine not in ("auto", "litert") or provider is not None or server is not None:
        raise ValueError(
            f"A perception between 0 and 1 runs on the engine 'litert' alone. Received: perception={perception}"
        )
    first, second = (shipped.pretrained_path(name) for name in (model, variant))
    network = litert.load(first, threads, second, perception)
    restorer = LoadedRestorer(network, first, "litert", threads)
    restorer.perception = perception
    return restorer


def _connect(
    model: str | os.PathLike[str], engine: str, provider: str | None, server: serving.Server | None
) -> LoadedRestorer:
    if server is None:
        raise ValueError("The engine 'serving' needs the address of a server, such as 127.0.0.1:8500.")
    if engine not in ("auto", SERVING):
        raise ValueError(f"Only the engine 'serving' asks a server. Received: engine={engine!r}")
    if provider is not None:
        raise ValueError(f"Only the engine 'onnx' has providers. Received: engine={SERVING!r}, provider={provider!r}")
    return LoadedRestorer(serving.connect(str(model), server), Path(model), SERVING)


def _forms(model: str | os.PathLike[str], engine: str) -> dict[str, Path]:
    """The files of a model by the engine; of one file or folder, the engine that was asked for, whatever its name."""
    path = Path(model)
    # A name comes first: a folder that happens to be called like a model must not take its place.
    if str(model) in shipped.pretrained_models():
        return shipped.forms(str(model))
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"There is no model file {path}.")
        return shipped.forms(str(model))
    if path.is_dir() and (path / "manifest.json").exists():
        exported = {name: path / file for name, file in _EXPORTED.items() if (path / file).exists()}
        if not exported:
            raise ValueError(f"Expected an export with one of {list(_EXPORTED.values())}. Received: model={path}")
        return exported
    by_name = engine_of(path)
    if engine == "auto" and by_name is None:
        known = ", ".join(_ENGINE_OF_SUFFIX)
        raise ValueError(f"Expected a model file of {known} or a SavedModel's folder. Received: model={path}")
    if path.is_dir() and by_name == "ensemble":
        path = path / "ensemble.json"
    return {by_name if engine == "auto" and by_name else engine: path}


def _load_fastest(forms: dict[str, Path], threads: int | None) -> LoadedRestorer:
    def load_candidate(each: choice.Candidate) -> LoadedRestorer:
        return _load(each.engine, each.path, threads, each.provider)

    if len(forms) == 1:
        return _load(*next(iter(forms.items())), threads)
    ranked, why, loaded = choice.choose(forms, threads, load_candidate)
    restorer = None
    for each in ranked[:-1]:
        try:
            restorer = loaded.get(each) or load_candidate(each)
            break
        except ValueError as error:
            # It did load when it was measured.
            why = str(error)
    if restorer is None:
        restorer = loaded.get(ranked[-1]) or load_candidate(ranked[-1])
    if why is not None:
        restorer.notes = (why, *restorer.notes)
    return restorer


def _load(engine: str, path: Path, threads: int | None, provider: str | None = None) -> LoadedRestorer:
    if provider is not None and engine != "onnx":
        raise ValueError(f"Only the engine 'onnx' has providers. Received: engine={engine!r}, provider={provider!r}")
    options = {} if provider is None else {"provider": provider}
    try:
        network = ENGINES[engine](path, threads, **options)
        if network.channels not in (1, 3):
            raise ValueError(f"Expected images of 3 channels or of 1. Received: channels={network.channels}")
    except ImportError as error:
        raise ValueError(
            f"The engine {engine!r} needs a package that is not installed ({error.name or error}): "
            f"pip install {INSTALL.get(engine, 'keras_deartifact[train]')!r}"
        ) from error
    except onnx.ProviderError:
        raise
    except Exception as error:  # Four runtimes, each with its own ways to fail.
        raise ValueError(f"{path} is no model that the engine {engine!r} can load: {reason(error)}") from error
    return LoadedRestorer(network, path, engine, threads)


def load_predictor(file: str | os.PathLike[str] | None = None, threads: int | None = None) -> Predictor:
    """Loads a quality predictor.

    Args:
        file: .tflite; the one that ships with the package by default.
        threads: one for each processor by default.

    Raises:
        ValueError: the file is no predictor.
    """
    path = Path(file or shipped.predictor_path())
    try:
        network = litert.interpreter(path, threads or os.cpu_count() or 1, ["images"])
        if any(side > 0 for side in network.shapes[0][:3]):
            raise ValueError(f"Expected images of any size. Received: shape={network.shapes[0]}")
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no quality predictor: {error}") from error

    return LoadedPredictor(path, network.run)
