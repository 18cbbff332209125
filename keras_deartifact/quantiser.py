"""The quantiser map: how strongly each 16x16 block of a picture was compressed, whatever the codec.

A map is float32 `(ceil(height / 16), ceil(width / 16))`, each value the base-2 logarithm of the luma quantiser step in
8-bit intensity units of an orthonormal block transform. It comes from a JPEG's own tables or from the QP that a video
bitstream states for every macroblock; where there is neither it is `DEFAULT_LOG2_STEP` everywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "DEFAULT_LOG2_STEP",
    "MAXIMUM_LOG2_STEP",
    "MINIMUM_LOG2_STEP",
    "STEP_FROM_QP",
    "coarser",
    "constant_map",
    "estimated_jpeg_quality",
    "is_coarser",
    "jpeg_quality_log2_step",
    "jpeg_quality_table",
    "jpeg_table_log2_step",
    "log2_step_from_qp",
    "map_shape",
    "smooth_in_time",
    "smoothed",
]

FloatArray = NDArray[np.float32]

BLOCK = 16
MINIMUM_LOG2_STEP = -1.0
MAXIMUM_LOG2_STEP = 8.0
DEFAULT_LOG2_STEP = 4.5

# ITU-T T.81, Table K.1: the luma table that libjpeg scales by its quality setting, in natural (row-major) order.
_JPEG_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def map_shape(height: int, width: int) -> tuple[int, int]:
    """Returns the `(rows, columns)` of the map of a `height` x `width` picture; a partial block counts."""
    return -(-height // BLOCK), -(-width // BLOCK)


def constant_map(height: int, width: int, log2_step: float = DEFAULT_LOG2_STEP) -> FloatArray:
    """Returns a map with the same value in every block.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        log2_step: the value; the default stands for "unknown", a middling compression.

    Returns:
        float32 `map_shape(height, width)`.
    """
    return np.full(map_shape(height, width), log2_step, np.float32)


def jpeg_quality_table(quality: int) -> NDArray[np.int64]:
    """Returns the luma quantisation table that libjpeg makes of a quality setting (its `jpeg_quality_scaling`).

    Args:
        quality: 1 to 100, up is better.

    Returns:
        Integers `(8, 8)` in 1..255, natural order, frequency rising to the right and downwards.

    Raises:
        ValueError: `quality` is outside 1..100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"A JPEG quality is 1 to 100. Received: quality={quality}")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array(_JPEG_LUMA_TABLE, np.int64) * scale + 50) // 100, 1, 255)


def jpeg_table_log2_step(table: Sequence[int] | NDArray[np.int64]) -> float:
    """Returns the one number that stands for a JPEG luma quantisation table.

        log2_step = mean over the 4x4 lowest frequencies of log2(table)

    JPEG's DCT is orthonormal, so its table entries are steps in the map's unit. They differ by frequency, and the
    lowest carry nearly all of the picture's energy; at quality 10 this gives 6.3, as does QP 42 in H.264.

    Args:
        table: 64 positive integers, `(64,)` or `(8, 8)`, in natural order.

    Returns:
        The mean log2 step, clipped to `[MINIMUM_LOG2_STEP, MAXIMUM_LOG2_STEP]`.

    Raises:
        ValueError: not 64 entries, or one below 1.
    """
    steps = np.asarray(table, np.float64)
    if steps.size != 64 or steps.min() < 1:
        raise ValueError(f"A JPEG quantisation table has 64 entries of at least 1. Received: table={table}")
    return _clip(float(np.log2(steps.reshape(8, 8)[:4, :4]).mean()))


def jpeg_quality_log2_step(quality: int) -> float:
    """Returns `jpeg_table_log2_step` of libjpeg's luma table for a `quality` of 1 to 100."""
    return jpeg_table_log2_step(jpeg_quality_table(quality))


def estimated_jpeg_quality(table: Sequence[int] | NDArray[np.int64]) -> int:
    """Returns the libjpeg quality whose luma table is nearest to a file's, in mean absolute log2 of the steps.

    Args:
        table: 64 positive integers, `(64,)` or `(8, 8)`, in natural order.

    Returns:
        1 to 100; the quality itself for a table that libjpeg made.

    Raises:
        ValueError: not 64 entries, or one below 1.
    """
    steps = np.asarray(table, np.float64)
    if steps.size != 64 or steps.min() < 1:
        raise ValueError(f"A JPEG quantisation table has 64 entries of at least 1. Received: table={table}")
    log2_steps = np.log2(steps.reshape(8, 8))
    distances = [np.abs(np.log2(jpeg_quality_table(quality)) - log2_steps).mean() for quality in range(1, 101)]
    return int(np.argmin(distances)) + 1


def _clip(log2_step: float) -> float:
    return min(max(log2_step, MINIMUM_LOG2_STEP), MAXIMUM_LOG2_STEP)


def _log2_of_code(qp: FloatArray) -> FloatArray:
    log2_steps: FloatArray = np.log2(np.maximum(qp, 1.0))
    return log2_steps


# ffmpeg's decoder name -> log2 of the step that the QP which ffmpeg exports stands for.
#   H.264 (8.5.9): the step doubles every 6 QP and is 1 at QP 4.
#   MPEG-2 (7.4.2.3) with weights of 16, MPEG-4 part 2 (7.4.4.2), H.263 (6.2.1) and what was made after it: twice the
#   scale code, in an orthonormal 8x8 DCT. ffmpeg exports the doubled code for all of them.
STEP_FROM_QP: dict[str, Callable[[FloatArray], FloatArray]] = {
    "h264": lambda qp: (qp - 4.0) / 6.0,
    "mpeg2video": _log2_of_code,
    "mpeg1video": _log2_of_code,
    "mpeg4": _log2_of_code,
    "h263": _log2_of_code,
    "flv1": _log2_of_code,
    "msmpeg4v2": _log2_of_code,
    "msmpeg4v3": _log2_of_code,
    "wmv1": _log2_of_code,
    "wmv2": _log2_of_code,
    "rv10": _log2_of_code,
    "rv20": _log2_of_code,
}


def log2_step_from_qp(qp: FloatArray, codec: str) -> FloatArray:
    """Converts a video codec's own quantiser parameter into log2 quantiser steps.

    Args:
        qp: float32 of any shape, in the codec's own unit as ffmpeg exports it.
        codec: ffmpeg's name of the decoder; a key of `STEP_FROM_QP`.

    Returns:
        float32 of the same shape, clipped to `[MINIMUM_LOG2_STEP, MAXIMUM_LOG2_STEP]`.

    Raises:
        ValueError: the codec's QP has no known meaning.
    """
    if codec not in STEP_FROM_QP:
        raise ValueError(f"Expected a codec of {sorted(STEP_FROM_QP)}. Received: codec={codec!r}")
    log2_steps = STEP_FROM_QP[codec](np.asarray(qp, np.float32))
    return np.clip(log2_steps, MINIMUM_LOG2_STEP, MAXIMUM_LOG2_STEP).astype(np.float32)


def is_coarser(stated: float, predicted: float, margin: float, least: float = MINIMUM_LOG2_STEP) -> bool:
    """Returns whether a prediction says that a picture was compressed harder before than its file states.

        predicted > maximum(stated + margin, least)

    Args:
        stated: log2 step.
        predicted: log2 step.
        margin: by which a prediction has to be coarser; predictions are not exact.
        least: log2 step up to which a prediction never counts.
    """
    return predicted > max(stated + margin, least)


def coarser(stated: FloatArray, predicted: FloatArray, margin: float, least: float = MINIMUM_LOG2_STEP) -> FloatArray:
    """Returns what a file states, but where its pixels show that they were compressed harder before.

        result = maximum(stated, predicted) if is_coarser(median(stated), median(predicted), ...), else stated

    A second compression hides the first one's quantiser: the file states the last. Medians are compared, since a
    prediction hardly varies within a picture.

    Args:
        stated: log2 steps of a picture's blocks.
        predicted: of the same shape.
        margin: see `is_coarser`.
        least: see `is_coarser`.

    Returns:
        float32 of the same shape.
    """
    if is_coarser(float(np.median(stated)), float(np.median(predicted)), margin, least):
        return np.maximum(stated, predicted).astype(np.float32)
    return stated.astype(np.float32)


def smooth_in_time(maps: Iterable[FloatArray], memory: float = 0.5) -> Iterator[FloatArray]:
    """Smooths the maps of successive frames, so that B-frames with their coarser steps do not make the result flicker.

    A block that a B-frame skips shows what its reference frames hold, which were coded with finer steps: the stated QP
    of a single frame overstates the artefacts, and the running mean is nearer to what is seen.

    Args:
        maps: float32 maps, in presentation order.
        memory: see `smoothed`.

    Yields:
        float32 maps of the same shape.

    Raises:
        ValueError: `memory` is outside `[0, 1)`.
    """
    before: FloatArray | None = None
    for current in maps:
        before = smoothed(before, current, memory)
        yield before


def smoothed(before: FloatArray | None, current: FloatArray, memory: float = 0.5) -> FloatArray:
    """Returns one step of `smooth_in_time`.

        result = memory * before + (1 - memory) * current

    Args:
        before: the result for the frame before; None, or a map of another shape, begins anew.
        current: float32 map.
        memory: in `[0, 1)`; 0 changes nothing.

    Raises:
        ValueError: `memory` is outside `[0, 1)`.
    """
    if not 0.0 <= memory < 1.0:
        raise ValueError(f"memory must lie in [0, 1). Received: memory={memory}")
    if before is None or before.shape != current.shape:
        return current.astype(np.float32)
    return np.float32(memory) * before + np.float32(1.0 - memory) * current
