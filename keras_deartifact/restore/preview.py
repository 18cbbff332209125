"""A look at what restoring does to a file before all of it is done: compressed on the left, restored on the right.

Of a video, a few seconds around its middle are cut out without decoding them, so that the bitstream still tells how
strongly they were compressed, and are restored as the whole would be, second encode included.
"""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image

from keras_deartifact import colour, encoders, files, stills, video
from keras_deartifact.engines import Restorer
from keras_deartifact.restore.pictures import restore_image
from keras_deartifact.restore.videos import restore_video
from keras_deartifact.video import containers

__all__ = ["cut", "preview_image", "preview_video"]

# No decoder holds back more.
_MOST_WAITING = 16

_CODECS = {".webm": "libvpx-vp9"}


def preview_image(
    restorer: Restorer, source: files.StrPath, target: files.StrPath, *, overwrite: bool = False, **options: Any
) -> None:
    """Writes a picture with a picture file on the left and what it is restored to on the right, upright, of 8 bits.

    Of several frames or pages it is the one in the middle.

    Args:
        restorer: see `engines`.
        source: a picture file.
        target: the picture to write.
        overwrite: whether it may be replaced.
        options: of `restore_image`.

    Raises:
        ValueError: what `restore_image` raises, or a target that is no picture.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    suffix = Path(target).suffix.lower()
    if suffix not in stills.WRITE_FORMATS:
        raise ValueError(f"expected a target of {', '.join(stills.WRITE_FORMATS)}. Received: {os.fspath(target)}")
    with files.replacing(source, target, overwrite) as temporary, tempfile.TemporaryDirectory() as folder:
        restored = Path(folder) / Path(target).name
        found = stills.series(source)
        index = 0 if found is None else found.count // 2
        restore_image(restorer, source, restored, frame=index, **options)
        both = np.concatenate([stills.view(source, index), stills.view(restored)], axis=1)
        still = stills.read_at(source, index, inks=True)
        # Of inks, it does not describe what is shown.
        profile = still.icc_profile if still.black is None else None
        lossy = {"quality": options.get("quality") or stills.JPEG_QUALITY} if suffix in (".jpg", ".jpeg") else {}
        Image.fromarray(both).save(temporary, stills.WRITE_FORMATS[suffix], icc_profile=profile, **lossy)


def preview_video(
    restorer: Restorer,
    source: files.StrPath,
    target: files.StrPath,
    *,
    seconds: float = 5.0,
    overwrite: bool = False,
    **options: Any,
) -> int:
    """Writes a short video with a part of a video file on the left and what it is restored to on the right.

    Without sound, upright, of 8 bits and 4:2:0; with the times and the pixel shape of the source.

    Args:
        restorer: see `engines`.
        source: a video file.
        target: the video to write; its extension gives the container.
        seconds: how much of it is shown; it begins at the key frame before.
        overwrite: whether an existing target may be replaced.
        options: of `restore_video`.

    Returns:
        The number of frames.

    Raises:
        ValueError: what `restore_video` raises, or no frame of the part decodes.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    with files.replacing(source, target, overwrite) as temporary, tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.mkv"
        restored = Path(folder) / f"restored{Path(target).suffix}"
        cut(source, part, seconds)
        restore_video(restorer, part, restored, **options)
        return _side_by_side(part, restored, temporary, video.probe(source).rotation_degrees, seconds)


def cut(source: files.StrPath, target: files.StrPath, seconds: float) -> None:
    """Copies the packets of a few seconds of a file's main video, from the key frame before on, into an MKV file.

    Args:
        source: a video file.
        target: the file to write; replaced if it exists.
        seconds: how much; in the middle of the source, or all of it if it is shorter.

    Raises:
        ValueError: the source is no video.
        OSError: the file system does not give or take it.
    """
    info = video.probe(source)
    length = info.duration or Fraction(0)
    wanted = Fraction(seconds).limit_denominator(1000)
    start = max(Fraction(0), (length - wanted) / 2) + (info.start or 0)
    with (
        # AVI states no presentation times.
        av.open(os.fspath(source), options={"fflags": "genpts"}, metadata_errors="surrogateescape") as old,
        av.open(os.fspath(target), "w", format="matroska") as new,
    ):
        stream = containers.main_video(old, source)
        copy = new.add_stream_from_template(stream, opaque=True)
        base = info.time_base
        if length > wanted:
            with contextlib.suppress(av.FFmpegError):
                old.seek(int(start / base), stream=stream)
        frame = 1 / (info.frame_rate or Fraction(25)) / base
        end: Fraction | None = None
        for packet in _with_times(old, stream, frame):
            if end is None and not packet.is_keyframe:
                continue
            end = (packet.pts or packet.dts or 0) * base + wanted if end is None else end
            if (packet.dts or 0) * base >= end:
                break
            packet.stream = copy
            new.mux(packet)


def _with_times(container: InputContainer, stream: VideoStream, frame: Fraction) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream that have a decoding time, or get one: after a seek in MKV the first ones have none.

    Args:
        container: what is read.
        stream: of it.
        frame: duration of a frame in ticks.
    """
    waiting: list[Packet[VideoStream]] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        waiting.append(packet)
        if packet.dts is not None or len(waiting) > _MOST_WAITING:
            yield from _timed(waiting, frame)
            waiting = []
    yield from _timed(waiting, frame)


def _timed(packets: list[Packet[VideoStream]], frame: Fraction) -> list[Packet[VideoStream]]:
    """Fills in the decoding times of packets of which at most the last one has one."""
    if packets and packets[-1].dts is None:
        packets[-1].dts = min((each.pts for each in packets if each.pts is not None), default=0)
    for place, packet in enumerate(reversed(packets[:-1]), 1):
        packet.dts = (packets[-1].dts or 0) - round(place * frame)
    return packets


def _side_by_side(before: Path, after: Path, target: Path, rotation: int, seconds: float) -> int:
    """Writes so many seconds of both videos beside each other; returns the number of frames."""
    info = video.probe(before)
    turns = round(rotation / 90) % 4
    shape = info.sample_aspect_ratio or Fraction(1)
    count = 0
    with av.open(os.fspath(target), "w") as new:
        codec = _CODECS.get(target.suffix.lower(), "libx264")
        encoder = encoders.ENCODERS[codec]
        options = dict(encoder.options) | {"crf": str(encoder.crf or 0)}
        if encoder.preset is not None:
            options["preset"] = encoder.preset
        stream: VideoStream | None = None
        start = 0
        with contextlib.suppress(video.BrokenVideoError):
            pairs = zip(*(video.read_frames(path, quantisers=False) for path in (before, after)), strict=False)
            for old, restored in pairs:
                if stream is not None and ((old.image.pts or 0) - start) * info.time_base >= seconds:
                    # After it there are holes: what is coded later, but seen before, was cut off.
                    break
                halves = [np.rot90(colour.to_rgb(each.image), turns) for each in (old, restored)]
                # 4:2:0 has no odd sizes.
                rows, columns = (side - side % 2 for side in halves[0].shape[:2])
                both = np.ascontiguousarray(np.concatenate([half[:rows, :columns] for half in halves], axis=1))
                if stream is None:
                    rate = info.frame_rate or Fraction(25)
                    stream = cast(VideoStream, new.add_stream(codec, rate=rate, options=options))
                    stream.width, stream.height, stream.pix_fmt = both.shape[1], both.shape[0], "yuv420p"
                    stream.codec_context.time_base = info.time_base
                    stream.sample_aspect_ratio = 1 / shape if turns % 2 else shape
                    stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
                    start = old.image.pts or 0
                frame = colour.from_rgb(both, colorspace="bt709")
                frame.time_base, frame.pts = info.time_base, (old.image.pts or 0) - start
                new.mux(stream.encode(frame))
                count += 1
        if stream is None:
            raise video.BrokenVideoError(f"no frame of the part that is shown decodes. Received: {before.name}")
        new.mux(stream.encode(None))
    return count
