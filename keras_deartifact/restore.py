"""Restoring: frames, picture files and video files through a `Restorer`, whatever runs it (`engines`).

`restore_frames` pads and tiles. `restore_image` and `restore_video` make a restored copy of a file that keeps all but
the pixels. The copy is written under a hidden temporary name beside its target and gets its name when it is complete:
a run that fails or is interrupted leaves nothing behind, and the source is only ever read.

A video runs through three stages that overlap (`pipeline.py`):

    decode, RGB, float, quantiser map  ->  inference (the calling thread)  ->  correction, encode

What the network changes, restored minus input, is added to the decoded planes (`colour.add_correction`), so that a
network that changes nothing gives back the decoded video exactly.
"""

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, encoders, files, image, limit, pipeline, quantiser, stills, video
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.stills.jpeg_coefficients import Coefficients, read_coefficients
from keras_deartifact.stills.within_quantisation import project, require

MARGIN = 64
"""What a tile sees beyond what is used of its result, in pixels; the networks' receptive fields have smaller radii."""

TILE = 1024
"""Side of a tile, margins included, in pixels."""

WHOLE_PIXELS = 4_000_000
"""Up to here a picture goes through the network in one piece: 1080p and what a camera of 4 megapixels takes."""

JPEG_MARGIN = 0.5
"""How much coarser than its tables a JPEG has to look to count as compressed harder before, in log2 steps.

Predictions exceed the truth by 0.04 at the 95th percentile, and by 0.77 at worst (LIVE1, qualities 10 to 98)."""

VIDEO_MARGIN = 1.25
"""The same for a video's frame: 1.1 % of frames that were compressed once exceed it."""

EARLIER_LOG2_STEP = 4.25
"""How coarse a video's frame has to look to count as compressed harder before: up to here, soft optics look the same.

It is the step of H.264's QP 29 to 30."""

STILL_SHARE = 0.8
"""Of the quantiser's error that a still picture may change by, see `limit`."""

VIDEO_SHARE = 0.2
"""The same for a video's frame: the largest with which no clip of training pictures, by x264 at CRF 12 to 40, loses."""

MPEG_SHARE = 0.6
"""The same for a codec of before H.264: nothing in it smooths the edges of blocks, so that more can be undone."""

PREDICT_EVERY = 24
"""Frames from one prediction of a video's quality to the next. A prediction takes as long as two restored frames."""

Floats = npt.NDArray[np.float32]


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
    """

    width: int
    height: int
    seconds: float
    log2_step: float | None
    predicted_log2_step: float | None
    inside: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: number of frames written.
        seconds: wall time from the first decoded frame to the closed file.
        fps: frames a second over that time.
        inference_busy: share of that time inside the restorer, in `[0, 1]`.
        codec: the encoder.
        states_quantisers: whether the bitstream gave quantiser maps; otherwise they are predicted, or the default.
        predicted_log2_step: the median of what the pixels show, over the predictions; None without a predictor.
        broken: why the source is incomplete, or None. Every frame that decodes was restored and written.
        skipped: what the target cannot hold and was left out.
    """

    frames: int
    seconds: float
    fps: float
    inference_busy: float
    codec: str
    states_quantisers: bool
    predicted_log2_step: float | None
    broken: str | None
    skipped: tuple[str, ...]


def restore_frames(
    restorer: Restorer,
    frames: npt.NDArray[Any],
    quantiser_maps: Floats | None = None,
    *,
    strength: float = 1.0,
    share: float | None = None,
    tile: int = TILE,
    margin: int = MARGIN,
    whole_pixels: int = WHOLE_PIXELS,
) -> npt.NDArray[Any]:
    """Restores frames of any size: pads to a multiple of 16, cuts large ones into tiles, crops back.

        result = frames + strength * (restored - frames)

    Args:
        restorer: see `engines`; it is given float32, whatever the dtype of `frames`. One that takes frames of one size
            only, which its attribute `tile` says, is given tiles of that size, filled up with their last row and column
            where a frame is smaller; of a side below `4 * margin` a quarter is margin.
        frames: float32 in `[0, 1]`, uint8 or uint16, `(n, height, width, 3)`, RGB.
        quantiser_maps: float32 `(n, ceil(height / 16), ceil(width / 16))`, log2 steps; None for the default.
        strength: 0 returns the frames, 1 what the network makes of them; finite and at least 0.
        share: of the quantiser's error that a block may change by at strength 1, see `limit`; None for any change.
        tile: side of a tile in pixels, margins included; a multiple of 16. A restorer's own `tile` goes before it.
        margin: of a tile, in pixels, at least the radius of the network's receptive field.
        whole_pixels: frames of up to so many pixels, padding included, are not cut.

    Returns:
        An array of the shape and dtype of `frames`; integers are rounded and clipped, float32 is as the network has it.

    Raises:
        ValueError: frames or maps of another shape or dtype, `strength` out of range, or a restorer that returns
            another shape or a number that is not finite.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"expected frames of shape (n, height, width, 3). Received: frames.shape={frames.shape}")
    if frames.dtype not in (np.float32, np.uint8, np.uint16):
        raise ValueError(f"expected frames of dtype float32, uint8 or uint16. Received: frames.dtype={frames.dtype}")
    _check_strength(strength)
    count, height, width, _ = frames.shape
    shape = (count, *quantiser.map_shape(height, width))
    if quantiser_maps is None:
        quantiser_maps = np.full(shape, quantiser.DEFAULT_LOG2_STEP, np.float32)
    if quantiser_maps.shape != shape:
        raise ValueError(f"expected quantiser maps of shape {shape}. Received: shape={quantiser_maps.shape}")
    padded = image.pad_to_multiple(frames, image.GRID)
    rows, columns = padded.shape[1:3]
    fixed: tuple[int, int] | None = getattr(restorer, "tile", None)
    if fixed is None and rows * columns <= whole_pixels:
        return image.crop(_restore_piece(restorer, padded, quantiser_maps, strength, share), height, width)
    result = np.empty_like(padded)
    grid = image.tile_grid(rows, columns, tile, margin) if fixed is None else _fixed_grid(rows, columns, fixed, margin)
    for each in grid:
        blocks = tuple(slice(side.start // image.GRID, side.stop // image.GRID) for side in each.source)
        source, maps = padded[:, *each.source], quantiser_maps[:, *blocks]
        if fixed is not None:
            source = _filled_up(source, fixed)
            maps = _filled_up(maps, (fixed[0] // image.GRID, fixed[1] // image.GRID))
        piece = _restore_piece(restorer, source, maps, strength, share)
        result[:, *each.destination] = piece[:, *each.inner]
    return image.crop(result, height, width)


def margin_of_tile(side: int, margin: int = MARGIN) -> int:
    """Returns the margin, in pixels, of a tile whose side a network prescribes: a quarter of it at most."""
    return min(margin, side // 4 // image.GRID * image.GRID)


def _fixed_grid(rows: int, columns: int, size: tuple[int, int], margin: int) -> Iterator[image.Tile]:
    """The tiles of a picture for a network that takes one size only; one row or column where the picture is smaller."""
    margins = [margin_of_tile(side, margin) for side in size]
    down = image.tile_grid(rows, 1, size[0], margins[0])
    across = image.tile_grid(1, columns, size[1], margins[1])
    for row in down:
        for column in across:
            yield image.Tile(*((vertical[0], horizontal[1]) for vertical, horizontal in zip(row, column, strict=True)))


def _filled_up(array: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Repeats the last row and column up to a height and width."""
    missing = [(0, wanted - given) for wanted, given in zip(size, array.shape[1:3], strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return array
    return np.pad(array, [(0, 0), *missing, *[(0, 0)] * (array.ndim - 3)], mode="edge")


def _restore_piece(
    restorer: Restorer, frames: npt.NDArray[Any], quantiser_maps: Floats, strength: float, share: float | None
) -> npt.NDArray[Any]:
    images = np.ascontiguousarray(frames) if frames.dtype == np.float32 else image.to_float(frames)
    restored = restorer(images, np.ascontiguousarray(quantiser_maps))
    if restored.shape != images.shape:
        raise ValueError(f"expected a restorer that keeps the shape {images.shape}. Received: {restored.shape}")
    if not np.isfinite(restored.sum()):
        raise ValueError("expected a restorer that returns finite numbers. Received: NaN or infinity")
    if share is not None:
        corrections = zip(restored - images, quantiser_maps, strict=True)
        restored = images + np.stack([limit.limited(*each, share) for each in corrections])
    if strength != 1.0:
        restored = images + np.float32(strength) * (restored - images)
    if frames.dtype == np.uint8:
        return image.to_uint8(restored)
    if frames.dtype == np.uint16:
        return image.to_uint16(restored)
    return restored


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
            compression can account for (`limit`, `STILL_SHARE`).
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
    if strength is not None:
        _check_strength(strength)
    with files.replacing(source, target, overwrite) as temporary:
        still = stills.read(source, inks=True)
        depth = _depth(still, bits)
        stills.require(target, still, quality=quality, bits=depth)
        coefficients = _coefficients(source, still) if within_quantisation else None
        height, width = still.pixels.shape[:2]
        log2_step = quantiser.jpeg_table_log2_step(still.jpeg_tables[0]) if still.jpeg_tables else None
        stated = None if log2_step is None else quantiser.constant_map(height, width, log2_step)
        predicted = None if predictor is None else predictor(image.to_float(still.pixels)[None])[0]
        maps = _known(stated, predicted, (height, width), JPEG_MARGIN)[None]
        template = stills.in_depth(still, np.dtype(f"uint{depth}"))
        # Rounded to the target's depth only at the end, where that is finer, or the projection follows.
        exact = coefficients is not None or depth > 8 * still.pixels.itemsize
        taken, share = (1.0, STILL_SHARE) if strength is None else (strength, None)
        frames = image.to_float(still.pixels) if exact else still.pixels
        restored = restore_frames(restorer, frames[None], maps, strength=taken, share=share)[0]
        inside = None
        if coefficients is not None:
            projection = project(
                restored,
                coefficients,
                dtype=np.uint16 if depth == 16 else np.uint8,
                read_back=lambda pixels: stills.read_back(target, pixels, template, quality=quality),
            )
            restored, inside = projection.pixels, projection.inside
        elif exact:
            restored = image.to_uint16(restored)
        if still.black is not None:
            black = np.repeat(still.black[..., None], 3, axis=-1)
            light = restore_frames(restorer, black[None], maps, strength=taken, share=share)[0]
            template = dataclasses.replace(template, black=image.luma(light))
        stills.write(temporary, restored, template, quality=quality)
    median = None if predicted is None else float(np.median(predicted))
    seconds = time.perf_counter() - started
    return ImageReport(width, height, seconds, log2_step, median, inside, stills.left_out(target, still))


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


def _known(
    stated: Floats | None,
    predicted: Floats | None,
    size: tuple[int, int],
    margin: float,
    least: float = quantiser.MINIMUM_LOG2_STEP,
) -> Floats:
    """The map of a picture from what its file states and what its pixels show, as far as there is either."""
    if predicted is None:
        return quantiser.constant_map(*size) if stated is None else stated
    return predicted if stated is None else quantiser.coarser(stated, predicted, margin, least)


def restore_video(
    restorer: Restorer,
    source: files.StrPath,
    target: files.StrPath,
    *,
    predictor: Predictor | None = None,
    strength: float | None = None,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    drop: bool = False,
    notice: Callable[[str], None] | None = None,
) -> VideoReport:
    """Writes a restored copy of a video file, with its timing, colour description and all other streams.

    Each frame's quantiser map comes from the bitstream where ffmpeg tells it, smoothed over past frames; a frame
    without one takes its predecessor's. Every `PREDICT_EVERY` frames the predictor looks at the pixels: its map,
    smoothed likewise, stands in where the bitstream tells none, and counts where it is coarser (`quantiser.coarser`).

    A source that is damaged or breaks off is restored as far as it decodes, and the report says so.

    Args:
        restorer: see `engines`; it is called in the calling thread, with one float32 frame or one tile of it.
        source: a video file.
        target: the file to write; its extension gives the container.
        predictor: see `restore_image`; it is called in a thread of its own, with one padded float32 frame.
        strength: 0 keeps the decoded planes, 1 takes what the network makes of them; None takes as much of it as
            the compression can account for (`limit`, `VIDEO_SHARE`, `MPEG_SHARE`).
        codec: key of `encoders.ENCODERS`; by default the one that `encoders.default` chooses.
        crf: quality in the encoder's own scale, down is better; the default is the encoder's in `encoders.ENCODERS`.
        preset: speed against size, in the encoder's own words; the default is the encoder's in `encoders.ENCODERS`.
        overwrite: whether an existing target may be replaced.
        progress: called after each restored frame, in the calling thread, with the number of frames so far.
        drop: leave out what the target cannot hold, instead of refusing the file.
        notice: called before work starts, in the calling thread, with each thing that is left out and what could hold
            it; data streams that no container here can hold are, even without `drop`.

    Returns:
        A `VideoReport`.

    Raises:
        ValueError: the source is no video, has a pixel format that is not supported, or changes its size on the way;
            no frame decodes; an unknown codec; the target cannot hold a stream or is the source; a number is out of
            range; or the restorer returns something else than frames.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    if strength is not None:
        _check_strength(strength)
    info = video.probe(source)
    if info.pix_fmt is None:
        raise video.BrokenVideoError(
            f"no frame of the video decodes; check that the file is complete. Received: {os.fspath(source)}"
        )
    if info.pix_fmt not in colour.SUPPORTED:
        raise ValueError(
            f"the video must have a pixel format such as yuv420p; convert it first, for example with "
            f"'ffmpeg -i {shlex.quote(os.fspath(source))} -c:v ffv1 -pix_fmt yuv444p -c:a copy converted.mkv'. "
            f"Received: pix_fmt={info.pix_fmt}"
        )
    codec = codec or encoders.default(target, info.pix_fmt)
    encoder = encoders.choose(codec, crf, preset)
    if codec == "libsvtav1":
        # It writes a banner to stderr by itself, and takes its log level, 1 for errors, from the environment alone.
        os.environ.setdefault("SVT_LOG", "1")
    with files.replacing(source, target, overwrite) as temporary:
        writer = video.VideoWriter(
            temporary,
            source,
            codec=codec,
            crf=encoder.crf or 0,
            preset=encoder.preset or "",
            options=encoder.options,
            drop=drop,
        )
        share = MPEG_SHARE if info.codec in quantiser.STEP_FROM_QP and info.codec != "h264" else VIDEO_SHARE
        run = _Run(restorer, predictor, strength, share, progress)
        with writer:
            if notice is not None:
                for line in writer.skipped:
                    notice(line)
            pipeline.overlap(
                run.decode(source, info.codec), run.restore, lambda item: writer.write(run.corrected(item), item.frame)
            )
        seconds = time.perf_counter() - run.started
    return VideoReport(
        frames=run.frames,
        seconds=seconds,
        fps=run.frames / seconds,
        inference_busy=run.busy_seconds / seconds,
        codec=codec,
        states_quantisers=run.states_quantisers,
        predicted_log2_step=float(np.median(run.predictions)) if run.predictions else None,
        broken=run.broken,
        skipped=tuple(writer.skipped),
    )


class _Decoded(NamedTuple):
    """A frame on its way to the network: `images` float32 `(1, rows, columns, 3)`, padded to a multiple of 16."""

    frame: av.VideoFrame
    images: Floats
    quantiser_map: Floats


class _Restored(NamedTuple):
    """A frame on its way to the encoder; both arrays float32 `(1, rows, columns, 3)`, padded."""

    frame: av.VideoFrame
    images: Floats
    restored: Floats
    quantiser_map: Floats


class _Timed:
    """A restorer that adds up the seconds which it takes."""

    def __init__(self, restorer: Restorer) -> None:
        self.seconds = 0.0
        self.tile = getattr(restorer, "tile", None)
        self._restorer = restorer

    def __call__(self, frames: npt.NDArray[Any], quantiser_map: Floats | None = None) -> npt.NDArray[Any]:
        started = time.perf_counter()
        restored = self._restorer(frames, quantiser_map)
        self.seconds += time.perf_counter() - started
        return restored


class _Run:
    """One video's way through the three stages, and what is counted on it."""

    def __init__(
        self,
        restorer: Restorer,
        predictor: Predictor | None,
        strength: float | None,
        share: float,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.frames = 0
        self.started = time.perf_counter()
        self.states_quantisers = False
        self.broken: str | None = None
        self.predictions: list[float] = []
        self._predicted: Floats | None = None
        self._decoded = 0
        self._predictor = predictor
        self._restorer = _Timed(restorer)
        self._strength = strength
        self._share = share
        self._progress = progress

    def decode(self, source: files.StrPath, codec: str) -> Generator[_Decoded, None, None]:
        """Yields the frames; one that is broken ends them, unless it is the first."""
        frames = cast(Generator[video.Frame, None, None], video.read_frames(source))
        started = False
        try:
            with contextlib.closing(frames):
                for frame, stated in self._stated(frames, codec):
                    if not started:
                        self.started, started = time.perf_counter(), True
                    rgb = image.pad_to_multiple(colour.to_rgb(frame), image.GRID)
                    images = image.to_float(rgb)[None]
                    shown = self._shown(images[0, : frame.height, : frame.width])
                    known = _known(stated, shown, (frame.height, frame.width), VIDEO_MARGIN, EARLIER_LOG2_STEP)
                    yield _Decoded(frame, images, known)
        except video.BrokenVideoError as error:
            if not started:
                raise
            self.broken = str(error)

    def restore(self, item: _Decoded) -> _Restored:
        """Puts a frame through the network."""
        restored = restore_frames(self._restorer, item.images, item.quantiser_map[None])
        self.frames += 1
        if self._progress is not None:
            self._progress(self.frames)
        return _Restored(item.frame, item.images, restored, item.quantiser_map)

    @property
    def busy_seconds(self) -> float:
        """Of the restorer, so far."""
        return self._restorer.seconds

    def corrected(self, item: _Restored) -> av.VideoFrame:
        """The decoded frame with what the network changed."""
        correction = (item.restored - item.images)[0]
        if self._strength is None:
            correction = limit.limited(correction, item.quantiser_map, self._share)
        elif self._strength != 1.0:
            correction *= np.float32(self._strength)
        return colour.add_correction(item.frame, correction[: item.frame.height, : item.frame.width])

    def _shown(self, images: Floats) -> Floats | None:
        """What the pixels show of their compression, smoothed over the predictions so far."""
        if self._predictor is None:
            return None
        shape = quantiser.map_shape(*images.shape[:2])
        if self._decoded % PREDICT_EVERY == 0 or self._predicted is None or self._predicted.shape != shape:
            predicted = self._predictor(images[None])[0]
            self.predictions.append(float(np.median(predicted)))
            self._predicted = quantiser.smoothed(self._predicted, predicted)
        self._decoded += 1
        return self._predicted

    def _stated(self, frames: Iterator[video.Frame], codec: str) -> Iterator[tuple[av.VideoFrame, Floats | None]]:
        """Yields every frame with the map that the bitstream states, smoothed in time; None until it states one."""
        latest: Floats | None = None
        smoothed: Floats | None = None
        for frame in frames:
            if frame.qp is not None and codec in quantiser.STEP_FROM_QP:
                latest = quantiser.log2_step_from_qp(frame.qp, codec)
                self.states_quantisers = True
            if latest is not None and latest.shape != quantiser.map_shape(frame.image.height, frame.image.width):
                latest = smoothed = None
            if latest is not None:
                smoothed = quantiser.smoothed(smoothed, latest)
            yield frame.image, smoothed


def _check_strength(strength: float) -> None:
    if not 0.0 <= strength < float("inf"):
        raise ValueError(f"expected a strength of at least 0. Received: strength={strength}")
