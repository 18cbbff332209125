"""The `patch` discriminator of the paper: is each 16x16 patch an original, given what it looked like compressed?

Inputs: `(compressed, candidate)`, both `(batch, height, width, channels)`, RGB in `[0, 1]`, height and width at least
16. The candidate is an original or a restored image. Output: logits `(batch, height - 15, width - 15, 1)`, float32
whatever the dtype policy, positive for an original.

    f0     = concatenate(2 compressed - 1, 2 candidate - 1)
    f1..f4 = leaky_relu(convolution 4x4)            filters, filters, 2 filters, 2 filters
    logits = convolution 4x4                        one

No convolution pads or strides, so that a logit depends on 16x16 pixels exactly, 1 + 5 * 3, and there is one for every
such window; filters double every two layers; there is no dense layer, thus any size will do, and no normalisation,
thus no image sees another one. Artefacts are local, and a discriminator that sees little judges texture, not contents.

Where we leave the paper: its discriminator returns `probability(logits)`, a sigmoid for each position, averaged; ours
leaves both to the losses, which compute the logarithm of a sigmoid without underflow.

Reference: Galteri et al., "Preserving Low-Quality Video through Deep Learning"; the conditioning and the patches are
those of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
"""

from typing import Any

import keras
from keras import ops

__all__ = ["PatchDiscriminator", "probability"]

_KERNEL_SIZE = 4
_NEGATIVE_SLOPE = 0.2


def probability(logits: Any) -> Any:
    """The probability that each image is an original, as the paper has it.

        probability = mean over rows, columns of 1 / (1 + exp(-logits))

    Args:
        logits: float tensor `(batch, rows, columns, 1)` of a discriminator.

    Returns:
        Tensor `(batch,)` of the same dtype in `[0, 1]`.
    """
    return ops.mean(ops.sigmoid(logits), axis=(1, 2, 3))


@keras.saving.register_keras_serializable("keras_deartifact")
class PatchDiscriminator(keras.Model):
    """The paper's fully convolutional discriminator; see the module.

    Args:
        filters: int > 0, channels of the first two convolutions; the next two have twice as many.
        channels: int > 0, of each image.
        **kwargs: see `keras.Model`.

    Raises:
        ValueError: images smaller than the receptive field.
    """

    size_multiple = 1

    def __init__(self, filters: int = 64, channels: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels
        # A loaded model has the policy of its file, whatever is the global one, and so must its layers.
        self.convolutions = [
            keras.layers.Conv2D(width, _KERNEL_SIZE, kernel_initializer="he_normal", dtype=self.dtype_policy)
            for width in (filters, filters, 2 * filters, 2 * filters, 1)
        ]

    @property
    def receptive_field(self) -> int:
        """Pixels each way that a logit depends on."""
        size, step = 1, 1
        for convolution in self.convolutions:
            size += (convolution.kernel_size[0] - 1) * step
            step *= convolution.strides[0]
        return size

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        channels = 2 * self.channels
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = convolution.filters
        self.built = True

    def call(self, inputs: Any) -> Any:
        compressed, candidate = inputs
        least = self.receptive_field
        if min(candidate.shape[1] or least, candidate.shape[2] or least) < least:
            raise ValueError(f"Expected {least} pixels each way. Received: shape={tuple(candidate.shape)}")
        features = 2.0 * ops.concatenate((compressed, candidate), axis=-1) - 1.0
        for convolution in self.convolutions[:-1]:
            features = ops.leaky_relu(convolution(features), _NEGATIVE_SLOPE)
        return ops.cast(self.convolutions[-1](features), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}
