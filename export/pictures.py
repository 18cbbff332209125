"""Pictures that an export is measured on, and that an integer model is calibrated on.

    pictures = load(folder)         list of uint8 (height, width, 3), of odd sizes; folder=None: the demo's clip
    examples = degraded(pictures)   list of Example(name, original, compressed, quantiser_map), uint8 and float32
    examples = degraded(exactly(pictures, 256, 256))    every one 256x256, for a model of a fixed size
    inputs = network_inputs(examples, channels=3)       list of (images, quantiser_map), as a network takes them

A picture's examples follow one another and have one size, so that they stack into a batch. The same folder gives the
same bits in every run (`codecs.py`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import codecs, colour, demo, files, image, quantiser, stills, video

__all__ = ["COUNT", "CRFS", "QUALITIES", "SIDE", "Example", "Frame", "degraded", "exactly", "load", "network_inputs"]

COUNT = 8
"""Pictures, if there are so many."""

SIDE = 256
"""The most of a picture's height and width that is used, in pixels: what the largest network restores in a second."""

QUALITIES = (10, 30, 50, 70, 90)
"""Of JPEG."""

CRFS = (22, 30, 38)
"""Of H.264 by x264."""

Frame = NDArray[np.uint8]


class Example(NamedTuple):
    """A picture before and after a codec.

    Attributes:
        name: of the codec and its setting.
        original: uint8 `(height, width, 3)`, RGB.
        compressed: the same shape and dtype.
        quantiser_map: float32 `quantiser.map_shape(height, width)`, log2 steps, as the codec states it.
    """

    name: str
    original: Frame
    compressed: Frame
    quantiser_map: NDArray[np.float32]


def load(folder: Path | None = None, count: int = COUNT, side: int = SIDE) -> list[Frame]:
    """Reads pictures and cuts a part out of each, no two in a row of the same size.

    Args:
        folder: all pictures in it and below it are candidates; None for frames of the packaged demo's clip.
        count: of pictures, at most, evenly spaced among the sorted candidates.
        side: a part's height and width at most; up to 15 pixels less, so that padding is tried, too.

    Returns:
        uint8 `(height, width, 3)` arrays, RGB.

    Raises:
        ValueError: there is no picture, or one cannot be read.
        OSError: the file system does not give one.
    """
    parts = []
    for index, frame in enumerate(_evenly(*_candidates(folder), count)):
        height = min(frame.shape[0], side - 5 * index % 16)
        width = min(frame.shape[1], side - 11 * index % 16)
        # Left, middle, right, and so on: the middle of photographs is not all there is.
        top = (frame.shape[0] - height) * (index // 3 % 3) // 2
        left = (frame.shape[1] - width) * (index % 3) // 2
        parts.append(np.ascontiguousarray(frame[top : top + height, left : left + width]))
    return parts


def exactly(pictures: Sequence[Frame], height: int, width: int) -> list[Frame]:
    """Cuts pictures to one size, or repeats their last row and column up to it."""
    cut = [picture[:height, :width] for picture in pictures]
    missing = [(height - each.shape[0], width - each.shape[1]) for each in cut]
    return [
        np.pad(each, ((0, bottom), (0, right), (0, 0)), mode="edge")
        for each, (bottom, right) in zip(cut, missing, strict=True)
    ]


def degraded(
    pictures: Sequence[Frame], qualities: Sequence[int] = QUALITIES, crfs: Sequence[float] = CRFS
) -> list[Example]:
    """Compresses every picture in every way: JPEG (4:2:0) and a single frame of H.264, whose maps differ in space.

    Args:
        pictures: uint8 `(height, width, 3)`, RGB.
        qualities: of JPEG, 1 to 100, up is better.
        crfs: of x264, 0 to 51, down is better.

    Returns:
        The examples, picture by picture.
    """
    ways: list[tuple[str, Callable[[Frame], codecs.RoundTrip]]] = [
        *((f"jpeg {quality}", lambda frames, quality=quality: codecs.jpeg(frames, quality)) for quality in qualities),
        *((f"h264 {crf}", lambda frames, crf=crf: codecs.h264(frames, crf=crf)) for crf in crfs),
    ]
    examples = []
    for picture in pictures:
        for name, compress in ways:
            made = compress(picture[None])
            known = quantiser.constant_map(*picture.shape[:2]) if made.quantisers is None else made.quantisers[0]
            examples.append(Example(name, picture, made.frames[0], known))
    return examples


def network_inputs(examples: Sequence[Example], channels: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Returns the compressed pictures as a network takes them, each by itself.

    Args:
        examples: of `degraded`.
        channels: of the network's images: 3 for RGB, 1 for luma.

    Returns:
        Images `(1, height, width, channels)` in `[0, 1]`, padded to multiples of 16, and maps
        `(1, height / 16, width / 16, 1)`.
    """
    inputs = []
    for example in examples:
        images = image.to_float(image.pad_to_multiple(example.compressed, image.GRID))
        images = images if channels == 3 else image.rgb_to_ycbcr(images)[..., :1]
        inputs.append((images[None].astype(np.float32), example.quantiser_map[None, ..., None]))
    return inputs


def _candidates(folder: Path | None) -> tuple[int, Callable[[int], Frame]]:
    """How many pictures there are, and how to get one."""
    if folder is None:
        frames = [frame.image for frame in video.read_frames(demo.CLIP, quantisers=False)]
        return len(frames), lambda index: colour.to_rgb(frames[index])
    # Texts and videos may lie among them.
    named = sorted(path for path in folder.rglob("*") if path.is_file() and files.has_media_name(path))
    found = [path for path in named if stills.is_still(path)]
    if not found:
        raise ValueError(f"There is no picture in {folder}.")
    return len(found), lambda index: _read(found[index])


def _read(path: Path) -> Frame:
    pixels = stills.read(path).pixels
    return image.to_uint8(image.to_float(pixels))


def _evenly(total: int, get: Callable[[int], Frame], count: int) -> list[Frame]:
    # The middle of each of `count` equal shares: never the clip's first frame, which may be black.
    chosen = range(total) if total <= count else [(2 * index + 1) * total // (2 * count) for index in range(count)]
    return [get(index) for index in chosen]
