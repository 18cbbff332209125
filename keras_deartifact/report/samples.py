"""What a file and its restored copy look like beside each other, and how that goes over time.

Both files are read as they are, so that the second encode is part of what is shown.
"""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from keras_deartifact import colour, image, quantiser, stills, video
from keras_deartifact.engines import Predictor

__all__ = ["Curve", "Samples", "Shown", "samples"]

COMPRESSED, RESTORED = "compressed", "restored"

POINTS = 120
"""Of a curve, at most."""

PREDICTIONS = 24
"""Frames of a video whose quality is predicted, at most; each takes as long as two restored frames."""

_RECENT = 12

PART = (720, 1280)
"""Height and width in pixels of what is shown of a picture, at most: a page has to stay of a size that opens."""

StrPath = str | os.PathLike[str]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """Pixels to compare by eye: a name, and uint8 `(height, width, 3)` of the file and of its copy."""

    name: str
    versions: dict[str, Pixels]


@dataclass(frozen=True)
class Curve:
    """A quantity over time: points of seconds and value, in order."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Samples:
    """What was looked at.

    Attributes:
        shown: pictures, in order of time.
        steps: log2 of the quantiser step over time, as the file states it and as its pixels show it.
        change: root mean square of restored minus compressed over time, in levels of 255.
    """

    shown: tuple[Shown, ...]
    steps: tuple[Curve, ...]
    change: Curve


def samples(
    source: StrPath, target: StrPath, kind: str, *, count: int, frames: int = 1, predictor: Predictor | None = None
) -> Samples:
    """Looks at a file and its restored copy.

    Args:
        source: the file.
        target: its copy.
        kind: `image` or `video`.
        count: how many frames of a video are shown; of several pictures in a file, the first and the middle one are.
        frames: how many there are.
        predictor: of the quality, `engines.load_predictor()`; without it the curve of what the pixels show is missing.

    Raises:
        ValueError: one of them cannot be read.
        OSError: the file system does not give it.
    """
    if kind == "image":
        return _of_pictures(source, target, frames)
    return _of_video(source, target, count, max(1, frames), predictor)


def _of_pictures(source: StrPath, target: StrPath, count: int) -> Samples:
    shown, change = [], []
    found = stills.series(source)
    # A frame that stands apart from an animation is not in every copy.
    missing = 0 if found is None else found.count - count
    for index in sorted({0, count // 2}):
        before, after = stills.view(source, index + missing), stills.view(target, index)
        shown.append(_shown("" if count == 1 else f"{index + 1} of {count}", before, after))
        change.append((float(index), _change(before, after)))
    return Samples(tuple(shown), (), Curve("change", tuple(change[:1])))


def _of_video(source: StrPath, target: StrPath, count: int, frames: int, predictor: Predictor | None) -> Samples:
    shown_at = _places(frames, count)
    predicted_at = _places(frames, PREDICTIONS) if predictor is not None else set()
    looked_at = _places(frames, POINTS)
    shown: list[Shown] = []
    stated, predicted, change = [], [], []
    codec = video.probe(source).codec
    # Frames of different kinds take turns, so that one says little.
    recent: deque[float] = deque(maxlen=max(_RECENT, frames // POINTS))
    started: float | None = None
    for index, (before, after) in enumerate(_pairs(source, target)):
        # Both are always set, see `video.Frame`.
        seconds = float((before.image.pts or 0) * (before.image.time_base or 0))
        started = seconds if started is None else started
        if before.qp is not None and codec in quantiser.STEP_FROM_QP:
            recent.append(float(quantiser.log2_step_from_qp(before.qp, codec).mean()))
        if index not in looked_at | predicted_at | shown_at:
            continue
        time = seconds - started
        pixels = colour.to_rgb(before.image)
        if index in looked_at:
            new = colour.to_rgb(after)
            change.append((time, _change(pixels, new)))
            if recent:
                stated.append((time, sum(recent) / len(recent)))
        if predictor is not None and index in predicted_at:
            predicted.append((time, float(np.median(predictor(image.to_float(pixels)[None])))))
        if index in shown_at:
            shown.append(_shown(f"{_clock(time)}, frame {index + 1}", pixels, colour.to_rgb(after)))
    curves = [Curve("stated by the file", tuple(stated)), Curve("shown by the pixels", tuple(predicted))]
    return Samples(tuple(shown), tuple(each for each in curves if each.points), Curve("change", tuple(change)))


def _pairs(source: StrPath, target: StrPath) -> Iterator[tuple[video.Frame, av.VideoFrame]]:
    """Frames of both, as far as both decode; a damaged end was told when it was restored."""
    with contextlib.suppress(video.BrokenVideoError):
        for before, after in zip(video.read_frames(source), video.read_frames(target, quantisers=False), strict=False):
            yield before, after.image


def _places(frames: int, count: int) -> set[int]:
    """So many frames, evenly spread, each in the middle of its share."""
    count = min(frames, count)
    return {(2 * place + 1) * frames // (2 * count) for place in range(count)}


def _change(before: Pixels, after: Pixels) -> float:
    return float(np.sqrt(np.mean(np.square(after.astype(np.float32) - before))))


def _shown(name: str, before: Pixels, after: Pixels) -> Shown:
    """The part with the largest change, of pictures that are too large to be shown whole."""
    height, width = before.shape[:2]
    rows, columns = (min(side, most) for side, most in zip((height, width), PART, strict=True))
    if (rows, columns) != (height, width):
        energy = np.square(after.astype(np.float32) - before).sum(axis=2)
        places = itertools.product(_starts(height, rows), _starts(width, columns))
        top, left = max(places, key=lambda at: float(energy[at[0] : at[0] + rows, at[1] : at[1] + columns].sum()))
        name = f"{name}{', ' if name else ''}{columns}x{rows} of {width}x{height} pixels"
        before, after = (each[top : top + rows, left : left + columns] for each in (before, after))
    return Shown(name, {COMPRESSED: np.ascontiguousarray(before), RESTORED: np.ascontiguousarray(after)})


def _starts(side: int, part: int) -> list[int]:
    """Where a part may begin: at five places."""
    return sorted({(side - part) * place // 4 for place in range(5)})


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:05.2f}"
