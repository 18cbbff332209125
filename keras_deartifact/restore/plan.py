"""Where the segments of a video begin, and all else that is settled before the first frame of it is restored.

A segment ends after some frames or some seconds, by the times of the video's packets: they are read, not decoded. So it
is known of every segment where its frames are, and one can be restored without those before it. Damage does not move a
border: a frame that does not decode is missing in its segment alone.

Where packets do not tell (`video.read_packets`), borders are found by counting the frames as they are decoded. Such a
video is one piece.

In each `PREDICT_EVERY` frames of a segment, the predictor looks at the first one of each kind (whole or interlaced).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from keras_deartifact import __version__, colour, encoders, engines, files, video
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore.frames import check_strength
from keras_deartifact.restore.journal import Parameters

FRAMES = 240
"""The most frames of a segment: about as many as x264 lets pass from one key frame to the next in any case."""

SECONDS = 20
"""The longest segment, where frames are rare: a kill costs no more than that of what was done."""

# Of large frames fewer, so that a segment is less than a minute of work.
_FEWEST, _PIXELS = 48, 800_000_000

PREDICT_EVERY = 24
"""Frames from one prediction of a video's quality to the next. A prediction takes as long as two restored frames."""

STATED_MAPS, PREDICTED_MAPS = 16, 4
"""So many maps of the past are smoothed over: the weight of the one before them is 2^-16, or 2^-4 of a prediction."""


@dataclass(frozen=True)
class VideoOptions:
    """All that a restored video depends on beside its source and the networks; see `restore_video`."""

    strength: float | None = None
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    drop: bool = False
    deinterlace: bool = False


@dataclass(frozen=True)
class SegmentPlan:
    """What packets tell of a segment; times are in ticks of the source.

    Attributes:
        first: number of its first frame.
        frames: how many there are if all of them decode.
        last: time of the last one.
        looks: times from which on the predictor looks at a frame; the first is where the segment begins.
        place: where a decoder has to begin; None for the start of the file.
    """

    first: int
    frames: int
    last: int
    looks: tuple[int, ...]
    place: video.Place | None


def identity(restorer: Restorer, predictor: Predictor | None) -> dict[str, str | None]:
    """All of the networks and libraries that can change a bit of a result, under names for a reader."""
    return {
        **engines.identity(restorer),
        "predictor": None if predictor is None else engines.identity(predictor)["model"],
        "version": __version__,
        "ffmpeg": " ".join(".".join(map(str, version)) for version in av.library_versions.values()),
    }


@dataclass(frozen=True)
class VideoPlan:
    """What is settled of a restored video.

    Attributes:
        suffix: of the target's name, which gives the container.
        source_codec: decoder of the source.
        size: width and height of the source.
        options: with codec, crf and preset as they are used.
        segments: none where the video is one piece.
    """

    suffix: str
    source_codec: str
    size: tuple[int, int]
    options: VideoOptions
    segments: tuple[SegmentPlan, ...] = field(default=(), repr=False)

    def to_json(self) -> str:
        """Returns the plan as a text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VideoPlan:
        """Returns the plan of a text by `to_json`."""
        values: dict[str, Any] = json.loads(text)
        segments = []
        for each in values["segments"]:
            place = None if each["place"] is None else video.Place(**each["place"])
            segments.append(SegmentPlan(**{**each, "looks": tuple(each["looks"]), "place": place}))
        size, options = tuple(values["size"]), VideoOptions(**values["options"])
        return cls(**{**values, "size": size, "options": options, "segments": tuple(segments)})

    def parameters(self, restorer: Restorer, predictor: Predictor | None, source: files.StrPath) -> Parameters:
        """Returns all that the result depends on, under names for a reader."""
        return {
            "input": files.fingerprint(source),
            **identity(restorer, predictor),
            **dataclasses.asdict(self.options),
        }

    def writer(self, path: files.StrPath, source: files.StrPath) -> video.VideoWriter:
        """Returns a writer of the restored video, at a path with the plan's suffix."""
        options = self.options
        codec = str(options.codec)
        if codec == "libsvtav1":
            # It writes a banner to stderr by itself, and takes its log level, 1 for errors, from the environment alone.
            os.environ.setdefault("SVT_LOG", "1")
        encoder = encoders.choose(codec, options.crf, options.preset, self.size[0] * self.size[1])
        settings = encoder.settings
        return video.VideoWriter(
            path, source, codec=codec, **settings, drop=options.drop, deinterlaced=options.deinterlace
        )


def outline(source: files.StrPath, target: files.StrPath, options: VideoOptions) -> VideoPlan:
    """Returns the plan of a video as one piece, from its headers and its first frame.

    Raises:
        ValueError: see `restore_video`.
        OSError: the file system does not give it.
    """
    check_strength(options.strength)
    info = video.probe(source)
    if info.pix_fmt is None:
        raise video.BrokenVideoError(
            f"no frame of the video decodes; check that the file is complete. Received: {os.fspath(source)}"
        )
    if info.pix_fmt not in colour.SUPPORTED:
        raise ValueError(
            f"the video must have a pixel format such as yuv420p; convert it first, for example with "
            f"'ffmpeg -i {shlex.quote(os.fspath(source))} -c:v ffv1 -pix_fmt yuv444p -c:a copy converted.mkv'. "
            f"Received: pix_fmt={info.pix_fmt}"
        )
    codec = options.codec or encoders.default(target, info.pix_fmt)
    encoder = encoders.choose(codec, options.crf, options.preset, info.width * info.height)
    options = dataclasses.replace(options, codec=codec, crf=encoder.crf, preset=encoder.preset)
    return VideoPlan(Path(target).suffix, info.codec, (info.width, info.height), options)


def with_segments(plan: VideoPlan, source: files.StrPath) -> VideoPlan:
    """Returns a plan with the segments of the source, from all of its packets."""
    packets = video.read_packets(source, video.shows_at_dts(source))
    if packets is None:
        return plan
    return dataclasses.replace(plan, segments=tuple(_segments(packets, length(*plan.size))))


def plan_video(source: files.StrPath, target: files.StrPath, options: VideoOptions | None = None) -> VideoPlan:
    """Reads a video's packets, and says in which segments it is to be restored.

    Args:
        source: a video file.
        target: the file that is to be made; its extension counts.
        options: see `restore_video`.

    Raises:
        ValueError: see `restore_video`.
        OSError: the file system does not give it.
    """
    return with_segments(outline(source, target, options or VideoOptions()), source)


def length(width: int, height: int) -> int:
    """How many frames of a size a segment has, unless it is long."""
    return min(FRAMES, max(_FEWEST, _PIXELS // (width * height)))


class Counted:
    """Numbers the segments of a video, and its looks, by the times of all of its frames."""

    def __init__(self, length: int, time_base: Fraction) -> None:
        self._length = length
        self._time_base = time_base
        self._segment = self._look = -1
        self._frames = self._start = 0

    def see(self, time: int) -> tuple[int, int]:
        """Returns the numbers of the segment and of the look to which the next frame belongs.

        Args:
            time: of the frame, in ticks.
        """
        is_long = self._frames == self._length or (time - self._start) * self._time_base >= SECONDS
        if self._segment < 0 or is_long:
            self._segment += 1
            self._frames, self._start = 0, time
        if self._frames % PREDICT_EVERY == 0:
            self._look += 1
        self._frames += 1
        return self._segment, self._look


class Planned:
    """Numbers the segments of a video, and its looks, as a plan has them."""

    def __init__(self, segments: Iterable[SegmentPlan]) -> None:
        looks = [(time, index) for index, segment in enumerate(segments) for time in segment.looks]
        self._times = [time for time, _ in looks]
        self._segments = [index for _, index in looks]

    def see(self, time: int) -> tuple[int, int]:
        """See `Counted`; of any frame."""
        look = max(bisect_right(self._times, time) - 1, 0)
        return self._segments[look], look


def _segments(packets: video.Packets, length: int) -> Iterator[SegmentPlan]:
    counted = Counted(length, packets.time_base)
    # Numbers of the frames with which segments begin, and those with which looks do.
    starts, looks, last = list[int](), list[int](), (-1, -1)
    times = packets.times
    for number, time in enumerate(times):
        here = counted.see(time)
        if here[0] != last[0]:
            starts.append(number)
        if here[1] != last[1]:
            looks.append(number)
        last = here
    for first, end in zip(starts, [*starts[1:], len(times)], strict=True):
        look = bisect_right(looks, first) - 1
        needed = max(0, min(looks[max(0, look - PREDICTED_MAPS + 1)], first - STATED_MAPS))
        place = packets.place(times[needed], times[end] if end < len(times) else None)
        own = tuple(times[each] for each in looks[look : bisect_left(looks, end)])
        yield SegmentPlan(first, end - first, times[end - 1], own, place)
