"""Frames of any size through a `Restorer`: padding, tiles, strength, and which quantiser map counts."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from keras_deartifact import image, limit, quantiser
from keras_deartifact.engines import Predictor, Restorer

MARGIN = 64
"""What a tile sees beyond what is used of its result, in pixels, where a restorer does not tell its own `radius`."""

TILE = 1024
"""The longest side of a tile, margins included, in pixels."""

# The same of what a predictor sees at a time; it has no margins.
_PREDICTED_TILE = 768

WHOLE_PIXELS = 4_000_000
"""Up to here a picture goes through the network in one piece: 1080p and what a camera of 4 megapixels takes."""

Floats = npt.NDArray[np.float32]

_DTYPES = (np.float32, np.uint8, np.uint16)


def restore_frames(
    restorer: Restorer,
    frames: npt.NDArray[Any],
    quantiser_maps: Floats | None = None,
    *,
    strength: float = 1.0,
    share: limit.Share | None = None,
    tile: int = TILE,
    margin: int | None = None,
    whole_pixels: int = WHOLE_PIXELS,
    dtype: npt.DTypeLike | None = None,
) -> npt.NDArray[Any]:
    """Restores frames of any size: pads to a multiple of 16, cuts large ones into tiles, crops back.

        result = frames + strength * (restored - frames)

    Args:
        restorer: see `engines`; it is given float32, whatever the dtype of `frames`. One that takes frames of one size
            only, which its attribute `tile` says, is given tiles of that size, filled up with their last row and column
            where a frame is smaller; of a side below `4 * margin` a quarter is margin.
        frames: float32 in `[0, 1]`, uint8 or uint16, `(n, height, width, 3)`, RGB.
        quantiser_maps: float32 `(n, ceil(height / 16), ceil(width / 16))`, log2 steps; None for the default.
        strength: 0 returns the frames, 1 what the network makes of them; finite and at least 0.
        share: of the quantiser's error that a block may change by at strength 1, see `limit`; None for any change.
        tile: the longest side of a tile in pixels, margins included; a multiple of 16. A restorer's own `tile` goes
            before it.
        margin: of a tile, in pixels, at least the radius of the network's receptive field; None for what the restorer
            says of that (`radius`), or `MARGIN`.
        whole_pixels: frames of up to so many pixels, padding included, are not cut.
        dtype: of the result, one of those that `frames` may have; None for the same.

    Returns:
        An array of the shape of `frames`; integers are rounded and clipped, float32 is as the network has it.

    Raises:
        ValueError: frames or maps of another shape or dtype, `strength` out of range, or a restorer that returns
            another shape or a number that is not finite.
    """
    check_strength(strength)
    quantiser_maps = _checked_maps(frames, quantiser_maps)
    dtype = np.dtype(frames.dtype if dtype is None else dtype)
    if dtype not in _DTYPES:
        raise ValueError(f"expected a dtype of float32, uint8 or uint16. Received: dtype={dtype}")
    if share is not None and not isinstance(share, tuple) and quantiser_maps.max() <= 0:
        # `limit` would take back whatever the network makes.
        return frames.copy() if dtype == frames.dtype else _as(dtype, _as_float(frames))
    height, width = frames.shape[1:3]
    padded = image.pad_to_multiple(frames, image.GRID)
    result: npt.NDArray[Any] | None = None
    for piece in _pieces(restorer, padded, quantiser_maps, tile, margin, whole_pixels):
        restored = _as(dtype, _taken(piece, strength, share))
        if piece.is_all:
            return image.crop(restored, height, width)
        if result is None:
            result = np.empty(padded.shape, dtype)
        result[:, *piece.tile.destination] = restored[:, *piece.tile.inner]
    return image.crop(cast(npt.NDArray[Any], result), height, width)


def corrections(
    restorer: Restorer, frames: npt.NDArray[Any], quantiser_maps: Floats, *, whole_pixels: int = WHOLE_PIXELS
) -> Floats:
    """What a network changes in frames: restored minus frames, without float copies of large frames.

    Args:
        restorer: see `restore_frames`.
        frames: float32 in `[0, 1]` or uint8, `(n, height, width, 3)`, RGB, both sides multiples of 16.
        quantiser_maps: float32 `(n, height / 16, width / 16)`, log2 steps.
        whole_pixels: see `restore_frames`.

    Returns:
        float32 of the shape of `frames`.

    Raises:
        ValueError: see `restore_frames`.
    """
    quantiser_maps = _checked_maps(frames, quantiser_maps)
    result: Floats | None = None
    for piece in _pieces(restorer, frames, quantiser_maps, TILE, None, whole_pixels):
        if piece.is_all:
            change: Floats = np.subtract(piece.restored, piece.images)
            return change
        if result is None:
            result = np.empty(frames.shape, np.float32)
        inner = piece.tile.inner
        np.subtract(piece.restored[:, *inner], piece.images[:, *inner], out=result[:, *piece.tile.destination])
    return cast(Floats, result)


def predicted_map(predictor: Predictor, frames: npt.NDArray[Any], *, whole_pixels: int = WHOLE_PIXELS) -> Floats:
    """What a frame's pixels show of its compression.

    Of a large frame the predictor sees one part after the other. What it says of a part as a whole, it says of the
    frame: the median over all parts is in the place of each part's own.

    Args:
        predictor: see `engines`; it is given float32.
        frames: one frame, float32 in `[0, 1]`, uint8 or uint16, `(1, height, width, 3)`, RGB.
        whole_pixels: up to so many pixels a frame is not cut.

    Returns:
        float32 `(ceil(height / 16), ceil(width / 16))`, log2 steps.
    """
    height, width = frames.shape[1:3]
    if height * width <= whole_pixels:
        whole: Floats = predictor(_as_float(frames))[0]
        return whole
    result = np.empty(quantiser.map_shape(height, width), np.float32)
    medians, parts = [], []
    for part in image.tile_grid(height, width, _PREDICTED_TILE, 0):
        predicted = predictor(_as_float(frames[:, *part.source]))[0]
        median = np.median(predicted)
        blocks = [slice(side.start // image.GRID, -(-side.stop // image.GRID)) for side in part.source]
        result[*blocks] = predicted - median
        medians.append(median)
        parts.append(blocks)
    result += np.median(medians)
    return result.clip(quantiser.MINIMUM_LOG2_STEP, quantiser.MAXIMUM_LOG2_STEP, out=result)


class _Piece(NamedTuple):
    """A piece of frames that went through the network, all float32; `is_all` where there is no other."""

    tile: image.Tile
    images: Floats
    restored: Floats
    maps: Floats
    is_all: bool


def _checked_maps(frames: npt.NDArray[Any], quantiser_maps: Floats | None) -> Floats:
    """The maps to use, if they and the frames are as they should be."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"expected frames of shape (n, height, width, 3). Received: frames.shape={frames.shape}")
    if frames.dtype not in _DTYPES:
        raise ValueError(f"expected frames of dtype float32, uint8 or uint16. Received: frames.dtype={frames.dtype}")
    shape = (len(frames), *quantiser.map_shape(*frames.shape[1:3]))
    if quantiser_maps is None:
        return np.full(shape, quantiser.DEFAULT_LOG2_STEP, np.float32)
    if quantiser_maps.shape != shape:
        raise ValueError(f"expected quantiser maps of shape {shape}. Received: shape={quantiser_maps.shape}")
    return quantiser_maps


def _pieces(
    restorer: Restorer, padded: npt.NDArray[Any], maps: Floats, tile: int, margin: int | None, whole_pixels: int
) -> Iterator[_Piece]:
    """Puts frames through the network, tile by tile where they are large or the network prescribes a size."""
    rows, columns = padded.shape[1:3]
    fixed: tuple[int, int] | None = getattr(restorer, "tile", None)
    if fixed is None and rows * columns <= whole_pixels:
        everything = slice(0, rows), slice(0, columns)
        yield _piece(restorer, image.Tile(everything, everything, everything), padded, maps, True)
        return
    if fixed is None:
        margin = getattr(restorer, "radius", MARGIN) if margin is None else margin
        grid = _grid((rows, columns), (_even(rows, tile, margin), _even(columns, tile, margin)), (margin, margin))
    else:
        margins = [margin_of_tile(side, MARGIN if margin is None else margin) for side in fixed]
        grid = _grid((rows, columns), fixed, (margins[0], margins[1]))
    for each in grid:
        blocks = tuple(slice(side.start // image.GRID, side.stop // image.GRID) for side in each.source)
        source, around = padded[:, *each.source], maps[:, *blocks]
        if fixed is not None:
            source = _filled_up(source, fixed)
            around = _filled_up(around, (fixed[0] // image.GRID, fixed[1] // image.GRID))
        yield _piece(restorer, each, source, around, False)


def _piece(restorer: Restorer, tile: image.Tile, frames: npt.NDArray[Any], maps: Floats, is_all: bool) -> _Piece:
    images, maps = _as_float(frames), np.ascontiguousarray(maps)
    restored = restorer(images, maps)
    if restored.shape != images.shape:
        raise ValueError(f"expected a restorer that keeps the shape {images.shape}. Received: {restored.shape}")
    if not np.isfinite(restored.sum()):
        raise ValueError("expected a restorer that returns finite numbers. Received: NaN or infinity")
    return _Piece(tile, images, restored, maps, is_all)


def _taken(piece: _Piece, strength: float, share: limit.Share | None) -> Floats:
    """As much of the change as is wanted."""
    images, restored = piece.images, piece.restored
    if share is not None:
        changes = zip(images, restored - images, piece.maps, strict=True)
        restored = images + np.stack([limit.held(*each, share) for each in changes])
    if strength != 1.0:
        restored = images + np.float32(strength) * (restored - images)
    return restored


def _as_float(frames: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(frames) if frames.dtype == np.float32 else image.to_float(frames)


def _as(dtype: np.dtype[Any], images: Floats) -> npt.NDArray[Any]:
    if dtype == np.uint8:
        return image.to_uint8(images)
    return image.to_uint16(images) if dtype == np.uint16 else images


def margin_of_tile(side: int, margin: int = MARGIN) -> int:
    """Returns the margin, in pixels, of a tile whose side a network prescribes: a quarter of it at most."""
    return min(margin, side // 4 // image.GRID * image.GRID)


def _even(size: int, tile: int, margin: int) -> int:
    """The shortest side of as many tiles as there have to be, so that the last one overlaps no more than the others.

    Args:
        size: of the picture, a multiple of 16.
        tile: the longest side of a tile.
        margin: of a tile.
    """
    count = len(image.tile_grid(size, 1, tile, margin))
    margin += -margin % image.GRID
    least = max(-(-(size + 2 * margin * (count - 1)) // count), 2 * margin + image.GRID)
    return least + -least % image.GRID


def _grid(shape: tuple[int, int], size: tuple[int, int], margins: tuple[int, int]) -> Iterator[image.Tile]:
    """The tiles of a picture, all of one size; one row or column where the picture is smaller."""
    down = image.tile_grid(shape[0], 1, size[0], margins[0])
    across = image.tile_grid(1, shape[1], size[1], margins[1])
    for row in down:
        for column in across:
            yield image.Tile(*((vertical[0], horizontal[1]) for vertical, horizontal in zip(row, column, strict=True)))


def _filled_up(array: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Repeats the last row and column up to a height and width."""
    missing = [(0, wanted - given) for wanted, given in zip(size, array.shape[1:3], strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return array
    return np.pad(array, [(0, 0), *missing, *[(0, 0)] * (array.ndim - 3)], mode="edge")


def known_map(
    stated: Floats | None,
    predicted: Floats | None,
    size: tuple[int, int],
    margin: float,
    least: float = quantiser.MINIMUM_LOG2_STEP,
) -> Floats:
    """The map of a picture from what its file states and what its pixels show, as far as there is either.

    Args:
        stated: log2 steps of the blocks of 16x16 pixels; None where the file states none.
        predicted: the same as the pixels show it; None without a predictor.
        size: height and width in pixels.
        margin: see `quantiser.coarser`.
        least: see `quantiser.coarser`.
    """
    if predicted is None:
        return quantiser.constant_map(*size) if stated is None else stated
    return predicted if stated is None else quantiser.coarser(stated, predicted, margin, least)


def check_strength(strength: float | None) -> None:
    """Raises ValueError for a strength below 0 or one that is not finite; None is none."""
    if strength is not None and not 0.0 <= strength < float("inf"):
        raise ValueError(f"expected a strength of at least 0. Received: strength={strength}")
