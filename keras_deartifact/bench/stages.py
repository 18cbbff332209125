"""What is measured by itself: the machine's peak, each model, the predictor, and the stages around the network."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from keras_deartifact import colour, encoders, engines, files, image, quantiser, video
from keras_deartifact.bench.settings import CRF, Settings
from keras_deartifact.bench.subjects import Subject, key
from keras_deartifact.bench.timing import interleaved

__all__ = ["MATRIX", "PREDICTOR", "STAGES", "inputs", "make_clip", "rates_alone"]

MATRIX, PREDICTOR = "matrix product", "predictor"
_DECODE, _DECODE_PLAIN, _TO_RGB = "decode, with quantisers", "decode, without", "to float RGB"
_CORRECT, _ENCODE = "add the correction", "encode"
STAGES = (_DECODE, _DECODE_PLAIN, _TO_RGB, _CORRECT, _ENCODE)


def make_clip(source: files.StrPath, target: files.StrPath, width: int, height: int, frames: int) -> None:
    """Scales a video, and encodes it as `restore_video` would by default but for the CRF.

    Args:
        source: a video; one that is too short starts again.
        target: the file to write.
        width: pixels, even.
        height: likewise.
        frames: how many.
    """
    codec = encoders.default(target)
    encoder = encoders.choose(codec, CRF)
    originals = [frame.image for frame in islice(video.read_frames(source, quantisers=False), frames)]
    with av.open(os.fspath(target), "w") as container:
        stream = container.add_stream(codec, rate=25)
        if not isinstance(stream, VideoStream):
            raise ValueError(f"expected an encoder of video. Received: codec={codec!r}")
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.options = {"crf": str(encoder.crf), "preset": str(encoder.preset), **encoder.options}
        for index, original in enumerate(islice(cycle(originals), frames)):
            frame = original.reformat(width, height, "yuv420p", interpolation=Interpolation.BICUBIC)
            frame.time_base, frame.pts = Fraction(1, 25), index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def rates_alone(
    clip: Path,
    subjects: Sequence[Subject],
    predictor: engines.Predictor,
    restore_frames: Callable[..., npt.NDArray[Any]],
    settings: Settings,
    step: Callable[[], None],
) -> dict[str, list[float]]:
    """What is measured by itself, by name, for each round: frames a second, or products."""
    frames = list(video.read_frames(clip))
    first = frames[0].image
    images, shown, maps = inputs(frames[0])
    correction = np.ascontiguousarray(shown[0] * np.float32(0.01))
    left, right = np.random.default_rng(0).random((2, settings.matrix_side, settings.matrix_side), np.float32)
    product = np.empty_like(left)

    def restoring(subject: Subject) -> Callable[[], object]:
        return lambda: restore_frames(subject.restorer, images, maps)

    actions: dict[str, Callable[[], object]] = {MATRIX: lambda: np.matmul(left, right, out=product)}
    actions |= {key(subject): restoring(subject) for subject in subjects}
    actions |= {
        PREDICTOR: lambda: predictor(shown),
        _DECODE: lambda: sum(1 for _ in video.read_frames(clip)),
        _DECODE_PLAIN: lambda: sum(1 for _ in video.read_frames(clip, quantisers=False)),
        _TO_RGB: lambda: _to_images(first),
        _CORRECT: lambda: colour.add_correction(first, correction),
        _ENCODE: lambda: _encode(clip, frames),
    }
    times = interleaved(actions, settings.rounds, settings.seconds, settle=settings.settle, step=step)
    work = dict.fromkeys((_DECODE, _DECODE_PLAIN, _ENCODE), len(frames))
    return {name: [work.get(name, 1) / seconds for seconds in each] for name, each in times.items()}


def _encode(clip: Path, frames: Sequence[video.Frame]) -> None:
    """Encodes decoded frames as `restore_video` does."""
    target = clip.with_name("encoded.mp4")
    codec = encoders.default(target, frames[0].image.format.name)
    encoder = encoders.choose(codec)
    with video.VideoWriter(target, clip, codec=codec, **encoder.settings) as writer:
        for frame in frames:
            writer.write(frame.image)


def _to_images(frame: av.VideoFrame) -> npt.NDArray[np.float32]:
    return image.to_float(image.pad_to_multiple(colour.to_rgb(frame), image.GRID))[None]


def inputs(
    frame: video.Frame,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What `restore_video` makes of a frame of H.264: padded for the network, as it is for the predictor, its map."""
    height, width = frame.image.height, frame.image.width
    images = _to_images(frame.image)
    stated = None if frame.qp is None else quantiser.log2_step_from_qp(frame.qp, "h264")
    known = quantiser.constant_map(height, width) if stated is None else stated
    return images, images[:, :height, :width], known[None]
