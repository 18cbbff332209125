"""A larger `shuffle` generator that begins as a smaller one: it computes the same.

What a small network learnt in hours, a larger one need not learn again. Channels that the small one lacks start at
random, and nothing listens to them at first; convolutions that it lacks start as the identity, behind those that it
has, where nothing is negative.

Reference: Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016.
"""

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from keras_deartifact.models.folding import FoldingConv2D
from keras_deartifact.models.shuffle import ShuffleGenerator

__all__ = ["grow"]

_SAME = ("to_planes", "luma_bank", "chroma_bank", "luma_transposed", "chroma_transposed", "to_pixels")
_WIDER = ("entry", "step_entry", "gate_correction", "coefficient_correction", "pixel_correction")


def grow(large: ShuffleGenerator, small: ShuffleGenerator) -> None:
    """Makes a generator compute what a smaller one does.

    Args:
        large: built and not folded; its weights that have no counterpart stay random.
        small: built.

    Raises:
        ValueError: `small` is larger in something, `large` is folded, or only one of them has a coarse part or chroma.
    """
    sizes = ("filters", "depth", "coarse_filters", "coarse_depth")
    if (
        large.folded
        or any(getattr(small, size) > getattr(large, size) for size in sizes)
        or bool(small.coarse_depth) != bool(large.coarse_depth)
        or small.channels != large.channels
    ):
        raise ValueError(
            f"Expected a generator that is no larger than {large.get_config()}. Received: {small.get_config()}"
        )
    large.slope.assign(small.slope)
    for name in _SAME:
        if hasattr(large, name):
            getattr(large, name).set_weights(getattr(small, name).get_weights())
    for name in _WIDER:
        _widen(getattr(large, name), getattr(small, name))
    _deepen(large.before, small.before, small.filters)
    _deepen(large.after, small.after, small.filters)
    if large.coarse_depth:
        _widen(large.down, small.down)
        _deepen(large.coarse, small.coarse, small.coarse_filters)
        _widen(large.up, small.up, cells=4)


def _widen(large: keras.layers.Conv2D, small: keras.layers.Conv2D, cells: int = 1) -> None:
    """Takes over a convolution; with `cells`, one whose outputs are those of so many cells, one after the other."""
    weights = []
    for ours, theirs in zip(large.get_weights(), small.get_weights(), strict=True):
        embedded = _embedded(_apart(theirs, cells), _apart(ours, cells))
        weights.append(embedded.swapaxes(-3, -2).reshape(ours.shape))
    large.set_weights(weights)


def _apart(weights: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """A kernel `(..., inputs, cells * outputs)` or a bias `(cells * outputs,)` as `(..., cells, inputs, outputs)`."""
    kernel = weights if weights.ndim > 1 else weights[None]
    return kernel.reshape(*kernel.shape[:-1], cells, -1).swapaxes(-3, -2)


def _deepen(large: Sequence[FoldingConv2D], small: Sequence[FoldingConv2D], width: int) -> None:
    """Takes over a row of convolutions; those at its end that the small one lacks become the identity."""
    identity = np.zeros((3, 3, width, width), np.float32)
    identity[1, 1] = np.eye(width)
    for index, layer in enumerate(large):
        theirs = small[index] if index < len(small) else None
        kernel = identity if theirs is None else keras.ops.convert_to_numpy(theirs.folded_kernel())
        ours = keras.ops.convert_to_numpy(layer.folded_kernel())
        # Its branches stay as they are, so the 3x3 kernel takes up the difference.
        layer.kernel.assign(layer.kernel + (_embedded(kernel, ours) - ours))
        bias = np.zeros(width, np.float32) if theirs is None else keras.ops.convert_to_numpy(theirs.bias)
        layer.bias.assign(np.pad(bias, (0, layer.filters - width)))


def _embedded(small: NDArray[np.float32], large: NDArray[np.float32]) -> NDArray[np.float32]:
    """The large kernel `(..., inputs, outputs)` with the small one in it, which hears nothing of the other inputs."""
    inputs, outputs = small.shape[-2:]
    kernel = large.copy()
    kernel[..., inputs:, :outputs] = 0.0
    kernel[..., :inputs, :outputs] = small
    return kernel
