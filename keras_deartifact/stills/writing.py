"""Writing picture files."""

import dataclasses
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_deartifact.stills import animation, deep_png, deep_tiff, jpeg_segments, pages, tags
from keras_deartifact.stills.several import FRAMES, PAGES, Series
from keras_deartifact.stills.still import COMMENT, DEEP_FORMATS, GREY_MODES, WRITE_FORMATS, Pixels, Still

_APP1 = 0xE1

JPEG_QUALITY = 98
"""What a JPEG is written at by default, with 4:4:4.

A restored picture shall not lose again what it gained. Of a picture half a decibel to one better than a quality-40 JPEG
of LIVE1, quality 95 costs another 0.4 dB, 98 costs 0.1, for half as many bytes again."""


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
        template: where alpha, the black of CMYK, EXIF, XMP, ICC profile, resolution and grey come from. EXIF and XMP go
            into every format, the resolution into JPEG, PNG and TIFF; `left_out` names what does not.
        quality: of JPEG and WebP, 1 to 100, up is better; the default is `JPEG_QUALITY`, and no loss for WebP.
        format: `JPEG`, `PNG`, `WEBP` or `TIFF`, for a name that does not say.

    Raises:
        ValueError: the format is none of these or can't hold the pixels: alpha in JPEG (unless it is opaque all over),
            16 bits in JPEG and WebP, 16-bit grey with alpha, CMYK in PNG and WebP; or arrays that do not match; or the
            format can't hold the metadata (JPEG takes 64 KB of EXIF).
        OSError: the file system does not take it.
    """
    path = Path(path)
    path.write_bytes(_encoded(path, pixels, template, quality, _write_format(path, format)))


def require(path: str | os.PathLike[str], template: Still, *, quality: int | None = None, bits: int = 8) -> None:
    """Checks before any work that `write` can write the restored copy of a picture to a path.

    Args:
        path: where to; its extension gives the format.
        template: the picture.
        quality: see `write`.
        bits: of a sample of the copy, 8 or 16.

    Raises:
        ValueError: the format can't hold the pixels, see `write`; or a number is out of range.
    """
    _check_quality(quality)
    pixels = template.pixels if bits == 8 else template.pixels.astype(np.uint16)
    _compose(pixels, in_depth(template, pixels.dtype), _write_format(Path(path), None))


def write_each(
    path: str | os.PathLike[str],
    copies: Iterable[tuple[Pixels, Still]],
    found: Series,
    *,
    quality: int | None = None,
) -> None:
    """Writes an animation, or a TIFF of several pages, to exactly this path.

    Each picture is encoded as `write` does it, and written before the next is asked for. Of a frame, only the rectangle
    that changes is.

    Args:
        path: where to; its extension gives the format.
        copies: pixels and template of each picture, see `write`. An animation has the metadata of its first frame.
        found: what the pictures were in the file that they come from.
        quality: see `write`.

    Raises:
        ValueError: what `write` raises, or a format that cannot hold several pictures.
        OSError: the file system does not take it.
    """
    path = Path(path)
    image_format = _series_format(path, found)
    _check_quality(quality)
    with path.open("wb") as file:
        if image_format == "TIFF":
            pages.write_tiff(file, (_encoded(path, *copy, quality, image_format) for copy in copies))
        elif image_format == "PNG":
            animation.write_png(file, _parts(path, copies, image_format, quality), found)
        else:
            animation.write_webp(file, _parts(path, copies, image_format, quality), found)


def _parts(
    path: Path, copies: Iterable[tuple[Pixels, Still]], image_format: str, quality: int | None
) -> Iterator[animation.Part]:
    """The frames of an animation, of which the first holds the metadata."""
    before: Pixels | None = None
    for pixels, template in copies:
        picture = _compose(pixels, template, image_format)
        height, width = picture.shape[:2]
        top, left = 0, 0
        if before is not None:
            top, left, height, width = _changed(before, picture)
        options = _options(template if before is None else None, image_format, quality)
        part = np.ascontiguousarray(picture[top : top + height, left : left + width])
        with _explained(path, image_format):
            encoded = _encode(part, image_format, False, options)
        yield animation.Part(left, top, width, height, encoded)
        before = picture


def _changed(before: Pixels, picture: Pixels) -> tuple[int, int, int, int]:
    """Top, left, height and width of what differs, from even places on; a single pixel where nothing does."""
    differs = (before != picture).reshape(*picture.shape[:2], -1).any(axis=2)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0, 0, 1, 1
    top, left = (int(places[0]) // 2 * 2 for places in (rows, columns))
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def _series_format(path: Path, found: Series) -> str:
    """The format that a file's name asks for, if it holds what was found."""
    holding = {FRAMES: (".png", ".webp"), PAGES: (".tif", ".tiff")}[found.kind]
    if path.suffix.lower() not in holding:
        what = "an animation" if found.kind == FRAMES else "several pages"
        raise ValueError(
            f"expected a name that ends in {' or '.join(holding)} for {what}, here {found.count} {found.kind}. "
            f"Received: path={path}"
        )
    return WRITE_FORMATS[path.suffix.lower()]


def holds_one_apart(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name holds a picture for where an animation cannot be shown."""
    return _write_format(Path(path), None) == "PNG"


def require_each(
    path: str | os.PathLike[str], first: Still, found: Series, *, quality: int | None = None, bits: int = 8
) -> None:
    """Checks before any work that `write_each` can write the restored copy of several pictures to a path.

    Args:
        path: where to; its extension gives the format.
        first: the first picture.
        found: what the pictures are.
        quality: see `write`.
        bits: of a sample of the copy of the first, 8 or 16.

    Raises:
        ValueError: see `require`; or a format that cannot hold several pictures.
    """
    _series_format(Path(path), found)
    require(path, first, quality=quality, bits=bits)


def in_depth(template: Still, dtype: np.dtype[Any]) -> Still:
    """A template for pixels of a dtype: one of 8 bits gets an alpha of 16 where that is asked for."""
    if template.alpha is None or template.alpha.dtype == dtype or dtype != np.uint16:
        return template
    return dataclasses.replace(template, alpha=template.alpha.astype(np.uint16) * np.uint16(257))


def left_out(path: str | os.PathLike[str], template: Still, found: Series | None = None) -> tuple[str, ...]:
    """Names what belongs to a picture and does not get into its copy, with the formats that hold it.

    Args:
        path: of the copy; its extension gives the format.
        template: the picture, or the first of several.
        found: what several are.
    """
    durations = () if found is None else found.durations
    image_format = _write_format(Path(path), None)
    markers = [marker for marker, _ in template.segments]
    extended = any(content.startswith(jpeg_segments.EXTENDED_XMP_HEADER) for _, content in template.segments)
    others = [marker for marker, content in template.segments if marker != COMMENT and marker != _APP1]
    missing = {
        "the further pictures of a multi-picture JPEG": template.more_pictures,
        "IPTC and other Photoshop resources (JPEG, PNG and TIFF hold them)": template.photoshop is not None
        and image_format == "WEBP",
        "the comment (JPEG and PNG hold it)": COMMENT in markers and image_format in ("WEBP", "TIFF"),
        "the resolution (JPEG, PNG and TIFF hold it)": template.dpi is not None
        and image_format == "WEBP"
        and not tags.states_resolution(template.exif),
        "extended XMP (JPEG holds it)": extended and image_format != "JPEG",
        "application segments (JPEG holds them)": bool(others) and image_format != "JPEG",
        "texts and colour chunks (PNG holds them)": bool(template.chunks) and image_format != "PNG",
        "fractions of milliseconds (PNG holds them)": image_format == "WEBP"
        and any(each.denominator > 1 for each in durations),
        "the picture for where an animation cannot be shown (PNG holds it)": image_format == "WEBP"
        and found is not None
        and found.stands_apart,
    }
    return tuple(name for name, applies in missing.items() if applies)


def loss(path: str | os.PathLike[str], quality: int | None = None) -> str | None:
    """What a file changes of its pixels.

    Args:
        path: as for `write`.
        quality: as for `write`.

    Returns:
        None where it has no loss; `blocks` where blocks of 8x8 pixels have nothing to do with each other, so that some
        rows of them alone come back as they do in the picture; `whole` where they do not.
    """
    image_format = _write_format(Path(path), None)
    if image_format == "WEBP":
        return None if quality is None else "whole"
    return "blocks" if image_format == "JPEG" else None


def read_back(path: str | os.PathLike[str], pixels: Pixels, *, quality: int | None = None) -> Pixels:
    """The pixels that a file written with these arguments gives back, without writing it.

    Args:
        path: as for `write`.
        pixels: as for `write`.
        quality: as for `write`.

    Returns:
        An array of the shape and dtype of `pixels`; `pixels` itself where the format has no loss.
    """
    if loss(path, quality) is None:
        return pixels
    encoded = _encoded(Path(path), pixels, None, quality, _write_format(Path(path), None))
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("L" if pixels.ndim == 2 else "RGB"))


def _encoded(path: Path, pixels: Pixels, template: Still | None, quality: int | None, image_format: str) -> bytes:
    _check_quality(quality)
    picture = _compose(pixels, template, image_format)
    with _explained(path, image_format):
        is_cmyk = template is not None and template.black is not None
        encoded = _encode(picture, image_format, is_cmyk, _options(template, image_format, quality))
        if template is not None and image_format == "JPEG":
            encoded = jpeg_segments.insert(encoded, template.photoshop, template.segments)
    return encoded


@contextmanager
def _explained(path: Path, image_format: str) -> Iterator[None]:
    """Whatever Pillow raises for metadata that do not fit becomes one kind of error with one line."""
    try:
        yield
    except Exception as error:
        # ValueError, OSError, RuntimeError, struct.error, ...
        raise ValueError(f"expected a picture that {image_format} can hold ({error}). Received: path={path}") from error


def _check_quality(quality: int | None) -> None:
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"expected quality 1 to 100. Received: quality={quality}")


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
    if pixels.ndim == 3 and template is not None and template.mode in GREY_MODES:
        pixels = _grey(pixels)
    grey = pixels.ndim == 2
    if template is not None and template.black is not None:
        return _inks(pixels, template.black, image_format)
    alpha = template.alpha if template is not None else None
    if alpha is not None and image_format == "JPEG" and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    if alpha is not None and alpha.dtype != pixels.dtype:
        raise ValueError(f"expected pixels of the alpha's dtype {alpha.dtype}. Received: pixels.dtype={pixels.dtype}")
    if alpha is not None and image_format == "JPEG":
        raise ValueError("expected PNG, WEBP or TIFF for a picture with alpha. Received: format=JPEG")
    if pixels.dtype == np.uint16:
        if image_format not in DEEP_FORMATS:
            raise ValueError(f"expected PNG or TIFF for 16 bits. Received: format={image_format}")
        if grey and alpha is not None:
            raise ValueError(f"expected 16-bit grey without alpha. Received: alpha.dtype={alpha.dtype}")
    if alpha is None:
        return np.ascontiguousarray(pixels)
    return np.dstack([pixels, alpha])


def _inks(pixels: Pixels, black: Pixels, image_format: str) -> Pixels:
    """CMYK `(height, width, 4)` of the light that the inks let through, still light."""
    if image_format not in ("JPEG", "TIFF"):
        raise ValueError(f"expected JPEG or TIFF for a picture in CMYK. Received: format={image_format}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError(f"expected CMYK of 8 bits. Received: pixels.dtype={pixels.dtype}, pixels.ndim={pixels.ndim}")
    return np.dstack([pixels, black])


def _grey(pixels: Pixels) -> Pixels:
    """Luma as in `image.luma`, of 8 or 16 bits; a picture with three equal channels gives exactly that channel."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    total: Pixels = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return total.astype(pixels.dtype)


def _options(template: Still | None, image_format: str, quality: int | None) -> dict[str, Any]:
    """Pillow's options: how to compress, and the metadata."""
    options = {} if template is None else tags.options(template, image_format)
    if image_format == "JPEG":
        options |= {"quality": quality or JPEG_QUALITY, "subsampling": 0, "optimize": True}
    elif image_format == "WEBP":
        # Without exact, WebP blackens what alpha hides.
        options |= {"lossless": quality is None, "quality": quality or 80, "exact": True}
    elif image_format == "TIFF" and "exif" not in options:
        # Pillow writes no EXIF directory through libtiff, and libtiff does all compression.
        options["compression"] = "tiff_adobe_deflate"
    return options


def _encode(picture: Pixels, image_format: str, is_cmyk: bool, options: dict[str, Any]) -> bytes:
    if picture.dtype == np.uint16 and picture.ndim == 3:
        return deep_png.encode(picture, **options) if image_format == "PNG" else deep_tiff.encode(picture, **options)
    buffer = io.BytesIO()
    if is_cmyk:
        height, width = picture.shape[:2]
        image = Image.frombytes("CMYK", (width, height), (255 - picture).tobytes())
    else:
        image = Image.fromarray(picture)
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
