"""A convolution that trains as several parallel branches and folds into one.

Reference: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021 (without batch normalisation). The
branches are linear in their kernels, so their sum is one convolution with the sum of the kernels. RepVGG runs the
branches while training and sums at the end; here the kernels are summed before the convolution, in training too, which
is the same function at the cost of a single convolution.
"""

from typing import Any

import keras
from keras import ops

__all__ = ["FoldingConv2D"]


@keras.saving.register_keras_serializable("keras_deartifact")
class FoldingConv2D(keras.layers.Layer):
    """A 3x3 convolution with a 1x1 branch and an identity branch beside it, then an activation.

        kernel = kernel_3x3 + centre(kernel_1x1) + centre(diag(identity))
        output = activation(conv(input, kernel) + bias)

    The identity branch exists where the number of channels stays the same, one trained factor a channel, 1 at first.

    Args:
        filters: int > 0, output channels.
        activation: name of a Keras activation, or None.
        folded: if True there is one kernel and no branch.
        **kwargs: see `keras.layers.Layer`.
    """

    def __init__(self, filters: int, activation: str | None = None, folded: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.activation = keras.activations.get(activation)
        self.folded = folded

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        # The identity already carries the signal; a small random kernel beside it keeps the variance as it was.
        has_identity = channels == self.filters and not self.folded
        scale = 0.5 if channels == self.filters else 2.0
        initialiser = keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, channels, self.filters), initializer=initialiser)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        if not self.folded:
            self.pointwise = self.add_weight(name="pointwise", shape=(channels, self.filters), initializer="zeros")
        if has_identity:
            self.identity = self.add_weight(name="identity", shape=(channels,), initializer="ones")
        self.has_identity = has_identity

    def folded_kernel(self) -> Any:
        """Returns the one kernel `(3, 3, channels, filters)` that all branches add up to."""
        if self.folded:
            return self.kernel
        centre = self.pointwise
        if self.has_identity:
            centre = centre + ops.diag(self.identity)
        return self.kernel + ops.pad(centre[None, None], ((1, 1), (1, 1), (0, 0), (0, 0)))

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv(inputs, ops.cast(self.folded_kernel(), inputs.dtype), padding="same")
        return self.activation(outputs + self.bias)

    def fold_from(self, branched: "FoldingConv2D") -> None:
        """Takes over the function of a built layer with branches; this layer is `folded`."""
        self.kernel.assign(branched.folded_kernel())
        self.bias.assign(branched.bias)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "activation": keras.activations.serialize(self.activation),
            "folded": self.folded,
        }
