"""Restored copies of picture files."""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_deartifact import files, image, quantiser, stills
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore.frames import check_strength, known_map, predicted_map
from keras_deartifact.restore.together import Steps, Wanted, alone
from keras_deartifact.stills.drawn import is_drawn
from keras_deartifact.stills.jpeg_coefficients import Coefficients, read_coefficients
from keras_deartifact.stills.jpeg_history import was_jpeg
from keras_deartifact.stills.within_quantisation import project, require

JPEG_MARGIN = 0.5
"""How much coarser than its tables a JPEG has to look to count as compressed harder before, in log2 steps.

Predictions exceed the truth by 0.04 at the 95th percentile, and by 0.77 at worst (LIVE1, qualities 10 to 98)."""

JPEG_EARLIER_LOG2_STEP = 3.5
"""How coarse a JPEG has to look to count as compressed harder before: up to here, drawings may look the same.

It is the step of quality 64."""

STILL_SHARE = 0.8
"""Of the quantiser's error that a still picture may change by, see `limit`."""

SUBSAMPLED_SHARE = 1.6, 1.1
"""The same for luma and chroma of a JPEG whose chroma was reduced, which is an error of its own."""

LOSSLESS_LOG2_STEP = 0.0
"""Of pictures without loss, which have no quantiser.

They come back as they were, unless they were a JPEG (`stills.jpeg_history`; frames of an animation are not asked), or
look as coarse as a JPEG that counts as compressed before and were not drawn (`stills.drawn`)."""

PREDICTED_FRAMES = 8
"""Of an animation, at most. All frames are taken for what these show in the median: what differs from one frame to the
next would flicker."""

Floats = npt.NDArray[np.float32]

_ROWS_COMPARED = 256


@dataclass(frozen=True)
class ImageReport:
    """What `restore_image` did.

    Attributes:
        width: pixels.
        height: pixels.
        seconds: of wall time.
        log2_step: log2 of the luma quantiser step that the file states, `LOSSLESS_LOG2_STEP` where it is without loss;
            None where it states none, or is without loss and was a JPEG.
        predicted_log2_step: the median of what the pixels show; None without a predictor.
        inside: share of the source's DCT coefficients that recompressing the result gives back; None unless it was to
            stay within the quantisation.
        left_out: what belongs to the source and the target's format does not hold.
        remarks: what the decoder found wrong with the source and went on past.
        frames: pictures that were restored: more than one of an animation or of several pages, of which `width`,
            `height`, `log2_step` and `remarks` are the first's.
        changed: whether any sample of a copy differs from the source's, but for what the target's format loses.
    """

    width: int
    height: int
    seconds: float
    log2_step: float | None
    predicted_log2_step: float | None
    inside: float | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    frames: int = 1
    changed: bool = True


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
    frame: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageReport:
    """Writes a restored copy of a picture file, with its alpha, metadata, colour profile and bit depth.

    Of an animation or of several pages each picture is restored. Frames keep their times, pages their size and kind.

    CMYK stays CMYK: of what the inks let through, cyan, magenta and yellow are restored as a picture in colour, black
    as a grey one, because that is how a JPEG compresses them.

    Args:
        restorer: see `engines`.
        source: what `stills.read` or `stills.read_each` reads. A JPEG's own tables say how strongly it was compressed.
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
        frame: of several pictures the one to restore alone, from 0; None for all.
        progress: called with the number of pictures that are done and of all, where there are several.

    Returns:
        An `ImageReport`.

    Raises:
        ValueError: the source is no whole picture that can be kept, the target cannot hold it or is the source, or
            `strength`, `quality` or `bits` is out of range; or the source is no JPEG of grey or YCbCr and the result
            was to stay within its quantisation.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    options: dict[str, Any] = {"predictor": predictor, "strength": strength, "quality": quality, "bits": bits}
    options |= {"within_quantisation": within_quantisation, "overwrite": overwrite, "frame": frame}
    return alone(restorer, image_steps(restorer, source, target, **options, progress=progress))


def image_steps(
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
    frame: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Steps[ImageReport]:
    """What `restore_image` does, in steps for `together`; of several pictures in a file each is restored alone.

    Args:
        restorer: see `restore_image`, and so are all others.
        source: likewise.
        target: likewise.
        predictor: likewise.
        strength: likewise.
        quality: likewise.
        bits: likewise.
        within_quantisation: likewise.
        overwrite: likewise.
        frame: likewise.
        progress: likewise.

    Raises:
        ValueError: see `restore_image`.
        FileExistsError: likewise.
        OSError: likewise.
    """
    started = time.perf_counter()
    check_strength(strength)
    work = _Work(restorer, predictor, strength, bits)
    with files.replacing(source, target, overwrite) as temporary:
        found = stills.series(source) if frame is None else None
        if found is None:
            still = stills.read(source, inks=True) if frame is None else stills.read_at(source, frame, inks=True)
            coefficients = _coefficients(source, still) if within_quantisation else None
            report = yield from _restore_one(work, still, coefficients, target, temporary, quality)
        elif within_quantisation:
            raise _no_jpeg(source, f"{found.count} {found.kind}")
        else:
            report = _restore_each(work, found, source, target, temporary, quality, progress)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


class _Known(NamedTuple):
    """What is known of a picture's compression: the map, log2 of the step that is stated, and the one that is shown."""

    maps: Floats
    log2_step: float | None
    predicted: float | None


def _known(still: stills.Still, stated: float | None, shown: Floats | None) -> _Known:
    height, width = still.pixels.shape[:2]
    everywhere = None if stated is None else quantiser.constant_map(height, width, stated)
    maps = known_map(everywhere, shown, (height, width), JPEG_MARGIN, JPEG_EARLIER_LOG2_STEP)
    return _Known(maps, stated, None if shown is None else float(np.median(shown)))


@dataclass(frozen=True)
class _Work:
    """What is the same for all pictures of a file; see `restore_image`."""

    restorer: Restorer
    predictor: Predictor | None
    strength: float | None
    bits: int | None

    def depth(self, still: stills.Still) -> int:
        """Bits of a sample of the copy."""
        own = 8 * still.pixels.itemsize
        if self.bits not in (None, 8, 16) or (self.bits is not None and self.bits < own):
            raise ValueError(f"expected 8 or 16 bits, not fewer than the source's {own}. Received: bits={self.bits}")
        return self.bits or own

    def known(self, still: stills.Still) -> _Known:
        """What a file states, and its pixels show, of a picture's compression."""
        return _known(still, *self.judged(still, is_frame=False))

    def known_of_frames(self, source: files.StrPath, found: stills.Series) -> _Known:
        """The same of all frames of an animation, in one map, by some that are spread over it."""
        count = min(found.count, PREDICTED_FRAMES)
        places = [(2 * place + 1) * found.count // (2 * count) for place in range(count)]
        medians = []
        for index, still in enumerate(itertools.islice(stills.read_each(source, found), places[-1] + 1)):
            if index in places:
                stated, shown = self.judged(still, is_frame=True)
                medians += [] if shown is None else [np.median(shown)]
        height, width = still.pixels.shape[:2]
        return _known(
            still, stated, quantiser.constant_map(height, width, float(np.median(medians))) if medians else None
        )

    def judged(self, still: stills.Still, is_frame: bool) -> tuple[float | None, Floats | None]:
        """Log2 of the step with which a file says, or does as if it said, that it was compressed, and what is shown."""
        stated = quantiser.jpeg_table_log2_step(still.jpeg_tables[0]) if still.jpeg_tables else None
        # Whoever gives a strength has judged for himself.
        is_judged = still.lossless and self.strength is None and (is_frame or not was_jpeg(still.pixels))
        drawn = is_judged and is_drawn(still)
        shown = None if self.predictor is None or drawn else predicted_map(self.predictor, still.pixels[None])
        if is_judged and (is_frame or drawn or shown is not None):
            stated = LOSSLESS_LOG2_STEP
        return stated, shown

    def restored(
        self, still: stills.Still, maps: Floats, *, exact: bool = False
    ) -> Steps[tuple[npt.NDArray[Any], stills.Still]]:
        """Gives pixels to write, or exact ones in float32, and their template."""
        dtype = np.dtype(f"uint{self.depth(still)}")
        template = stills.in_depth(still, dtype)
        share = STILL_SHARE if still.subsampling in (None, "4:4:4") else SUBSAMPLED_SHARE
        given = ("share", share) if self.strength is None else ("strength", self.strength)
        result_dtype = np.dtype(np.float32) if exact else dtype
        pixels = (yield Wanted(still.pixels[None], maps[None], (given, ("dtype", result_dtype))))[0]
        if still.black is not None:
            black = np.repeat(still.black[..., None], 3, axis=-1)
            light = (yield Wanted(black[None], maps[None], (given,)))[0]
            template = dataclasses.replace(template, black=image.luma(light))
        return pixels, template


def _restore_one(
    work: _Work,
    still: stills.Still,
    coefficients: Coefficients | None,
    target: files.StrPath,
    temporary: Path,
    quality: int | None,
) -> Steps[ImageReport]:
    """Restores a picture; writes it to `temporary`, as `target` has it."""
    stills.require(target, still, quality=quality, bits=work.depth(still))
    known = work.known(still)
    restored, template = yield from work.restored(still, known.maps, exact=coefficients is not None)
    inside = None
    if coefficients is not None:
        loss = stills.loss(target, quality)
        projection = project(
            restored,
            coefficients,
            dtype=np.uint16 if work.depth(still) == 16 else np.uint8,
            read_back=(lambda pixels: stills.read_back(target, pixels, quality=quality)) if loss else None,
            in_bands=loss != "whole",
        )
        restored, inside = projection.pixels, projection.inside
    stills.write(temporary, restored, template, quality=quality)
    changed = _differ(still, restored, template)
    return _report(still, [known], stills.left_out(target, still), changed=changed, inside=inside)


def _restore_each(
    work: _Work,
    found: stills.Series,
    source: files.StrPath,
    target: files.StrPath,
    temporary: Path,
    quality: int | None,
    progress: Callable[[int, int], None] | None,
) -> ImageReport:
    """Restores several pictures; see `_restore_one`."""
    pictures = stills.read_each(source, found, inks=True)
    first = next(pictures)
    stills.require_each(target, first, found, quality=quality, bits=work.depth(first))
    left_out = stills.left_out(target, first, found)
    if found.stands_apart and not stills.holds_one_apart(target):
        first, found = next(pictures), found.without_the_first()
    known = work.known_of_frames(source, found) if found.kind == stills.FRAMES else None
    knowns = [] if known is None else [known]
    changes: list[bool] = []
    copies = _copies(work, itertools.chain([first], pictures), found, knowns, changes, progress)
    stills.write_each(temporary, copies, found, quality=quality)
    return _report(first, knowns, left_out, changed=any(changes), frames=found.count)


def _copies(
    work: _Work,
    pictures: Iterable[stills.Still],
    found: stills.Series,
    knowns: list[_Known],
    changes: list[bool],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[npt.NDArray[Any], stills.Still]]:
    """Restores one picture after another; `knowns` has what is known of all frames, or gets it of each page.

    `changes` gets whether each was changed.
    """
    before: stills.Still | None = None
    for number, still in enumerate(pictures, 1):
        if found.kind == stills.PAGES:
            knowns.append(work.known(still))
            pixels, template = alone(work.restorer, work.restored(still, knowns[-1].maps))
        elif before is None or not np.array_equal(before.pixels, still.pixels):
            pixels, template = alone(work.restorer, work.restored(still, knowns[0].maps))
        else:
            # What stands still does so in the copy; its alpha may change.
            template = dataclasses.replace(template, alpha=stills.in_depth(still, pixels.dtype).alpha)
        changes.append(_differ(still, pixels, template))
        yield pixels, template
        before = still
        if progress is not None:
            progress(number, found.count)


def _differ(still: stills.Still, pixels: npt.NDArray[Any], template: stills.Still) -> bool:
    """Whether a copy's pixels or its black differ from the source's, in the copy's depth."""
    for start in range(0, len(pixels), _ROWS_COMPARED):
        own, made = (each[start : start + _ROWS_COMPARED] for each in (still.pixels, pixels))
        if own.dtype != made.dtype:
            own = own.astype(np.uint16) * np.uint16(257)
        if not np.array_equal(own, made):
            return True
    return still.black is not None and not np.array_equal(still.black, np.asarray(template.black))


def _report(first: stills.Still, knowns: Sequence[_Known], left_out: tuple[str, ...], **more: Any) -> ImageReport:
    height, width = first.pixels.shape[:2]
    shown = [known.predicted for known in knowns if known.predicted is not None]
    return ImageReport(
        width=width,
        height=height,
        seconds=0.0,
        log2_step=knowns[0].log2_step,
        predicted_log2_step=float(np.median(shown)) if shown else None,
        left_out=left_out,
        remarks=first.remarks,
        **more,
    )


def _coefficients(source: files.StrPath, still: stills.Still) -> Coefficients:
    """The coefficients of a source that the result is to agree with."""
    if still.format != "JPEG":
        raise _no_jpeg(source, still.format)
    coefficients = read_coefficients(source)
    require(coefficients)
    return coefficients


def _no_jpeg(source: files.StrPath, found: str) -> ValueError:
    return ValueError(
        f"expected a JPEG, which states its quantisation, to stay within it. Received: {os.fspath(source)}, {found}"
    )
