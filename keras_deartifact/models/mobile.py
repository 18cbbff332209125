"""The `fast` and `very_fast` generators: the paper's real-time family, inverted residual blocks at half the resolution.

The outer shape, ranges and what the description leaves open: `half_resolution.py`. Its body is

    e = relu6(expand(f))                            1x1, expansion * filters
    e = relu6(depthwise(e))                         3x3, each channel by itself
    f = f + project(e)                              1x1, filters; once a block

The description says 32 filters x 12 blocks and 8 x 16. An expansion of 6, MobileNetV2's own, in the paper's generator's
outer shape gives the sizes that were computed from it: 193K parameters and 51 GMAC per 1280x720 frame, and 22.5K and
5.5. MobileNetV2's batch normalisation is left out as everywhere here.

References: Galteri, Seidenari, Uricchio, Bertini, Del Bimbo, "Preserving Low-Quality Video through Deep Learning";
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""

from typing import Any

import keras
from keras import ops

from keras_deartifact.models.half_resolution import HalfResolutionGenerator

__all__ = ["MobileGenerator"]


@keras.saving.register_keras_serializable("keras_deartifact")
class MobileGenerator(HalfResolutionGenerator):
    """The paper's real-time generator; see the module.

    Args:
        filters: int > 0, channels between the blocks and of the convolutions around them.
        blocks: int > 0, inverted residual blocks.
        expansion: int > 0, channels within a block for each of its inputs.
        channels: int > 0, of the images: 3 for RGB, 1 for luma.
        conditioned: if True the quantiser map is an input of the first convolution; if False it is ignored.
        residual: if True the input is added to the network's output, which then trains faster; not in the paper.
        **kwargs: see `keras.Model`.
    """

    def __init__(
        self,
        filters: int = 32,
        blocks: int = 12,
        expansion: int = 6,
        channels: int = 3,
        conditioned: bool = False,
        residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, channels, conditioned, residual, **kwargs)
        self.blocks = blocks
        self.expansion = expansion
        expanded = expansion * filters
        self.expand = [self.convolution(expanded, 1) for _ in range(blocks)]
        # Keras counts all channels as a depthwise kernel's inputs, where each output has one: nine values.
        initialiser = keras.initializers.VarianceScaling(2.0 * expanded)
        self.depthwise = [
            keras.layers.DepthwiseConv2D(
                3, padding="same", depthwise_initializer=initialiser.clone(), dtype=self.dtype_policy
            )
            for _ in range(blocks)
        ]
        self.project = [self.convolution(filters, 1, scale=1.0 / blocks) for _ in range(blocks)]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        for layer in self.expand:
            layer.build((None, None, None, self.filters))
        for layer in self.depthwise + self.project:
            layer.build((None, None, None, self.expansion * self.filters))

    def body_layers(self) -> list[keras.layers.Layer]:
        """See `HalfResolutionGenerator`."""
        return [*self.expand, *self.depthwise, *self.project]

    def body(self, features: Any) -> Any:
        for expand, depthwise, project in zip(self.expand, self.depthwise, self.project, strict=True):
            expanded = ops.relu6(depthwise(ops.relu6(expand(features))))
            features = features + project(expanded)
        return features

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "blocks": self.blocks, "expansion": self.expansion}
