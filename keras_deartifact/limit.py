"""How much of what a network changes a picture's compression can account for.

A quantiser of step `D` leaves errors of about `D / sqrt(12)`, root mean square, and `1 / sqrt(12)` of it nobody can
undo: the decoded samples were rounded to whole levels. A network that changes a block by a good part of the rest in a
finely compressed picture is wrong more often than not: it takes text, grain or foliage for traces of compression. So
every block of 16x16 pixels is held to a share of that rest:

    correction *= min(1, share * sqrt((D^2 - 1) / 12) / rms(correction))

Coarsely compressed pictures are not touched by it, and what was hardly compressed comes back (nearly) as it was: of
steps up to 1, to the bit.

Where chroma was reduced, that is an error of its own. There luma is held as above, and chroma to a share of
`D / sqrt(12)`. A scan without colour gets none.
"""

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image, quantiser

__all__ = ["Share", "held", "limited"]

Floats = NDArray[np.float32]

Share = float | tuple[float, float]
"""Of the quantiser's error: of all channels together, or of luma and of reduced chroma."""

_LUMA = np.array(image.LUMA_WEIGHTS, np.float32)

# Rows of blocks that are scaled at a time, so that large pictures need little memory beside the correction itself.
_ROWS = 16


def held(images: Floats, correction: Floats, quantiser_map: Floats, share: Share) -> Floats:
    """Holds a correction of RGB to a share of the quantiser's error, or luma and reduced chroma to one each.

    Args:
        images: float32 `(height, width, 3)`, what is corrected; where all of it is grey, reduced chroma stays so.
        correction: see `limited`.
        quantiser_map: see `limited`.
        share: see `Share`.

    Returns:
        float32 of the shape of `correction`, the same array where nothing is too large.
    """
    if not isinstance(share, tuple):
        return limited(correction, quantiser_map, share)
    luma = (correction @ _LUMA)[..., None]
    result = np.repeat(limited(luma, quantiser_map, share[0]), 3, axis=-1)
    if np.any(images != images[..., :1]):
        result += limited(correction - luma, quantiser_map, share[1], rounded=False)
    return result


def limited(
    correction: Floats, quantiser_map: Floats, share: float, out: Floats | None = None, *, rounded: bool = True
) -> Floats:
    """Scales a correction down where it is larger than the quantiser's error; between blocks the scale is interpolated.

    Args:
        correction: float32 `(height, width, channels)`, what is added to a picture in `[0, 1]`; both sides multiples
            of 16.
        quantiser_map: float32 `(height / 16, width / 16)`, log2 steps.
        share: of the quantiser's error that a block may change by, root mean square over its pixels and channels;
            infinity for any change.
        out: where the result goes, unless it is `correction`; may be that, too. None for a new array.
        rounded: whether what rounding leaves is taken from the error.

    Returns:
        float32 of the shape of `correction`, the same array where nothing is too large.
    """
    if share == np.inf:
        return correction
    rows, columns = quantiser_map.shape
    blocks = correction.reshape(rows, quantiser.BLOCK, columns, -1)
    energy = np.einsum("ijkl,ijkl->ik", blocks, blocks) / (blocks.shape[1] * blocks.shape[3])
    allowed = np.square(share / 255.0) * np.maximum(np.square(np.exp2(quantiser_map)) - rounded, 0.0) / 12.0
    if np.all(energy <= allowed):
        return correction
    scale = np.sqrt(np.minimum(1.0, allowed / np.maximum(energy, 1e-12))).astype(np.float32)
    result = np.empty_like(correction) if out is None else out
    smooth = _between_blocks(scale.T, 1).T
    for start in range(0, len(smooth), _ROWS * quantiser.BLOCK):
        band = slice(start, start + _ROWS * quantiser.BLOCK)
        # Rows of samples with their channels side by side, so that the product is one pass over contiguous memory.
        weights = _between_blocks(smooth[band], correction.shape[2]).reshape(correction[band].shape)
        np.multiply(correction[band], weights, out=result[band])
    return result


def _between_blocks(scale: Floats, repeats: int) -> Floats:
    """Interpolates linearly between the centres of blocks along a row: `(n, count)` to `(n, 16 * count * repeats)`."""
    weights = np.repeat((np.arange(quantiser.BLOCK) + 0.5) / quantiser.BLOCK, repeats).astype(np.float32)
    pairs = np.lib.stride_tricks.sliding_window_view(np.pad(scale, [(0, 0), (1, 1)], mode="edge"), 2, axis=1)
    half = len(weights) // 2
    return (pairs @ np.stack([1.0 - weights, weights])).reshape(len(scale), -1)[:, half:-half]
