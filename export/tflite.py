"""LiteRT models of a network, for phones, boards and the library itself: in float32, float16 and with 8-bit integers.

The branches are folded and the variables frozen first. A conversion can lose the weights without an error: whoever
keeps a result compares it with its network before (`verify.py`, `predictor.py`).
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from export import quantisation
from keras_deartifact import models, quantiser

PRECISIONS = ("float32", "float16", "dynamic_int8", "int8")


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
    layers = getattr(network, "integer_layers", ())
    with _named(layers) as names:
        concrete = _frozen(network, tile)
    if precision == "int8":
        return quantisation.quantise(concrete, names, examples)
    if precision == "dynamic_int8":
        return quantisation.quantise_weights(concrete, names)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


@contextlib.contextmanager
def _named(layers: Sequence[keras.layers.Layer]) -> Iterator[list[str]]:
    """Gives layers names by which they are found in a graph that is made within the block; the network may be lent."""
    names = [f"integer_{number}" for number in range(len(layers))]
    before = [layer.name for layer in layers]
    try:
        for layer, name in zip(layers, names, strict=True):
            layer.name = name
        yield names
    finally:
        for layer, name in zip(layers, before, strict=True):
            layer.name = name


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
