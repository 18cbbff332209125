"""Frames of any size through a `Restorer`: padding, tiles, strength, and which quantiser map counts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_deartifact import image, limit, quantiser
from keras_deartifact.engines import Restorer

MARGIN = 64
"""What a tile sees beyond what is used of its result, in pixels; the networks' receptive fields have smaller radii."""

TILE = 1024
"""Side of a tile, margins included, in pixels."""

WHOLE_PIXELS = 4_000_000
"""Up to here a picture goes through the network in one piece: 1080p and what a camera of 4 megapixels takes."""

Floats = npt.NDArray[np.float32]


def restore_frames(
    restorer: Restorer,
    frames: npt.NDArray[Any],
    quantiser_maps: Floats | None = None,
    *,
    strength: float = 1.0,
    share: float | None = None,
    tile: int = TILE,
    margin: int = MARGIN,
    whole_pixels: int = WHOLE_PIXELS,
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
        tile: side of a tile in pixels, margins included; a multiple of 16. A restorer's own `tile` goes before it.
        margin: of a tile, in pixels, at least the radius of the network's receptive field.
        whole_pixels: frames of up to so many pixels, padding included, are not cut.

    Returns:
        An array of the shape and dtype of `frames`; integers are rounded and clipped, float32 is as the network has it.

    Raises:
        ValueError: frames or maps of another shape or dtype, `strength` out of range, or a restorer that returns
            another shape or a number that is not finite.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"expected frames of shape (n, height, width, 3). Received: frames.shape={frames.shape}")
    if frames.dtype not in (np.float32, np.uint8, np.uint16):
        raise ValueError(f"expected frames of dtype float32, uint8 or uint16. Received: frames.dtype={frames.dtype}")
    check_strength(strength)
    count, height, width, _ = frames.shape
    shape = (count, *quantiser.map_shape(height, width))
    if quantiser_maps is None:
        quantiser_maps = np.full(shape, quantiser.DEFAULT_LOG2_STEP, np.float32)
    if quantiser_maps.shape != shape:
        raise ValueError(f"expected quantiser maps of shape {shape}. Received: shape={quantiser_maps.shape}")
    padded = image.pad_to_multiple(frames, image.GRID)
    rows, columns = padded.shape[1:3]
    fixed: tuple[int, int] | None = getattr(restorer, "tile", None)
    if fixed is None and rows * columns <= whole_pixels:
        return image.crop(_restore_piece(restorer, padded, quantiser_maps, strength, share), height, width)
    result = np.empty_like(padded)
    grid = image.tile_grid(rows, columns, tile, margin) if fixed is None else _fixed_grid(rows, columns, fixed, margin)
    for each in grid:
        blocks = tuple(slice(side.start // image.GRID, side.stop // image.GRID) for side in each.source)
        source, maps = padded[:, *each.source], quantiser_maps[:, *blocks]
        if fixed is not None:
            source = _filled_up(source, fixed)
            maps = _filled_up(maps, (fixed[0] // image.GRID, fixed[1] // image.GRID))
        piece = _restore_piece(restorer, source, maps, strength, share)
        result[:, *each.destination] = piece[:, *each.inner]
    return image.crop(result, height, width)


def margin_of_tile(side: int, margin: int = MARGIN) -> int:
    """Returns the margin, in pixels, of a tile whose side a network prescribes: a quarter of it at most."""
    return min(margin, side // 4 // image.GRID * image.GRID)


def _fixed_grid(rows: int, columns: int, size: tuple[int, int], margin: int) -> Iterator[image.Tile]:
    """The tiles of a picture for a network that takes one size only; one row or column where the picture is smaller."""
    margins = [margin_of_tile(side, margin) for side in size]
    down = image.tile_grid(rows, 1, size[0], margins[0])
    across = image.tile_grid(1, columns, size[1], margins[1])
    for row in down:
        for column in across:
            yield image.Tile(*((vertical[0], horizontal[1]) for vertical, horizontal in zip(row, column, strict=True)))


def _filled_up(array: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Repeats the last row and column up to a height and width."""
    missing = [(0, wanted - given) for wanted, given in zip(size, array.shape[1:3], strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return array
    return np.pad(array, [(0, 0), *missing, *[(0, 0)] * (array.ndim - 3)], mode="edge")


def _restore_piece(
    restorer: Restorer, frames: npt.NDArray[Any], quantiser_maps: Floats, strength: float, share: float | None
) -> npt.NDArray[Any]:
    images = np.ascontiguousarray(frames) if frames.dtype == np.float32 else image.to_float(frames)
    restored = restorer(images, np.ascontiguousarray(quantiser_maps))
    if restored.shape != images.shape:
        raise ValueError(f"expected a restorer that keeps the shape {images.shape}. Received: {restored.shape}")
    if not np.isfinite(restored.sum()):
        raise ValueError("expected a restorer that returns finite numbers. Received: NaN or infinity")
    if share is not None:
        corrections = zip(restored - images, quantiser_maps, strict=True)
        restored = images + np.stack([limit.limited(*each, share) for each in corrections])
    if strength != 1.0:
        restored = images + np.float32(strength) * (restored - images)
    if frames.dtype == np.uint8:
        return image.to_uint8(restored)
    if frames.dtype == np.uint16:
        return image.to_uint16(restored)
    return restored


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
