"""The `unet` discriminator: is each pixel of an original, by its surroundings near and far?

Inputs: `(compressed, candidate)`, both `(batch, height, width, channels)`, RGB in `[0, 1]`, height and width multiples
of 8. The candidate is an original or a restored image. Output: logits `(batch, height, width, 1)`, float32 whatever the
dtype policy, positive for an original.

    f0     = act(convolution 3x3(concatenate(2 compressed - 1, 2 candidate - 1)))              filters
    f1..f3 = act(spectral 4x4 / 2), each half as large as the one before                       2, 4, 8 filters
    g2..g0 = act(spectral 3x3(upsampled g of the level below, at first f3)) + f2..f0           4, 2, 1 filters
    logits = convolution 3x3(act(spectral 3x3(act(spectral 3x3(g0)))))                         one

with act = leaky_relu. Every convolution is padded and, but for the first and the last, spectrally normalised
(`spectral.py`), which stands in for a normalisation of the features.

The way down judges the whole, the skip connections let the way up point at the pixels that gave it away; its gradient
is more detailed than that of patches, and it has about ten times the parameters. The losses apply the sigmoid to each
logit and average, as for `patch`.

References: Schönfeld et al., "A U-Net Based Discriminator for Generative Adversarial Networks", CVPR 2020; the layers
are those of Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW
2021. Where we leave them: it sees the compressed image too, as the paper's discriminator does, and it upsamples by the
nearest pixel, not bilinearly, for which Keras needs to know the size while it traces.
"""

from typing import Any

import keras
from keras import ops

from keras_deartifact.models.spectral import SpectralConv2D

__all__ = ["UNetDiscriminator"]

_NEGATIVE_SLOPE = 0.2


@keras.saving.register_keras_serializable("keras_deartifact")
class UNetDiscriminator(keras.Model):
    """A U-Net with spectral normalisation that judges every pixel; see the module.

    Args:
        filters: int > 0, channels at full resolution; they double with each of three levels down.
        channels: int > 0, of each image.
        **kwargs: see `keras.Model`.

    Raises:
        ValueError: height or width is no multiple of 8.
    """

    size_multiple = 8

    def __init__(self, filters: int = 64, channels: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels
        # A loaded model has the policy of its file, whatever is the global one, and so must its layers.
        dtype = self.dtype_policy
        self.entry = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", dtype=dtype)
        self.down = [SpectralConv2D(filters * scale, 4, 2, dtype=dtype) for scale in (2, 4, 8)]
        self.up = [SpectralConv2D(filters * scale, 3, dtype=dtype) for scale in (4, 2, 1)]
        self.after = [SpectralConv2D(filters, 3, dtype=dtype) for _ in range(2)]
        self.to_logits = keras.layers.Conv2D(1, 3, padding="same", dtype=dtype)

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        channels = 2 * self.channels
        for layer in (self.entry, *self.down, *self.up, *self.after, self.to_logits):
            layer.build((None, None, None, channels))
            channels = layer.filters
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        compressed, candidate = inputs
        multiple = self.size_multiple
        if (candidate.shape[1] or 0) % multiple or (candidate.shape[2] or 0) % multiple:
            raise ValueError(f"Expected multiples of {multiple}. Received: shape={tuple(candidate.shape)}")

        def act(features: Any) -> Any:
            return ops.leaky_relu(features, _NEGATIVE_SLOPE)

        features = act(self.entry(2.0 * ops.concatenate((compressed, candidate), axis=-1) - 1.0))
        skipped = []
        for convolution in self.down:
            skipped.append(features)
            features = act(convolution(features, training=training))
        for convolution in self.up:
            features = ops.repeat(ops.repeat(features, 2, axis=1), 2, axis=2)
            features = act(convolution(features, training=training)) + skipped.pop()
        for convolution in self.after:
            features = act(convolution(features, training=training))
        return ops.cast(self.to_logits(features), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}
