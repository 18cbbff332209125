"""The `arcnn` generator: AR-CNN, the yardstick of artefact removal.

Inputs: `images` `(batch, height, width, channels)` in `[0, 1]`, and `quantiser_map`
`(batch, height / 16, width / 16, 1)`, log2 of the luma quantiser step (`quantiser.py`). Height and width are multiples
of 16, as everywhere here; the network itself would take any. Output: the restored images, same shape, not clipped.

    f      = relu(extraction(images))               9x9, 64
    f      = relu(enhancement(f))                   7x7, 32
    f      = relu(mapping(f))                       1x1, 16
    output = reconstruction(f)                      5x5, channels

An output pixel depends on 19x19 pixels. `conditioned`, the images have one more channel, the quantiser map
(`upsampling.with_quantiser_map`); otherwise the map is ignored.

On luma, as in the paper, these are 0.107M parameters and 98 GMAC per 1280x720 frame; on RGB 0.118M and 108. Where we
leave the paper: borders are padded with zeros, where it drops them; kernels start as He et al. have it, where the paper
takes a standard deviation of 0.001 and trains for days; RGB and the map.

Reference: Dong, Deng, Loy, Tang, "Compression Artifacts Reduction by a Deep Convolutional Network", ICCV 2015.
"""

from typing import Any

import keras
from keras import ops

from keras_deartifact.models.upsampling import with_quantiser_map

__all__ = ["ARCNN"]


@keras.saving.register_keras_serializable("keras_deartifact")
class ARCNN(keras.Model):
    """Four convolutions; see the module.

    Args:
        channels: int > 0, of the images: 3 for RGB, 1 for luma.
        conditioned: if True the quantiser map is an input of the first convolution; if False it is ignored.
        **kwargs: see `keras.Model`.
    """

    size_multiple = 16

    def __init__(self, channels: int = 3, conditioned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.conditioned = conditioned

        def convolution(filters: int, size: int, initialiser: str = "he_normal") -> keras.layers.Conv2D:
            # A loaded model has the policy of its file, whatever is the global one, and so must its layers.
            dtype = self.dtype_policy
            return keras.layers.Conv2D(filters, size, padding="same", kernel_initializer=initialiser, dtype=dtype)

        self.extraction = convolution(64, 9)
        self.enhancement = convolution(32, 7)
        self.mapping = convolution(16, 1)
        self.reconstruction = convolution(channels, 5, "lecun_normal")

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        channels = self.channels + self.conditioned
        for layer in (self.extraction, self.enhancement, self.mapping, self.reconstruction):
            layer.build((None, None, None, channels))
            channels = layer.filters
        self.built = True

    @property
    def integer_layers(self) -> list[keras.layers.Layer]:
        """The layers that do with 8-bit integers: all but the first and the last; see `ShuffleGenerator`."""
        return [self.enhancement, self.mapping]

    def call(self, inputs: Any) -> Any:
        images, quantiser_map = inputs
        features = with_quantiser_map(images, quantiser_map) if self.conditioned else images
        for layer in (self.extraction, self.enhancement, self.mapping):
            features = ops.relu(layer(features))
        return self.reconstruction(features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "conditioned": self.conditioned}
