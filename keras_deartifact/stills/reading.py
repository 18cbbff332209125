"""Reading picture files."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from keras_deartifact import bounds
from keras_deartifact.stills import deep_png, deep_tiff, jpeg_segments, libtiff, png_chunks, tags, webp_chunks
from keras_deartifact.stills.still import COMMENT, DEEP_GREY_MODES, MOST_COLOURS, READ_FORMATS, Pixels, Still

Colours = frozenset[int]
"""Distinct colours, each as a number."""

_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
}

_SUBSAMPLINGS = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}

_LOSSY_TIFF_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
_ROWS_COUNTED = 64

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def is_still(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds pictures, judged by its content and not by its name.

    Args:
        path: the file.

    Returns:
        True for one in a format that `read` or `series` knows, False for anything else, a video or an empty file.

    Raises:
        ValueError: the file is a decompression bomb.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream:
        try:
            with libtiff.overheard(stream), opened(stream, path):
                pass
        except _NoImage:
            return False
    return True


def read(path: str | os.PathLike[str], *, inks: bool = False) -> Still:
    """Reads a picture with all that `write` needs to make a faithful copy.

    Args:
        path: the file; its name does not matter.
        inks: whether CMYK is read, too, as `Still.black` says; for callers that do not take its pixels for RGB.

    Returns:
        The picture, as stored: not turned by its EXIF orientation (a TIFF is, and then has none), not converted by its
        profile.

    Raises:
        ValueError: no picture, an empty, truncated or broken one, an animation, a decompression bomb, or a kind of
            pixels that can't be kept (see `stills`). One line, with the path.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream, libtiff.overheard(stream) as remarks, opened(stream, path) as image:
        _require_single(image)
        still = loaded(image, stream, inks)
    return dataclasses.replace(still, remarks=tuple(remarks))


def loaded(image: ImageFile.ImageFile, stream: BinaryIO, inks: bool) -> Still:
    """Reads the picture at which an image stands; see `read`.

    Args:
        image: what Pillow made of the stream, not loaded yet.
        stream: the file.
        inks: see `read`.

    Raises:
        Refused: a kind of pixels that can't be kept.
    """
    require_depth(image, stream, inks)
    if image.format in ("JPEG", "MPO") and jpeg_segments.is_arithmetic(stream):
        # libjpeg needs the whole file at once for it.
        image.decodermaxblock = stream.seek(0, os.SEEK_END)
    image_format = "JPEG" if image.format == "MPO" else str(image.format)
    more_pictures = False
    mode = image.mode
    tables, subsampling = _jpeg_structure(image)
    # Before the metadata: loading a TIFF turns it upright, and takes its orientation away.
    colour, alpha, black = pixels(image, stream)
    exif, xmp = tags.exif(image), tags.as_bytes(image.info.get("xmp"))
    icc_profile, dpi = image.info.get("icc_profile") or None, tags.dpi(image)
    photoshop = tags.photoshop(image)
    segments: list[tuple[int, bytes]] = []
    chunks: list[tuple[bytes, bytes]] = []
    # Pillow reads further frames from where it stands.
    place = stream.tell()
    stream.seek(0)
    if image_format == "JPEG":
        data = stream.read()
        photoshop, segments = jpeg_segments.kept(data)
        more_pictures = jpeg_segments.has_more_pictures(data)
    elif image_format == "PNG":
        photoshop, chunks = png_chunks.kept(stream.read())
    elif image_format == "GIF" and (comment := image.info.get("comment")):
        segments = [(COMMENT, comment)]
    lossless = _is_lossless(image, stream)
    stream.seek(place)
    return Still(
        pixels=colour,
        alpha=alpha,
        mode=mode,
        format=image_format,
        jpeg_tables=tables,
        subsampling=subsampling,
        exif=exif,
        xmp=xmp,
        icc_profile=icc_profile,
        dpi=dpi,
        black=black,
        photoshop=photoshop,
        segments=tuple(segments),
        chunks=tuple(chunks),
        more_pictures=more_pictures,
        lossless=lossless,
    )


def counted(colour: Pixels, colours: Colours = frozenset()) -> Colours:
    """Adds the colours of a picture, `(height, width, 3)`, to those that were seen before, up to `MOST_COLOURS`."""
    for row in range(0, len(colour), _ROWS_COUNTED):
        if len(colours) == MOST_COLOURS:
            break
        red, green, blue = np.moveaxis(colour[row : row + _ROWS_COUNTED].astype(np.uint64), -1, 0)
        here = np.unique(red << 32 | green << 16 | blue)[:MOST_COLOURS].tolist()
        colours = frozenset(itertools.islice(colours.union(here), MOST_COLOURS))
    return colours


class _NoImage(ValueError):
    """The file is in none of READ_FORMATS."""


@contextmanager
def opened(stream: BinaryIO, path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image of a file, for a block in which errors are as `explained` has them."""
    with explained(stream, path), bounds.decoding(), Image.open(stream, formats=READ_FORMATS) as image:
        yield image


@contextmanager
def explained(stream: BinaryIO, path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever Pillow's parsers raise on a broken file becomes one kind of error with one line."""
    try:
        yield
    except UnidentifiedImageError as error:
        _refuse_pictures(stream, path)
        raise _NoImage(f"expected an image file. Received: path={os.fspath(path)}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(
            f"expected an image of at most {limit} pixels (--max-pixels allows more). Received: path={os.fspath(path)}"
        ) from error
    except Refused as error:
        raise ValueError(f"expected {error}. Received: path={os.fspath(path)}") from error
    except Exception as error:
        if "MAX_TEXT" in str(error):
            raise ValueError(
                f"expected texts and a colour profile of at most {PngImagePlugin.MAX_TEXT_CHUNK} bytes each, and of "
                f"{PngImagePlugin.MAX_TEXT_MEMORY} together. Received: path={os.fspath(path)}"
            ) from error
        # Pillow's parsers also let out SyntaxError, struct.error, EOFError, IndexError, KeyError, zlib.error, ...
        reason = str(error) or type(error).__name__
        raise ValueError(f"expected a whole image file ({reason}). Received: path={os.fspath(path)}") from error


class Refused(Exception):
    """What was expected; `opened` adds the path."""


def _refuse_pictures(stream: BinaryIO, path: str | os.PathLike[str]) -> None:
    """Raises for pictures that Pillow does not read, but which would pass for a video.

    A still in HEVC, or in AV1 and broken, for one of one frame, or of its tiles; a broken animation, too, and there are
    some at which ffmpeg crashes.
    """
    stream.seek(0)
    start = stream.read(64)
    if start.startswith((png_chunks.SIGNATURE, b"GIF8")) or (start[:4], start[8:12]) == (b"RIFF", b"WEBP"):
        raise ValueError(f"expected a whole image file (its header is broken). Received: path={os.fspath(path)}")
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, len(start), 4))}
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        raise ValueError(
            f"expected an AVIF that Pillow reads, whole and not too large. Received: path={os.fspath(path)}"
        )
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and brands & set(_HEIC_BRANDS):
        raise ValueError(
            f"expected a picture that Pillow reads, not HEIC; convert it to PNG or TIFF first, for example with "
            f"heif-convert. Received: path={os.fspath(path)}"
        )


def _require_single(image: Image.Image) -> None:
    # A multi-picture JPEG holds previews or a second view beside the one that every viewer shows.
    if image.format == "MPO":
        return
    if image.format == "TIFF":
        # Not `n_frames`, which reads the directories of all pages and looks for each in a list of those before it.
        with contextlib.suppress(EOFError):
            image.seek(1)
            raise Refused("one still picture, not several pages")
        return
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise Refused(f"one still picture, not {count} frames")


def require_depth(image: ImageFile.ImageFile, stream: BinaryIO, inks: bool) -> None:
    """Refuses what Pillow would give with fewer bits than the file has, or in another range or sense."""
    if image.mode == "CMYK" and inks:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and _tiff_bits(image) != {8}:
            raise Refused(f"CMYK TIFF of 8 bits, not {max(_tiff_bits(image))}")
        return
    if image.mode not in _MODES and image.mode not in DEEP_GREY_MODES:
        raise Refused(f"grey or RGB of 8 or 16 bits, not mode {image.mode}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = _tiff_bits(image)
        if image.mode in DEEP_GREY_MODES:
            if bits != {16}:
                raise Refused(f"grey TIFF of 8 or 16 bits, not {max(bits)}")
            if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
                raise Refused("16-bit grey TIFF in which 0 is black")
        elif max(bits) > 8 and not deep_tiff.is_deep(image):
            raise Refused(f"colour TIFF of 8 bits, or 16 bits of RGB or RGBA, not {max(bits)} of another kind")
    elif deep_png.is_deep(image):
        if deep_png.has_grey_alpha(image):
            raise Refused("16-bit grey PNG without alpha")
        if "transparency" in image.info:
            raise Refused("16-bit PNG without a transparent colour")
    elif image.format == "AVIF":
        stream.seek(0)
        # What configures the decoder: version, profile and level, then the tier and whether there are 10 or 12 bits.
        configuration = stream.read().partition(b"av1C")[2][:3]
        if len(configuration) < 3 or configuration[2] & 0x40:
            raise Refused("AVIF of 8 bits; convert it to a 16-bit PNG first, for example with avifdec")


def _is_lossless(image: ImageFile.ImageFile, stream: BinaryIO) -> bool:
    """Whether what a file says of itself is that nothing was lost in it."""
    if image.format == "TIFF":
        return image.info.get("compression") not in _LOSSY_TIFF_COMPRESSIONS
    if image.format == "WEBP":
        stream.seek(0)
        found = list(webp_chunks.chunks(stream.read()))
        # The picture of an animation of one frame lies in that, behind 16 bytes.
        inner = [each for kind, content in found if kind == b"ANMF" for each in webp_chunks.chunks(content, 16)]
        return any(kind == b"VP8L" for kind, _ in found + inner)
    return image.format in ("PNG", "GIF", "BMP")


def _tiff_bits(image: TiffImagePlugin.TiffImageFile) -> set[int]:
    return {int(each) for each in image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))}


def pixels(image: ImageFile.ImageFile, stream: BinaryIO) -> tuple[Pixels, Pixels | None, Pixels | None]:
    """The colour `(height, width, 3)`, alpha and black, both `(height, width)`, of an image that is not loaded yet."""
    samples: Pixels
    if image.mode in DEEP_GREY_MODES:
        samples = np.asarray(image).astype(np.uint16)[..., np.newaxis]
    elif deep_png.is_deep(image):
        samples = deep_png.read(image, stream)
    elif deep_tiff.is_deep(image):
        samples = deep_tiff.read(image, stream)
    elif image.mode == "CMYK":
        samples = 255 - np.asarray(image)
        return np.ascontiguousarray(samples[..., :3]), None, samples[..., 3].copy()
    else:
        mode = _MODES[image.mode]
        # A colour or palette entry that stands for transparent; a grey or RGB image has no other alpha.
        if "transparency" in image.info and mode in ("L", "RGB"):
            mode += "A"
        samples = np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    channels = samples.shape[-1]
    alpha = samples[..., -1].copy() if channels in (2, 4) else None
    if channels <= 2:
        return np.repeat(samples[..., :1], 3, axis=-1), alpha, None
    return np.ascontiguousarray(samples[..., :3]), alpha, None


def _jpeg_structure(image: Image.Image) -> tuple[list[list[int]] | None, str | None]:
    """The quantisation table of each component, and the chroma subsampling."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None, None
    tables = [list(image.quantization[table]) for _, _, _, table in image.layer]
    if len(image.layer) != 3:
        return tables, None
    luma, blue_difference, red_difference = [(across, down) for _, across, down, _ in image.layer]
    if blue_difference != red_difference or luma[0] % blue_difference[0] or luma[1] % blue_difference[1]:
        return tables, None
    return tables, _SUBSAMPLINGS.get((luma[0] // blue_difference[0], luma[1] // blue_difference[1]))
