"""ONNX models of a generator, for ONNX Runtime and what else reads them: float32, and half the size in float16.

Inputs `images` float32 `(batch, height, width, channels)` and `quantiser_map` float32 `(batch, rows, columns, 1)`,
output `restored` like `images`, all as the network itself has them; batch, height and width are free. The float16 model
has the same edges.
"""

from collections.abc import Mapping

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

__all__ = ["convert", "to_float16"]

# The newest that tf2onnx 1.17 writes.
OPSET = 18

_DIMENSIONS = {
    "images": ("batch", "height", "width"),
    "quantiser_map": ("batch", "rows", "columns"),
    "restored": ("batch", "height", "width"),
}
_ATTEMPTS = 5


def convert(network: keras.Model, metadata: Mapping[str, str]) -> bytes:
    """Returns an ONNX model of a generator in float32.

    Args:
        network: a built generator, folded.
        metadata: what the model says about itself, in `metadata_props`.

    Raises:
        ValueError: the conversion gives a model that does not keep the pictures' shape.
    """
    signature = [
        tf.TensorSpec((None, None, None, network.channels), tf.float32, "images"),
        tf.TensorSpec((None, None, None, 1), tf.float32, "quantiser_map"),
    ]

    @tf.function
    def restore(images: tf.Tensor, quantiser_map: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"restored": network((images, quantiser_map), training=False)}

    # tf2onnx 1.17 loses the last Squeeze in about 4 % of conversions of a result of one channel, by the order of a set
    # in its optimiser, and gives a result of five dimensions. Such a model is thrown away and made again.
    for _ in range(_ATTEMPTS):
        model, _ = tf2onnx.convert.from_function(restore, signature, opset=OPSET)
        _describe(model, metadata)
        content: bytes = model.SerializeToString()
        if _keeps_shape(content, network.channels):
            onnx.checker.check_model(model, full_check=True)
            return content
    raise ValueError(f"tf2onnx lost the shape of the result {_ATTEMPTS} times.")


def to_float16(content: bytes) -> bytes:
    """Returns a model in float16 of one that `convert` made; inputs and output stay float32."""
    # What does not fit into float16 becomes its largest number; the comparison with the Keras model shows that.
    model = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
    # It appends the casts at the edges behind everything else.
    OnnxModel.graph_topological_sort(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _describe(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, _DIMENSIONS[value.name], strict=False):
            dimension.dim_param = name
    onnx.helper.set_model_props(model, dict(metadata))


def _keeps_shape(content: bytes, channels: int) -> bool:
    images = np.zeros((2, 16, 32, channels), np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    restored = session.run(None, {"images": images, "quantiser_map": np.zeros((2, 1, 2, 1), np.float32)})[0]
    return restored.shape == images.shape
