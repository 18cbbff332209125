"""Engines: `load(path)` gives a `Restorer` for a model file, whatever runs it.

A `Restorer` is a function `(frames, quantiser_map) -> frames`:

- frames uint8 `(n, height, width, 3)` RGB, or float32 of the same shape in `[0, 1]`; the result has the same shape and
  dtype, uint8 rounded and clipped, float32 as the network gives it;
- quantiser_map float32 `(n, height / 16, width / 16)` log2 steps, or None for `quantiser.DEFAULT_LOG2_STEP`;
- height and width are multiples of 16: padding and tiling are the caller's (`restore.py`).

A model file whose images have one channel is a luma-only network; its `Restorer` takes and returns RGB all the same:

    Y      = 0.299 R + 0.587 G + 0.114 B            BT.601, full range
    result = frames + (network(Y) - Y)              the same in every channel

which is exact: R = Y + 1.402 Cr and so on, so that a change of Y alone changes R, G and B by as much.

An ensemble, `ensemble.json` in a run's folder, is a list of `{"log2_step": ..., "model": FILE}`, one generator for each
quality (Galteri et al.). Each frame goes to the one whose step is nearest to the mean of its quantiser map.

Each engine imports its runtime when it is first used.
"""

import hashlib
import json
import os
import textwrap
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image, quantiser

__all__ = [
    "DEFAULT_MODEL",
    "ENGINES",
    "PREDICTOR",
    "Predictor",
    "Restorer",
    "card",
    "digest",
    "load",
    "load_predictor",
    "predictor_path",
    "pretrained_models",
    "pretrained_path",
]

DEFAULT_MODEL = "shuffle_nano"
PREDICTOR = "quality_predictor"
_PRETRAINED = resources.files("keras_deartifact") / "pretrained"

Network = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

_LUMA_WEIGHTS = np.array((0.299, 0.587, 0.114), np.float32)


class Restorer(Protocol):
    """See the module."""

    def __call__(self, frames: NDArray[Any], quantiser_map: NDArray[np.float32] | None = None) -> NDArray[Any]:
        """Restores frames."""


class Predictor(Protocol):
    """A function that returns log2 steps of every 16x16 block, float32 `(n, rows, columns)` as `quantiser.map_shape`.

    The frames are `(n, height, width, 3)` RGB, float32 in `[0, 1]`. Of partial blocks at the right and at the bottom it
    says what their neighbours say: padded, they would mislead it.
    """

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predicts quantiser maps."""


def pretrained_models() -> list[str]:
    """Returns the names of the restoring models that ship with the package, sorted."""
    names = (entry.name.removesuffix(".json") for entry in _PRETRAINED.iterdir() if entry.name.endswith(".json"))
    return sorted(name for name in names if name != PREDICTOR)


def pretrained_path(name: str) -> Path:
    """Returns the file of a model that ships with the package.

    Raises:
        ValueError: there is no such model.
    """
    if name not in pretrained_models():
        raise ValueError(f"Expected a model file or one of {pretrained_models()}. Received: model={name!r}")
    return Path(str(_PRETRAINED / f"{name}.tflite"))


def card(name: str) -> dict[str, Any]:
    """Returns the card of a model that ships: what it is, how it was trained, its measured numbers.

    Raises:
        ValueError: there is no such model.
    """
    values: dict[str, Any] = json.loads(pretrained_path(name).with_suffix(".json").read_text("utf-8"))
    return values


def digest(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a model file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _interpreter(path: Path, threads: int, names: Sequence[str]) -> tuple[Callable[..., NDArray[np.float32]], int]:
    """Returns how to run a LiteRT file on the inputs of these names, and the channels of the first of them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    given = {entry["name"].split(":")[0]: entry for entry in interpreter.get_input_details()}
    inputs = [entry for wanted in names for name, entry in given.items() if name.endswith(wanted)]
    if not len(inputs) == len(names) == len(given):
        raise ValueError(f"Expected the inputs {list(names)}. Received: {sorted(given)}")
    output_index = interpreter.get_output_details()[0]["index"]
    allocated: list[tuple[int, ...]] = []

    def run(*arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        if allocated != [arrays[0].shape]:
            for entry, array in zip(inputs, arrays, strict=True):
                interpreter.resize_tensor_input(entry["index"], array.shape)
            interpreter.allocate_tensors()
            allocated[:] = [arrays[0].shape]
        for entry, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(entry["index"], array)
        interpreter.invoke()
        result: NDArray[np.float32] = interpreter.get_tensor(output_index)
        return result

    return run, int(inputs[0]["shape_signature"][-1])


def _litert(path: Path, threads: int) -> tuple[Network, int]:
    return _interpreter(path, threads, ("images", "quantiser_map"))


def _onnx(path: Path, threads: int) -> tuple[Network, int]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    if sorted(shapes) != ["images", "quantiser_map"]:
        raise ValueError(f"Expected the inputs 'images' and 'quantiser_map'. Received: {sorted(shapes)}")

    def run(images: NDArray[np.float32], quantiser_map: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"images": images, "quantiser_map": quantiser_map})[0]
        return result

    return run, shapes["images"][-1]


def _keras(path: Path, threads: int) -> tuple[Network, int]:
    del threads  # TensorFlow takes its number of threads for the whole process.
    import keras

    from keras_deartifact import models  # noqa: F401  (registers the generators)

    generator = keras.models.load_model(path, compile=False, safe_mode=True)

    def run(images: NDArray[np.float32], quantiser_map: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(generator((images, quantiser_map), training=False), np.float32)

    return run, generator.channels


def _saved_model(path: Path, threads: int) -> tuple[Network, int]:
    del threads  # TensorFlow takes its number of threads for the whole process.
    import tensorflow as tf

    module = tf.saved_model.load(str(path))
    specs = module.signatures["serving_default"].structured_input_signature[1]
    channels = {name: spec.shape[-1] or 0 for name, spec in specs.items()}
    # The number of channels tells the inputs apart. Where both have one, their names are in the order of the call:
    # `images` and `quantiser_map`, or `args_0` and `args_0_1` from `Model.export`.
    names = sorted(channels, key=lambda name: (-channels[name], name))
    if [channels[name] for name in names] not in ([3, 1], [1, 1]):
        raise ValueError(f"Expected inputs of 3 channels and of 1, or of 1 and of 1. Received: {specs}")
    images_name, map_name = names

    def run(images: NDArray[np.float32], quantiser_map: NDArray[np.float32]) -> NDArray[np.float32]:
        # Through `module`: a signature by itself does not keep its variables alive.
        signature = module.signatures["serving_default"]
        outputs = signature(**{images_name: tf.constant(images), map_name: tf.constant(quantiser_map)})
        return np.asarray(next(iter(outputs.values())), np.float32)

    return run, channels[images_name]


def _ensemble(path: Path, threads: int) -> tuple[Network, int]:
    members = json.loads(path.read_text("utf-8"))
    log2_steps = np.array([member["log2_step"] for member in members], np.float32)
    if not members:
        raise ValueError("Expected at least one member.")
    restorers = [load(path.parent / member["model"], threads=threads) for member in members]

    def run(images: NDArray[np.float32], quantiser_map: NDArray[np.float32]) -> NDArray[np.float32]:
        means = quantiser_map.mean(axis=(1, 2))
        nearest = np.abs(means - log2_steps).argmin(axis=1)
        restored = np.empty_like(images)
        for index in np.unique(nearest):
            chosen = nearest == index
            restored[chosen] = restorers[index](images[chosen], quantiser_map[chosen][..., 0])
        return restored

    return run, 3


def _of_luma(network: Network) -> Network:
    """Turns a network of luma into one of RGB; see the module."""

    def run(images: NDArray[np.float32], quantiser_map: NDArray[np.float32]) -> NDArray[np.float32]:
        luma = (images @ _LUMA_WEIGHTS)[..., None]
        return images + (network(luma, quantiser_map) - luma)

    return run


# Each gives the network and the number of channels of its images; an ensemble has taken care of them.
ENGINES: dict[str, Callable[[Path, int], tuple[Network, int]]] = {
    "litert": _litert,
    "onnx": _onnx,
    "keras": _keras,
    "saved_model": _saved_model,
    "ensemble": _ensemble,
}
_ENGINE_OF_SUFFIX = {".tflite": "litert", ".onnx": "onnx", ".keras": "keras", ".json": "ensemble"}


def predictor_path() -> Path:
    """Returns the file of the quality predictor that ships with the package."""
    return Path(str(_PRETRAINED / f"{PREDICTOR}.tflite"))


def load_predictor(file: str | os.PathLike[str] | None = None, threads: int | None = None) -> Predictor:
    """Loads a quality predictor.

    Args:
        file: .tflite; the one that ships with the package by default.
        threads: one for each processor by default.

    Raises:
        ValueError: the file is no predictor.
    """
    path = Path(file or predictor_path())
    try:
        network, _ = _interpreter(path, threads or os.cpu_count() or 1, ["images"])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no quality predictor: {error}") from error

    def predict(frames: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = quantiser.map_shape(*frames.shape[1:3])
        height, width = (side // quantiser.BLOCK * quantiser.BLOCK for side in frames.shape[1:3])
        whole = frames[:, :height, :width] if height and width else image.pad_to_multiple(frames, quantiser.BLOCK)
        predicted = network(np.ascontiguousarray(whole))[..., 0]
        missing = [(0, total - given) for total, given in zip(shape, predicted.shape[1:], strict=True)]
        return np.pad(predicted, [(0, 0), *missing], mode="edge")

    return predict


def load(model: str | os.PathLike[str] = DEFAULT_MODEL, engine: str = "auto", threads: int | None = None) -> Restorer:
    """Loads a model.

    Args:
        model: name of a model that ships (`pretrained_models()`), or a .tflite, .onnx or .keras file, or the folder of
            a SavedModel or of an ensemble's run.
        engine: key of `ENGINES`, or "auto" for the one that the file's name calls for.
        threads: of the engine; one for each processor by default.

    Returns:
        A `Restorer`, see the module.

    Raises:
        ValueError: no such model or engine, or the file is not a model that the engine can load.
    """
    path = Path(model)
    # A name comes first: a folder that happens to be called like a model must not take its place.
    if str(model) in pretrained_models():
        path = pretrained_path(str(model))
    elif not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"There is no model file {path}.")
        path = pretrained_path(str(model))
    if path.is_dir() and (path / "ensemble.json").exists():
        path = path / "ensemble.json"
    if engine == "auto":
        engine = "saved_model" if path.is_dir() else _ENGINE_OF_SUFFIX.get(path.suffix.lower(), "")
        if not engine:
            known = ", ".join(_ENGINE_OF_SUFFIX)
            raise ValueError(f"Expected a model file of {known} or a SavedModel's folder. Received: model={path}")
    if engine not in ENGINES:
        raise ValueError(f"Expected an engine of {['auto', *ENGINES]}. Received: engine={engine!r}")
    try:
        network, channels = ENGINES[engine](path, threads or os.cpu_count() or 1)
        if channels not in (1, 3):
            raise ValueError(f"Expected images of 3 channels or of 1. Received: channels={channels}")
    except ImportError as error:
        raise ValueError(
            f"The engine {engine!r} needs a package that is not installed ({error.name or error}): "
            "pip install 'keras_deartifact[train]'"
        ) from error
    except Exception as error:  # Four runtimes, each with its own ways to fail.
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise ValueError(f"{path} is no model that the engine {engine!r} can load: {reason}") from error

    if channels == 1:
        network = _of_luma(network)

    def restore(frames: NDArray[Any], quantiser_map: NDArray[np.float32] | None = None) -> NDArray[Any]:
        if frames.dtype not in (np.uint8, np.float32) or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(
                "Expected uint8 or float32 frames (n, height, width, 3). "
                f"Received: frames.dtype={frames.dtype}, frames.shape={frames.shape}"
            )
        count, height, width, _ = frames.shape
        shape = (count, height // quantiser.BLOCK, width // quantiser.BLOCK)
        if height % quantiser.BLOCK or width % quantiser.BLOCK:
            raise ValueError(f"Expected sides that divide by {quantiser.BLOCK}. Received: shape={frames.shape}")
        if quantiser_map is None:
            quantiser_map = np.broadcast_to(quantiser.constant_map(height, width), shape)
        if quantiser_map.shape != shape:
            raise ValueError(f"Expected a quantiser map {shape}. Received: quantiser_map.shape={quantiser_map.shape}")
        images = image.to_float(frames) if frames.dtype == np.uint8 else frames
        restored = network(images, np.ascontiguousarray(quantiser_map[..., None], np.float32))
        return image.to_uint8(restored) if frames.dtype == np.uint8 else restored

    return restore
