"""Deterministic encode-decode round trips: the compression operator `C(I, QF)` of Galteri et al.

Every codec is a plain function `name(frames, <its own knobs>) -> RoundTrip` that takes and gives uint8 RGB frames. A
knob keeps the name and the direction that its codec gives it: JPEG's `quality` is better upwards, x264's `crf` is
better downwards.

The same frames and knobs give the same bits on every run with the same libraries: encoders run on one thread, and
nothing reads a clock. Video is encoded to packets and decoded from those packets in memory: there is no container and
no file.

Chroma subsampling needs even sizes, and encoders at least 16 to 80 pixels. Other frames are padded by repeating their
last row and column, and cropped back. Video is BT.601 in limited range, whatever its size.

Reference: Galteri et al., "Deep Universal Generative Adversarial Compression Artifact Removal", IEEE Transactions on
Multimedia 2019. The paper uses JPEG, and H.264 in its video work; the other codecs here are ours.
"""

import dataclasses
import io
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias, cast

import av
import numpy as np
import numpy.typing as npt
import PIL
from av.codec.codec import UnknownCodecError
from PIL import Image, features
from PIL.JpegImagePlugin import JpegImageFile

from keras_deartifact import colour, quantiser, video

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
PIX_FMTS = ("yuv420p", "yuv422p", "yuv444p")

# ffmpeg's rate control counts quantiser scales in "lambda" units, FF_QP2LAMBDA of them to one.
_LAMBDA_PER_QSCALE = 118

# Sides below which an encoder gets a padded picture. With a single column of 64x64 coding tree units, x265 varies from
# run to run and can corrupt the heap; SVT-AV1 refuses a bitrate below 64x64.
_SMALLEST = {"libx265": 80, "libsvtav1": 64}
_SMALLEST_ELSEWHERE = 16


def _has_avx512() -> bool:
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return any(name == "X86_V4" or name.startswith("AVX512") for name in found)


# With AVX-512, x264's macroblock tree depends on uninitialised memory at most widths: the same frames give other bits
# from run to run, even on one thread. Its AVX2 code does not, and agrees with its C code.
X264_OPTIONS = {"x264-params": "asm=AVX2"} if _has_avx512() else {}
"""Options with which x264 makes the same bits of the same frames."""

_Frames = npt.NDArray[np.uint8]
# Quoted: the class takes its parameter in the stubs alone.
_Packet: TypeAlias = "av.Packet[Any]"
_Map = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """What comes back from a codec.

    Attributes:
        frames: uint8 RGB `(n, height, width, 3)`, the same shape as what went in, in the same order.
        size_bytes: int, length of the encoded images together, or of the video packets without a container. H.264's
            first packet holds about 700 bytes in which x264 notes its settings.
        quantisers: float32 `(n, ceil(height / 16), ceil(width / 16))`, log2 of the luma quantiser step of each 16x16
            block as `quantiser.py` defines it; None where the codec does not tell.
    """

    frames: _Frames
    size_bytes: int
    quantisers: _Map | None = None


def jpeg(frames: _Frames, quality: int, subsampling: str = "4:2:0") -> RoundTrip:
    """JPEG by libjpeg (through Pillow), each frame on its own.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`.
        quality: int in `[1, 100]`, libjpeg's quality factor; up is better.
        subsampling: one of `SUBSAMPLINGS`, the chroma grid.

    Returns:
        `RoundTrip` with quantisers, the same in every block: JPEG has one table for a whole image.

    Raises:
        ValueError: frames or knobs are out of range.
    """
    _check_frames(frames)
    _check_range("quality", quality, 1, 100)
    _check_choice("subsampling", subsampling, SUBSAMPLINGS)
    return _still(frames, "jpg", "JPEG", {"quality": quality, "subsampling": subsampling})


def jpeg2000(frames: _Frames, ratio: float) -> RoundTrip:
    """JPEG 2000 by OpenJPEG (through Pillow), each frame on its own, with the lossy 9/7 wavelet.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`.
        ratio: float in `[1, 1000]`, raw size / encoded size that the encoder aims at; down is better.

    Returns:
        `RoundTrip` without quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or Pillow lacks OpenJPEG.
    """
    _check_frames(frames)
    _check_range("ratio", ratio, 1, 1000)
    options = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
    return _still(frames, "jpg_2000", "JPEG2000", options)


def webp(frames: _Frames, quality: int) -> RoundTrip:
    """Lossy WebP by libwebp (through Pillow), each frame on its own.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`.
        quality: int in `[0, 100]`, libwebp's quality factor; up is better.

    Returns:
        `RoundTrip` without quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or Pillow lacks libwebp.
    """
    _check_frames(frames)
    _check_range("quality", quality, 0, 100)
    return _still(frames, "webp", "WEBP", {"quality": quality})


def mpeg2(
    frames: _Frames,
    qscale: int | None = None,
    bitrate_kbps: float | None = None,
    gop: int = 12,
    b_frames: int = 2,
    frame_rate: Fraction | int = Fraction(25),
) -> RoundTrip:
    """MPEG-2 video by ffmpeg's own encoder: DVDs and digital television.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        qscale: int in `[1, 31]`, a fixed quantiser scale; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        gop: int in `[1, 600]`, most frames from one intra frame to the next.
        b_frames: int in `[0, 16]`, most B-frames in a row.
        frame_rate: frames a second, one that MPEG-2 can write (24, 25, 30, 50, 60, or 24, 30, 60 * 1000/1001).

    Returns:
        `RoundTrip` with quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder.
    """
    options = _scale_options(qscale, bitrate_kbps, frame_rate)
    return _video(frames, "mpeg2video", "mpeg2video", options, gop, b_frames, frame_rate, bitrate_kbps)


def mpeg4(
    frames: _Frames,
    qscale: int | None = None,
    bitrate_kbps: float | None = None,
    gop: int = 12,
    b_frames: int = 2,
    frame_rate: Fraction | int = Fraction(25),
) -> RoundTrip:
    """MPEG-4 part 2 video (the family of DivX and Xvid) by ffmpeg's own encoder.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        qscale: int in `[1, 31]`, a fixed quantiser scale; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        gop: int in `[1, 600]`, most frames from one intra frame to the next.
        b_frames: int in `[0, 16]`, most B-frames in a row.
        frame_rate: frames a second.

    Returns:
        `RoundTrip` with quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder.
    """
    options = _scale_options(qscale, bitrate_kbps, frame_rate)
    return _video(frames, "mpeg4", "mpeg4", options, gop, b_frames, frame_rate, bitrate_kbps)


def h264(
    frames: _Frames,
    crf: float | None = None,
    bitrate_kbps: float | None = None,
    preset: str = "medium",
    gop: int | None = None,
    b_frames: int | None = None,
    frame_rate: Fraction | int = Fraction(25),
    pix_fmt: str = "yuv420p",
) -> RoundTrip:
    """H.264 by x264.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        crf: float in `[0, 51]`, x264's constant rate factor; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        preset: one of `PRESETS`, x264's effort.
        gop: int in `[1, 600]`, most frames from one intra frame to the next; None is x264's own 250.
        b_frames: int in `[0, 16]`, most B-frames in a row; None is what the preset says.
        frame_rate: frames a second.
        pix_fmt: one of `PIX_FMTS`, the chroma grid.

    Returns:
        `RoundTrip` with quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder.
    """
    _check_choice("preset", preset, PRESETS)
    options = {"preset": preset, **_crf_options(crf, bitrate_kbps, 0, 51)}
    options |= X264_OPTIONS
    return _video(frames, "libx264", "h264", options, gop, b_frames, frame_rate, bitrate_kbps, pix_fmt)


def h265(
    frames: _Frames,
    crf: float | None = None,
    bitrate_kbps: float | None = None,
    preset: str = "medium",
    gop: int | None = None,
    b_frames: int | None = None,
    frame_rate: Fraction | int = Fraction(25),
    pix_fmt: str = "yuv420p",
) -> RoundTrip:
    """H.265 (HEVC) by x265.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        crf: float in `[0, 51]`, x265's constant rate factor; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        preset: one of `PRESETS`, x265's effort.
        gop: int in `[1, 600]`, most frames from one intra frame to the next; None is x265's own 250.
        b_frames: int in `[0, 16]`, most B-frames in a row; None is what the preset says.
        frame_rate: frames a second.
        pix_fmt: one of `PIX_FMTS`, the chroma grid.

    Returns:
        `RoundTrip` without quantisers: ffmpeg's HEVC decoder does not tell them.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder.
    """
    _check_choice("preset", preset, PRESETS)
    options = {"preset": preset, **_crf_options(crf, bitrate_kbps, 0, 51)}
    # x265 ignores ffmpeg's thread count, and writes a banner to stderr by itself.
    options["x265-params"] = "log-level=none:info=0:pools=none:frame-threads=1"
    return _video(frames, "libx265", "hevc", options, gop, b_frames, frame_rate, bitrate_kbps, pix_fmt)


def vp9(
    frames: _Frames,
    crf: int | None = None,
    bitrate_kbps: float | None = None,
    speed: int = 4,
    gop: int | None = None,
    frame_rate: Fraction | int = Fraction(25),
) -> RoundTrip:
    """VP9 by libvpx.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        crf: int in `[0, 63]`, libvpx's constant quality; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        speed: int in `[0, 8]`, libvpx's cpu-used; up is faster and worse.
        gop: int in `[1, 600]`, most frames from one intra frame to the next; None is libvpx's own 128.
        frame_rate: frames a second.

    Returns:
        `RoundTrip` without quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder.
    """
    _check_range("speed", speed, 0, 8)
    options = {"deadline": "good", "cpu-used": str(speed), **_crf_options(crf, bitrate_kbps, 0, 63)}
    return _video(frames, "libvpx-vp9", "vp9", options, gop, None, frame_rate, bitrate_kbps)


def av1(
    frames: _Frames,
    crf: int | None = None,
    bitrate_kbps: float | None = None,
    speed: int = 8,
    gop: int | None = None,
    frame_rate: Fraction | int = Fraction(25),
) -> RoundTrip:
    """AV1 by SVT-AV1.

    Args:
        frames: uint8 RGB `(n, height, width, 3)`, in display order.
        crf: int in `[1, 63]`, constant rate factor; down is better. Exactly one of this and `bitrate_kbps`.
        bitrate_kbps: float in `[1, 1000000]`, average kilobits (1000 bits) a second; up is better.
        speed: int in `[0, 13]`, SVT-AV1's preset; up is faster and worse.
        gop: int in `[1, 600]`, most frames from one intra frame to the next; None is SVT-AV1's own choice.
        frame_rate: frames a second.

    Returns:
        `RoundTrip` without quantisers.

    Raises:
        ValueError: frames or knobs are out of range, or PyAV lacks the encoder or decoder.
    """
    _check_range("speed", speed, 0, 13)
    # SVT-AV1 writes a banner to stderr by itself, and takes its log level, 1 for errors, from the environment alone.
    os.environ.setdefault("SVT_LOG", "1")
    options = {"preset": str(speed), "svtav1-params": "lp=1", **_crf_options(crf, bitrate_kbps, 1, 63)}
    return _video(frames, "libsvtav1", "libdav1d", options, gop, None, frame_rate, bitrate_kbps)


CODECS: dict[str, Callable[..., RoundTrip]] = {
    "jpeg": jpeg,
    "jpeg2000": jpeg2000,
    "webp": webp,
    "mpeg2": mpeg2,
    "mpeg4": mpeg4,
    "h264": h264,
    "h265": h265,
    "vp9": vp9,
    "av1": av1,
}


def _still(frames: _Frames, feature: str, pillow_format: str, options: dict[str, Any]) -> RoundTrip:
    if not features.check(feature):
        raise ValueError(
            f"Expected a Pillow with the codec '{feature}'; the installed one lacks it. "
            f"Received: PIL.__version__={PIL.__version__}"
        )
    decoded = np.empty_like(frames)
    size_bytes = 0
    tables = []
    for index, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format=pillow_format, **options)
        size_bytes += buffer.tell()
        with Image.open(buffer) as image:
            decoded[index] = np.asarray(image.convert("RGB"))
            if isinstance(image, JpegImageFile):
                tables.append(image.quantization[0])
    if not tables:
        return RoundTrip(decoded, size_bytes)
    _, height, width, _ = frames.shape
    maps = [quantiser.constant_map(height, width, quantiser.jpeg_table_log2_step(table)) for table in tables]
    return RoundTrip(decoded, size_bytes, np.stack(maps))


def _video(
    frames: _Frames,
    encoder: str,
    decoder: str,
    options: dict[str, str],
    gop: int | None,
    b_frames: int | None,
    frame_rate: Fraction | int,
    bitrate_kbps: float | None,
    pix_fmt: str = "yuv420p",
) -> RoundTrip:
    _check_frames(frames)
    _check_choice("pix_fmt", pix_fmt, PIX_FMTS)
    _check_range("frame_rate", frame_rate, 1, 240)
    _check_codec(encoder, "w")
    _check_codec(decoder, "r")
    _, height, width, _ = frames.shape
    rows, columns = (max(_SMALLEST.get(encoder, _SMALLEST_ELSEWHERE), size + size % 2) for size in (height, width))
    padded = np.pad(frames, ((0, 0), (0, rows - height), (0, columns - width), (0, 0)), mode="edge")
    images = [colour.from_rgb(frame, pix_fmt=pix_fmt) for frame in padded]
    context = _encoder_context(encoder, images[0], Fraction(frame_rate))
    context.options = options
    if bitrate_kbps is not None:
        context.bit_rate = round(bitrate_kbps * 1000)
    if gop is not None:
        _check_range("gop", gop, 1, 600)
        context.gop_size = gop
    if b_frames is not None:
        _check_range("b_frames", b_frames, 0, 16)
        context.max_b_frames = b_frames
    packets = _encode(context, images)
    received = _decode(decoder, packets, len(images))
    for image in received:
        # MPEG-4 cannot say which matrix it used.
        image.colorspace, image.color_range = images[0].colorspace, images[0].color_range
    decoded = np.stack([colour.to_rgb(image)[:height, :width] for image in received])
    size_bytes = sum(packet.size for packet in packets)
    if decoder not in quantiser.STEP_FROM_QP:
        return RoundTrip(decoded, size_bytes)
    map_rows, map_columns = quantiser.map_shape(height, width)
    maps = [_log2_steps(image, decoder)[:map_rows, :map_columns] for image in received]
    return RoundTrip(decoded, size_bytes, np.stack(maps))


def _encoder_context(encoder: str, image: av.VideoFrame, frame_rate: Fraction) -> av.VideoCodecContext:
    context = cast(av.VideoCodecContext, av.CodecContext.create(encoder, "w"))
    context.width, context.height, context.pix_fmt = image.width, image.height, image.format.name
    context.colorspace, context.color_range = image.colorspace, image.color_range
    context.time_base, context.framerate = 1 / frame_rate, frame_rate
    context.thread_count = 1
    return context


def _encode(context: av.VideoCodecContext, images: Sequence[av.VideoFrame]) -> list[_Packet]:
    packets: list[_Packet] = []
    # Noted beforehand: PyAV 19 crashes when a context is looked at that could not be opened.
    received = (
        f"width={context.width}, height={context.height}, frame_rate={context.framerate}, options={context.options}"
    )
    name, time_base = context.name, context.time_base
    try:
        for pts, image in enumerate(images):
            image.pts, image.time_base = pts, time_base
            packets += context.encode(image)
        return packets + context.encode(None)
    except av.FFmpegError as error:
        raise ValueError(
            f"Expected a size, frame rate and knobs that the encoder '{name}' accepts. Received: {received}"
        ) from error


def _decode(decoder: str, packets: Sequence[_Packet], count: int) -> list[av.VideoFrame]:
    context = cast(av.VideoCodecContext, av.CodecContext.create(decoder, "r"))
    # Frame threads corrupt the exported QPs.
    context.thread_type, context.thread_count = "NONE", 1
    images: list[av.VideoFrame] = []
    if decoder in quantiser.STEP_FROM_QP:
        context.options = {"export_side_data": "venc_params"}
        # ffmpeg's MPEG decoders give the frame that a flush pushes out without its QPs. A repeated first packet, an
        # intra frame, pushes it out with them; the repeated frame comes last and is dropped.
        packets = [*packets, _repeated(packets[0], count)]
    for packet in packets:
        images += context.decode(packet)
    images += context.decode(None)
    images = [image for image in images if image.pts is not None and image.pts < count]
    images.sort(key=lambda image: image.pts or 0)
    if [image.pts for image in images] != list(range(count)):
        raise ValueError(f"Expected {count} frames from the decoder '{decoder}'. Received: {len(images)} frames")
    return images


def _log2_steps(image: av.VideoFrame, decoder: str) -> _Map:
    qp = video.macroblock_qp(image)
    if qp is None:
        raise ValueError(f"Expected QPs with every frame of the decoder '{decoder}'. Received: none at pts={image.pts}")
    return quantiser.log2_step_from_qp(qp, decoder)


def _repeated(packet: _Packet, pts: int) -> _Packet:
    copy: _Packet = av.Packet(bytes(packet))
    copy.pts = copy.dts = pts
    copy.time_base = packet.time_base
    return copy


def _scale_options(qscale: int | None, bitrate_kbps: float | None, frame_rate: Fraction | int) -> dict[str, str]:
    _check_one_rate("qscale", qscale, bitrate_kbps)
    _check_range("frame_rate", frame_rate, 1, 240)
    if qscale is not None:
        _check_range("qscale", qscale, 1, 31)
        # PyAV cannot set a frame's `quality`, which the encoders' fixed-scale mode reads. Rate control with one scale
        # to choose from, for I, P and B frames alike, does the same.
        lambdas = str(qscale * _LAMBDA_PER_QSCALE)
        limits = {"qmin": str(qscale), "qmax": str(qscale), "lmin": lambdas, "lmax": lambdas}
        return {**limits, "i_qfactor": "1", "b_qfactor": "1", "b_qoffset": "0"}
    # ffmpeg's default tolerance, 4000 kilobits whatever the rate, lets a short clip miss a low rate by half. It takes
    # no less than a frame's share of a second.
    return {"bt": str(math.ceil((bitrate_kbps or 0) * 1000 / min(8, frame_rate)))}


def _crf_options(crf: float | None, bitrate_kbps: float | None, low: int, high: int) -> dict[str, str]:
    _check_one_rate("crf", crf, bitrate_kbps)
    if crf is None:
        return {}
    _check_range("crf", crf, low, high)
    return {"crf": str(crf)}


def _check_codec(name: str, mode: Literal["r", "w"]) -> None:
    try:
        av.Codec(name, mode)
    except UnknownCodecError as error:
        kind = "encoder" if mode == "w" else "decoder"
        raise ValueError(
            f"Expected a PyAV with the {kind} '{name}'; the installed one lacks it. "
            f"Received: av.__version__={av.__version__}"
        ) from error


def _check_one_rate(name: str, value: float | None, bitrate_kbps: float | None) -> None:
    if (value is None) == (bitrate_kbps is None):
        raise ValueError(
            f"Expected exactly one of `{name}` and `bitrate_kbps`. "
            f"Received: {name}={value}, bitrate_kbps={bitrate_kbps}"
        )
    if bitrate_kbps is not None:
        _check_range("bitrate_kbps", bitrate_kbps, 1, 1_000_000)


def _check_frames(frames: _Frames) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            "Expected `frames` to be uint8 RGB (n, height, width, 3), none of them 0. "
            f"Received: frames.dtype={frames.dtype}, frames.shape={frames.shape}"
        )


def _check_range(name: str, value: float | Fraction, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"Expected `{name}` in [{low}, {high}]. Received: {name}={value}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"Expected `{name}` to be one of {', '.join(choices)}. Received: {name}={value!r}")
