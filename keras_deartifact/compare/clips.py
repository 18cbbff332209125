"""Compares two or three video files, frame by frame.

The calling thread decodes and finds partners; a pool measures whole sets of partners; each metric of a whole clip has a
thread that takes the frames in order. Queues between them are short, so that a run holds a few frames at a time.
"""

import contextlib
import itertools
import os
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, image, metrics, video
from keras_deartifact.compare import timeline
from keras_deartifact.compare.pictures import require_one_size
from keras_deartifact.compare.results import (
    METRICS,
    Comparison,
    Sample,
    Values,
    attempt,
    infinities,
    left_out,
    pool,
)
from keras_deartifact.metrics.psnr import decibels
from keras_deartifact.metrics.ssim import SIZE, mean_similarity

Plane = npt.NDArray[np.uint8]
Samples = npt.NDArray[Any]

_LEAST_SHARE = 0.5
"""Of the frames of the video that has the fewest, so many need partners: fewer are shown together by chance."""

_AHEAD = 2
_END: Any = object()

# H.273 matrices with the same weights (`colour`).
_SAME_MATRIX = {5: 6, 10: 9}


def compare_clips(
    name: str,
    paths: Mapping[str, Path],
    wanted: frozenset[str],
    every: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compares video files.

    Args:
        name: what to call them.
        paths: role -> file.
        wanted: metrics to measure.
        every: NIQE and BRISQUE are measured of every so many frames, the first included.
        progress: told how many frames are done.

    Returns:
        The comparison, with a sample a frame.

    Raises:
        ValueError: a file is no video, sizes differ, rotations differ by no quarter turn, or fewer than half of the
            frames are partners.
        OSError: the file system does not give one.
    """
    timelines = {role: timeline.read_timeline(path) for role, path in paths.items()}
    infos = {role: video.probe(path) for role, path in paths.items()}
    turns, notes = _turns({role: info.rotation_degrees for role, info in infos.items()})
    notes += _rates(timelines)
    shifts = timeline.offsets(list(timelines.values()))
    if any(shifts):
        starts = ", ".join(f"{role} {float(shift):.3f} s" for role, shift in zip(paths, shifts, strict=True))
        notes.append(f"the videos start at different times ({starts}): frames are aligned from the first ones on")
    broken: list[str] = []
    alone = [0] * len(paths)
    streams = [_timed(path, shift, broken) for path, shift in zip(paths.values(), shifts, strict=True)]
    aligned = timeline.align(streams, timeline.tolerance(list(timelines.values())), alone)
    partners = ((time + shifts[0], frames) for time, frames in aligned)
    run = _Run(list(paths), turns, wanted, every)
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.enter_context(contextlib.closing(stream))
        run.measure(partners, progress)
    if len(run.samples) < _LEAST_SHARE * (len(run.samples) + min(alone)):
        found = ", ".join(f"{role} {_described(timelines[role])}" for role in paths)
        raise ValueError(
            f"expected videos with frames that are shown at the same times, found {len(run.samples)}; convert them to "
            f"one frame rate first. Received: {found}"
        )
    for role, count in zip(paths, alone, strict=True):
        if count:
            notes.append(f"{_frames(count)} of {role} without a partner at the same time, not measured")
    values, found_notes = run.values()
    height, width = run.size
    if "bits_per_pixel" in wanted:
        for (role, each), count in zip(timelines.items(), alone, strict=True):
            frame_count = len(run.samples) + count
            values[role]["bits_per_pixel"] = metrics.bits_per_pixel(each.size_bytes, height, width, frame_count)
    notes += [*run.sampling(), *found_notes, *infinities(values)]
    files = {role: str(path) for role, path in paths.items()}
    return Comparison(name, "video", files, width, height, len(run.samples), values, run.samples, notes, broken)


class _Run:
    """The metrics of one set of videos, while they are measured."""

    def __init__(self, roles: list[str], turns: dict[str, int], wanted: frozenset[str], every: int) -> None:
        self.samples: list[Sample] = []
        self.size = (0, 0)
        self._roles = roles
        self._turns = turns
        self._wanted = wanted
        self._every = every
        self._notes: dict[str, None] = {}
        self._clips: dict[tuple[str, str], tuple[float | None, list[str]]] = {}

    def measure(
        self, partners: Iterator[tuple[Fraction, list[av.VideoFrame]]], progress: Callable[[int], None] | None
    ) -> None:
        """Measures all partners."""
        functions = self._clip_functions()
        workers = min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as frame_pool, ThreadPoolExecutor(len(functions) or 1) as clip_pool:
            fed = {key: (_Fed(clip_pool, function), roles) for key, (function, roles) in functions.items()}
            waiting: deque[Future[_Measured]] = deque()

            def take() -> None:
                measured = waiting.popleft().result()
                self._notes |= dict.fromkeys(measured.notes)
                self.samples.append(Sample(measured.time, measured.values))
                self.size = measured.size
                for feed, roles in fed.values():
                    feed.put(tuple(measured.planes[role] for role in roles))
                if progress is not None:
                    progress(len(self.samples))

            try:
                for index, (time, frames) in enumerate(partners):
                    if len(waiting) > workers:
                        take()
                    pictures = dict(zip(self._roles, frames, strict=True))
                    waiting.append(frame_pool.submit(self._measured, time, pictures, index % self._every == 0))
                while waiting:
                    take()
            finally:
                frame_pool.shutdown(wait=False, cancel_futures=True)
                for feed, _ in fed.values():
                    feed.put(_END)
            if self.samples:
                self._clips = {key: attempt(key[1], feed.result) for key, (feed, _) in fed.items()}

    def values(self) -> tuple[Values, list[str]]:
        """Means over the frames, values of the clips, and notes on both."""
        values: Values = {role: {} for role in self._roles}
        notes = list(self._notes)
        for metric in _FRAME_METRICS:
            columns = self._columns(metric)
            for role, mean in pool(columns).items():
                values[role][metric] = mean
            notes += left_out(metric, columns)
        for (role, metric), (value, found) in self._clips.items():
            values[role][metric] = value
            notes += found
        return values, list(dict.fromkeys(notes))

    def sampling(self) -> list[str]:
        """The note on which frames are judged without an original."""
        labels = [METRICS[metric].label for metric in metrics.NO_REFERENCE_METRICS if metric in self._wanted]
        if self._every == 1 or not labels:
            return []
        count = -(-len(self.samples) // self._every)
        return [f"{' and '.join(labels)}: of every {_ordinal(self._every)} frame, {count} in all"]

    def _columns(self, metric: str) -> dict[str, list[float | None]]:
        """Role -> values of the frames that the metric was tried on."""
        rows = [sample.values for sample in self.samples if any(metric in each for each in sample.values.values())]
        roles = [role for role in self._roles if rows and metric in rows[0][role]]
        return {role: [row[role][metric] for row in rows] for role in roles}

    def _clip_functions(self) -> dict[tuple[str, str], tuple[Callable[[Iterator[Any]], float], tuple[str, ...]]]:
        """(Role, metric) -> what takes an iterator of tuples of planes, and of which roles these are."""
        functions: dict[tuple[str, str], tuple[Callable[[Iterator[Any]], float], tuple[str, ...]]] = {}
        for role in self._roles:
            if "original" in self._roles and role != "original":
                for metric in self._wanted & metrics.CLIP_METRICS.keys():
                    functions[role, metric] = (_of_pairs(metrics.CLIP_METRICS[metric]), ("original", role))
            for metric in self._wanted & metrics.NO_REFERENCE_CLIP_METRICS.keys():
                functions[role, metric] = (_of_singles(metrics.NO_REFERENCE_CLIP_METRICS[metric]), (role,))
        return functions

    def _measured(self, time: Fraction, frames: Mapping[str, av.VideoFrame], judged: bool) -> "_Measured":
        """Measures one set of partners."""
        lumas, notes = _lumas(frames, self._turns)
        require_one_size(lumas)
        exact = all(luma.dtype == np.uint8 for luma in lumas.values())
        planes = {role: _in_8_bits(luma) for role, luma in lumas.items()}
        values: Values = {role: {} for role in frames}
        functions: dict[str, Callable[..., float]] = {
            "psnr": metrics.psnr,
            "psnr_y": metrics.psnr_y if exact else _psnr,
            "ssim": metrics.ssim if exact else _ssim,
        }
        for metric in self._wanted & functions.keys() if "original" in frames else ():
            pictures = _rgbs(frames, self._turns) if metric == "psnr" else lumas
            for role in [role for role in frames if role != "original"]:
                values[role][metric], found = attempt(metric, functions[metric], pictures["original"], pictures[role])
                notes += found
        if judged:
            for metric, judge in metrics.NO_REFERENCE_METRICS.items():
                for role in frames if metric in self._wanted else ():
                    values[role][metric], found = attempt(metric, judge, planes[role])
                    notes += found
        if not exact:
            notes.append("luma of more than 8 bits: PSNR Y and SSIM Y use all of them, the other metrics 8")
        size = next(iter(planes.values())).shape
        return _Measured(time, values, planes, notes, (size[0], size[1]))


_FRAME_METRICS = ("psnr", "psnr_y", "ssim", *metrics.NO_REFERENCE_METRICS)


@dataclass(frozen=True)
class _Measured:
    time: Fraction
    values: Values
    planes: dict[str, Plane]
    notes: list[str]
    size: tuple[int, int]


class _Fed:
    """A function of an iterator, which runs in a thread and is given one item at a time."""

    def __init__(self, pool: ThreadPoolExecutor, function: Callable[[Iterator[Any]], float]) -> None:
        self._items: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._future = pool.submit(self._run, function)

    def put(self, item: Any) -> None:
        """Gives it an item, or the end."""
        self._items.put(item)

    def result(self) -> float:
        """The function's value, or its exception."""
        return self._future.result()

    def _run(self, function: Callable[[Iterator[Any]], float]) -> float:
        items = iter(self._items.get, _END)
        try:
            return function(items)
        finally:
            # Who gives it items must never wait for one that has failed.
            for _ in items:
                pass


def _of_pairs(function: Callable[[Any, Any], float]) -> Callable[[Iterator[Any]], float]:
    def call(pairs: Iterator[tuple[Plane, Plane]]) -> float:
        # The metrics take one of each in turn, so that the copy holds one pair.
        first, second = itertools.tee(pairs)
        return function((pair[0] for pair in first), (pair[1] for pair in second))

    return call


def _of_singles(function: Callable[[Any], float]) -> Callable[[Iterator[Any]], float]:
    return lambda items: function(item[0] for item in items)


def _timed(path: Path, shift: Fraction, broken: list[str]) -> Generator[tuple[Fraction, av.VideoFrame], None, None]:
    try:
        for frame in video.read_frames(path, quantisers=False):
            yield timeline.time_of(frame.image) - shift, frame.image
    except video.BrokenVideoError as error:
        broken.append(str(error))


def _turns(degrees: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """Quarter turns counterclockwise that make rotations equal, and a note on it."""
    if len({each % 360 for each in degrees.values()}) == 1:
        return dict.fromkeys(degrees, 0), []
    stated = ", ".join(f"{role} {each}" for role, each in degrees.items())
    if any(each % 90 for each in degrees.values()):
        raise ValueError(f"expected rotations that differ by quarter turns. Received: degrees of {stated}")
    turns = {role: each // 90 % 4 for role, each in degrees.items()}
    return turns, [f"the rotations differ (degrees of {stated}): all are turned upright first"]


def _rates(timelines: Mapping[str, timeline.Timeline]) -> list[str]:
    """The note on frame rates that differ by more than averages of rounded times do."""
    rates = [each.frame_rate for each in timelines.values()]
    if max(rates) <= min(rates) * Fraction(1001, 1000):
        return []
    return ["the videos differ: " + ", ".join(f"{role} {_described(each)}" for role, each in timelines.items())]


def _described(each: timeline.Timeline) -> str:
    return f"{_frames(len(each.times))}, {float(each.frame_rate):.2f} a second from {float(each.times[0]):.3f} s on"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _lumas(frames: Mapping[str, av.VideoFrame], turns: Mapping[str, int]) -> tuple[dict[str, Samples], list[str]]:
    """The luma of partners in one sense: decoded planes where these mean the same, or else that of the frames' RGB.

    uint8 `(height, width)`, or float64 on the scale of 8 bits where the planes have more.
    """
    meanings = {_meaning(frame) for frame in frames.values()}
    if len(meanings) == 1 and None not in meanings:
        return {role: _turned(_plane(frame), turns[role]) for role, frame in frames.items()}, []
    notes = ["luma is computed from RGB: the videos' planes have not the same range, matrix and kind"]
    return {role: image.luma(rgb) for role, rgb in _rgbs(frames, turns).items()}, notes


def _rgbs(frames: Mapping[str, av.VideoFrame], turns: Mapping[str, int]) -> dict[str, Samples]:
    return {role: _turned(colour.to_rgb(frame), turns[role]) for role, frame in frames.items()}


def _meaning(frame: av.VideoFrame) -> tuple[bool, int] | None:
    """Range and matrix of a frame whose first plane is luma as `_plane` reads it."""
    if frame.format.is_rgb or frame.format.name not in colour.SUPPORTED or frame.planes[0].line_size < 0:
        return None
    code = colour.matrix(frame)
    return colour.is_full_range(frame), _SAME_MATRIX.get(code, code)


def _plane(frame: av.VideoFrame) -> Samples:
    """The luma plane: uint8, or float64 on the scale of 8 bits."""
    depth = frame.format.components[0].bits
    plane = frame.planes[0]
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    samples = np.frombuffer(memoryview(plane), dtype).reshape(-1, plane.line_size // dtype.itemsize)
    samples = samples[: frame.height, : frame.width]
    if depth == 8:
        return samples.copy()
    scaled: Samples = samples / ((2**depth - 1) / 255 if colour.is_full_range(frame) else 2 ** (depth - 8))
    return scaled


def _turned(pixels: Samples, turns: int) -> Samples:
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _in_8_bits(samples: Samples) -> Plane:
    # Full scale of limited range is 255.75.
    levels: Plane = np.clip(samples + 0.5, 0, 255).astype(np.uint8) if samples.dtype != np.uint8 else samples
    return levels


def _psnr(original: Samples, restored: Samples) -> float:
    """`metrics.psnr_y` of planes that are not both of 8 bits."""
    return decibels(float(np.mean(np.square(np.subtract(original, restored, dtype=np.float64)))))


def _ssim(original: Samples, restored: Samples) -> float:
    """`metrics.ssim` of the same."""
    if min(original.shape) < SIZE:
        raise ValueError(f"expected pictures of at least {SIZE}x{SIZE} pixels. Received: shape={original.shape}")
    return mean_similarity(original.astype(np.float64), restored.astype(np.float64))[0]
