"""The `shuffle` generators: shrinkage in overlapped blocks, corrected by a small network at a fraction of the pixels.

Inputs: `images` `(batch, height, width, channels)`, RGB or luma in `[0, 1]`, and `quantiser_map`
`(batch, height / 16, width / 16, 1)`, log2 of the luma quantiser step (`quantiser.py`). Height and width are multiples
of 16. Output: the restored images, same shape, not clipped.

Everything runs on cells of 4x4 pixels (pixel-unshuffle), 1/16 of the positions:

    cells  = space_to_depth(images - 0.5, 4)              48 channels
    planes = linear(cells)                                16 luma, 2 x 4 chroma at half resolution
    c      = bank(planes)                                 blocks of 8x8 luma at every 4th pixel, 4x4 of each chroma
    u      = 255 c / step                                 coefficients in units of the quantiser step
    f      = trunk(u / (2 + |u|), log2 step)              a small convolutional network, part of it at 8x8 cells
    excess = sigmoid(linear(f) - slope |u|)               share of each coefficient that is taken away
    d      = step / 255 (u excess + linear(f))            what each coefficient loses
    output = images - depth_to_space(linear(bank^T(d)) + step / 255 linear(f), 4)

With one channel, luma, the cells' 16 values are the planes; there is neither `linear` about them, and no chroma.

The bank starts as the orthonormal DCT and its transpose, so that the untrained network with the trunk's outputs at zero
is the classical filter (shifted transforms, thresholded by the quantiser step, averaged: ffmpeg's `spp`). Dividing by
the step makes one set of weights serve every quality. All of it is trained.

References: Nosratinia, "Embedded post-processing for enhancement of compressed images", DCC 1999 (shifted transforms);
Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
Network", CVPR 2016 (sub-pixel layers); Galteri et al., "Preserving Low-Quality Video through Deep Learning" (the task).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deartifact.image import LUMA_WEIGHTS
from keras_deartifact.models.folding import FoldingConv2D
from keras_deartifact.models.upsampling import nearest

__all__ = ["ShuffleGenerator"]

_CELL = 4
_LN_2 = float(np.log(2.0))
# At first, coefficients below this share of the quantiser step go; the slope is that of the logistic around it.
_THRESHOLD, _SLOPE = 0.25, 8.0
_LUMA_WEIGHTS = np.array(LUMA_WEIGHTS)
_CHROMA_WEIGHTS = np.array(((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))
_RGB_FROM_YCBCR = np.array(((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0)))


def dct_basis(size: int) -> np.ndarray:
    """Returns the orthonormal DCT-II of `size` points, one basis function a row."""
    frequency, position = np.mgrid[:size, :size]
    basis = np.cos(np.pi * (2 * position + 1) * frequency / (2 * size)) * np.sqrt(2.0 / size)
    basis[0] /= np.sqrt(2.0)
    return basis


def _planes_kernel() -> np.ndarray:
    """Returns `(48, 24)`: 4x4 RGB pixels to 16 luma values, 2x2 means of Cb and 2x2 means of Cr."""
    kernel = np.zeros((_CELL, _CELL, 3, 24))
    for row in range(_CELL):
        for column in range(_CELL):
            kernel[row, column, :, row * _CELL + column] = _LUMA_WEIGHTS
            quarter = (row // 2) * 2 + column // 2
            for chroma in range(2):
                kernel[row, column, :, 16 + 4 * chroma + quarter] = _CHROMA_WEIGHTS[chroma] / 4.0
    return kernel.reshape(48, 24)


def _pixels_kernel() -> np.ndarray:
    """Returns `(24, 48)`: the way back from `_planes_kernel`, chroma repeated over 2x2 pixels."""
    kernel = np.zeros((24, _CELL, _CELL, 3))
    for row in range(_CELL):
        for column in range(_CELL):
            kernel[row * _CELL + column, row, column] = _RGB_FROM_YCBCR[:, 0]
            quarter = (row // 2) * 2 + column // 2
            for chroma in range(2):
                kernel[16 + 4 * chroma + quarter, row, column] = _RGB_FROM_YCBCR[:, 1 + chroma]
    return kernel.reshape(24, 48)


def _bank_kernel(cell: int, planes: int) -> np.ndarray:
    """Returns `(2, 2, planes * cell^2, planes * 4 cell^2)`: blocks of 2x2 cells to their DCT, each plane by itself."""
    size = 2 * cell
    basis = dct_basis(size)
    block = np.einsum("uy,vx->yxuv", basis, basis).reshape(2, cell, 2, cell, size * size)
    block = block.transpose(0, 2, 1, 3, 4).reshape(2, 2, cell * cell, size * size)
    kernel = np.zeros((2, 2, planes, cell * cell, planes, size * size))
    for plane in range(planes):
        kernel[:, :, plane, :, plane] = block
    return kernel.reshape(2, 2, planes * cell * cell, planes * size * size)


def _transposed_bank_kernel(cell: int, planes: int) -> np.ndarray:
    """Returns the transpose of `_bank_kernel` over 4, the number of blocks that cover a pixel."""
    return _bank_kernel(cell, planes)[::-1, ::-1].transpose(0, 1, 3, 2) / 4.0


def _per_cell(quantiser_map: Any) -> Any:
    """Repeats each block's value for the 4x4 cells of 4x4 pixels in it."""
    return nearest(quantiser_map, 4)


def _linear(
    filters: int, size: int, kernel: np.ndarray | str, dtype: Any, padding: str = "same"
) -> keras.layers.Conv2D:
    initialiser = (
        kernel if isinstance(kernel, str) else keras.initializers.Constant(kernel.reshape(size, size, -1, filters))
    )
    return keras.layers.Conv2D(
        filters, size, padding=padding, use_bias=False, kernel_initializer=initialiser, dtype=dtype
    )


@keras.saving.register_keras_serializable("keras_deartifact")
class ShuffleGenerator(keras.Model):
    """Shrinkage in overlapped blocks with a network that corrects it; see the module.

    Args:
        filters: int > 0, channels of the trunk at 4x4 cells.
        depth: int >= 2, 3x3 convolutions at 4x4 cells, half of them before the coarse part.
        coarse_filters: int > 0, channels of the trunk at 8x8 cells.
        coarse_depth: int >= 0, 3x3 convolutions at 8x8 cells; 0 leaves the coarse part out.
        folded: if True the convolutions have no branches; see `fold`.
        channels: of the images: 3 for RGB, 1 for luma.
        **kwargs: see `keras.Model`.

    Raises:
        ValueError: another number of channels.
    """

    size_multiple = 16

    def __init__(
        self,
        filters: int = 32,
        depth: int = 4,
        coarse_filters: int = 64,
        coarse_depth: int = 2,
        folded: bool = False,
        channels: int = 3,
        **kwargs: Any,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"Expected 1 channel or 3. Received: channels={channels}")
        super().__init__(autocast=False, **kwargs)
        self.filters = filters
        self.depth = depth
        self.coarse_filters = coarse_filters
        self.coarse_depth = coarse_depth
        self.folded = folded
        self.channels = channels
        has_chroma = channels == 3
        self.coefficients = 96 if has_chroma else 64

        # A loaded model has the policy of its file, whatever is the global one, and so must its layers. With a
        # mixed one the trunk alone computes in half precision: a level is a 255th, and bfloat16 has eight bits.
        trunk = self.dtype_policy
        dtype = trunk if trunk.compute_dtype == trunk.variable_dtype else keras.DTypePolicy(trunk.variable_dtype)

        def convolutions(count: int, width: int) -> list[FoldingConv2D]:
            return [FoldingConv2D(width, "relu", folded, dtype=trunk) for _ in range(count)]

        if has_chroma:
            self.to_planes = _linear(24, 1, _planes_kernel(), dtype)
        # Block j holds cells j - 1 and j, and its transpose gives to both.
        self.bank_padding = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), dtype=dtype)
        self.luma_bank = _linear(64, 2, _bank_kernel(4, 1), dtype, "valid")
        if has_chroma:
            self.chroma_bank = _linear(32, 2, _bank_kernel(2, 2), dtype, "valid")
        self.entry = keras.layers.Conv2D(filters, 1, kernel_initializer="he_normal", dtype=dtype)
        self.step_entry = _linear(filters, 1, "he_normal", dtype)
        self.before = convolutions(depth // 2, filters)
        if coarse_depth:
            self.down = keras.layers.Conv2D(
                coarse_filters, 2, 2, activation="relu", kernel_initializer="he_normal", dtype=trunk
            )
            self.coarse = convolutions(coarse_depth, coarse_filters)
            self.up = keras.layers.Conv2D(4 * filters, 1, dtype=trunk)
        self.after = convolutions(depth - depth // 2, filters)
        # A mean is never a matter of quantisation: each plane's coefficient of frequency zero passes at first.
        threshold = np.full(self.coefficients, _THRESHOLD * _SLOPE)
        threshold[[0, 64, 80] if has_chroma else 0] = -20.0
        self.gate_correction = keras.layers.Conv2D(
            self.coefficients,
            1,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(threshold),
            dtype=dtype,
        )
        self.coefficient_correction = _linear(self.coefficients, 1, "zeros", dtype)
        self.pixel_correction = _linear(16 * channels, 1, "zeros", dtype)
        self.luma_transposed = _linear(16, 2, _transposed_bank_kernel(4, 1), dtype)
        if has_chroma:
            self.chroma_transposed = _linear(8, 2, _transposed_bank_kernel(2, 2), dtype)
            self.to_pixels = _linear(48, 1, _pixels_kernel(), dtype)

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        constant = keras.initializers.Constant(_SLOPE)
        self.slope = self.add_weight(name="slope", shape=(self.coefficients,), initializer=constant)
        channels_in = {
            self.luma_bank: 16,
            self.entry: self.coefficients,
            self.step_entry: 1,
            self.gate_correction: self.filters,
            self.coefficient_correction: self.filters,
            self.pixel_correction: self.filters,
            self.luma_transposed: 64,
            **dict.fromkeys(self.before + self.after, self.filters),
        }
        if self.coarse_depth:
            channels_in |= {self.down: self.filters, **dict.fromkeys([*self.coarse, self.up], self.coarse_filters)}
        if self.channels == 3:
            channels_in |= {self.to_planes: 48, self.chroma_bank: 8, self.chroma_transposed: 32, self.to_pixels: 24}
        for layer, channels in channels_in.items():
            layer.build((None, None, None, channels))
        self.built = True

    @property
    def integer_layers(self) -> list[keras.layers.Layer]:
        """The layers that do with 8-bit integers: those of features, whose range is the same at every quality.

        Coefficients are not among them: they span a thousand of the finest steps, and a quarter of one counts.
        """
        between = [self.down, *self.coarse, self.up] if self.coarse_depth else []
        return [*self.before, *between, *self.after]

    def call(self, inputs: Any) -> Any:
        images, quantiser_map = inputs
        cells = ops.space_to_depth(images - 0.5, _CELL)
        log2_step = _per_cell(quantiser_map)
        step = _per_cell(ops.exp(quantiser_map * _LN_2) / 255.0)
        inverse_step = _per_cell(ops.exp(quantiser_map * -_LN_2) * 255.0)

        in_steps = self._analyse(cells) * inverse_step
        magnitude = ops.abs(in_steps)
        features = self._trunk(in_steps / (magnitude + 2.0), log2_step)

        excess = ops.sigmoid(self.gate_correction(features) - self.slope * magnitude)
        loss = (in_steps * excess + self.coefficient_correction(features)) * step
        lost_cells = self._synthesise(loss) + self.pixel_correction(features) * step
        return images - ops.depth_to_space(lost_cells, _CELL)

    def _analyse(self, cells: Any) -> Any:
        if self.channels == 1:
            return self.luma_bank(self.bank_padding(cells))
        planes = self.bank_padding(self.to_planes(cells))
        return ops.concatenate((self.luma_bank(planes[..., :16]), self.chroma_bank(planes[..., 16:])), axis=-1)

    def _synthesise(self, coefficients: Any) -> Any:
        if self.channels == 1:
            return self.luma_transposed(coefficients)
        luma, chroma = self.luma_transposed(coefficients[..., :64]), self.chroma_transposed(coefficients[..., 64:])
        return self.to_pixels(ops.concatenate((luma, chroma), axis=-1))

    def _trunk(self, coefficients: Any, log2_step: Any) -> Any:
        features = ops.relu(self.entry(coefficients) + self.step_entry(log2_step / 4.0 - 1.0))
        for convolution in self.before:
            features = convolution(features)
        if self.coarse_depth:
            coarse = self.down(features)
            for convolution in self.coarse:
                coarse = convolution(coarse)
            features = features + ops.depth_to_space(self.up(coarse), 2)
        for convolution in self.after:
            features = convolution(features)
        return features

    def fold(self) -> "ShuffleGenerator":
        """Returns a new generator that computes the same with one kernel a convolution; this one must be built."""
        folded = ShuffleGenerator(**{**self.get_config(), "folded": True})
        folded.build([(None, None, None, self.channels), (None, None, None, 1)])
        for target, source in zip(folded._flatten_layers(False), self._flatten_layers(False), strict=True):
            if isinstance(target, FoldingConv2D):
                target.fold_from(source)
            elif target.weights:
                target.set_weights(source.get_weights())
        folded.slope.assign(self.slope)
        return folded

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "depth": self.depth,
            "coarse_filters": self.coarse_filters,
            "coarse_depth": self.coarse_depth,
            "folded": self.folded,
            "channels": self.channels,
        }
