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

In video, a fine step says little about text, charts and screens: what stands still or scrolls by whole pixels is coded
far better than its step allows, often exactly. Nor is anything to be mended where nothing is to be seen. So there each
block gets a share of its own (`shares`).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image, quantiser

__all__ = ["Share", "held", "limited", "shares"]

Floats = NDArray[np.float32]

Share = float | tuple[float, float]
"""Of the quantiser's error: of all channels together, or of luma and of reduced chroma."""

_LUMA = np.array(image.LUMA_WEIGHTS, np.float32)

# 8x8 pixels have an edge if a channel spans so many levels in them. Of such, photographs through x264 leave 0.01 to
# 0.05 that equal those to the left and above, drawings (`training.drawings`) mostly 0.1 to 0.4; `stills.drawn` looks
# for the same in stills, by all grids. Those of the 5x5 blocks around count, and the whole frame's as much as one
# block, less where few of its 8x8 pixels have edges. Bars around a picture are no drawing: what spans fewer levels
# over all of a side does not count, and neither do the next 8x8 pixels.
_CELL = 8
_EDGE = 48
_EVEN = 0.05, 0.15
_AROUND, _WHOLE = 2, 4 * _CELL**2
_EDGES = 0.02, 0.07
_BAR = 16

# Log2 steps: up to the first nothing is changed where it is drawn, from the second on as much as anywhere else.
_DRAWN = 3.0, 5.0

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


def shares(picture: NDArray[np.uint8], quantiser_map: Floats, share: float) -> Floats:
    """The share of each block of a decoded video frame: less where it was drawn, none where nothing is to be seen.

    Args:
        picture: uint8 `(height, width, 3)`, RGB, both sides multiples of 16; of a deeper frame, its upper 8 bits.
        quantiser_map: float32 `(height / 16, width / 16)`, log2 steps.
        share: of what was filmed, finite.

    Returns:
        float32 of the shape of the map: 0 where the step is at most 1, or a block and those around it are of one
        colour; else `share`, where text and lines are (edges between even areas) times `(log2 step - 3) / 2`, within 0
        to 1.
    """
    most, least = (_of_cells(reduce, picture) for reduce in (np.maximum.reduce, np.minimum.reduce))
    edges = ((most - least) >= _EDGE).any(axis=-1) & _between_bars(most, least)
    even = _of_blocks(np.add, _equal(picture) * edges.astype(np.int32))
    size = _of_blocks(np.add, _CELL**2 * edges.astype(np.int32))
    whole = even.sum() / max(1, size.sum()) * np.interp(edges.mean(), _EDGES, (0.0, 1.0))
    evenness = (_sums_around(even) + _WHOLE * whole) / (_sums_around(size) + _WHOLE)
    drawn = np.interp(evenness, _EVEN, (0.0, 1.0))
    result = share * (1.0 - drawn * np.interp(quantiser_map, _DRAWN, (1.0, 0.0)))
    most, least = _around(np.maximum, _of_blocks(np.maximum, most)), _around(np.minimum, _of_blocks(np.minimum, least))
    found: Floats = np.where((most != least).any(axis=-1) & (quantiser_map > 0), result, 0.0).astype(np.float32)
    return found


def _between_bars(most: NDArray[np.uint8], least: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which 8x8 pixels are no part of bars at the frame's sides, by the range of each; all where there is but a bar."""
    sides = []
    for axis in (0, 1):
        plain = (most.max(axis=1 - axis) - least.min(axis=1 - axis) < _BAR).all(axis=-1)
        inside = np.ones(len(plain), np.bool_)
        if not plain.all():
            before, after = int(np.argmin(plain)), int(np.argmin(plain[::-1]))
            inside[: before + 1 if before else 0] = False
            inside[len(plain) - (after + 1 if after else 0) :] = False
        sides.append(inside)
    return np.logical_and.outer(*sides)


def _equal(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How many pixels of each 8x8 equal those to the left and above, by green, in which there is most of luma."""
    green = np.ascontiguousarray(picture[..., 1])
    equal = np.zeros(green.shape, np.bool_)
    np.equal(green[1:, 1:], green[1:, :-1], out=equal[1:, 1:])
    equal[1:] &= green[1:] == green[:-1]
    return _of_cells(functools.partial(np.add.reduce, dtype=np.uint8), equal.view(np.uint8)[..., None])[..., 0]


def _of_cells(reduce: Callable[..., NDArray[Any]], samples: NDArray[np.uint8]) -> NDArray[Any]:
    """Reduces each 8x8 pixels of `(height, width, channels)` to one value a channel: `(rows, columns, channels)`."""
    height, width, channels = samples.shape
    down = reduce(np.ascontiguousarray(samples).reshape(height // _CELL, _CELL, -1), axis=1)
    # With the pixels in front, each pass is over memory that lies together.
    across = np.ascontiguousarray(down.reshape(-1, _CELL, channels).transpose(1, 2, 0))
    return reduce(across, axis=0).T.reshape(height // _CELL, width // _CELL, channels)


def _of_blocks(combine: np.ufunc, cells: NDArray[Any]) -> NDArray[Any]:
    """Combines each 2x2 of `(2 rows, 2 columns, ...)` to `(rows, columns, ...)`."""
    down = combine(cells[::2], cells[1::2])
    found: NDArray[Any] = combine(down[:, ::2], down[:, 1::2])
    return found


def _around(combine: np.ufunc, blocks: NDArray[Any]) -> NDArray[Any]:
    """Combines each block with the eight around it, of those there are; by maximum or minimum."""
    down = blocks.copy()
    combine(down[1:], blocks[:-1], out=down[1:])
    combine(down[:-1], blocks[1:], out=down[:-1])
    across = down.copy()
    combine(across[:, 1:], down[:, :-1], out=across[:, 1:])
    combine(across[:, :-1], down[:, 1:], out=across[:, :-1])
    return across


def _sums_around(blocks: NDArray[np.int32]) -> NDArray[Any]:
    """Sums each block and those up to `_AROUND` away, of which the ones outside the frame are 0."""
    side = 2 * _AROUND + 1
    total = np.pad(np.pad(blocks, _AROUND).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    found: NDArray[Any] = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return found


def limited(
    correction: Floats, quantiser_map: Floats, share: float | Floats, out: Floats | None = None, *, rounded: bool = True
) -> Floats:
    """Scales a correction down where it is larger than the quantiser's error; between blocks the scale is interpolated.

    Args:
        correction: float32 `(height, width, channels)`, what is added to a picture in `[0, 1]`; both sides multiples
            of 16.
        quantiser_map: float32 `(height / 16, width / 16)`, log2 steps.
        share: of the quantiser's error that a block may change by, root mean square over its pixels and channels;
            infinity for any change. Or one for each block, all of them finite, of the shape of the map.
        out: where the result goes, unless it is `correction`; may be that, too. None for a new array.
        rounded: whether what rounding leaves is taken from the error.

    Returns:
        float32 of the shape of `correction`, the same array where nothing is too large.
    """
    if np.ndim(share) == 0 and share == np.inf:
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
