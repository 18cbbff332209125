"""Encodes frames into a copy of their source that keeps everything but the pictures."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain, islice
from math import lcm
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import numpy as np
from av.container import Flags, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from keras_deartifact.video import containers, holding, matroska, segments, side_data
from keras_deartifact.video.copies import StreamCopies, tags
from keras_deartifact.video.encoding import Encoding, FrameEncoder
from keras_deartifact.video.picture import Picture

_FORMAT_NAMES = {"mkv": "matroska", "mka": "matroska", "ts": "mpegts", "m2ts": "mpegts", "m4v": "mp4"}

_INT_MAX = 2**31 - 1

# Formats in which the first time is where the broadcast, the disc or the camera happened to be.
_BEGIN_ANYWHERE = frozenset(("mpegts", "mpeg"))

# So many frames are looked at for what a video's frames hold beside their pictures.
_LOOK_FRAMES = 24


class VideoWriter:
    """Writes restored frames into a copy of the source file.

    Use as a context manager; `write` every frame, then leave the block. Leaving it with an exception only closes the
    files, so write to a temporary name and rename it afterwards.

        with VideoWriter("new.mkv", "old.mp4") as writer:
            for frame in read_frames("old.mp4"):
                writer.write(frame.image)

    Kept from the source: presentation times, colour description, pixel shape, rotation, chapters, the tags of the file
    and of every stream, and the packets of all other streams, bit for bit, interleaved by time. The pixel format is the
    source's if the encoder has it, else the nearest that loses no depth and no chroma: x264 and x265 have no 4:2:0 of
    odd sizes, which become 4:4:4. MP4 and MOV hold any time base exactly; Matroska rounds to its milliseconds and
    MPEG-TS to 1/90000 s. Neither holds times below zero, such as the start of AAC in MP4: all streams then move later
    together, and stay in step. An MPEG stream may begin at any hour: in another container all of it moves together, so
    that what comes first begins at 0. Audio in MP4 and MOV begins at the sample (`clock.py`). AAC changes its packet
    headers between MPEG-TS and the others, as the formats demand. Closed captions go on in H.264 and H.265, the order
    of fields in H.264 and FFV1, chroma siting and static HDR metadata where there is a place for them (`picture.py`).

    Attributes:
        skipped: descriptions of what the target cannot hold and is left out; complete before the first frame.
        encoding: how the video is encoded, for encoders beside the writer's own; see `write_segments`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str],
        *,
        codec: str = "libx264",
        crf: float = 16,
        preset: str = "medium",
        options: Mapping[str, str] | None = None,
        threads: int | None = None,
        container_format: str | None = None,
        drop: bool = False,
        deinterlaced: bool = False,
    ) -> None:
        """Opens both files and checks that the target can hold every stream, before anything is written.

        Args:
            path: the file to write; replaced if it exists.
            source: the file the frames come from.
            codec: an ffmpeg encoder.
            crf: constant rate factor, down is better; only for encoders that have one.
            preset: speed against size; only for encoders that have one.
            options: further encoder options.
            threads: encoder threads; the encoder decides if None.
            container_format: ffmpeg's name or the extension of the format, where `path` has no telling extension.
            drop: leave out, and name in `skipped`, what the target cannot hold: streams, alpha, HDR metadata of single
                frames.
            deinterlaced: the frames are progressive, whatever those of the source are.

        Raises:
            ValueError: an unknown format or encoder; a pixel format, fields or, without `drop`, something else that the
                target cannot hold; `path` is `source`.
            FileNotFoundError: there is no such source, or no such folder.
        """
        if Path(path).exists() and Path(path).samefile(source):
            raise ValueError(f"path must not be the source itself. Received: path={os.fspath(path)!r}")
        self._container_format = _FORMAT_NAMES.get(container_format or "", container_format)
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._input = self._stack.enter_context(containers.open_input(source))
            self._main = containers.main_video(self._input, source)
            with containers.open_input(source) as look:
                stream = containers.main_video(look, source)
                frames = containers.decodable(look, stream)
                first = next(frames, None)
                if first is None:
                    raise ValueError(
                        f"source must hold a frame that decodes. Received: source={containers.label(source)}"
                    )
                self._output = self._open_output(path)
                lost_tags = self._set_tags()
                picture = Picture(look, stream, chain([first], islice(frames, _LOOK_FRAMES - 1)), deinterlaced)
                self._video = self._add_video(stream, picture, codec, threads, drop)
            supported = {option.name for option in self._video.codec_context.supported_options.private}
            # libx265 alone leaves captions out unless asked.
            knobs = {"crf": str(crf), "preset": preset, "a53cc": "1"}
            if codec == "libx265":
                knobs["x265-params"] = "log-level=error"
            chosen = {name: value for name, value in knobs.items() if name in supported}
            self._earlier = self._shift()
            self._copies = StreamCopies(source, self._input, self._main, self._output, drop, self._earlier)
            self.skipped = self._copies.skipped + picture.lost
            self.skipped += [f"tag {name!r}, which .mkv can hold" for name in lost_tags]
            self.encoding = Encoding.of(
                self._video,
                picture.options(codec, chosen | dict(options or {})),
                first.format.name,
                self._earlier,
                captions="a53cc" in supported,
                interlaced=picture.interlaced,
            )
            if not self.encoding.captions and picture.has_captions:
                self.skipped.append("closed captions, which libx264 and libx265 can hold")
            if chapters := self._input.chapters():
                for chapter in chapters:
                    named = chapter["metadata"].items()
                    chapter["metadata"] = {name: containers.text(value) for name, value in named}
                self._output.set_chapters(chapters)
            self._encoder = FrameEncoder(self.encoding, self._video.codec_context)
            self._is_empty = True
            self._pixel_shape = picture.pixel_shape
            try:
                self._video.codec_context.open()
                self._output.start_encoding()
            except av.FFmpegError as error:
                raise ValueError(
                    f"{codec} in {self._output.format.name} must be able to hold this video; write .mkv instead, or "
                    f"choose other options. Received: {containers.label(source)}, {error}"
                ) from error
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        """Returns the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finishes the file, or only closes it if the block failed."""
        with self._stack:
            if kind is None:
                if self._is_empty:
                    raise ValueError("At least one frame must be written. Received: none")
                if self._encoder.last is not None:
                    self._mux(self._encoder.flush())
                self._copies.mux_until(None)
                self._output.close()
                if self._pixel_shape is not None and self._output.format.name in matroska.NAMES:
                    with open(self._output.name, "r+b") as file:
                        matroska.state_pixel_shape(file, self._pixel_shape, self.encoding.size)

    def write(self, frame: av.VideoFrame, decoded: av.VideoFrame | None = None) -> None:
        """Encodes one frame, at its own presentation time.

        Args:
            frame: of the source's size and pixel format, with `pts` after the last one's, in the source's time base or
                one that converts to it exactly.
            decoded: the frame that it was made from, whose order of fields and closed captions it gets where the
                encoder takes them; overwritten if it has any.

        Raises:
            ValueError: the size, the format or the time differ from that.
        """
        self._mux(self._encoder.encode(frame, decoded))
        self._is_empty = False

    def write_segments(self, paths: Sequence[Path]) -> None:
        """Writes all of the video from frames that were encoded before, by encoders of `encoding`.

        Args:
            paths: files as `segments.append` writes them, in order.
        """
        for packet in segments.read(paths):
            packet.time_base = self.encoding.time_base
            self._mux([packet])
            self._is_empty = False

    def close(self) -> None:
        """Closes the files before the video is complete."""
        self._stack.close()

    @property
    def damaged(self) -> str | None:
        """What of the other streams could not be copied so far, because it is damaged; None for nothing."""
        return self._copies.damaged

    def _open_output(self, path: str | os.PathLike[str]) -> OutputContainer:
        name = os.fspath(path)
        try:
            output = av.open(name, "w", format=self._container_format, metadata_errors="replace")
        except ValueError as error:
            raise ValueError(
                f"path must end in a video extension such as .mkv or .mp4, or container_format must name one. "
                f"Received: path={name!r}, container_format={self._container_format!r}"
            ) from error
        self._stack.callback(_close_quietly, output)
        if output.format.name == "avi":
            raise ValueError(f"AVI holds no presentation times; write .mkv or .mp4 instead. Received: path={name!r}")
        if output.format.name == "mpegts":
            # Else the muxer moves all times.
            output.container_options["mpegts_copyts"] = "1"
        if output.format.name in ("matroska", "webm"):
            # Else files and tracks get random numbers, and the same video would never give the same file.
            output.flags |= cast(int, Flags.bitexact.value)
        return output

    def _add_video(
        self, stream: VideoStream, picture: Picture, codec: str, threads: int | None, drop: bool
    ) -> VideoStream:
        first = picture.first
        try:
            video = picture.add_stream(self._output, codec, containers.frame_rate(stream) or Fraction(25))
        except ValueError as error:
            raise ValueError(f"codec must be a video encoder that fits the container. Received: {error}") from error
        context = video.codec_context
        self._time_base = containers.time_base(stream)
        if self._output.format.name in ("mp4", "mov"):
            # The edit list, which holds the start, counts in these units; the muxer's own are milliseconds.
            self._output.container_options["movie_timescale"] = str(self._movie_timescale())
        context.time_base = video.time_base = self._time_base
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        for name, value in containers.colour_codes(stream, first).items():
            setattr(context, name, value)
        if threads is not None:
            context.thread_count = threads
        video.metadata.update(tags(self._main))
        picture.prepare(video, drop)
        if "language" in video.metadata:
            video.metadata["language"] = holding.language(self._output.format.name, video.metadata["language"])
        timecodes = [other for other in self._input.streams if holding.is_timecode(other)]
        for name in ("timecode", "reel_name") if timecodes else ():
            if name in timecodes[0].metadata:
                video.metadata.setdefault(name, containers.text(timecodes[0].metadata[name]))
        video.disposition = self._main.disposition
        turn = side_data.of(first).get("DISPLAYMATRIX")
        if turn is not None:
            video.set_display_matrix(np.frombuffer(memoryview(turn), np.int32).tolist())
        return video

    def _set_tags(self) -> list[str]:
        """Gives the file's tags to the target, and returns the names of those that it cannot hold."""
        found = tags(self._input)
        cover = any(containers.is_picture(each) for each in self._input.streams.video)
        options, lost = holding.tag_options(self._output.format.name, found, cover)
        self._output.container_options.update(options)
        self._output.metadata.update(found)
        return lost

    def _shift(self) -> Fraction:
        """Seconds by which everything moves to the front."""
        source, target = self._input.format.name, self._output.format.name
        if source not in _BEGIN_ANYWHERE or target in _BEGIN_ANYWHERE:
            return Fraction(0)
        return containers.first_time(self._input)

    def _movie_timescale(self) -> int:
        """Units a second in which starts count: whole ones for every frame of video and every sample of audio."""
        scale = self._time_base.denominator
        scale *= -(-1000 // scale)
        rates = [each.codec_context.sample_rate for each in self._input.streams.audio if each.codec_context is not None]
        exact = lcm(scale, *(rate for rate in rates if rate))
        return exact if exact <= _INT_MAX else _INT_MAX // scale * scale

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            packet.stream = self._video
            if packet.dts is not None:
                self._copies.mux_until(packet.dts * Fraction(packet.time_base))
            self._output.mux_one(packet)


def _close_quietly(container: OutputContainer) -> None:
    # After a failure the trailer may not be writable; the error that led here is the one to report.
    with contextlib.suppress(av.FFmpegError):
        container.close()
