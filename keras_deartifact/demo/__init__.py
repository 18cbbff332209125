"""The demonstration: a short real clip, made to look old, and what restoring it gains.

The clip is 640x360, 4:2:0, without loss; CREDITS.txt beside it says where it comes from. No model was trained on it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from keras_deartifact import colour, metrics, video

CLIP = Path(__file__).with_name("bigbuckbunny.mkv")

CRF = 38
"""What x264 is told for the old look: grass and leaves turn to smears and blocks, at 0.016 bits a pixel."""

# Of the clip's middle frame, at the clip's own pixels: (left, top, right, bottom).
_CROP = (170, 10, 410, 250)
_ZOOM = 2
_STRIP = 30

StrPath = str | os.PathLike[str]
Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Quality:
    """How near a video is to the original, the mean over its frames.

    Attributes:
        psnr: decibels over RGB.
        psnr_y: decibels over luma.
        ssim: over luma.
        bits_per_pixel: size of the video packets, in bits, over all pixels.
    """

    psnr: float
    psnr_y: float
    ssim: float
    bits_per_pixel: float


def compress(target: StrPath, crf: float = CRF) -> None:
    """Writes the clip as H.264 by x264, with its defaults (preset medium, 4:2:0).

    Args:
        target: the file to write; replaced if it exists.
        crf: x264's constant rate factor, down is better.
    """
    with video.VideoWriter(target, CLIP, codec="libx264", crf=crf, preset="medium") as writer:
        for frame in video.read_frames(CLIP, quantisers=False):
            writer.write(frame.image)


def measure(path: StrPath) -> Quality:
    """Decodes a version of the clip and compares it with the clip, frame by frame, in RGB of 8 bits.

    Raises:
        ValueError: it has not the clip's frames.
    """
    values = []
    for original, restored in zip(_frames(CLIP), _frames(path), strict=True):
        values.append([metric(original, restored) for metric in (metrics.psnr, metrics.psnr_y, metrics.ssim)])
    psnr, psnr_y, ssim = np.mean(values, axis=0).tolist()
    height, width = original.shape[:2]
    return Quality(psnr, psnr_y, ssim, 8 * _packet_bytes(path) / (len(values) * height * width))


def side_by_side(target: StrPath, paths: list[StrPath], labels: list[str]) -> None:
    """Writes a PNG with the same part of the middle frame of several versions of the clip, twice as large, labelled.

    Args:
        target: the file to write; replaced if it exists.
        paths: the versions, from left to right.
        labels: one for each.

    Raises:
        ValueError: not one label for each path.
    """
    left, top, right, bottom = _CROP
    width, height = _ZOOM * (right - left), _ZOOM * (bottom - top)
    sheet = Image.new("RGB", (width * len(paths), height + _STRIP))
    draw = ImageDraw.Draw(sheet)
    middle = sum(1 for _ in video.read_frames(CLIP, quantisers=False)) // 2
    for index, (path, label) in enumerate(zip(paths, labels, strict=True)):
        frame = next(frame for number, frame in enumerate(_frames(path)) if number == middle)
        # Nearest, so that every pixel is seen as it is.
        part = Image.fromarray(frame).crop(_CROP).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(part, (index * width, _STRIP))
        draw.text((index * width + 8, 5), label, font=ImageFont.load_default(18), fill="white")
    sheet.save(target)


def _frames(path: StrPath) -> Iterator[Frame]:
    return (colour.to_rgb(frame.image) for frame in video.read_frames(path, quantisers=False))


def _packet_bytes(path: StrPath) -> int:
    with av.open(os.fspath(path)) as container:
        return sum(packet.size for packet in container.demux(video=0))
