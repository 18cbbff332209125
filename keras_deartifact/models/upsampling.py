"""Bringing what is known at fewer positions to every pixel.

Resizing layers lose the number of channels where LiteRT and ONNX leave the size open; `depth_to_space` does not.
"""

from typing import Any

from keras import ops

__all__ = ["nearest", "with_quantiser_map"]


def nearest(images: Any, factor: int) -> Any:
    """Nearest-neighbour upsampling, exact.

        output[y, x] = images[y // factor, x // factor]

    Args:
        images: tensor `(batch, height, width, channels)`.
        factor: int > 1.

    Returns:
        Tensor `(batch, factor * height, factor * width, channels)` of the same dtype.
    """
    return ops.depth_to_space(ops.concatenate([images] * factor**2, axis=-1), factor)


def with_quantiser_map(images: Any, quantiser_map: Any) -> Any:
    """Appends the quantiser map to the images, as one more channel.

        channel[y, x] = quantiser_map[y // 16, x // 16] / 4 - 1

    Args:
        images: tensor `(batch, height, width, channels)`.
        quantiser_map: tensor `(batch, height / 16, width / 16, 1)` of the same dtype, log2 steps.

    Returns:
        Tensor `(batch, height, width, channels + 1)` of the same dtype; the last channel is about -1 to 1.
    """
    return ops.concatenate((images, nearest(nearest(quantiser_map / 4.0 - 1.0, 4), 4)), axis=-1)
