"""Exports a run's network to a LiteRT file: `python -m export.tflite --run=RUN --out=FILE.tflite`.

The branches are folded, the variables frozen, and the result is run beside the Keras model on pictures of several sizes
before it gets its name: a conversion can lose the weights without an error.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from export import quantisation
from keras_deartifact import codecs, engines, image, models, quantiser

FLAGS = flags.FLAGS

PRECISIONS = ("float32", "float16", "dynamic_int8", "int8")

_SIZES = ((1, 16, 16), (2, 48, 80), (1, 256, 176))


def convert(
    network: keras.Model,
    precision: str = "float32",
    tile: tuple[int, int] | None = None,
    examples: Iterable[quantisation.Example] = (),
) -> bytes:
    """Returns a LiteRT model of a built generator or quality predictor.

    Its inputs are `images` and, for a generator, `quantiser_map`, as the network takes them.

    Args:
        network: its branches are folded first, where it has any.
        precision: one of `PRECISIONS`. float16 halves the weights and computes in float32 where the processor does.
            dynamic_int8 has 8-bit weights where they hold, and float32 between layers. int8 computes in integers
            there; images and result are uint8, a level 1/255, the map float32. See `quantisation.py`.
        tile: height and width, multiples of 16, of the one size that the model takes, one image at a time; None for
            any size and batch.
        examples: for int8, what the ranges are taken from; of the tile's size, if there is one.

    Raises:
        ValueError: an unknown precision, or no examples for int8.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Expected a precision of {PRECISIONS}. Received: precision={precision!r}")
    network = network.fold() if hasattr(network, "fold") else network
    for number, layer in enumerate(getattr(network, "integer_layers", ())):
        # To be found by in the graph.
        layer.name = f"integer_{number}"
    concrete = _frozen(network, tile)
    if precision == "int8":
        return quantisation.quantise(concrete, network.integer_layers, examples)
    if precision == "dynamic_int8":
        return quantisation.quantise_weights(concrete, network.integer_layers)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _frozen(network: keras.Model, tile: tuple[int, int] | None) -> Any:
    """Returns the network as a function with its weights in it."""
    size = (None, None, None) if tile is None else (1, *tile)
    map_size = (None, None, None) if tile is None else (1, *(side // quantiser.BLOCK for side in tile))
    images = tf.TensorSpec((*size, network.channels), tf.float32, "images")
    quantiser_map = tf.TensorSpec((*map_size, 1), tf.float32, "quantiser_map")

    @tf.function
    def restore(images: tf.Tensor, quantiser_map: tf.Tensor) -> tf.Tensor:
        return network((images, quantiser_map), training=False)

    @tf.function
    def predict(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    if isinstance(network, models.QualityPredictor):
        concrete = predict.get_concrete_function(images)
    else:
        concrete = restore.get_concrete_function(images, quantiser_map)
    # Not frozen, the file has no weights where the model is a Keras one, and misses the fast kernels.
    return convert_variables_to_constants_v2(concrete)


def parity(generator: keras.Model, file: Path) -> float:
    """Returns the largest difference between a file and its Keras model, over several sizes, in intensity."""
    restorer = engines.load(file)
    rng = np.random.default_rng(0)
    worst = 0.0
    for count, height, width in _SIZES:
        images = rng.random((count, height, width, generator.channels), np.float32)
        # What is luma to a network of one channel is a grey picture to its restorer.
        frames = np.broadcast_to(images, (count, height, width, 3))
        quantiser_map = rng.uniform(0.0, 7.0, (count, height // 16, width // 16)).astype(np.float32)
        expected = np.asarray(generator((images, quantiser_map[..., None]), training=False))
        if np.abs(expected - images).max() < 1e-4:
            raise ValueError("The generator changes nothing: there is nothing that a comparison could show.")
        worst = max(worst, float(np.abs(restorer(frames, quantiser_map) - expected).max()))
    return worst


def predictor_parity(predictor: keras.Model, file: Path) -> float:
    """Returns the largest difference between a file and its Keras model, over several sizes, in log2 steps."""
    predict = engines.load_predictor(file)
    rng = np.random.default_rng(0)
    worst, told = 0.0, []
    for (count, height, width), quality in zip(_SIZES, (10, 40, 80), strict=True):
        # Smooth in places and noisy in others, and compressed: combs and edges are to be found.
        fine = rng.normal(0.0, 40.0, (count, height, width, 3)) * rng.random((count, height, width, 1)) ** 4
        coarse = rng.integers(0, 256, (count, height // 16, width // 16, 3)).repeat(16, axis=1).repeat(16, axis=2)
        frames = np.clip(np.rint(coarse + fine), 0, 255).astype(np.uint8)
        frames = image.to_float(codecs.jpeg(frames, quality).frames)
        expected = np.asarray(predictor(frames, training=False))[..., 0]
        worst = max(worst, float(np.abs(predict(frames) - expected).max()))
        told.append(expected.ravel())
    if np.ptp(np.concatenate(told)) < 1e-2:
        raise ValueError("The predictor says the same of everything: there is nothing that a comparison could show.")
    return worst


# What a run may hold: how it is compared with its file, and how far it may be from it.
_NETWORKS: dict[str, tuple[Callable[[keras.Model, Path], float], float]] = {
    "generator.keras": (parity, 1e-5),
    "predictor.keras": (predictor_parity, 1e-4),
}


def load_network(run: Path) -> tuple[keras.Model, str]:
    """Returns the network that a run trained, and its file's name.

    Raises:
        ValueError: there is none.
    """
    for name in _NETWORKS:
        if (run / name).exists():
            return keras.models.load_model(run / name, compile=False), name
    raise ValueError(f"There is no {' or '.join(_NETWORKS)} in {run}: train first, or give the run's folder.")


def export(run: Path, out: Path) -> float:
    """Writes `out` and returns its parity.

    Raises:
        ValueError: the run has no network, or the result differs from it; nothing is left in place then.
    """
    network, name = load_network(run)
    compare, tolerance = _NETWORKS[name]
    partial = out.with_name(f"partial-{out.name}")
    try:
        partial.write_bytes(convert(network))
        difference = compare(network, partial)
        if not difference <= tolerance:
            raise ValueError(f"The LiteRT model differs from the Keras model by {difference:.2g} > {tolerance:g}.")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def main(argv: list[str]) -> None:
    """Exports what the flags say."""
    del argv
    out = Path(FLAGS.out)
    try:
        difference = export(Path(FLAGS.run), out)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{out}: {out.stat().st_size} bytes, differs from Keras by at most {difference:.2g}")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string(
        "run", None, "Folder of the run, which holds generator.keras or predictor.keras.", required=True
    )
    flags.DEFINE_string("out", None, "The file to write.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
