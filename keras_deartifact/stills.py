"""Image files: pixels at their full depth, and everything around the pixels that a restored copy has to keep.

`read` gives a `Still`; `write` takes restored pixels and the `Still` they came from as a template, and carries over
alpha, EXIF, XMP, ICC profile and resolution. Pixels are as stored: the orientation stays in EXIF, colours stay in the
file's own profile.

| read as | from |
|---|---|
| uint8 | JPEG (a multi-picture JPEG: its first picture), PNG, WebP, TIFF, GIF, BMP |
| uint16 | 16-bit grey PNG and TIFF, 16-bit RGB and RGBA PNG |

Refused with a `ValueError`, for what a copy would lose without a word: animations and files of several pages, CMYK
and Lab, 16-bit colour TIFF, 16-bit grey with alpha, 16-bit PNG with a transparent colour, 9 to 15 bits, 32-bit and
floating-point pixels.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from keras_deartifact import deep_png

# Pillow also takes MPEG streams and icons for images, and reads JPEG 2000, PNM and AVIF of more than 8 bits as 8.
READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")

WRITE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

JPEG_QUALITY = 98
"""What a JPEG is written at by default, with 4:4:4.

A restored picture shall not lose again what it gained. Of a picture half a decibel to one better than a quality-40 JPEG
of LIVE1, quality 95 costs another 0.4 dB, 98 costs 0.1, for half as many bytes again."""

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
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "LA", "La", *_DEEP_GREY)

_SUBSAMPLINGS = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}

# In TIFF the EXIF tags share a directory with those that lay out the pixels; only these describe the picture.
_DESCRIPTIVE_TAGS = (270, 271, 272, 274, 305, 306, 315, 316, 33432)
_EXIF_DIRECTORIES = (0x8769, 0x8825)
_EXIF_HEADER = b"Exif\x00\x00"

Pixels = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Still:
    """One picture of a file.

    Attributes:
        pixels: uint8 or uint16 array `(height, width, 3)`, RGB over the full range; grey has three equal channels.
        alpha: array `(height, width)` of the same dtype, not premultiplied, or None.
        mode: Pillow's name for the pixels as stored: `L`, `RGB`, `P`, ... A mode of grey makes `write` write grey.
        format: Pillow's name for the file's format.
        jpeg_tables: quantisation table of each component (luma first) as 64 steps, row by row (not in zigzag order);
            None for other formats.
        subsampling: chroma subsampling of a JPEG as in `4:2:0`; None for grey, other formats and odd factors.
        exif: EXIF block, beginning with `Exif` and two zero bytes, or None.
        xmp: XMP packet, or None.
        icc_profile: ICC profile, or None.
        dpi: horizontal and vertical resolution in dots per inch, or None.
    """

    pixels: Pixels
    alpha: Pixels | None
    mode: str
    format: str
    jpeg_tables: list[list[int]] | None = None
    subsampling: str | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None


def is_still(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds one still picture, judged by its content and not by its name.

    Args:
        path: the file.

    Returns:
        True for a picture in a format that `read` knows, False for anything else, a video or an empty file.

    Raises:
        ValueError: the file is an animation or has several pages, or it is a decompression bomb.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream:
        try:
            with _opened(stream, path) as image:
                _require_single(image)
        except _NoImage:
            return False
    return True


def read(path: str | os.PathLike[str]) -> Still:
    """Reads a picture with all that `write` needs to make a faithful copy.

    Args:
        path: the file; its name does not matter.

    Returns:
        The picture, as stored: not turned by its EXIF orientation (a TIFF is, and then has none), not converted by its
        profile.

    Raises:
        ValueError: no picture, an empty, truncated or broken one, an animation, a decompression bomb, or a kind of
            pixels that can't be kept (see above). One line, with the path.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream, _opened(stream, path) as image:
        _require_single(image)
        _require_depth(image)
        image_format = "JPEG" if image.format == "MPO" else str(image.format)
        mode = image.mode
        tables, subsampling = _jpeg_structure(image)
        # Before the metadata: loading a TIFF turns it upright, and takes its orientation away.
        colour, alpha = _pixels(image, stream)
        return Still(
            pixels=colour,
            alpha=alpha,
            mode=mode,
            format=image_format,
            jpeg_tables=tables,
            subsampling=subsampling,
            exif=_exif(image),
            xmp=_as_bytes(image.info.get("xmp")),
            icc_profile=image.info.get("icc_profile") or None,
            dpi=_dpi(image),
        )


def write(
    path: str | os.PathLike[str],
    pixels: Pixels,
    template: Still | None = None,
    *,
    quality: int | None = None,
    format: str | None = None,
) -> None:
    """Writes a picture to exactly this path.

    Nothing is written before the whole file is encoded. A JPEG is written with 4:4:4, WebP without loss unless a
    quality is given (its lossy form always has 4:2:0), TIFF with Deflate unless it has EXIF. PNG and TIFF take no
    notice of `quality`.

    Args:
        path: where to; its extension gives the format unless `format` does.
        pixels: uint8 or uint16 array `(height, width, 3)` of RGB, or `(height, width)` of grey.
        template: where alpha, EXIF, XMP, ICC profile, resolution and grey come from. EXIF and XMP go into every format,
            the resolution into JPEG, PNG and TIFF.
        quality: of JPEG and WebP, 1 to 100, up is better; the default is `JPEG_QUALITY`, and no loss for WebP.
        format: `JPEG`, `PNG`, `WEBP` or `TIFF`, for a name that does not say.

    Raises:
        ValueError: the format is none of these or can't hold the pixels: alpha in JPEG (unless it is opaque all over),
            16 bits in JPEG and WebP, 16-bit colour in TIFF, 16-bit grey with alpha; or arrays that do not match; or
            the format can't hold the metadata (JPEG takes 64 KB of EXIF).
        OSError: the file system does not take it.
    """
    path = Path(path)
    image_format = _write_format(path, format)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"expected quality 1 to 100. Received: quality={quality}")
    picture = _compose(pixels, template, image_format)
    try:
        encoded = _encode(picture, image_format, _options(template, image_format, quality))
    except Exception as error:
        # Pillow raises ValueError, OSError, RuntimeError, struct.error, ... for metadata that do not fit.
        raise ValueError(f"expected a picture that {image_format} can hold ({error}). Received: path={path}") from error
    path.write_bytes(encoded)


class _NoImage(ValueError):
    """The file is in none of READ_FORMATS."""


@contextmanager
def _opened(stream: BinaryIO, path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image; whatever its parsers raise on a broken file becomes one kind of error with one line."""
    try:
        with Image.open(stream, formats=READ_FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise _NoImage(f"expected an image file. Received: path={os.fspath(path)}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"expected an image of at most {limit} pixels. Received: path={os.fspath(path)}") from error
    except _Refused as error:
        raise ValueError(f"expected {error}. Received: path={os.fspath(path)}") from error
    except Exception as error:
        # Pillow's parsers also let out SyntaxError, struct.error, EOFError, IndexError, KeyError, zlib.error, ...
        reason = str(error) or type(error).__name__
        raise ValueError(f"expected a whole image file ({reason}). Received: path={os.fspath(path)}") from error


class _Refused(Exception):
    """What was expected; `_opened` adds the path."""


def _require_single(image: Image.Image) -> None:
    # A multi-picture JPEG holds previews or a second view beside the one that every viewer shows.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        kind = "pages" if image.format == "TIFF" else "frames"
        raise _Refused(f"one still picture, not {count} {kind}")


def _require_depth(image: ImageFile.ImageFile) -> None:
    """Refuses what Pillow would give with fewer bits than the file has, or in another range or sense."""
    if image.mode not in _MODES and image.mode not in _DEEP_GREY:
        raise _Refused(f"grey or RGB of 8 or 16 bits, not mode {image.mode}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = {int(each) for each in image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))}
        if image.mode in _DEEP_GREY:
            if bits != {16}:
                raise _Refused(f"grey TIFF of 8 or 16 bits, not {max(bits)}")
            if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
                raise _Refused("16-bit grey TIFF in which 0 is black")
        elif max(bits) > 8:
            raise _Refused(f"colour TIFF of 8 bits, not {max(bits)}")
    elif deep_png.is_deep(image):
        if deep_png.has_grey_alpha(image):
            raise _Refused("16-bit grey PNG without alpha")
        if "transparency" in image.info:
            raise _Refused("16-bit PNG without a transparent colour")


def _pixels(image: ImageFile.ImageFile, stream: BinaryIO) -> tuple[Pixels, Pixels | None]:
    """The colour `(height, width, 3)` and the alpha `(height, width)` of an image that is not loaded yet."""
    samples: Pixels
    if image.mode in _DEEP_GREY:
        samples = np.asarray(image).astype(np.uint16)[..., np.newaxis]
    elif deep_png.is_deep(image):
        samples = deep_png.read(image, stream)
    else:
        mode = _MODES[image.mode]
        # A colour or palette entry that stands for transparent; a grey or RGB image has no other alpha.
        if "transparency" in image.info and mode in ("L", "RGB"):
            mode += "A"
        samples = np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    channels = samples.shape[-1]
    alpha = samples[..., -1].copy() if channels in (2, 4) else None
    if channels <= 2:
        return np.repeat(samples[..., :1], 3, axis=-1), alpha
    return np.ascontiguousarray(samples[..., :3]), alpha


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


def _exif(image: Image.Image) -> bytes | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = _descriptive(image.getexif())
        return tags.tobytes() if len(tags) else None
    block = _as_bytes(image.info.get("exif"))
    if block is None:
        return None
    # WebP stores it without the header that JPEG needs.
    return block if block.startswith(_EXIF_HEADER) else _EXIF_HEADER + block


def _descriptive(tags: Image.Exif) -> Image.Exif:
    """The tags that describe the picture, without those that lay out a TIFF or a thumbnail."""
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIPTIVE_TAGS if tag in tags})
    for directory in _EXIF_DIRECTORIES:
        if entries := tags.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
            kept[directory] = kept.get_ifd(directory)
    return kept


def _as_bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text or None


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    across, down = (float(each) for each in image.info.get("dpi", (0, 0)))
    # Broken headers hold 0, and a rational with denominator 0 is NaN.
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _write_format(path: Path, given: str | None) -> str:
    known = sorted(set(WRITE_FORMATS.values()))
    if given is not None:
        if given not in known:
            raise ValueError(f"expected one of the formats {known}. Received: format={given!r}")
        return given
    if path.suffix.lower() not in WRITE_FORMATS:
        raise ValueError(f"expected a name ending in one of {sorted(WRITE_FORMATS)}. Received: path={path}")
    return WRITE_FORMATS[path.suffix.lower()]


def _compose(pixels: Pixels, template: Still | None, image_format: str) -> Pixels:
    """Colour or grey with its alpha: `(height, width)`, or `(height, width, 2)` to 4 channels."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected pixels of dtype uint8 or uint16. Received: pixels.dtype={pixels.dtype}")
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)):
        raise ValueError(
            f"expected pixels of shape (height, width, 3) or (height, width). Received: pixels.shape={pixels.shape}"
        )
    if template is not None and pixels.shape[:2] != template.pixels.shape[:2]:
        raise ValueError(
            f"expected pixels as large as the template, {template.pixels.shape[:2]}. "
            f"Received: pixels.shape={pixels.shape}"
        )
    if pixels.ndim == 3 and template is not None and template.mode in _GREY:
        pixels = _grey(pixels)
    grey = pixels.ndim == 2
    alpha = template.alpha if template is not None else None
    if alpha is not None and image_format == "JPEG" and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    if alpha is not None and alpha.dtype != pixels.dtype:
        raise ValueError(f"expected pixels of the alpha's dtype {alpha.dtype}. Received: pixels.dtype={pixels.dtype}")
    if alpha is not None and image_format == "JPEG":
        raise ValueError("expected PNG, WEBP or TIFF for a picture with alpha. Received: format=JPEG")
    if pixels.dtype == np.uint16:
        allowed = ("PNG", "TIFF") if grey else ("PNG",)
        if image_format not in allowed:
            kind = "grey" if grey else "colour"
            raise ValueError(f"expected one of {allowed} for 16-bit {kind}. Received: format={image_format}")
        if grey and alpha is not None:
            raise ValueError(f"expected 16-bit grey without alpha. Received: alpha.dtype={alpha.dtype}")
    if alpha is None:
        return np.ascontiguousarray(pixels)
    return np.dstack([pixels, alpha])


def _grey(pixels: Pixels) -> Pixels:
    """Luma as in `image.luma`, of 8 or 16 bits; a picture with three equal channels gives exactly that channel."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    total: Pixels = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return total.astype(pixels.dtype)


def _options(template: Still | None, image_format: str, quality: int | None) -> dict[str, Any]:
    """Pillow's options: how to compress, and the metadata."""
    options = {} if template is None else _metadata(template, image_format)
    if image_format == "JPEG":
        options |= {"quality": quality or JPEG_QUALITY, "subsampling": 0, "optimize": True}
    elif image_format == "WEBP":
        # Without exact, WebP blackens what alpha hides.
        options |= {"lossless": quality is None, "quality": quality or 80, "exact": True}
    elif image_format == "TIFF" and "exif" not in options:
        # Pillow writes no EXIF directory through libtiff, and libtiff does all compression.
        options["compression"] = "tiff_adobe_deflate"
    return options


def _metadata(template: Still, image_format: str) -> dict[str, Any]:
    options: dict[str, Any] = {"exif": template.exif, "icc_profile": template.icc_profile}
    if image_format != "WEBP":
        options["dpi"] = template.dpi
    if template.xmp and image_format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", template.xmp.decode("utf-8", "replace"))
    elif template.xmp and image_format != "TIFF":
        options["xmp"] = template.xmp
    if image_format == "TIFF":
        options |= _tiff_tags(template)
    return {name: value for name, value in options.items() if value is not None}


def _tiff_tags(template: Still) -> dict[str, Any]:
    """EXIF and XMP for a TIFF, where both are tags; Pillow takes them from either `exif` or `tiffinfo`, never both."""
    xmp = {TiffImagePlugin.XMP: template.xmp} if template.xmp else {}
    if template.exif is None:
        return {"tiffinfo": xmp} if xmp else {}
    tags = Image.Exif()
    tags.load(template.exif)
    tags = _descriptive(tags)
    tags.update(xmp)
    return {"exif": tags}


def _encode(picture: Pixels, image_format: str, options: dict[str, Any]) -> bytes:
    if picture.dtype == np.uint16 and picture.ndim == 3:
        return deep_png.encode(picture, **options)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, image_format, **options)
    return buffer.getvalue()
