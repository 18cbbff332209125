"""Restored copies of picture files."""

import dataclasses
import os
import time
from dataclasses import dataclass

import numpy as np

from keras_deartifact import files, image, quantiser, stills
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore.frames import check_strength, known_map, predicted_map, restore_frames
from keras_deartifact.stills.jpeg_coefficients import Coefficients, read_coefficients
from keras_deartifact.stills.within_quantisation import project, require

JPEG_MARGIN = 0.5
"""How much coarser than its tables a JPEG has to look to count as compressed harder before, in log2 steps.

Predictions exceed the truth by 0.04 at the 95th percentile, and by 0.77 at worst (LIVE1, qualities 10 to 98)."""

JPEG_EARLIER_LOG2_STEP = 3.5
"""How coarse a JPEG has to look to count as compressed harder before: up to here, drawings may look the same.

It is the step of quality 64."""

STILL_SHARE = 0.8
"""Of the quantiser's error that a still picture may change by, see `limit`."""

SUBSAMPLED_SHARE = 1.6, 1.6
"""The same for luma and chroma of a JPEG whose chroma was reduced, which is an error of its own."""


@dataclass(frozen=True)
class ImageReport:
    """What `restore_image` did.

    Attributes:
        width: pixels.
        height: pixels.
        seconds: of wall time.
        log2_step: log2 of the luma quantiser step that the file states; None where it states none.
        predicted_log2_step: the median of what the pixels show; None without a predictor.
        inside: share of the source's DCT coefficients that recompressing the result gives back; None unless it was to
            stay within the quantisation.
        left_out: what belongs to the source and the target's format does not hold.
        remarks: what the decoder found wrong with the source and went on past.
    """

    width: int
    height: int
    seconds: float
    log2_step: float | None
    predicted_log2_step: float | None
    inside: float | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def restore_image(
    restorer: Restorer,
    source: files.StrPath,
    target: files.StrPath,
    *,
    predictor: Predictor | None = None,
    strength: float | None = None,
    quality: int | None = None,
    bits: int | None = None,
    within_quantisation: bool = False,
    overwrite: bool = False,
) -> ImageReport:
    """Writes a restored copy of a picture file, with its alpha, metadata, colour profile and bit depth.

    CMYK stays CMYK: of what the inks let through, cyan, magenta and yellow are restored as a picture in colour, black
    as a grey one, because that is how a JPEG compresses them.

    Args:
        restorer: see `engines`.
        source: what `stills.read` reads. A JPEG's own tables say how strongly it was compressed.
        target: what `stills.write` writes, by its extension.
        predictor: of the quality, `engines.load_predictor()`, for files that state none and for those that were
            compressed harder before; None to take what the file states, and the default where it states nothing.
        strength: 0 keeps the pixels, 1 takes what the network makes of them; None takes as much of it as the
            compression can account for (`limit`, `STILL_SHARE`, `SUBSAMPLED_SHARE`).
        quality: of a JPEG or WebP, 1 to 100; see `stills.write`.
        bits: of a sample of the target, 8 or 16; the default is the source's. 16 keep what lies between
            two levels of 8.
        within_quantisation: whether the result is brought into what the source's own quantisation allows, so that
            compressing it again in the same way gives the same coefficients; see `stills.within_quantisation`. It is
            never farther from the original for that, apart from rounding.
        overwrite: whether an existing target may be replaced.

    Returns:
        An `ImageReport`.

    Raises:
        ValueError: the source is no whole picture that can be kept, the target cannot hold it or is the source, or
            `strength`, `quality` or `bits` is out of range; or the source is no JPEG of grey or YCbCr and the result
            was to stay within its quantisation.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    started = time.perf_counter()
    check_strength(strength)
    with files.replacing(source, target, overwrite) as temporary:
        still = stills.read(source, inks=True)
        depth = _depth(still, bits)
        stills.require(target, still, quality=quality, bits=depth)
        coefficients = _coefficients(source, still) if within_quantisation else None
        height, width = still.pixels.shape[:2]
        log2_step = quantiser.jpeg_table_log2_step(still.jpeg_tables[0]) if still.jpeg_tables else None
        stated = None if log2_step is None else quantiser.constant_map(height, width, log2_step)
        predicted = None if predictor is None else predicted_map(predictor, still.pixels[None])
        maps = known_map(stated, predicted, (height, width), JPEG_MARGIN, JPEG_EARLIER_LOG2_STEP)[None]
        template = stills.in_depth(still, np.dtype(f"uint{depth}"))
        # The projection rounds by itself.
        dtype = np.dtype(np.float32 if coefficients is not None else f"uint{depth}")
        allowed = STILL_SHARE if still.subsampling in (None, "4:4:4") else SUBSAMPLED_SHARE
        taken, share = (1.0, allowed) if strength is None else (strength, None)
        restored = restore_frames(restorer, still.pixels[None], maps, strength=taken, share=share, dtype=dtype)[0]
        inside = None
        if coefficients is not None:
            projection = project(
                restored,
                coefficients,
                dtype=np.uint16 if depth == 16 else np.uint8,
                read_back=lambda pixels: stills.read_back(target, pixels, template, quality=quality),
            )
            restored, inside = projection.pixels, projection.inside
        if still.black is not None:
            black = np.repeat(still.black[..., None], 3, axis=-1)
            light = restore_frames(restorer, black[None], maps, strength=taken, share=share)[0]
            template = dataclasses.replace(template, black=image.luma(light))
        stills.write(temporary, restored, template, quality=quality)
    median = None if predicted is None else float(np.median(predicted))
    seconds = time.perf_counter() - started
    return ImageReport(width, height, seconds, log2_step, median, inside, stills.left_out(target, still), still.remarks)


def _depth(still: stills.Still, bits: int | None) -> int:
    """Bits of a sample of the copy."""
    own = 8 * still.pixels.itemsize
    if bits not in (None, 8, 16) or (bits is not None and bits < own):
        raise ValueError(f"expected 8 or 16 bits, not fewer than the source's {own}. Received: bits={bits}")
    return bits or own


def _coefficients(source: files.StrPath, still: stills.Still) -> Coefficients:
    """The coefficients of a source that the result is to agree with."""
    if still.format != "JPEG":
        raise ValueError(
            "expected a JPEG, which states its quantisation, to stay within it. "
            f"Received: {os.fspath(source)}, {still.format}"
        )
    coefficients = read_coefficients(source)
    require(coefficients)
    return coefficients
