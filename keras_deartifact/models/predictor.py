"""The quality predictor: from pixels to how strongly they were compressed, whatever the file says or hides.

Input: `images` `(batch, height, width, 3)`, RGB in `[0, 1]`, height and width multiples of 16. Output: log2 of the luma
quantiser step of every 16x16 block, `(batch, height / 16, width / 16, 1)` (`quantiser.py`), within `MINIMUM_LOG2_STEP`
and `MAXIMUM_LOG2_STEP`; where the picture was compressed twice, the coarser of the two.

What is measured is fixed (`quantisation_marks.py`); what it means is learned:

    local       = dense(marks of the block)
    picture     = dense(dense(combs of either grid), marks of the picture, means of local, plain and weighted)
    scores      = conv(local + dense(picture)) + dense(picture) + conv(spectrum), one for every bin of log2 step
    log2 step   = sum over bins of softmax(scores) bin

A JPEG has one table and a video frame about one QP, so that the means over the whole picture carry most of the answer.
The convolution of the spectrum runs along the steps, and sees how coefficients stand to a step, not how large they are:
twice the contrast and twice the step look the same.

Reference: Galteri et al., "Deep Universal Generative Adversarial Compression Artifact Removal", IEEE Transactions on
Multimedia 2019. Theirs classifies the JPEG quality of a patch from its pixels.
"""

from typing import Any

import keras
from keras import ops

from keras_deartifact.models.quantisation_marks import BINS, QuantisationMarks, picture_mean
from keras_deartifact.quantiser import BLOCK

__all__ = ["QualityPredictor"]


@keras.saving.register_keras_serializable("keras_deartifact")
class QualityPredictor(keras.Model):
    """Predicts log2 of the luma quantiser step of every 16x16 block; see the module.

    Args:
        local_units: int > 0, what is learned of each block by itself.
        filters: int > 0, channels of the 3x3 convolution over blocks.
        comb_units: int > 0, what is learned of the combs of a grid.
        picture_units: int > 0, width of the two layers over all marks of the picture.
        spectrum_filters: int > 0, channels of the three convolutions along the steps.
        heads: int > 0, weighted means of the local features that the picture's layers see.
        **kwargs: see `keras.Model`.
    """

    size_multiple = BLOCK
    channels = 3

    def __init__(
        self,
        local_units: int = 32,
        filters: int = 16,
        comb_units: int = 64,
        picture_units: int = 64,
        spectrum_filters: int = 32,
        heads: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.local_units = local_units
        self.filters = filters
        self.comb_units = comb_units
        self.picture_units = picture_units
        self.spectrum_filters = spectrum_filters
        self.heads = heads

        def settings(activation: str | None = "relu") -> dict[str, Any]:
            return {"activation": activation, "kernel_initializer": "he_normal", "dtype": "float32"}

        self.marks = QuantisationMarks()
        self.local = keras.layers.Conv2D(local_units, 1, **settings())
        self.attention = keras.layers.Conv2D(heads, 1, **settings("sigmoid"))
        self.comb = keras.layers.Dense(comb_units, **settings())
        self.picture = [keras.layers.Dense(picture_units, **settings()) for _ in range(2)]
        self.spectrum = [keras.layers.Conv1D(spectrum_filters, 5, padding="same", **settings()) for _ in range(3)]
        self.narrow = keras.layers.Conv2D(filters, 1, **settings(None))
        self.picture_to_blocks = keras.layers.Dense(filters, **settings(None))
        self.blocks = keras.layers.Conv2D(filters, 3, padding="same", **settings())
        self.block_scores = keras.layers.Conv2D(len(BINS), 1, **settings(None))
        self.picture_scores = keras.layers.Dense(len(BINS), **settings(None))
        self.spectrum_scores = keras.layers.Conv1D(1, 5, padding="same", **settings(None))

    def build(self, input_shape: Any) -> None:
        self.marks.build(input_shape)
        channels_in = {
            self.local: self.marks.block_features,
            **dict.fromkeys([self.attention, self.narrow], self.local_units),
            **dict.fromkeys([self.blocks, self.block_scores], self.filters),
        }
        for layer, channels in channels_in.items():
            layer.build((None, None, None, channels))
        means = (1 + self.heads) * self.local_units
        features_in = {
            self.comb: self.marks.comb_features,
            self.picture[0]: 2 * self.comb_units + self.marks.picture_features + means,
            **dict.fromkeys([self.picture[1], self.picture_to_blocks, self.picture_scores], self.picture_units),
        }
        for layer, features in features_in.items():
            layer.build((None, features))
        for layer in [*self.spectrum, self.spectrum_scores]:
            is_first = layer is self.spectrum[0]
            layer.build((None, len(BINS), self.marks.spectrum_features if is_first else self.spectrum_filters))
        self.built = True

    def call(self, inputs: Any) -> Any:
        probabilities = ops.softmax(self.scores(*self.marks(inputs)))
        return ops.sum(probabilities * BINS, axis=-1, keepdims=True)

    def scores(self, block_marks: Any, combs: Any, spectrum: Any, picture_marks: Any) -> Any:
        """Returns the scores `(batch, height / 16, width / 16, bins)` of what `QuantisationMarks` measured."""
        local = self.local(block_marks)
        attention = self.attention(local)
        means = [picture_mean(local)]
        for head in range(self.heads):
            weight = attention[..., head : head + 1]
            means.append(picture_mean(local * weight) / (picture_mean(weight) + 1e-3))
        picture = ops.concatenate([self.comb(combs[:, 0]), self.comb(combs[:, 1]), picture_marks, *means], axis=-1)
        for layer in self.picture:
            picture = layer(picture)
        for layer in self.spectrum:
            spectrum = layer(spectrum)
        blocks = self.blocks(ops.relu(self.narrow(local) + self.picture_to_blocks(picture)[:, None, None]))
        picture_scores = self.picture_scores(picture) + self.spectrum_scores(spectrum)[..., 0]
        return self.block_scores(blocks) + picture_scores[:, None, None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "local_units": self.local_units,
            "filters": self.filters,
            "comb_units": self.comb_units,
            "picture_units": self.picture_units,
            "spectrum_filters": self.spectrum_filters,
            "heads": self.heads,
        }
