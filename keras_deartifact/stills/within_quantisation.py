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

Reference: Zakhor, "Iterative Procedures for Reduction of Blocking Effects in Transform Image Coding", IEEE Transactions
on Circuits and Systems for Video Technology 2(1), 1992.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_deartifact.stills import jpeg_coefficients
from keras_deartifact.stills.jpeg_coefficients import Coefficients, Component

ROUNDS = 24
"""At most. Most pictures of quality 10 to 75 need fewer than ten."""

_PATIENCE = 8
"""So many rounds in a row that together bring back less than a tenth of what is outside are the last."""

MARGIN = 0.5
"""How far inside its interval a coefficient is moved, in levels of 8 bits, of fine steps a quarter of the step."""

_GUARD = 0.2, 1 / 24
"""How near the border counts as outside, in levels of 8 bits and in steps (the less): libjpeg's DCT rounds, too."""

_STRANGE = 3.0, 4.0, 0.1
"""Steps, and levels, by which repeated borders may differ from what a file states of blocks that reach beyond the
picture, and the share of these blocks that may differ more."""

_BLUE_DIFFERENCE, _RED_DIFFERENCE = (-11059, -21709, 32768), (32768, -27439, -5329)
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
    read_back: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    rounds: int = ROUNDS,
) -> Projection:
    """Brings a restored picture into the intervals of the JPEG that it was restored from.

    Args:
        images: float32 `(height, width, 3)`, RGB in `[0, 1]`; may leave it.
        coefficients: of the JPEG.
        dtype: of the pixels, uint8 or uint16.
        read_back: what a file gives back of the pixels; for formats with loss.
        rounds: at most, at least 1.

    Returns:
        The round with the fewest coefficients outside.

    Raises:
        ValueError: the JPEG is of another size, neither grey nor YCbCr, or its chroma is subsampled by no whole number.
    """
    require(coefficients)
    if images.shape != (coefficients.height, coefficients.width, 3):
        raise ValueError(
            f"expected images of shape {(coefficients.height, coefficients.width, 3)}. "
            f"Received: images.shape={images.shape}"
        )
    is_grey = len(coefficients.components) == 1
    scale = np.float32(255.0)
    state = scale * ((images @ _LUMA)[..., None] if is_grey else images)
    per_level = np.float32(np.iinfo(dtype).max / 255)
    bound = _bound(coefficients)
    total = sum(64 * int(each.sum()) for each in bound) or 1
    outside: list[int] = []
    shares: list[float] = []
    best, inside = np.empty(0, dtype), 0.0
    for _ in range(rounds):
        state = np.clip(state, 0, scale)
        written = np.floor(state * per_level + np.float32(0.5)).astype(dtype)
        written = written[..., 0] if is_grey else written
        found = measured(read_back(written), coefficients)
        wrong = [
            _outside(each, component, mask)
            for each, component, mask in zip(found, coefficients.components, bound, strict=True)
        ]
        outside.append(sum([int(np.count_nonzero(each)) for each in wrong]))
        changed = [
            int(np.count_nonzero((_rounded(each, component) != component.quantised) & mask[..., None, None]))
            for each, component, mask in zip(found, coefficients.components, bound, strict=True)
        ]
        shares.append(1 - sum(changed) / total)
        if outside[-1] == min(outside):
            best, inside = written, shares[-1]
        if outside[-1] == 0 or (len(outside) > _PATIENCE and min(outside[-_PATIENCE:]) > 0.9 * outside[-_PATIENCE - 1]):
            break
        state = state + _correction(found, wrong, coefficients)
    return Projection(best, inside, shares[0])


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
    planes = [pixels.astype(np.float32)] if pixels.ndim == 2 else _ycbcr(pixels)
    if pixels.dtype == np.uint16:
        planes = [plane / np.float32(257) for plane in planes]
    return [
        jpeg_coefficients.to_blocks(_subsampled(plane, component, coefficients, pixels.dtype == np.uint8) - 128)
        for plane, component in zip(planes, coefficients.components, strict=True)
    ]


def _ycbcr(pixels: Pixels) -> list[Floats]:
    """Y, Cb and Cr; of 8 bits the integers that libjpeg has, of 16 bits the scale of the pixels."""
    if pixels.dtype == np.uint8:
        red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
        planes = [(19595 * red + 38470 * green + 7471 * blue + 32768) >> 16]
        for weights in (_BLUE_DIFFERENCE, _RED_DIFFERENCE):
            total = weights[0] * red + weights[1] * green + weights[2] * blue
            planes.append((total + (128 << 16) + 32767) >> 16)
        return [plane.astype(np.float32) for plane in planes]
    images = pixels.astype(np.float32)
    luma = images @ _LUMA
    half = np.float32(128 * 257)
    return [luma, (images[..., 2] - luma) / 1.772 + half, (images[..., 0] - luma) / 1.402 + half]


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


def _rounded(found: Floats, component: Component) -> Floats:
    """Quantises; halves are rounded away from 0, as libjpeg does."""
    ratio: Floats = np.divide(found, component.table, dtype=np.float32)
    # A mean in whole numbers often lies halfway, from which float32 may be a little off.
    return np.copysign(np.floor(np.abs(ratio) + np.float32(0.5001)), ratio)


def _outside(found: Floats, component: Component, bound: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which coefficients have left their interval, or are so near its border that another DCT may see them outside."""
    table = component.table.astype(np.float32)
    levels, steps = _GUARD
    reach = table / 2 - np.minimum(np.float32(levels), np.float32(steps) * table)
    outside: npt.NDArray[np.bool_] = (np.abs(found - component.quantised * table) > reach) & bound[..., None, None]
    return outside


def _bound(coefficients: Coefficients) -> list[npt.NDArray[np.bool_]]:
    """Which blocks can be recompressed to what the file states; bool `(rows, columns)` of each component.

    All that lie in the picture. What a block has beyond it the file's encoder chose: where it did not repeat the
    border, no picture gives the coefficients of such blocks.
    """
    bound, strange, count = [], 0, 0
    steps, levels, share = _STRANGE
    for component in coefficients.components:
        height = -(-coefficients.height * component.down // coefficients.down)
        width = -(-coefficients.width * component.across // coefficients.across)
        stated = (component.quantised * component.table).astype(np.float32)
        plane = jpeg_coefficients.from_blocks(stated)
        rows, columns = plane.shape
        repeated = np.pad(plane[:height, :width], ((0, rows - height), (0, columns - width)), mode="edge")
        differs = np.abs(jpeg_coefficients.to_blocks(repeated) - stated) > steps * component.table + levels
        whole = np.zeros(component.quantised.shape[:2], np.bool_)
        whole[: height // 8, : width // 8] = True
        strange += int(np.count_nonzero(differs.any(axis=(2, 3)) & ~whole))
        count += int(np.count_nonzero(~whole))
        bound.append(whole)
    if strange <= share * count:
        return [np.ones_like(whole) for whole in bound]
    return bound


def _correction(found: list[Floats], wrong: list[npt.NDArray[np.bool_]], coefficients: Coefficients) -> Floats:
    """What moves the coefficients that are outside into their intervals, `(height, width, channels)` of grey or RGB."""
    height, width = coefficients.height, coefficients.width
    planes = []
    for each, outside, component in zip(found, wrong, coefficients.components, strict=True):
        table = component.table.astype(np.float32)
        margin = np.minimum(np.float32(MARGIN), table / 4)
        middle = component.quantised * table
        inside = np.clip(each, middle - table / 2 + margin, middle + table / 2 - margin)
        plane = jpeg_coefficients.from_blocks(np.where(outside, inside - each, np.float32(0)))
        across, down = coefficients.across // component.across, coefficients.down // component.down
        # What is repeated beyond the picture moves as one with the border, so that this gets the mean.
        bottom, right = -(-height // down) - 1, -(-width // across) - 1
        plane[bottom] = plane[bottom:].mean(axis=0)
        plane[:, right] = plane[:, right:].mean(axis=1)
        planes.append(plane.repeat(down, axis=0).repeat(across, axis=1)[:height, :width])
    stacked: Floats = np.stack(planes, axis=-1)
    return stacked if len(planes) == 1 else np.matmul(stacked, _TO_RGB.T, dtype=np.float32)
