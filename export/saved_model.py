"""A SavedModel of a generator for TensorFlow Serving: from pictures, or from files, to restored ones.

| signature | takes | gives `restored` |
|---|---|---|
| `serving_default` | `images` uint8 `(n, height, width, 3)` | the same shape and dtype |
| `restore_with_map` | as above, and `quantiser_map` float32 `(n, ceil(height / 16), ceil(width / 16))` | as above |
| `restore_encoded` | `encoded_bytes` string `(n,)`, the bytes of JPEG or PNG files | `restored_bytes`, PNG files |
| `network` | `images` float32 `(n, height, width, channels)`, `quantiser_map` `(n, rows, columns, 1)` | as `images` |

The first three take RGB of any size, pad it to multiples of 16, and round and clip the result as `image.to_uint8`; a
network of luma changes all three channels alike (see `engines`). Without a map they take `quantiser.DEFAULT_LOG2_STEP`,
and `restore_encoded` what a JPEG's own tables say. `network` is the network itself: sides are multiples of 16, and
nothing is clipped. Names of bytes end in `_bytes`: only of such an output TensorFlow Serving's REST makes base64.

The first three compute what `engines` computes here of the same uint8 frames, step by step, so that both agree in every
bit where the same build of TensorFlow runs them.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from export import encoded
from keras_deartifact import image, quantiser

__all__ = ["NETWORK", "SIGNATURES", "WARM_UP", "has_serving_api", "warm_up", "write"]

NETWORK = "network"
SIGNATURES = ("serving_default", "restore_with_map", "restore_encoded", NETWORK)

WARM_UP = Path("assets.extra/tf_serving_warmup_requests")
"""Where TensorFlow Serving looks for them, in the SavedModel's folder."""


def write(network: keras.Model, folder: Path) -> None:
    """Writes a SavedModel.

    Args:
        network: a built generator, folded.
        folder: of the version, such as `ARTEFACT/saved_model/1`; must not exist.
    """
    functions = make_functions(network)
    module = tf.Module()
    # Named here they are written. Of a module that holds a Keras model TensorFlow finds none, and says nothing;
    # `keras.export.ExportArchive` writes each twice.
    module.weights = [weight.value for weight in network.weights]
    tf.saved_model.save(module, str(folder), signatures=functions)


def make_functions(network: keras.Model) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    """Returns the function of every signature; see the module."""
    pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
    signatures = {
        NETWORK: [
            tf.TensorSpec((None, None, None, network.channels), tf.float32, "images"),
            tf.TensorSpec((None, None, None, 1), tf.float32, "quantiser_map"),
        ],
        "serving_default": [pixels],
        "restore_with_map": [pixels, tf.TensorSpec((None, None, None), tf.float32, "quantiser_map")],
        "restore_encoded": [tf.TensorSpec((None,), tf.string, "encoded_bytes")],
    }

    def run(images: tf.Tensor, quantiser_map: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"restored": network((images, quantiser_map), training=False)}

    functions = {NETWORK: tf.function(run, signatures[NETWORK], autograph=False)}
    restored = functools.partial(_restored, functions[NETWORK], network.channels)

    def restore(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"restored": restored(images, _constant_map(images))}

    def restore_with_map(images: tf.Tensor, quantiser_map: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"restored": restored(images, quantiser_map)}

    def restore_file(content: tf.Tensor) -> tf.Tensor:
        frame, log2_step = encoded.decode(content)
        return tf.io.encode_png(restored(frame[None], _constant_map(frame[None], log2_step))[0])

    def restore_encoded(encoded_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # One after another: each has its own size, and may be large.
        spec = tf.TensorSpec((), tf.string)
        files = tf.map_fn(restore_file, encoded_bytes, parallel_iterations=1, fn_output_signature=spec)
        return {"restored_bytes": files}

    others = {
        "serving_default": restore,
        "restore_with_map": restore_with_map,
        "restore_encoded": restore_encoded,
    }
    for name, function in others.items():
        functions[name] = tf.function(function, signatures[name], autograph=False)
    return functions


def has_serving_api() -> bool:
    """Whether the messages that `warm_up` writes are installed."""
    try:
        import tensorflow_serving.apis.prediction_log_pb2  # noqa: F401
    except ImportError:
        return False
    return True


def warm_up(folder: Path, name: str, channels: int, sides: Sequence[int]) -> None:
    """Writes the requests that TensorFlow Serving runs before it says that it is ready: the first ones are slow.

    Args:
        folder: the SavedModel's.
        name: of the model.
        channels: of its network.
        sides: of square pictures, in pixels, multiples of 16; there is a request of each to each signature.

    Raises:
        ImportError: `tensorflow-serving-api` is not installed.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    file = folder / WARM_UP
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for side in sides:
            for signature, inputs in _requests(side, channels).items():
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for key, value in inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                writer.write(log.SerializeToString())


def _requests(side: int, channels: int) -> dict[str, dict[str, object]]:
    frames = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    quantiser_map = quantiser.constant_map(side, side)[None]
    images = (frames[..., :channels] / 255).astype(np.float32)
    return {
        "serving_default": {"images": frames},
        "restore_with_map": {"images": frames, "quantiser_map": quantiser_map},
        "restore_encoded": {"encoded_bytes": [tf.io.encode_jpeg(frames[0]).numpy()]},
        NETWORK: {"images": images, "quantiser_map": quantiser_map[..., None]},
    }


def _constant_map(images: tf.Tensor, log2_step: tf.Tensor | float = quantiser.DEFAULT_LOG2_STEP) -> tf.Tensor:
    shape = tf.shape(images)
    return tf.fill([shape[0], _blocks(shape[1]), _blocks(shape[2])], log2_step)


def _blocks(side: tf.Tensor) -> tf.Tensor:
    return (side + quantiser.BLOCK - 1) // quantiser.BLOCK


def _restored(
    network: Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    channels: int,
    frames: tf.Tensor,
    quantiser_map: tf.Tensor,
) -> tf.Tensor:
    """uint8 RGB of any size, and a map of it, to restored uint8 RGB."""
    shape = tf.shape(frames)
    rows, columns = _blocks(shape[1]), _blocks(shape[2])
    checks = [
        tf.debugging.Assert(tf.reduce_all(shape > 0), ["Expected a picture of at least 1x1 pixels. Received:", shape]),
        tf.debugging.Assert(
            tf.reduce_all(tf.equal(tf.shape(quantiser_map), [shape[0], rows, columns])),
            ["Expected a quantiser map (n, ceil(height / 16), ceil(width / 16)). Received:", tf.shape(quantiser_map)],
        ),
    ]
    with tf.control_dependencies(checks):
        padded = _repeat_edge(_repeat_edge(frames, 1, rows), 2, columns)
    # A table, since TensorFlow turns a division by a constant into a factor of 1 / 255, which is off in the last bit.
    levels = tf.constant(image.to_float(np.arange(256, dtype=np.uint8)))
    images = tf.gather(levels, tf.cast(padded, tf.int32))
    if channels == 1:
        luma = tf.tensordot(images, tf.constant(image.LUMA_WEIGHTS), 1)[..., None]
        restored = images + (network(luma, quantiser_map[..., None])["restored"] - luma)
    else:
        restored = network(images, quantiser_map[..., None])["restored"]
    # Casting truncates, so that this rounds half up, as `image.to_uint8`.
    scaled = restored[:, : shape[1], : shape[2]] * 255.0 + 0.5
    return tf.cast(tf.clip_by_value(scaled, 0.0, 255.0), tf.uint8)


def _repeat_edge(frames: tf.Tensor, axis: int, blocks: tf.Tensor) -> tf.Tensor:
    """Repeats the last row or column up to whole blocks."""
    # tf.pad knows no edge mode.
    return tf.gather(frames, tf.minimum(tf.range(blocks * quantiser.BLOCK), tf.shape(frames)[axis] - 1), axis=axis)
