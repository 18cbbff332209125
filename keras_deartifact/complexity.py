"""What a model costs: multiply-accumulates and parameters."""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["multiply_accumulates", "parameters"]


def multiply_accumulates(model: keras.Model, height: int = 720, width: int = 1280, takes_map: bool = True) -> int:
    """Counts the multiply-accumulates of one frame, in convolutions and matrix products.

        sum over convolutions of  output elements * kernel height * kernel width * input channels / groups

    Additions, activations and other element-wise work are left out, as is usual. The count is taken from the traced
    graph, so that it is of what runs, folded or not: a kernel is counted where it is used, not how it was made.

    Args:
        model: built, called with `(images, quantiser_map)` as a generator, or with images alone as the predictor.
        height: of the frame in pixels, a multiple of the model's `size_multiple`.
        width: likewise.
        takes_map: False for a model called with images alone.

    Returns:
        Multiply-accumulates.

    Raises:
        ValueError: the size is no multiple.
    """
    multiple = model.size_multiple
    if height % multiple or width % multiple:
        raise ValueError(f"Expected multiples of {multiple}. Received: height={height}, width={width}")
    images = tf.TensorSpec((1, height, width, model.channels))
    quantiser_map = tf.TensorSpec((1, height // 16, width // 16, 1))
    graph = tf.function(lambda inputs: model(inputs)).get_concrete_function(
        (images, quantiser_map) if takes_map else images
    )
    return _count(graph.graph)


def _count(graph: tf.Graph) -> int:
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
            kernel = operation.inputs[1].shape.as_list()
            depth = kernel[2] if operation.type == "Conv2D" else 1
            total += int(np.prod(operation.outputs[0].shape)) * kernel[0] * kernel[1] * depth
        elif operation.type == "Conv2DBackpropInput":
            # The transposed convolution: its kernel is used once for every element of its input.
            kernel = operation.inputs[1].shape.as_list()
            total += int(np.prod(operation.inputs[2].shape)) * kernel[0] * kernel[1] * kernel[2]
        elif operation.type == "MatMul":
            shared = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
            total += int(np.prod(operation.outputs[0].shape)) * int(shared)
        elif operation.type == "BatchMatMulV2":
            shared = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
            total += int(np.prod(operation.outputs[0].shape)) * int(shared)
        elif operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            # Keras compiles convolutions with groups into a function of their own.
            total += _count(graph._get_function(operation.get_attr("f").name).graph)
    return total


def parameters(model: keras.Model) -> int:
    """Returns the number of trained values of a built model."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
