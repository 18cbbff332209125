"""Temporal flicker of a restored clip."""

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from keras_deartifact.metrics.frames import Frame, luma_pair


def flicker(original_frames: Iterable[Frame], restored_frames: Iterable[Frame]) -> float:
    """How much a restored clip changes over time otherwise than its original: dtSSD over luma; lower is better.

        flicker = mean over t > 1 of sqrt(mean over pixels of ((r_t - r_(t-1)) - (o_t - o_(t-1)))^2)

    The motion of the original does not count, nor does an error that stays the same from frame to frame; an error that
    comes and goes does. It was published for mattes, whose values lie in 0..1; ours lie in 0..255. Frames are read one
    at a time.

    Args:
        original_frames: uint8 arrays `(height, width, 3)` or `(height, width)` of one size, at least 2.
        restored_frames: as many, of the same shape.

    Returns:
        Grey levels, 0 to 510; 0 for equal clips.

    Raises:
        ValueError: two frames are no such pair, the size changes, the numbers of frames differ, or there are fewer
            than 2.

    Reference: Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC 2015.
    """
    changes: list[float] = []
    before: npt.NDArray[np.int32] | None = None
    count = 0
    for original, restored in itertools.zip_longest(original_frames, restored_frames):
        if original is None or restored is None:
            shorter = "original" if original is None else "restored"
            raise ValueError(f"expected clips of equal length. Received: {shorter}_frames ends after {count} frames")
        first, second = luma_pair(original, restored)
        error = np.subtract(second, first, dtype=np.int32)
        if before is not None:
            if error.shape != before.shape:
                raise ValueError(f"expected frames of one size, {before.shape}. Received: shape={original.shape}")
            changes.append(float(np.sqrt(np.mean(np.square(error - before), dtype=np.float64))))
        before = error
        count += 1
    if not changes:
        raise ValueError(f"expected at least 2 frames. Received: {count}")
    return float(np.mean(changes))
