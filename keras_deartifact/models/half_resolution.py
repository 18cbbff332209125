"""The outer shape that the paper's generator shares with its fast family: most of the work at half the resolution.

Inputs: `images` `(batch, height, width, channels)` in `[0, 1]`, and `quantiser_map`
`(batch, height / 16, width / 16, 1)`, log2 of the luma quantiser step (`quantiser.py`). Height and width are multiples
of 16. Output: the restored images, same shape, not clipped.

    x      = 2 images - 1                           the paper's range
    f      = leaky_relu(head(x))                    3x3, filters
    f      = leaky_relu(down(f))                    3x3, stride 2
    f      = body(f)                                blocks, see the subclasses
    f      = leaky_relu(up(nearest(f, 2)))          3x3
    y      = tanh(tail(f))                          3x3, channels
    output = (y + 1) / 2, or images + y / 2 if residual

`conditioned`, x has one more channel, the quantiser map (`upsampling.with_quantiser_map`); otherwise the map is
ignored. Neither that nor `residual` is in the paper. `residual`, the untrained network returns its input.

The description says: 3x3 convolutions, LeakyReLU, stride 2 after the first, nearest upsampling + convolution, tanh.
What it leaves open is chosen so that the sizes come out as they were computed from it
(`python -m training.architectures`): every convolution has a bias, there is no normalisation, and the upsampled
features pass one convolution of as many filters before the one that makes the image. The rest does not show in the
sizes: LeakyReLU has a slope of 0.2, borders are padded with zeros, and the last convolution of each block starts with a
variance of 1 / blocks over its inputs, so that the power of the features grows by about e over all blocks, without
normalisation. Steps must be small at first, or tanh saturates and passes no gradient any more: Adam at 1e-3 without
warming up does that to the paper's generator, at 2e-4 it learns.

References: Galteri et al., "Preserving Low-Quality Video through Deep Learning"; for starting residual blocks small,
Zhang et al., "Fixup Initialization: Residual Learning Without Normalization", ICLR 2019.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_deartifact.models.upsampling import nearest, with_quantiser_map

__all__ = ["NEGATIVE_SLOPE", "HalfResolutionGenerator"]

NEGATIVE_SLOPE = 0.2


class HalfResolutionGenerator(keras.Model):
    """What happens around the body; see the module. A subclass makes its layers, builds them and has a `body`.

    Args:
        filters: int > 0, channels of every convolution here but the last.
        channels: int > 0, of the images: 3 for RGB, 1 for luma.
        conditioned: if True the quantiser map is an input of the first convolution; if False it is ignored.
        residual: if True the input is added to the network's output, which then trains faster; not in the paper.
        **kwargs: see `keras.Model`.
    """

    size_multiple = 16
    body: Callable[[Any], Any]
    """Each subclass's own: takes and returns features `(batch, height / 2, width / 2, filters)`."""
    body_layers: Callable[[], list[keras.layers.Layer]]
    """Likewise: returns the body's convolutions."""

    def __init__(self, filters: int, channels: int, conditioned: bool, residual: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels
        self.conditioned = conditioned
        self.residual = residual
        self.head = self.convolution(filters, 3)
        self.down = self.convolution(filters, 3, strides=2)
        self.up = self.convolution(filters, 3)
        self.tail = self.convolution(channels, 3, scale=0.0 if residual else 1.0)

    def convolution(self, filters: int, size: int, scale: float = 2.0, strides: int = 1) -> keras.layers.Conv2D:
        """Returns a convolution with a bias whose kernel starts with the variance `scale / fan_in`."""
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer=keras.initializers.VarianceScaling(scale) if scale else "zeros",
            # A loaded model has the policy of its file, whatever is the global one, and so must its layers.
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        self.head.build((None, None, None, self.channels + self.conditioned))
        for layer in (self.down, self.up, self.tail):
            layer.build((None, None, None, self.filters))
        self.built = True

    @property
    def integer_layers(self) -> list[keras.layers.Layer]:
        """The layers that do with 8-bit integers: all but the first and the last; see `ShuffleGenerator`."""
        return [self.down, *self.body_layers(), self.up]

    def call(self, inputs: Any) -> Any:
        images, quantiser_map = inputs
        centred = 2.0 * images - 1.0
        if self.conditioned:
            centred = with_quantiser_map(centred, quantiser_map)
        features = ops.leaky_relu(self.head(centred), NEGATIVE_SLOPE)
        features = self.body(ops.leaky_relu(self.down(features), NEGATIVE_SLOPE))
        features = ops.leaky_relu(self.up(nearest(features, 2)), NEGATIVE_SLOPE)
        restored = ops.tanh(self.tail(features))
        return images + restored / 2.0 if self.residual else (restored + 1.0) / 2.0

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "channels": self.channels,
            "conditioned": self.conditioned,
            "residual": self.residual,
        }
