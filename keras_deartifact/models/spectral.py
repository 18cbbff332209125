"""A convolution with spectral normalisation: its kernel, as a matrix, has a largest singular value of 1.

Reference: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.

Why not `keras.layers.SpectralNormalization` (Keras 3.15, measured on a 3x3 convolution of 64 to 64 channels): it
divides the trained kernel itself and stores the result, in each training call. So the gradient does not know that sigma
depends on the kernel (it missed 66 % of it, by norm, for a softplus of the outputs, and as much as the whole for their
square); under mixed_float16 what is stored has been rounded to float16 (all of the kernel after one call, and steps of
1e-5 came out with an error of 96 %); and between an optimiser's step and the next training call, when models are
evaluated and saved, nothing is normalised (a kernel grown by 1.3 gave outputs grown by 1.3). On two replicas it did
give the weights of one.
"""

from typing import Any

import keras
from keras import ops

__all__ = ["SpectralConv2D"]

_EPSILON = 1e-12


def _length(vector: Any) -> Any:
    # Under the root, so that the gradient at a kernel of zeros is finite.
    return ops.sqrt(ops.sum(ops.square(vector)) + _EPSILON)


@keras.saving.register_keras_serializable("keras_deartifact")
class SpectralConv2D(keras.layers.Layer):
    """A convolution, padded, without bias, by a kernel over its largest singular value.

        W      = reshape(kernel, (size * size * channels, filters))
        u      <- W^T W u / |W^T W u|                 in each training call, before the rest; no gradient
        sigma  = |W u|, the largest singular value of W once u has converged
        output = conv(input, kernel / sigma)

    `sigma` is |v^T W u| of the paper with v = W u / |W u|, and its gradient v u^T is that of the singular value. It is
    computed in the precision of the variables whatever the dtype policy. Replicas hold the same kernel and thus compute
    the same `u`.

    Args:
        filters: int > 0, output channels.
        kernel_size: int > 0, height and width of the kernel.
        strides: int > 0.
        **kwargs: see `keras.layers.Layer`.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform", autocast=False)
        # The same on every machine, and in no special direction: a constant could be one that the kernel does not see.
        self.u = self.add_weight(
            name="u",
            shape=(self.filters, 1),
            initializer=keras.initializers.Orthogonal(seed=0),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        matrix = ops.reshape(self.kernel, (-1, self.filters))
        if training:
            u = ops.matmul(ops.transpose(matrix), ops.matmul(matrix, self.u))
            self.u.assign(ops.stop_gradient(u / _length(u)))
        sigma = _length(ops.matmul(matrix, self.u))
        return ops.conv(inputs, ops.cast(self.kernel / sigma, inputs.dtype), self.strides, padding="same")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
        }
