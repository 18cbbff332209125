"""The pictures that a JPEG may have been made from, and the nearest of them to a restored one.

A file says of each coefficient in which interval it was before it was rounded:

    (quantised - 1/2) table <= coefficient <= (quantised + 1/2) table

These intervals form a convex set that holds the original. Coefficients outside are moved to the border, which is the
orthogonal projection onto the set in the planes of Y, Cb and Cr: the DCT is orthonormal, and a correction of subsampled
chroma is spread evenly over the pixels that were averaged. So it brings the picture nearer to the original, whatever
the network did. What is left are pixels in whole numbers from 0 to 255. Their rounding pushes coefficients out again,
which is corrected over several rounds, each of which measures the picture as it will be read.

Measured on the integers of libjpeg for 8 bits, so that recompressing the result with the same tables and subsampling
gives the original's coefficients where the steps exceed the rounding.

Rows of blocks have nothing to do with each other, so that a picture is done band by band: that needs no memory to speak
of, fits a processor's cache, and ends early where little is to do. Within a band everything is in planes, and
coefficients are `(rows, 8, columns, 8)`, as the pixels of their blocks lie.

Reference: Zakhor, "Iterative Procedures for Reduction of Blocking Effects in Transform Image Coding", IEEE Transactions
on Circuits and Systems for Video Technology 2(1), 1992.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_deartifact.stills import jpeg_coefficients
from keras_deartifact.stills.jpeg_coefficients import Coefficients, Component

ROUNDS = 24
"""At most. Most pictures of quality 10 to 75 need fewer than ten."""

_PATIENCE, _HOPELESS = 8, 0.001
"""So many rounds in a row that together bring back less than a tenth of what is outside are the last, unless that is no
more than this share of a band's coefficients."""

MARGIN = 0.5
"""How far inside its interval a coefficient is moved, in levels of 8 bits, of fine steps a quarter of the step."""

_GUARD = 0.2, 1 / 24
"""How near the border counts as outside, in levels of 8 bits and in steps (the less): libjpeg's DCT rounds, too."""

_STRANGE = 3.0, 4.0, 0.1
"""Steps, and levels, by which repeated borders may differ from what a file states of blocks that reach beyond the
picture, and the share of these blocks that may differ more."""

_BAND_PIXELS = 1 << 16
"""Of a band, about."""

# Of libjpeg, in 1/65536: what it has is exact in float32, too, as no sum exceeds 2^24.
_TO_YCBCR = np.array(((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329)), np.float32)
_OFFSETS = np.array((32768, (128 << 16) + 32767, (128 << 16) + 32767), np.float32)[:, None, None]
_TO_RGB = np.array(((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0)), np.float32)
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Projection:
    """A picture that was brought into the intervals.

    Attributes:
        pixels: to write: `(height, width, 3)` of RGB, or `(height, width)` of a grey JPEG.
        inside: share of the file's coefficients that recompressing gives back, in `[0, 1]`. Blocks that reach beyond
            the picture count only where the file repeats its border there, as libjpeg does; others are left alone.
        inside_before: the same share before.
    """

    pixels: Pixels
    inside: float
    inside_before: float


def project(
    images: Floats,
    coefficients: Coefficients,
    *,
    dtype: type[np.unsignedinteger[Any]] = np.uint8,
    read_back: Callable[[Pixels], Pixels] | None = None,
    in_bands: bool = True,
    rounds: int = ROUNDS,
) -> Projection:
    """Brings a restored picture into the intervals of the JPEG that it was restored from.

    Args:
        images: float32 `(height, width, 3)`, RGB in `[0, 1]`; may leave it.
        coefficients: of the JPEG.
        dtype: of the pixels, uint8 or uint16.
        read_back: what a file gives back of the pixels, for formats with loss; None for those without.
        in_bands: whether `read_back` gives of some rows, a multiple of 8, what it gives of them in the whole picture.
        rounds: at most, at least 1.

    Returns:
        Of each band the round with the fewest coefficients outside.

    Raises:
        ValueError: the JPEG is of another size, neither grey nor YCbCr, or its chroma is subsampled by no whole number.
    """
    require(coefficients)
    height, width = coefficients.height, coefficients.width
    if images.shape != (height, width, 3):
        raise ValueError(f"expected images of shape {(height, width, 3)}. Received: images.shape={images.shape}")
    is_grey = len(coefficients.components) == 1
    pixels = np.empty((height, width) if is_grey else (height, width, 3), dtype)
    bound = _bound(coefficients)
    unit = 8 * coefficients.down
    step = unit * max(1, _BAND_PIXELS // (unit * width)) if in_bands else height
    changed = changed_before = 0
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        part, parts = _band(coefficients, bound, band)
        best, after, before = _projected(images[band], part, parts, dtype, read_back, rounds)
        pixels[band] = best[0] if is_grey else np.moveaxis(best, 0, -1)
        changed, changed_before = changed + after, changed_before + before
    total = sum(64 * int(each.sum()) for each in bound) or 1
    return Projection(pixels, 1 - changed / total, 1 - changed_before / total)


class _Part(NamedTuple):
    """A component's coefficients in a band: the middles of their intervals, how far they may be off, and where to move.

    Attributes:
        middle: float32 `(rows, 8, columns, 8)`.
        table: float32 `(8, 1, 8)`.
        reach: the same: how far from the middle counts as outside.
        target: the same: how far from the middle a coefficient is moved.
        bound: bool `(rows, 1, columns, 1)`; None where all blocks are bound.
    """

    middle: Floats
    table: Floats
    reach: Floats
    target: Floats
    bound: npt.NDArray[np.bool_] | None


def _band(
    coefficients: Coefficients, bound: list[npt.NDArray[np.bool_]], band: slice
) -> tuple[Coefficients, list[_Part]]:
    """What a JPEG states of some rows of pixels, which begin at a row of blocks of all components."""
    levels, steps = _GUARD
    components, parts = [], []
    for component, mask in zip(coefficients.components, bound, strict=True):
        start = band.start * component.down // (8 * coefficients.down)
        stop = -(-band.stop * component.down // (8 * coefficients.down))
        quantised = component.quantised[start:stop]
        components.append(dataclasses.replace(component, quantised=quantised))
        table = component.table.astype(np.float32)[:, None, :]
        # How near the border counts as outside, and how far inside a coefficient is moved.
        guard: Floats = np.minimum(np.float32(levels), np.float32(steps) * table)
        margin: Floats = np.minimum(np.float32(MARGIN), table / np.float32(4))
        half: Floats = table / np.float32(2)
        middle = (quantised.transpose(0, 2, 1, 3) * table).astype(np.float32)
        blocks = mask[start:stop, None, :, None]
        parts.append(_Part(middle, table, half - guard, half - margin, None if blocks.all() else blocks))
    return dataclasses.replace(coefficients, height=band.stop - band.start, components=tuple(components)), parts


def _projected(
    images: Floats,
    coefficients: Coefficients,
    parts: list[_Part],
    dtype: type[np.unsignedinteger[Any]],
    read_back: Callable[[Pixels], Pixels] | None,
    rounds: int,
) -> tuple[Pixels, int, int]:
    """Projects a band; returns its planes, and how many coefficients recompressing does not give back, and did not."""
    scale = np.float32(255)
    rgb = np.moveaxis(images, -1, 0)
    state = scale * (np.tensordot(_LUMA, rgb, 1)[None] if len(parts) == 1 else rgb)
    per_level = np.float32(np.iinfo(dtype).max / 255)
    outside: list[int] = []
    changed: list[int] = []
    best, chosen = state.astype(dtype), 0
    count = sum(part.middle.size for part in parts)
    for _ in range(rounds):
        np.clip(state, 0, scale, out=state)
        written = np.floor(state * per_level + np.float32(0.5)).astype(dtype)
        seen = written if read_back is None else _read_back(read_back, written)
        distances = [found - part.middle for found, part in zip(_measured(seen, coefficients), parts, strict=True)]
        wrong = [_outside(distance, part) for distance, part in zip(distances, parts, strict=True)]
        outside.append(sum(int(np.count_nonzero(each)) for each in wrong))
        changed.append(sum(map(_changed, distances, wrong, parts)))
        if outside[-1] == min(outside):
            best, chosen = written, changed[-1]
        if outside[-1] == 0 or (
            len(outside) > _PATIENCE
            and min(outside[-_PATIENCE:]) > max(0.9 * outside[-_PATIENCE - 1], _HOPELESS * count)
        ):
            break
        state += _correction(distances, wrong, parts, coefficients)
    return best, chosen, changed[0]


def _read_back(read_back: Callable[[Pixels], Pixels], planes: Pixels) -> Pixels:
    """The same for planes, of grey or RGB."""
    if len(planes) == 1:
        return read_back(planes[0])[None]
    return np.ascontiguousarray(np.moveaxis(read_back(np.ascontiguousarray(np.moveaxis(planes, 0, -1))), -1, 0))


def require(coefficients: Coefficients) -> None:
    """Checks that a JPEG is of a kind that `project` takes.

    Raises:
        ValueError: it is neither grey nor YCbCr, or its chroma is subsampled by no whole number.
    """
    identifiers = bytes(component.identifier for component in coefficients.components)
    is_rgb = coefficients.adobe_transform == 0 or (coefficients.adobe_transform is None and identifiers == b"RGB")
    if len(identifiers) not in (1, 3) or (len(identifiers) == 3 and is_rgb):
        kind = "RGB" if len(identifiers) == 3 else f"{len(identifiers)} components"
        raise ValueError(f"expected a grey or YCbCr JPEG to stay within its quantisation. Received: {kind}")
    for component in coefficients.components:
        if coefficients.across % component.across or coefficients.down % component.down:
            raise ValueError(
                "expected chroma subsampled by a whole number to stay within its quantisation. "
                f"Received: {component.across} of {coefficients.across}, {component.down} of {coefficients.down}"
            )


def measured(pixels: Pixels, coefficients: Coefficients) -> list[Floats]:
    """The coefficients of a picture as a JPEG of the same subsampling has them, before they are rounded.

    8 bits are converted and averaged in libjpeg's integers, 16 bits without any rounding.

    Args:
        pixels: `(height, width, 3)`, or `(height, width)` for a grey JPEG.
        coefficients: of the JPEG.

    Returns:
        Float32 `(rows, columns, 8, 8)` of each component, in levels of 8 bits.
    """
    planes = pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return [found.transpose(0, 2, 1, 3) for found in _measured(planes, coefficients)]


def _measured(pixels: Pixels, coefficients: Coefficients) -> list[Floats]:
    """The same `(rows, 8, columns, 8)`, of planes `(channels, height, width)`."""
    whole = pixels.dtype == np.uint8
    planes = _ycbcr(pixels) if len(pixels) == 3 else pixels.astype(np.float32)
    if not whole:
        planes /= np.float32(257)
    return [
        jpeg_coefficients.transformed(_subsampled(plane, component, coefficients, whole) - np.float32(128))
        for plane, component in zip(planes, coefficients.components, strict=True)
    ]


def _ycbcr(pixels: Pixels) -> Floats:
    """Y, Cb and Cr of planes; of 8 bits the integers that libjpeg has, of 16 bits the scale of the pixels."""
    images = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        planes = _mixed(_TO_YCBCR, images)
        planes += _OFFSETS
        planes *= np.float32(1 / 65536)
        return np.floor(planes, out=planes)
    luma = np.tensordot(_LUMA, images, 1)
    half = np.float32(128 * 257)
    return np.stack(
        [luma, (images[2] - luma) / np.float32(1.772) + half, (images[0] - luma) / np.float32(1.402) + half]
    )


def _subsampled(plane: Floats, component: Component, coefficients: Coefficients, whole: bool) -> Floats:
    """A component's plane of whole blocks, filled up as libjpeg does it."""
    across, down = coefficients.across // component.across, coefficients.down // component.down
    rows, columns = component.quantised.shape[:2]
    height, width = plane.shape
    # To the right the picture's last column is repeated, below the last row of averages.
    filled = np.pad(plane, ((0, -height % down), (0, 8 * columns * across - width)), mode="edge")
    if across * down > 1:
        shape = filled.shape[0] // down, down, filled.shape[1] // across, across
        total = filled.reshape(shape).sum(axis=(1, 3))
        if whole:
            total = np.floor((total + _half(across, down, total.shape[1])) / np.float32(across * down))
        else:
            total = total / np.float32(across * down)
        filled = total
    return np.pad(filled, ((0, 8 * rows - filled.shape[0]), (0, 0)), mode="edge")


def _half(across: int, down: int, width: int) -> Floats:
    """What libjpeg adds to a sum before it divides: of two and of 2x2 pixels alternately less and more than half."""
    if (across, down) in ((2, 1), (2, 2)):
        return (np.arange(width) % 2 + (down - 1)).astype(np.float32)
    return np.full(width, across * down // 2, np.float32)


def _outside(distance: Floats, part: _Part) -> npt.NDArray[np.bool_]:
    """Which coefficients have left their interval, or are so near its border that another DCT may see them outside."""
    outside: npt.NDArray[np.bool_] = np.abs(distance) > part.reach
    if part.bound is not None:
        outside &= part.bound
    return outside


def _changed(distance: Floats, outside: npt.NDArray[np.bool_], part: _Part) -> int:
    """How many coefficients are rounded to something else; halves are rounded away from 0, as libjpeg does."""
    middle = part.middle[outside]
    table = np.broadcast_to(part.table, distance.shape)[outside]
    ratio = (distance[outside] + middle) / table
    # A mean in whole numbers often lies halfway, from which float32 may be a little off.
    rounded = np.copysign(np.floor(np.abs(ratio) + np.float32(0.5001)), ratio)
    return int(np.count_nonzero(rounded != np.rint(middle / table)))


def _bound(coefficients: Coefficients) -> list[npt.NDArray[np.bool_]]:
    """Which blocks can be recompressed to what the file states; bool `(rows, columns)` of each component.

    All that lie in the picture. What a block has beyond it the file's encoder chose: where it did not repeat the
    border, no picture gives the coefficients of such blocks.
    """
    bound, strange, count = [], 0, 0
    share = _STRANGE[2]
    for component in coefficients.components:
        height = -(-coefficients.height * component.down // coefficients.down)
        width = -(-coefficients.width * component.across // coefficients.across)
        rows, columns = height // 8, width // 8
        whole = np.zeros(component.quantised.shape[:2], np.bool_)
        whole[:rows, :columns] = True
        count += int(np.count_nonzero(~whole))
        below = _differs(component, component.quantised[rows:], height - 8 * rows, width)
        beside = _differs(component, component.quantised[:rows, columns:], 8 * rows, width - 8 * columns)
        strange += int(np.count_nonzero(below)) + int(np.count_nonzero(beside))
        bound.append(whole)
    if strange <= share * count:
        return [np.ones_like(whole) for whole in bound]
    return bound


def _differs(component: Component, quantised: npt.NDArray[np.int16], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Which blocks are not what a repeated border of a picture so large gives, bool `(rows, columns)`."""
    if quantised.size == 0:
        return np.zeros(quantised.shape[:2], np.bool_)
    steps, levels, _ = _STRANGE
    stated = (quantised * component.table).astype(np.float32)
    plane = jpeg_coefficients.from_blocks(stated)
    missing = [(0, plane.shape[0] - height), (0, plane.shape[1] - width)]
    repeated = np.pad(plane[:height, :width], missing, mode="edge")
    differs = np.abs(jpeg_coefficients.to_blocks(repeated) - stated) > steps * component.table + levels
    found: npt.NDArray[np.bool_] = differs.any(axis=(2, 3))
    return found


def _correction(
    distances: Sequence[Floats],
    wrong: Sequence[npt.NDArray[np.bool_]],
    parts: Sequence[_Part],
    coefficients: Coefficients,
) -> Floats:
    """What moves the coefficients that are outside into their intervals: planes of grey or RGB."""
    height, width = coefficients.height, coefficients.width
    planes = np.zeros((len(parts), height, width), np.float32)
    for index, (distance, outside, part) in enumerate(zip(distances, wrong, parts, strict=True)):
        if not outside.any():
            continue
        component = coefficients.components[index]
        moved = np.copysign(part.target, distance)
        moved -= distance
        moved *= outside
        plane = jpeg_coefficients.inverse(moved)
        across, down = coefficients.across // component.across, coefficients.down // component.down
        # What is repeated beyond the picture moves as one with the border, so that this gets the mean.
        bottom, right = -(-height // down) - 1, -(-width // across) - 1
        plane[bottom] = plane[bottom:].mean(axis=0)
        plane[:, right] = plane[:, right:].mean(axis=1)
        planes[index] = plane.repeat(down, axis=0).repeat(across, axis=1)[:height, :width]
    return planes if len(parts) == 1 else _mixed(_TO_RGB, planes)


def _mixed(matrix: Floats, planes: Floats) -> Floats:
    """The product of a 3x3 matrix with three planes: for so little to add up, BLAS is no help."""
    result: Floats = matrix[:, :1, None] * planes[0]
    product = np.empty_like(planes[0])
    for row, target in zip(matrix, result, strict=True):
        for weight, plane in zip(row[1:], planes[1:], strict=True):
            target += np.multiply(plane, weight, out=product)
    return result
