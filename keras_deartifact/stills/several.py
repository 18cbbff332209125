"""Several pictures in one file: the frames of an animated GIF, PNG or WebP, and the pages of a TIFF.

Frames are as they are seen, whatever part of the picture the file changes from one to the next. One is in memory at a
time, beside the file itself.
"""

import dataclasses
import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from keras_deartifact import bounds
from keras_deartifact.stills import deep_png, libtiff, png_chunks, webp_chunks
from keras_deartifact.stills.reading import (
    Colours,
    Refused,
    counted,
    explained,
    loaded,
    opened,
    pixels,
    read,
    require_depth,
)
from keras_deartifact.stills.still import DEEP_GREY_MODES, MOST_COLOURS, READ_FORMATS, Still

PAGES, FRAMES = "pages", "frames"

MOST = 10_000
"""Of pages, at most: Pillow looks for each in a list of all before it."""


@dataclass(frozen=True)
class Series:
    """Several pictures in one file.

    Attributes:
        kind: `PAGES`, each a picture of its own, or `FRAMES` of an animation, all of one size.
        count: how many.
        durations: of frames, in milliseconds: exact.
        plays: how often an animation is shown, 0 for without end.
        stands_apart: whether the first frame is shown only where an animation cannot be (PNG).
        has_alpha: whether a frame has.
        lossless: see `Still.lossless`.
        colours: see `Still.colours`.
    """

    kind: str
    count: int
    durations: tuple[Fraction, ...] = ()
    plays: int = 1
    stands_apart: bool = False
    has_alpha: bool = False
    lossless: bool = False
    colours: int | None = None

    def without_the_first(self) -> "Series":
        """The same without a frame that stands apart."""
        return dataclasses.replace(self, count=self.count - 1, durations=self.durations[1:], stands_apart=False)


def series(path: str | os.PathLike[str]) -> Series | None:
    """Looks for several pictures in a file of pictures.

    Args:
        path: the file.

    Returns:
        What they are; None where there is one only, and for formats of which `read` takes the first or none.

    Raises:
        ValueError: no picture, a broken file, or pictures that cannot be kept (see `stills`) or are too many. One line,
            with the path.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream, libtiff.overheard(stream), opened(stream, path) as image:
        if image.format == "TIFF":
            return _pages(image, stream)
        if image.format not in ("GIF", "PNG", "WEBP") or getattr(image, "n_frames", 1) == 1:
            return None
        count: int = getattr(image, "n_frames", 1)
        if image.mode in DEEP_GREY_MODES or deep_png.is_deep(image):
            raise Refused("an animation of 8 bits")
        _require_room(count * image.width * image.height, count)
        if image.format == "GIF":
            return _gif(image, count)
        place = stream.tell()
        stream.seek(0)
        find = _png if image.format == "PNG" else _webp
        found = find(image, stream.read())
        stream.seek(place)
        if len(found.durations) != count:
            raise Refused(f"{count} frames, as the file states, not {len(found.durations)}")
        if not found.lossless:
            return found
        colours: Colours = frozenset()
        for index in range(count):
            image.seek(index)
            colours = counted(np.asarray(image.convert("RGB")), colours)
            if len(colours) == MOST_COLOURS:
                break
        return dataclasses.replace(found, colours=len(colours))


def read_each(path: str | os.PathLike[str], found: Series, *, inks: bool = False) -> Iterator[Still]:
    """Reads the pictures of a file one after another.

    Args:
        path: the file.
        found: what `series` says of it.
        inks: see `read`.

    Yields:
        What `read` gives of a picture. The frames of an animation have the metadata of the first, and alpha either all
        or none.

    Raises:
        ValueError: see `read`; or a frame of another size.
        OSError: the file system does not give it.
    """
    first: Still | None = None
    with open(path, "rb") as stream:
        with libtiff.overheard(stream), explained(stream, path), bounds.decoding():
            image = Image.open(stream, formats=READ_FORMATS)
        with image:
            for index in range(found.count):
                # The caller's work between two pictures has its own errors and its own time.
                with explained(stream, path), bounds.decoding():
                    if found.kind == PAGES:
                        still = _page(image, stream, index, inks)
                    else:
                        image.seek(index)
                        still = first = _frame(image, stream, first, found)
                yield still


def read_at(path: str | os.PathLike[str], index: int, *, inks: bool = False) -> Still:
    """Reads one of the pictures of a file, which may have one only.

    Args:
        path: the file.
        index: of the picture, from 0.
        inks: see `read`.

    Raises:
        ValueError: what `read`, `series` or `read_each` raises.
        OSError: the file system does not give it.
    """
    found = series(path)
    if found is None:
        return read(path, inks=inks)
    return next(itertools.islice(read_each(path, found, inks=inks), index, None))


def _page(image: ImageFile.ImageFile, stream: BinaryIO, index: int, inks: bool) -> Still:
    stream.seek(0)
    with libtiff.overheard(stream) as remarks:
        image.seek(index)
        still = loaded(image, stream, inks)
    return dataclasses.replace(still, remarks=tuple(remarks))


def _frame(image: ImageFile.ImageFile, stream: BinaryIO, first: Still | None, found: Series) -> Still:
    """A frame, with the metadata of the first."""
    if first is None:
        still = loaded(image, stream, False)
        mode = "RGB" if still.format == "GIF" else still.mode
        still = dataclasses.replace(still, mode=mode, lossless=found.lossless, colours=found.colours)
    else:
        colour, alpha, _ = pixels(image, stream)
        if colour.shape != first.pixels.shape:
            raise Refused("frames of one size")
        still = dataclasses.replace(first, pixels=colour, alpha=alpha)
    alpha = np.full(still.pixels.shape[:2], 255, np.uint8) if still.alpha is None else still.alpha
    return dataclasses.replace(still, alpha=alpha if found.has_alpha else None)


def _require_room(pixels: int, count: int) -> None:
    most = bounds.series_pixels()
    if pixels > most:
        raise Refused(f"at most {most} pixels in {count} pictures (--max-pixels allows more)")


def _pages(image: ImageFile.ImageFile, stream: BinaryIO) -> Series | None:
    total = count = 0
    while True:
        require_depth(image, stream, True)
        # Pillow looks at the size of the first page only.
        Image._decompression_bomb_check(image.size)
        total, count = total + image.width * image.height, count + 1
        _require_room(total, count)
        # Not `n_frames`, which has no bound.
        try:
            image.seek(count)
        except EOFError:
            break
        if count == MOST:
            raise Refused(f"at most {MOST} pages")
    return None if count == 1 else Series(PAGES, count)


def _gif(image: ImageFile.ImageFile, count: int) -> Series:
    durations, has_alpha = [], False
    colours: Colours = frozenset()
    for index in range(count):
        image.seek(index)
        durations.append(Fraction(image.info.get("duration", 0)))
        rgba = np.asarray(image.convert("RGBA"))
        has_alpha = has_alpha or bool((rgba[..., 3] < 255).any())
        colours = counted(rgba[..., :3], colours)
    # What a GIF states is how often it is shown again; browsers and libwebp agree.
    repeats = image.info.get("loop")
    plays = 1 if repeats is None else repeats + 1 if repeats else 0
    return Series(FRAMES, count, tuple(durations), plays, False, has_alpha, True, len(colours))


def _png(image: ImageFile.ImageFile, data: bytes) -> Series:
    durations = []
    for kind, content in png_chunks.chunks(data):
        if kind == b"fcTL":
            numerator, denominator = struct.unpack_from(">HH", content, 20)
            durations.append(Fraction(1000 * numerator, denominator or 100))
    stands_apart = bool(getattr(image, "default_image", False))
    if stands_apart:
        durations.insert(0, Fraction(0))
    has_alpha = image.mode.endswith("A") or "transparency" in image.info
    plays = image.info.get("loop", 0)
    return Series(FRAMES, len(durations), tuple(durations), plays, stands_apart, has_alpha, True)


def _webp(image: ImageFile.ImageFile, data: bytes) -> Series:
    frames = [content for kind, content in webp_chunks.chunks(data) if kind == b"ANMF"]
    durations = tuple(Fraction(int.from_bytes(content[12:15], "little")) for content in frames)
    # Before the picture of a frame are 16 bytes of its own, and where it has alpha without loss, a chunk of that.
    lossless = all(b"VP8L" in {kind for kind, _ in webp_chunks.chunks(content, 16)} for content in frames)
    plays, has_alpha = image.info["loop"], image.mode == "RGBA"
    return Series(FRAMES, len(frames), durations, plays, False, has_alpha, lossless)
