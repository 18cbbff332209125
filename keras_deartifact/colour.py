"""Between decoded video frames and RGB, without a detour for what the network leaves alone.

A frame is decoded to planes of YCbCr (or grey, or RGB) code values at 8 to 12 bits. The network sees full-range uint8
RGB (`to_rgb`). What it changes, restored minus input, is a difference in RGB; the conversion of a difference is linear
and has no offset, so it is converted alone and added to the planes (`add_correction`):

    Y' += s_y (kr R + kg G + kb B),    Cb += s_c (B - Y) / (2 (1 - kb)),    Cr += s_c (R - Y) / (2 (1 - kr))

with `(s_y, s_c) = (219, 224) * 2^(depth - 8)` in limited range and `2^depth - 1` for both in full range. A network that
returns its input therefore gives back exactly the decoded frame, at any depth and chroma subsampling. Alpha is no
light, and stays as it is.

The transfer function is not undone: of HDR (PQ, HLG) the network sees the coded values `R'G'B'` at 8 bits, matrix and
range taken off, as it does of all other video. Their steps are about as even to the eye as those of the video that it
was trained on, but it was trained on none of them.

Matrices (ITU-T H.273 codes): BT.709 (1), FCC (4), BT.601 (5, 6), SMPTE 240M (7), BT.2020 (9; 10, constant luminance, is
treated as 9). Any other code counts as unspecified: BT.601 up to 576 lines, BT.709 above. Range is limited unless
flagged full or `yuvj*`.
"""

from functools import lru_cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

# H.273 matrix code -> (kr, kb).
_BT709, _BT601, _BT2020 = 1, 6, 9
_WEIGHTS = {
    _BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    _BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    _BT2020: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
# swscale numbers BT.601 as 5 only; PyAV reads `src_colorspace` in swscale's numbers.
_SWSCALE = {5: 5, _BT601: 5, 10: _BT2020}
_MATRICES = {"bt601": _BT601, "bt709": _BT709, "bt2020": _BT2020}

# Without FULL_CHR_H_INT and ACCURATE_RND swscale's fast path darkens by about one level and repeats chroma.
_QUALITY = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND

_PLANAR = tuple(f"yuv{sampling}p{depth}" for sampling in ("420", "422", "444", "440") for depth in ("", "10le", "12le"))
_GREY = ("gray", "gray10le", "gray12le")
_ALPHA = (
    *("yuva420p", "yuva420p10le", "yuva422p", "yuva422p10le", "yuva422p12le"),
    *("yuva444p", "yuva444p10le", "yuva444p12le"),
)
# Format -> its channels in the order in which they lie; 0 is nothing.
_PACKED = {name: name.removesuffix("24") for name in "rgb24 bgr24 rgba bgra argb abgr rgb0 bgr0 0rgb 0bgr".split()}
SUPPORTED = (
    *_PLANAR,
    "yuv411p",
    "yuv410p",
    "yuvj420p",
    "yuvj422p",
    "yuvj444p",
    "yuvj440p",
    "yuvj411p",
    "nv12",
    *_GREY,
    *_ALPHA,
    *(f"gbr{alpha}p{depth}" for alpha in ("", "a") for depth in ("", "10le", "12le")),
    *_PACKED,
)
"""Pixel formats that `add_correction` takes."""


def matrix(frame: av.VideoFrame) -> int:
    """The frame's YCbCr matrix as an H.273 code this module knows, guessed from the height where unspecified."""
    code = int(frame.colorspace)
    if code in _WEIGHTS:
        return code
    return _BT601 if frame.height <= 576 else _BT709


def is_full_range(frame: av.VideoFrame) -> bool:
    """Whether code values use all of `[0, 2^depth - 1]`: flagged full, a `yuvj*` format, or RGB."""
    return int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj") or frame.format.is_rgb


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Converts a decoded frame to full-range RGB with swscale: bicubic chroma, accurate rounding.

    Grey of 8 to 12 bits goes without it, for swscale takes all grey for full range, whatever its flag.

    Args:
        frame: any size and pixel format that swscale reads; its own matrix and range are honoured.

    Returns:
        uint8 array `(height, width, 3)`, C-contiguous, writable, in `[0, 255]`.
    """
    if frame.format.name in _GREY:
        return _grey_to_rgb(frame)
    code = matrix(frame)
    colorspace = _SWSCALE.get(code, code)
    converted = VideoReformatter().reformat(
        frame,
        format="rgb24",
        src_colorspace=None if frame.format.is_rgb else colorspace,
        dst_colorspace=None if frame.format.is_rgb else colorspace,
        src_color_range=ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_QUALITY,
        threads=1,
    )
    plane = converted.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return np.array(rows[:, : 3 * frame.width]).reshape(frame.height, frame.width, 3)


def _grey_to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    depth = frame.format.components[0].bits
    codes = np.arange(2**depth)
    scale, black = (2**depth - 1, 0) if is_full_range(frame) else (219 * 2 ** (depth - 8), 16 * 2 ** (depth - 8))
    levels = np.clip((codes - black) * (255 / scale) + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(levels[_samples(frame, 0, (frame.height, frame.width), depth)][..., None], 3, axis=-1)


def from_rgb(
    rgb: npt.NDArray[np.uint8], pix_fmt: str = "yuv420p", colorspace: str = "bt601", full_range: bool = False
) -> av.VideoFrame:
    """Converts full-range RGB to a labelled video frame: what `add_correction` adds to black.

    The equations are the module's; chroma is the mean over its block, and every sample the nearest code. (swscale is up
    to one level too dark on the way to full-range 4:2:0.)

    Args:
        rgb: uint8 `(height, width, 3)` in `[0, 255]`.
        pix_fmt: one of `SUPPORTED`.
        colorspace: `"bt601"`, `"bt709"` or `"bt2020"`, the YCbCr matrix; no effect on an RGB `pix_fmt`.
        full_range: code values fill `[0, 2^depth - 1]`; always so for `yuvj*` and RGB.

    Returns:
        A frame without pts whose `colorspace` and `color_range` say what was done.

    Raises:
        ValueError: `rgb` is not uint8 `(height, width, 3)`, or the pixel format or colour space is unknown.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"rgb must be uint8 (height, width, 3). Received: dtype={rgb.dtype}, shape={rgb.shape}")
    if colorspace not in _MATRICES:
        raise ValueError(f"colorspace must be one of {sorted(_MATRICES)}. Received: colorspace={colorspace!r}")
    _check_format(pix_fmt)
    height, width = rgb.shape[:2]
    black = av.VideoFrame(width, height, pix_fmt)
    # A grey frame keeps the matrix: it says which weights made the luma.
    black.colorspace = 0 if black.format.is_rgb else _MATRICES[colorspace]
    full_range = full_range or is_full_range(black)
    black.color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    depth = black.format.components[0].bits
    for index, plane in enumerate(black.planes):
        codes = np.frombuffer(memoryview(plane), np.uint8 if depth == 8 else "<u2")
        if index == 3:
            codes[:] = 2**depth - 1
        elif "a" in _PACKED.get(pix_fmt, ""):
            codes[:] = 0
            codes[_PACKED[pix_fmt].index("a") :: 4] = 255
        elif index > 0 and not black.format.is_rgb:
            codes[:] = 2 ** (depth - 1)
        else:
            codes[:] = 0 if full_range else 16 * 2 ** (depth - 8)
    return add_correction(black, rgb.astype(np.float32) / np.float32(255))


def add_correction(frame: av.VideoFrame, correction: npt.NDArray[np.float32]) -> av.VideoFrame:
    """Adds RGB differences to a decoded frame, in the frame's own planes.

    The differences are converted with the frame's matrix and range (equations in the module's docstring), chroma is
    averaged over the luma pixels that share a chroma sample, and the sums are rounded to the nearest code and clipped
    to `[0, 2^depth - 1]`. Zero gives the same planes, bit for bit. A grey frame takes the luma part alone; RGB planes
    take their own channel. Alpha stays as it is.

    Args:
        frame: a decoded frame in one of `SUPPORTED`; it is not changed.
        correction: float32 `(height, width, 3)`, restored minus input in RGB, 1.0 is full scale; finite.

    Returns:
        A new frame of the same format and size with the same pts, time base, duration and colour attributes. The
        picture type is left open, or an encoder would repeat the input's I, P and B decisions.

    Raises:
        ValueError: an unsupported pixel format; a correction of another shape or dtype, or with NaN or infinity in it.
    """
    name = frame.format.name
    _check_format(name)
    expected = (frame.height, frame.width, 3)
    if correction.shape != expected or correction.dtype != np.float32:
        raise ValueError(
            f"correction must be float32 {expected}. Received: dtype={correction.dtype}, shape={correction.shape}"
        )
    result = av.VideoFrame(frame.width, frame.height, name)
    depth = frame.format.components[0].bits
    if frame.format.is_rgb:
        _add_rgb(frame, result, correction, depth)
    else:
        _add_luma(frame, result, correction, depth)
        if len(frame.planes) > 1:
            _add_chroma(frame, result, correction, depth)
    if len(frame.planes) == 4:
        shape = (frame.height, frame.width)
        _samples(result, 3, shape, depth)[...] = _samples(frame, 3, shape, depth)
    copy_attributes(frame, result)
    return result


def _check_format(pix_fmt: str) -> None:
    if pix_fmt not in SUPPORTED:
        raise ValueError(f"pixel format must be one of {', '.join(SUPPORTED)}. Received: pix_fmt={pix_fmt!r}")


def _add_rgb(frame: av.VideoFrame, result: av.VideoFrame, correction: npt.NDArray[np.float32], depth: int) -> None:
    scaled = correction * np.float32(2**depth - 1)
    if len(frame.planes) == 1:
        channels = _PACKED[frame.format.name]
        samples = np.zeros((frame.height, frame.width, len(channels)), np.float32)
        for index, name in enumerate("rgb"):
            samples[..., channels.index(name)] = scaled[..., index]
        shape = (frame.height, len(channels) * frame.width)
        _add(_samples(frame, 0, shape, depth), samples.reshape(shape), _samples(result, 0, shape, depth), depth)
        return
    shape = (frame.height, frame.width)
    for plane, channel in enumerate((1, 2, 0)):
        difference = np.ascontiguousarray(scaled[..., channel])
        _add(_samples(frame, plane, shape, depth), difference, _samples(result, plane, shape, depth), depth)


def _add_luma(frame: av.VideoFrame, result: av.VideoFrame, correction: npt.NDArray[np.float32], depth: int) -> None:
    shape = (frame.height, frame.width)
    luma_row = _difference_matrix(matrix(frame), is_full_range(frame), depth)[0]
    difference = _weighted(correction, luma_row)
    _add(_samples(frame, 0, shape, depth), difference, _samples(result, 0, shape, depth), depth)


def _add_chroma(frame: av.VideoFrame, result: av.VideoFrame, correction: npt.NDArray[np.float32], depth: int) -> None:
    # A common multiple of every subsampling, because a format's chroma size is rounded up.
    block_width = 16 // VideoFormat(frame.format.name, 16, 16).chroma_width()
    block_height = 16 // VideoFormat(frame.format.name, 16, 16).chroma_height()
    height, width = -(-frame.height // block_height), -(-frame.width // block_width)
    missing = (height * block_height - frame.height, width * block_width - frame.width)
    if any(missing):
        correction = np.pad(correction, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    rows = correction.reshape(height, block_height, width * block_width * 3)
    summed = rows[:, 0] if block_height == 1 else rows[:, 0] + rows[:, 1]
    for row in range(2, block_height):
        summed += rows[:, row]
    blocks = summed.reshape(height, width, block_width, 3)
    mean = blocks[:, :, 0] if block_width == 1 else blocks[:, :, 0] + blocks[:, :, 1]
    for column in range(2, block_width):
        mean += blocks[:, :, column]
    rows_of_chroma = _difference_matrix(matrix(frame), is_full_range(frame), depth)[1:]
    blue, red = (_weighted(mean, row / np.float32(block_width * block_height)) for row in rows_of_chroma)
    if len(frame.planes) == 2:
        shape = (height, 2 * width)
        differences = np.stack([blue, red], -1).reshape(shape)
        _add(_samples(frame, 1, shape, depth), differences, _samples(result, 1, shape, depth), depth)
        return
    for plane, difference in ((1, blue), (2, red)):
        target = _samples(result, plane, (height, width), depth)
        _add(_samples(frame, plane, (height, width), depth), difference, target, depth)


def _weighted(rgb: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The weighted sum over channels, `(height, width)`; not a product, for BLAS threads stall on busy cores."""
    total: npt.NDArray[np.float32] = rgb[..., 0] * weights[0]
    total += rgb[..., 1] * weights[1]
    total += rgb[..., 2] * weights[2]
    return total


@lru_cache(maxsize=32)
def _difference_matrix(code: int, full_range: bool, depth: int) -> npt.NDArray[np.float32]:
    """Float32 `(3, 3)`: RGB differences, 1.0 full scale, to Y, Cb, Cr code values of `depth` bits."""
    kr, kb = _WEIGHTS[code]
    luma = np.array([kr, 1.0 - kr - kb, kb])
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - kr))
    full = float(2**depth - 1)
    luma_scale, chroma_scale = (full, full) if full_range else (219.0 * 2 ** (depth - 8), 224.0 * 2 ** (depth - 8))
    rows = np.stack([luma_scale * luma, chroma_scale * blue, chroma_scale * red]).astype(np.float32)
    rows.flags.writeable = False
    return rows


def _samples(frame: av.VideoFrame, index: int, shape: tuple[int, int], depth: int) -> npt.NDArray[Any]:
    """A view of a plane's code values, `shape` in samples, without the padding at the end of each line."""
    plane = frame.planes[index]
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    stride = plane.line_size
    # A negative line size means the image is stored bottom up; the buffer still starts at its lowest address.
    offset = 0 if stride >= 0 else (shape[0] - 1) * -stride
    return np.ndarray(shape, dtype, buffer=memoryview(plane), offset=offset, strides=(stride, dtype.itemsize))


def _add(samples: npt.NDArray[Any], difference: npt.NDArray[np.float32], target: npt.NDArray[Any], depth: int) -> None:
    """Writes `clip(round(samples + difference))` to `target`; overwrites `difference`."""
    if not np.isfinite(difference.sum()):
        raise ValueError("correction must be finite. Received: NaN or infinity in it")
    difference += samples
    difference += np.float32(0.5)
    np.clip(difference, np.float32(0), np.float32(2**depth - 0.5), out=difference)
    target[...] = difference


def copy_attributes(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Gives a frame the times and the colour description of another."""
    target.pts = source.pts
    if source.time_base is not None:
        target.time_base = source.time_base
    target.duration = source.duration
    target.colorspace = source.colorspace
    target.color_range = source.color_range
    target.color_primaries = source.color_primaries
    target.color_trc = source.color_trc
