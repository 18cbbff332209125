"""A distance between pictures in a network's features, built as LPIPS is, without its trained weights.

    d = sum over layers of mean over positions of sum over channels of (f / |f| - g / |g|)^2

f and g are a layer's features of the two pictures, |f| their length over the channels. LPIPS weights the channels, by
what people said of pictures; it does so for AlexNet's and VGG-16's features on ImageNet, and its weights mean nothing
for any other network's. So this is no LPIPS, whatever the backbone, and is called by its backbone's name.

It runs on Keras, unlike the other metrics: a network's weights and its convolutions are not worth doing a second time.

Reference: Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018, Eq. 1.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_deartifact import image, perceptual

__all__ = ["deep_distance"]

# The last of each block, where LPIPS takes VGG-16's.
_LAYERS = {
    "vgg19": ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"),
    "hed_vgg16": ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
}


def deep_distance(
    backbone: str, weights: str | os.PathLike[str] = "imagenet"
) -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]:
    """Returns the distance of two pictures, lower is better, in the features of a network; see the module.

    Args:
        backbone: key of `perceptual.BACKBONES`.
        weights: see `perceptual.load_backbone`.

    Returns:
        `fn(original, restored)` of uint8 arrays `(height, width, 3)`, at least 16 pixels each way; 0 of equal ones.

    Raises:
        ValueError: of the weights, see `perceptual.load_backbone`; from the function, that its pictures do not match.
    """
    network = perceptual.load_backbone(backbone, _LAYERS[backbone], weights)

    def directions(picture: NDArray[np.uint8]) -> list[Any]:
        features = network.features(ops.convert_to_tensor(image.to_float(picture[None])))
        return [each / (ops.norm(each, axis=-1, keepdims=True) + 1e-10) for each in features]

    def distance(original: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
        if original.shape != restored.shape or original.ndim != 3:
            raise ValueError(
                "expected two pictures (height, width, 3) of one size. "
                f"Received: original.shape={original.shape}, restored.shape={restored.shape}"
            )
        pairs = zip(directions(original), directions(restored), strict=True)
        return float(sum(ops.mean(ops.sum(ops.square(first - second), axis=-1)) for first, second in pairs))

    return distance
