"""The `residual` generator: the paper's own, residual blocks at half the resolution.

The outer shape, ranges and what the description leaves open: `half_resolution.py`. Its body is

    f = f + second(leaky_relu(first(f)))            3x3, filters; once a block

with nothing after the sum and no long way round all blocks. At 64 filters and 15 blocks these are 31 convolutions of
3x3x64x64 at half the resolution and one at the full one: 1.19M parameters and 300 GMAC per 1280x720 frame, as computed
from the description.

Reference: Galteri, Seidenari, Uricchio, Bertini, Del Bimbo, "Preserving Low-Quality Video through Deep Learning".
"""

from typing import Any

import keras
from keras import ops

from keras_deartifact.models.half_resolution import NEGATIVE_SLOPE, HalfResolutionGenerator

__all__ = ["ResidualGenerator"]


@keras.saving.register_keras_serializable("keras_deartifact")
class ResidualGenerator(HalfResolutionGenerator):
    """The paper's generator; see the module.

    Args:
        filters: int > 0, channels of every convolution but the last.
        blocks: int > 0, residual blocks of two convolutions.
        channels: int > 0, of the images: 3 for RGB, 1 for luma.
        conditioned: if True the quantiser map is an input of the first convolution; if False it is ignored.
        residual: if True the input is added to the network's output, which then trains faster; not in the paper.
        **kwargs: see `keras.Model`.
    """

    def __init__(
        self,
        filters: int = 64,
        blocks: int = 15,
        channels: int = 3,
        conditioned: bool = False,
        residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, channels, conditioned, residual, **kwargs)
        self.blocks = blocks
        self.first = [self.convolution(filters, 3) for _ in range(blocks)]
        self.second = [self.convolution(filters, 3, scale=1.0 / blocks) for _ in range(blocks)]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        for layer in self.first + self.second:
            layer.build((None, None, None, self.filters))

    def body_layers(self) -> list[keras.layers.Layer]:
        """See `HalfResolutionGenerator`."""
        return [*self.first, *self.second]

    def body(self, features: Any) -> Any:
        for first, second in zip(self.first, self.second, strict=True):
            features = features + second(ops.leaky_relu(first(features), NEGATIVE_SLOPE))
        return features

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "blocks": self.blocks}
