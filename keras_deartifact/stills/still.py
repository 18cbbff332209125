"""What is read of a picture file, and the names of formats."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Pillow also takes MPEG streams and icons for images, and reads JPEG 2000 and PNM of more than 8 bits as 8.
READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")

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

DEEP_FORMATS = ("PNG", "TIFF")
"""Of these, the ones that hold 16 bits."""

DEEP_GREY_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", *DEEP_GREY_MODES)

COMMENT = 0xFE
"""The marker of a comment among a JPEG's segments."""

MOST_COLOURS = 1000
"""So many colours are counted."""

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
        black: of CMYK, array `(height, width)`, the light that the black ink lets through, 0 where it is full; `pixels`
            are then the light that cyan, magenta and yellow let through. None for everything else.
        photoshop: Photoshop's image resources, IPTC among them, from `8BIM` on, or None.
        segments: `(marker, content)` of a JPEG's other segments in their order: comments, extended XMP and what
            cameras write, but not those that a new file needs anew (JFIF, Adobe, the index of further pictures); and
            the comment of a GIF.
        chunks: `(kind, content)` of a PNG's texts and statements on colour (`gAMA`, `cHRM`, `sRGB`, `cICP`, ...).
        more_pictures: whether further ones lie behind this one in a multi-picture JPEG.
        lossless: whether its file keeps pixels without loss: PNG, GIF, BMP, and TIFF and WebP of such a kind.
        colours: of an animation without loss, how many distinct ones all of its frames have, up to `MOST_COLOURS`; None
            for others.
        remarks: what the decoder found wrong and went on past: lines of text.
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
    black: Pixels | None = None
    photoshop: bytes | None = None
    segments: tuple[tuple[int, bytes], ...] = ()
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    more_pictures: bool = False
    lossless: bool = False
    colours: int | None = None
    remarks: tuple[str, ...] = ()
