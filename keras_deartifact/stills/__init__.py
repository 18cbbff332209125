"""Image files: pixels at their full depth, and everything around the pixels that a restored copy has to keep.

`read` gives a `Still`; `write` takes restored pixels and the `Still` they came from as a template, and carries over
alpha, EXIF, XMP, IPTC, ICC profile, comments and resolution. Pixels are as stored: the orientation stays in EXIF,
colours stay in the file's own profile. EXIF is kept as it is, byte for byte except in TIFF: the thumbnail in it stays,
because maker's notes refer to places in the block, and no artefact shows at its size.

| read as | from |
|---|---|
| uint8 | JPEG (a multi-picture JPEG: its first picture), PNG, WebP, TIFF, GIF, BMP, AVIF |
| uint8 inks, on request | CMYK and YCCK JPEG, CMYK TIFF |
| uint16 | 16-bit grey PNG and TIFF, 16-bit RGB and RGBA PNG and TIFF |

Of an animated GIF, PNG or WebP, or a TIFF of several pages, `series` says what is in it, `read_each` gives one picture
after another, and `write_each` takes them. `read` refuses such files.

Refused with a `ValueError`, for what a copy would lose without a word: animated AVIF, Lab, 16-bit grey with alpha,
16-bit PNG with a transparent colour, animations of 16 bits, 9 to 15 bits, 32-bit and floating-point pixels, AVIF of
more than 8 bits, and HEIC, which Pillow does not read.
"""

from keras_deartifact.stills.reading import is_still, read
from keras_deartifact.stills.several import FRAMES, PAGES, Series, read_at, read_each, series
from keras_deartifact.stills.still import DEEP_FORMATS, READ_FORMATS, WRITE_FORMATS, Pixels, Still
from keras_deartifact.stills.views import view
from keras_deartifact.stills.writing import (
    JPEG_QUALITY,
    holds_one_apart,
    in_depth,
    left_out,
    loss,
    read_back,
    require,
    require_each,
    write,
    write_each,
)

__all__ = [
    "DEEP_FORMATS",
    "FRAMES",
    "JPEG_QUALITY",
    "PAGES",
    "READ_FORMATS",
    "WRITE_FORMATS",
    "Pixels",
    "Series",
    "Still",
    "holds_one_apart",
    "in_depth",
    "is_still",
    "left_out",
    "loss",
    "read",
    "read_at",
    "read_back",
    "read_each",
    "require",
    "require_each",
    "series",
    "view",
    "write",
    "write_each",
]
