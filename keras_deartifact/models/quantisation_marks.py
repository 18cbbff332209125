"""The marks that quantisation leaves in a picture: what the quality predictor measures. Nothing here is trained.

Input: `images` `(batch, height, width, 3)`, RGB in `[0, 1]`, height and width multiples of 16.

    luma        = 255 (0.299 R + 0.587 G + 0.114 B) - 128
    change      = |difference| / (|difference| + 10),   of luma to its left and to its upper neighbour
    profile     = mean of change over each of the picture's columns (rows), modulo 8
    edge        = argmax of profile - mean of the profile's two neighbours
    c           = orthonormal 8x8 DCT of luma, once on the 8-pixel grid and once on the grid that begins at the edges
    u           = c / q,   for the 10 lowest frequencies and steps q = 1, 2, ..., 20, then 5.5 % apart, to 111
    weight      = min(u^2, 1)                               a coefficient that was set to zero says nothing
    comb        = mean of weight (1 - 12 (u - round(u))^2) / (mean of weight + 0.01)
    spectrum    = combs and log mean weights of several frequencies together, at one step for all, as H.264 has it
    magnitude   = log(1 + |c|)                              lost high frequencies

The comb is the mark of a quantiser: 1 where all coefficients are multiples of q, 0 on the average where they are spread
evenly. It survives a second, finer compression on another grid, and is found on the grid whose edges are the strongest.
All but what is measured of each block are means over the picture, which may have any size.

Reference: Fan and de Queiroz, "Identification of Bitmap Compression History: JPEG Detection and Quantizer Estimation",
IEEE Transactions on Image Processing 2003 (the grid and the comb).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deartifact.image import LUMA_WEIGHTS
from keras_deartifact.models.shuffle import dct_basis
from keras_deartifact.quantiser import BLOCK, MAXIMUM_LOG2_STEP, MINIMUM_LOG2_STEP

__all__ = ["BINS", "QuantisationMarks", "picture_mean"]

# log2 of the steps at which the spectrum is measured, and of which a prediction is made.
BINS = np.arange(MINIMUM_LOG2_STEP, MAXIMUM_LOG2_STEP + 0.125, 0.25, dtype=np.float32)

_CELL = 8
_LUMA_WEIGHTS = np.array(LUMA_WEIGHTS)
# In 8-bit levels: a larger change is an edge of the picture's own, and all such edges count alike.
_LARGE_CHANGE = 10.0
# Each frequency (u, v)'s u + v, in the DCT's row-major order.
_ORDERS = np.add.outer(np.arange(_CELL), np.arange(_CELL)).ravel()
_COMB_FREQUENCIES = np.flatnonzero(_ORDERS <= 3).tolist()
_COMB_STEPS = np.unique(np.rint(1.055 ** np.arange(89))).astype(np.float32)
# The mean weights of neighbouring steps are much alike.
_WEIGHT_STRIDE = 4
# The spectrum's combs: two groups of orders in which a codec's prediction has little, a third of their frequencies, at
# the bins 0 to 6.5. Its weights: ten groups, at whole octaves.
_FINE_BINS = slice(4, 31)
_THIRD = (_ORDERS + np.arange(_CELL**2) % _CELL) % 3 == 0
_FINE_GROUPS = [np.flatnonzero(_THIRD & (_ORDERS >= 5) & (_ORDERS <= 7)).tolist()]
_FINE_GROUPS += [np.flatnonzero(_THIRD & (_ORDERS >= 8) & (_ORDERS <= 10)).tolist()]
_OCTAVES = np.arange(MINIMUM_LOG2_STEP, MAXIMUM_LOG2_STEP + 0.5, 1.0, dtype=np.float32)
_GROUPS = [(order, order) for order in range(1, 8)] + [(8, 9), (10, 11), (12, 14)]


def picture_mean(values: Any) -> Any:
    """Returns the mean over rows and columns, `(batch, channels)`."""
    return ops.mean(values, axis=(1, 2))


def transform_kernel() -> np.ndarray:
    """Returns `(64, 64)`: the pixels of an 8x8 cell to its orthonormal DCT, both row by row."""
    basis = dct_basis(_CELL)
    return np.einsum("uy,vx->yxuv", basis, basis).reshape(_CELL**2, _CELL**2)


def _fixed(size: tuple[int, int], kernel: np.ndarray, name: str) -> keras.layers.Conv2D:
    """A convolution whose stride is its size and whose kernel `(inputs, outputs)` is not trained."""
    return keras.layers.Conv2D(
        kernel.shape[1],
        size,
        strides=size,
        use_bias=False,
        kernel_initializer=keras.initializers.Constant(kernel.reshape(*size, -1, kernel.shape[1])),
        trainable=False,
        dtype="float32",
        name=name,
    )


def _comb(coefficient: Any, steps: np.ndarray) -> tuple[Any, Any]:
    """Returns the means of weight (1 - 12 (u - round(u))^2) and of weight, `(batch, steps)`, of one frequency."""
    in_steps = coefficient * (1.0 / steps)
    weight = ops.minimum(ops.square(in_steps), 1.0)
    distance = in_steps - ops.round(in_steps)
    return picture_mean(weight * (1.0 - 12.0 * ops.square(distance))), picture_mean(weight)


def _combs(coefficients: list[Any]) -> Any:
    """Returns the combs of each frequency and the logarithms of their mean weights, `(batch, combs)`."""
    measured = []
    # One frequency after another: all at once would take 500 values for every 64 pixels.
    for coefficient in coefficients:
        comb, weight = _comb(coefficient, _COMB_STEPS)
        measured += [comb / (weight + 0.01), ops.log(weight[:, ::_WEIGHT_STRIDE] + 0.001)]
    return ops.concatenate(measured, axis=-1)


def _spectrum(coefficients: Any) -> Any:
    """Returns combs and log mean weights of groups of frequencies at every bin, `(batch, bins, groups)`."""
    groups = []
    for frequencies in _FINE_GROUPS:
        pairs = [_comb(coefficients[..., place : place + 1], 2.0 ** BINS[_FINE_BINS]) for place in frequencies]
        combs, weights = (sum(means) / len(pairs) for means in zip(*pairs, strict=True))
        elsewhere = ((0, 0), (_FINE_BINS.start, len(BINS) - _FINE_BINS.stop))
        groups.append(ops.pad(combs / (weights + 0.003), elsewhere))
    energy = ops.square(coefficients)
    weights = ops.stack([picture_mean(ops.minimum(energy * 4.0**-octave, 1.0)) for octave in _OCTAVES], axis=1)
    members = np.stack([(low <= _ORDERS) & (_ORDERS <= high) for low, high in _GROUPS], axis=1).astype(np.float32)
    logarithms = ops.log(ops.matmul(weights, members / members.sum(axis=0)) + 1e-4)
    between = np.stack([np.interp(BINS, _OCTAVES, place) for place in np.eye(len(_OCTAVES))], axis=1)
    logarithms = ops.matmul(between.astype(np.float32), logarithms)
    return ops.concatenate([ops.stack(groups, axis=-1), logarithms], axis=-1)


def _turned(profile: Any, edge: Any) -> Any:
    """Turns `(batch, 8)` so that it begins at the edge, which is one-hot `(batch, 8)`."""
    twice = ops.concatenate([profile, profile], axis=-1)
    return sum(edge[:, place : place + 1] * twice[:, place : place + _CELL] for place in range(_CELL))


def _grid(columns: Any, rows: Any) -> tuple[list[Any], list[Any]]:
    """Returns of columns and of rows the edge, one-hot `(batch, 8)`, and the profile, turned to begin there."""
    edges, profiles = [], []
    for changes in (columns, rows):
        means = picture_mean(changes)
        profile = means[:, :_CELL] + means[:, _CELL:]
        around = ops.concatenate([profile[:, -1:], profile, profile[:, :1]], axis=1)
        excess = profile - 0.5 * (around[:, :-2] + around[:, 2:])
        # In a flat picture all places are the largest. (LiteRT lacks a part of Keras's argmax.)
        is_edge = ops.cast(excess >= ops.max(excess, axis=1, keepdims=True), excess.dtype)
        edges.append(is_edge / ops.sum(is_edge, axis=1, keepdims=True))
        profiles.append(_turned(profile, edges[-1]))
    return edges, profiles


def _from(luma: Any, column: Any, row: Any) -> Any:
    """Leaves out what lies before the first edges, 8 columns and 8 rows in all."""
    column, row = column[:, :, None, None, None], row[:, :, None, None, None]
    height, width = (ops.shape(luma)[axis] - _CELL for axis in (1, 2))
    luma = sum(row[:, place] * luma[:, place : place + height] for place in range(_CELL))
    return sum(column[:, place] * luma[:, :, place : place + width] for place in range(_CELL))


@keras.saving.register_keras_serializable("keras_deartifact")
class QuantisationMarks(keras.layers.Layer):
    """Measures the marks of quantisation; see the module. It is float32 whatever the policy: levels must be counted.

    Returns:
        Of each block `(batch, height / 16, width / 16, 96)`: mean magnitudes, changes into each column and row of it;
        combs of either grid `(batch, 2, 650)`; spectrum `(batch, bins, 12)`; the rest of the picture `(batch, 144)`:
        profiles, mean and deviation of magnitudes.
    """

    block_features = _CELL**2 + 2 * BLOCK
    comb_features = len(_COMB_FREQUENCIES) * (len(_COMB_STEPS) + len(_COMB_STEPS[::_WEIGHT_STRIDE]))
    spectrum_features = len(_FINE_GROUPS) + len(_GROUPS)
    picture_features = 2 * _CELL + 2 * _CELL**2

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        kernel = transform_kernel()
        self.to_luma = _fixed((1, 1), 255.0 * _LUMA_WEIGHTS[:, None], "to_luma")
        self.transform = _fixed((1, 1), kernel, "transform")
        self.low_transform = _fixed((1, 1), kernel[:, _COMB_FREQUENCIES], "low_transform")
        # A stride of 16 turns the 16 columns of a block, whose rows are averaged already, into channels.
        self.columns = _fixed((1, BLOCK), np.eye(BLOCK), "columns")
        self.rows = _fixed((BLOCK, 1), np.eye(BLOCK), "rows")

    def build(self, input_shape: Any) -> None:
        del input_shape  # Fully convolutional: every number of channels is known.
        channels_in = {self.to_luma: 3, self.columns: 1, self.rows: 1}
        channels_in |= dict.fromkeys([self.transform, self.low_transform], _CELL**2)
        for layer, channels in channels_in.items():
            layer.build((None, None, None, channels))
        self.built = True

    def call(self, inputs: Any) -> tuple[Any, Any, Any, Any]:
        luma = self.to_luma(inputs) - 128.0
        columns, rows = self._changes(luma)
        edges, profiles = _grid(columns, rows)
        coefficients = self.transform(ops.space_to_depth(luma, _CELL))
        found = self.low_transform(ops.space_to_depth(_from(luma, *edges), _CELL))
        low = [coefficients[..., place : place + 1] for place in _COMB_FREQUENCIES]
        low_found = [found[..., place : place + 1] for place in range(len(_COMB_FREQUENCIES))]
        magnitude = ops.log(1.0 + ops.abs(coefficients))
        mean = picture_mean(magnitude)
        deviation = ops.sqrt(picture_mean(ops.square(magnitude - mean[:, None, None])) + 1e-6)
        return (
            ops.concatenate([ops.average_pool(magnitude, 2, 2), columns, rows], axis=-1),
            ops.stack([_combs(low), _combs(low_found)], axis=1),
            _spectrum(coefficients),
            ops.concatenate([*profiles, mean, deviation], axis=-1),
        )

    def _changes(self, luma: Any) -> tuple[Any, Any]:
        """Returns the mean change into each of the 16 columns and each of the 16 rows of every block, times 4."""
        across = ops.abs(luma[:, :, 1:] - luma[:, :, :-1])
        down = ops.abs(luma[:, 1:] - luma[:, :-1])
        across = ops.pad(across / (across + _LARGE_CHANGE), ((0, 0), (0, 0), (1, 0), (0, 0)))
        down = ops.pad(down / (down + _LARGE_CHANGE), ((0, 0), (1, 0), (0, 0), (0, 0)))
        columns = self.columns(ops.average_pool(across, (BLOCK, 1), (BLOCK, 1)))
        rows = self.rows(ops.average_pool(down, (1, BLOCK), (1, BLOCK)))
        return 4.0 * columns, 4.0 * rows
