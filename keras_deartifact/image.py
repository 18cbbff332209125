"""Pixels: uint8 <-> float, RGB <-> YCbCr, luma, padding, and the tiles of a large picture.

Plain numpy, always on the last three axes `(..., height, width, channels)`, so that a picture, a batch and a clip are
treated alike. `frames` are unsigned integers as files hold them, `images` are float in `[0, 1]`.
"""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

GRID = 16
"""Codecs work on blocks of at most 16x16 (the macroblock; a JPEG unit with 4:2:0), in pixels."""

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue in luma: ITU-R BT.601."""

Float = npt.NDArray[np.floating[Any]]
Pixel = TypeVar("Pixel", bound=np.generic)


class Tile(NamedTuple):
    """One tile of a picture. Each field is a `(rows, columns)` pair of slices.

    Attributes:
        source: what the network sees, in the picture.
        inner: what is right in the network's result, in the tile.
        destination: where that belongs, in the picture. The destinations of a grid cover it exactly once.
    """

    source: tuple[slice, slice]
    inner: tuple[slice, slice]
    destination: tuple[slice, slice]


def to_float(frames: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.float32]:
    """Integer frames as float: `frames / 255`, or `frames / 65535` for 16 bit.

    Args:
        frames: uint8 or uint16 array of any shape.

    Returns:
        float32 array of the same shape, in `[0, 1]`.

    Raises:
        ValueError: `frames` has another dtype.
    """
    if frames.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected frames of dtype uint8 or uint16. Received: frames.dtype={frames.dtype}")
    images: npt.NDArray[np.float32] = np.divide(frames, np.float32(np.iinfo(frames.dtype).max), dtype=np.float32)
    return images


def to_uint8(images: Float) -> npt.NDArray[np.uint8]:
    """Float images as 8-bit frames: `floor(255 * images + 0.5)`, clipped to `[0, 255]`.

    Args:
        images: finite float array of any shape; may leave `[0, 1]`.

    Returns:
        uint8 array of the same shape, in `[0, 255]`.

    Raises:
        ValueError: `images` is not float.
    """
    return _round(images, 255).astype(np.uint8)


def to_uint16(images: Float) -> npt.NDArray[np.uint16]:
    """Float images as 16-bit frames: `floor(65535 * images + 0.5)`, clipped to `[0, 65535]`.

    Args:
        images: finite float array of any shape; may leave `[0, 1]`.

    Returns:
        uint16 array of the same shape, in `[0, 65535]`.

    Raises:
        ValueError: `images` is not float.
    """
    return _round(images, 65535).astype(np.uint16)


def _round(images: Float, peak: int) -> Float:
    """`peak * images + 0.5`, clipped so that casting to integer, which truncates, rounds half up."""
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"expected images of a float dtype. Received: images.dtype={images.dtype}")
    # float16 overflows at 65504 and holds no half steps above 1024.
    dtype = np.promote_types(images.dtype, np.float32)
    scaled = np.multiply(images, peak, dtype=dtype)
    scaled += 0.5
    return np.clip(scaled, 0, peak, out=scaled)


def rgb_to_ycbcr(images: Float) -> Float:
    """RGB to YCbCr as JFIF has it: BT.601 weights, full range.

        Y = 0.299 R + 0.587 G + 0.114 B
        Cb = (B - Y) / 1.772 + 0.5
        Cr = (R - Y) / 1.402 + 0.5

    Args:
        images: float array `(..., height, width, 3)`, RGB in `[0, 1]`.

    Returns:
        Array of the same shape and dtype, YCbCr in `[0, 1]`; chroma 0.5 is grey.

    Raises:
        ValueError: `images` has not three channels.
    """
    _require_rgb("images", images)
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([y, (blue - y) / 1.772 + 0.5, (red - y) / 1.402 + 0.5], axis=-1)


def ycbcr_to_rgb(images: Float) -> Float:
    """YCbCr to RGB, the inverse of `rgb_to_ycbcr`.

        R = Y + 1.402 (Cr - 0.5)
        B = Y + 1.772 (Cb - 0.5)
        G = (Y - 0.299 R - 0.114 B) / 0.587

    Args:
        images: float array `(..., height, width, 3)`, YCbCr in `[0, 1]`.

    Returns:
        Array of the same shape and dtype, RGB. Not clipped: many YCbCr triples lie outside the RGB cube.

    Raises:
        ValueError: `images` has not three channels.
    """
    _require_rgb("images", images)
    y, blue_difference, red_difference = images[..., 0], images[..., 1], images[..., 2]
    red = y + 1.402 * (red_difference - 0.5)
    blue = y + 1.772 * (blue_difference - 0.5)
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], axis=-1)


def luma(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The luma that every metric on Y here is measured on: BT.601, full range, in integers.

        luma = (299 R + 587 G + 114 B + 500) // 1000

    It is neither the studio range (16 to 235) that super-resolution papers use, nor what a video file stores.

    Args:
        frames: uint8 array `(..., height, width, 3)`, RGB.

    Returns:
        uint8 array `(..., height, width)` in `[0, 255]`. A grey picture (R = G = B) is its own luma.

    Raises:
        ValueError: `frames` is not uint8 or has not three channels.
    """
    if frames.dtype != np.uint8:
        raise ValueError(f"expected frames of dtype uint8. Received: frames.dtype={frames.dtype}")
    _require_rgb("frames", frames)
    total = np.multiply(frames[..., 0], 299, dtype=np.uint32)
    total += np.multiply(frames[..., 1], 587, dtype=np.uint32)
    total += np.multiply(frames[..., 2], 114, dtype=np.uint32)
    total += 500
    total //= 1000
    return total.astype(np.uint8)


def pad_to_multiple(frames: npt.NDArray[Pixel], multiple: int) -> npt.NDArray[Pixel]:
    """Repeats the last row and column until height and width divide by `multiple`.

    At the bottom and the right only, so that the codec's blocks stay where they are.

    Args:
        frames: array `(..., height, width, channels)`, not empty.
        multiple: pixels, at least 1.

    Returns:
        Array of the same dtype; `frames` itself where nothing is missing. `crop` undoes it.

    Raises:
        ValueError: `multiple` is less than 1, or `frames` has fewer than three axes.
    """
    if multiple < 1:
        raise ValueError(f"expected multiple >= 1. Received: multiple={multiple}")
    _require_axes(frames)
    height, width = frames.shape[-3:-1]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return frames
    return np.pad(frames, [(0, 0)] * (frames.ndim - 3) + [(0, bottom), (0, right), (0, 0)], mode="edge")


def crop(frames: npt.NDArray[Pixel], height: int, width: int) -> npt.NDArray[Pixel]:
    """The top left `height` x `width` pixels, as a view.

    Args:
        frames: array `(..., rows, columns, channels)`.
        height: pixels, 1 to `rows`.
        width: pixels, 1 to `columns`.

    Returns:
        View `(..., height, width, channels)`.

    Raises:
        ValueError: `frames` is smaller than that, or has fewer than three axes.
    """
    _require_axes(frames)
    rows, columns = frames.shape[-3:-1]
    if not (1 <= height <= rows and 1 <= width <= columns):
        raise ValueError(f"expected 1x1 to {rows}x{columns} pixels. Received: height={height}, width={width}")
    return frames[..., :height, :width, :]


def tile_grid(height: int, width: int, tile: int, margin: int) -> list[Tile]:
    """Cuts a picture into overlapping tiles whose results join without a seam.

        for each in tile_grid(height, width, tile, margin):
            restored[..., *each.destination, :] = network(frames[..., *each.source, :])[..., *each.inner, :]

    This equals `network(frames)` for a network whose output pixel depends on inputs at most `margin` pixels away, is
    shifted with its input by any multiple of 16, and treats what lies beyond the border by itself (zero or edge
    padding). Tiles at the picture's border reach that border, and their origins are multiples of 16, so that the
    codec's blocks and a network's strides lie in every tile as they lie in the picture.

    All tiles are of one size once padded to a multiple of 16 (`tile`, or the picture where that is smaller): they fit
    in one batch, and a model with a fixed size takes them.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        tile: side of what the network sees, margins included, in pixels; a multiple of 16.
        margin: radius of the receptive field, in pixels; taken up to the next multiple of 16.

    Returns:
        The tiles, row by row.

    Raises:
        ValueError: the picture is empty, `margin` is negative, `tile` is no multiple of 16, or nothing is left of a
            tile without its margins.
    """
    if height < 1 or width < 1:
        raise ValueError(f"expected a picture of at least 1x1 pixels. Received: height={height}, width={width}")
    if margin < 0:
        raise ValueError(f"expected margin >= 0. Received: margin={margin}")
    margin += -margin % GRID
    if tile % GRID or tile <= 2 * margin:
        raise ValueError(f"expected tile a multiple of {GRID}, at least {2 * margin + GRID}. Received: tile={tile}")
    rows, columns = _spans(height, tile, margin), _spans(width, tile, margin)
    return [Tile(*zip(row, column, strict=True)) for row in rows for column in columns]


def _spans(size: int, tile: int, margin: int) -> list[tuple[slice, slice, slice]]:
    """The tiles along one axis, as (source, inner, destination)."""
    # The last tile is moved back, not cut short: it overlaps more, and keeps the size of the others.
    last = max(0, size - tile + -(size - tile) % GRID)
    origins = [*range(0, last, tile - 2 * margin), last]
    spans, start = [], 0
    for origin in origins:
        end = size if origin == last else origin + tile - margin
        spans.append((slice(origin, min(origin + tile, size)), slice(start - origin, end - origin), slice(start, end)))
        start = end
    return spans


def _require_rgb(name: str, pixels: npt.NDArray[Any]) -> None:
    if pixels.ndim < 3 or pixels.shape[-1] != 3:
        raise ValueError(f"expected {name} of shape (..., height, width, 3). Received: {name}.shape={pixels.shape}")


def _require_axes(frames: npt.NDArray[Any]) -> None:
    if frames.ndim < 3:
        raise ValueError(
            f"expected frames of shape (..., height, width, channels). Received: frames.shape={frames.shape}"
        )
