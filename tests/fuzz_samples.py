"""Small real files of every container and image format that the command reads, for fuzzing."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

# The encoder of AV1 writes its settings to stderr by itself.
os.environ.setdefault("SVT_LOG", "1")

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

# Extension, encoders of video and audio, whether with subtitles, container where the extension does not tell it.
VIDEOS = {
    "mp4_h264": (".mp4", "libx264", "aac", False, None),
    "mp4_h264_fragments": (".mp4", "libx264", "aac", False, None),
    "mp4_av1": (".mp4", "libsvtav1", None, False, None),
    "mov_mjpeg": (".mov", "mjpeg", "pcm_s16le", False, None),
    "mov_hevc": (".mov", "libx265", "aac", False, None),
    "3gp_mpeg4": (".3gp", "mpeg4", "aac", False, None),
    "mkv_ffv1": (".mkv", "ffv1", "flac", True, None),
    "mkv_hevc": (".mkv", "libx265", "aac", False, None),
    "webm_vp9": (".webm", "libvpx-vp9", "libopus", False, None),
    "webm_vp8": (".webm", "libvpx", "libopus", False, None),
    "avi_mpeg4": (".avi", "mpeg4", "libmp3lame", False, None),
    "avi_mjpeg": (".avi", "mjpeg", "pcm_s16le", False, None),
    "avi_huffyuv": (".avi", "huffyuv", None, False, None),
    "ts_mpeg2": (".ts", "mpeg2video", "mp2", False, None),
    "ts_h264": (".ts", "libx264", "ac3", False, None),
    "m2ts_h264": (".m2ts", "libx264", "aac", False, None),
    "mpg_mpeg1": (".mpg", "mpeg1video", "mp2", False, None),
    "vob_mpeg2": (".vob", "mpeg2video", "ac3", False, "vob"),
    "flv_flv1": (".flv", "flv", "libmp3lame", False, None),
    "flv_h264": (".flv", "libx264", "aac", False, None),
    "wmv_wmv2": (".wmv", "wmv2", "wmav2", False, "asf"),
    "rm_rv10": (".rm", "rv10", "ac3", False, None),
    "mxf_mpeg2": (".mxf", "mpeg2video", "pcm_s16le", False, None),
    "nut_ffv1": (".nut", "ffv1", None, False, None),
    "ogg_vp8": (".ogv", "libvpx", "libopus", False, "ogg"),
    "ivf_vp9": (".ivf", "libvpx-vp9", None, False, None),
    "raw_h264": (".h264", "libx264", None, False, None),
    "raw_hevc": (".hevc", "libx265", None, False, None),
    "raw_m2v": (".m2v", "mpeg2video", None, False, None),
    "y4m": (".y4m", "wrapped_avframe", None, False, "yuv4mpegpipe"),
}

_QUIET = {"libx265": {"x265-params": "log-level=none:pools=1"}, "libvpx-vp9": {"cpu-used": "8"}}
_RATES = {"libopus": 48000, "ac3": 48000, "pcm_s16le": 48000}
_PIX_FMTS = {"mjpeg": "yuvj420p", "huffyuv": "yuv422p"}
_FRAMES = 5


def pixels(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Shading with blocks and some noise, uint8 RGB `(height, width, 3)`."""
    generator = np.random.default_rng(seed)
    shade = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3]) % 256
    blocks = generator.integers(0, 64, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    return np.clip(shade // 2 + blocks[:height, :width] + generator.integers(0, 8, shade.shape), 0, 255).astype(
        np.uint8
    )


def write_video(path: Path, name: str) -> None:
    """Writes the video of a name of `VIDEOS`: five frames of 64x48, as many packets of sound, a tag, a subtitle."""
    _, codec, sound, words, container = VIDEOS[name]
    options = {"movflags": "frag_keyframe+empty_moov"} if name.endswith("fragments") else {}
    rate = _RATES.get(sound or "", 44100)
    with av.open(str(path), "w", format=container, container_options=options) as output:
        size = (704, 576) if name.startswith("mxf") else (64, 64) if codec == "libsvtav1" else (64, 48)
        video = output.add_stream(codec, rate=25, options=_QUIET.get(codec, {}))
        video.width, video.height, video.pix_fmt = *size, _PIX_FMTS.get(codec, "yuv420p")
        video.codec_context.time_base = Fraction(1, 25)
        video.codec_context.thread_count = 1
        audio = output.add_stream(sound, rate=rate, layout="stereo") if sound else None
        if audio is not None:
            audio.bit_rate = 64000
        subtitles = _subtitles(output) if words else []
        output.metadata["title"] = "a title"
        output.start_encoding()
        for index in range(_FRAMES):
            shown = np.ascontiguousarray(np.roll(pixels(size[1], size[0]), 2 * index, 1))
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
            if audio is not None:
                count = rate // 25
                tone = np.sin(np.arange(index * count, (index + 1) * count) * 0.06)
                wave = (8000 * tone).astype(np.int16).repeat(2)[None]
                heard = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
                heard.sample_rate, heard.pts, heard.time_base = rate, index * count, Fraction(1, rate)
                output.mux(audio.encode(heard))
        output.mux(video.encode(None))
        if audio is not None:
            output.mux(audio.encode(None))
        output.mux(subtitles)


def _subtitles(output: av.container.OutputContainer) -> list[av.Packet]:
    """Adds a stream of subtitles; returns its packets."""
    words = io.BytesIO(b"1\n00:00:00,020 --> 00:00:00,120\nwords\n\n")
    with av.open(words, format="srt") as opened:
        lines = output.add_stream_from_template(opened.streams[0])
        packets = [packet for packet in opened.demux() if packet.size]
    for packet in packets:
        packet.stream = lines
    return packets


def _pillow(image_format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    image = Image.fromarray(pixels(size[1], size[0])).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _several(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    frames = [Image.fromarray(pixels(30, 40, seed)).convert(mode) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def _exif() -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "a maker", 6
    tags.get_ifd(0x8769)[0x9003] = "2001:02:03 04:05:06"
    return tags.tobytes()


def _sixteen_bit_png() -> bytes:
    # Pillow writes 16 bits of grey.
    buffer = io.BytesIO()
    Image.fromarray(pixels(30, 40)[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
    return buffer.getvalue()


def _deep(container: str) -> bytes:
    from keras_deartifact.stills import deep_png, deep_tiff

    samples = pixels(30, 40).astype(np.uint16) * 257
    return deep_png.encode(samples) if container == "PNG" else deep_tiff.encode(samples)


def _picture_makers() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged = {"exif": _exif(), "icc_profile": icc}
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    yield "jpeg", ".jpg", lambda: _pillow("JPEG", quality=40, xmp=xmp, comment=b"a comment", **tagged)
    yield "jpeg_progressive", ".jpg", lambda: _pillow("JPEG", quality=60, progressive=True)
    yield "jpeg_grey", ".jpg", lambda: _pillow("JPEG", "L")
    yield "jpeg_cmyk", ".jpg", lambda: _pillow("JPEG", "CMYK")
    yield "jpeg_restarts", ".jpg", lambda: _pillow("JPEG", restart_marker_blocks=2)
    yield "jpeg_arithmetic", ".jpg", _arithmetic_jpeg
    yield "png", ".png", lambda: _pillow("PNG", dpi=(72, 72), **tagged)
    yield "png_palette", ".png", lambda: _pillow("PNG", "P", transparency=3)
    yield "png_alpha", ".png", lambda: _pillow("PNG", "RGBA")
    yield "png_16_grey", ".png", _sixteen_bit_png
    yield "png_16", ".png", lambda: _deep("PNG")
    yield "webp", ".webp", lambda: _pillow("WEBP", quality=50, xmp=xmp, **tagged)
    yield "webp_lossless", ".webp", lambda: _pillow("WEBP", "RGBA", lossless=True)
    yield "tiff", ".tif", lambda: _pillow("TIFF", dpi=(72, 72), **tagged)
    yield "tiff_16", ".tif", lambda: _deep("TIFF")
    yield "tiff_cmyk", ".tif", lambda: _pillow("TIFF", "CMYK")
    yield "gif", ".gif", lambda: _pillow("GIF", "P")
    yield "bmp", ".bmp", lambda: _pillow("BMP")
    yield "avif", ".avif", lambda: _pillow("AVIF", quality=50, **tagged)
    yield "gif_several", ".gif", lambda: _several("GIF", "P", duration=40, loop=2, disposal=2, comment=b"a comment")
    yield "png_several", ".png", lambda: _several("PNG", "RGBA", duration=40, **tagged)
    yield "webp_several", ".webp", lambda: _several("WEBP", quality=50, duration=40, xmp=xmp, **tagged)
    yield "tiff_several", ".tif", lambda: _several("TIFF", dpi=(72, 72), compression="tiff_lzw")
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        mode = "1" if compression == "group4" else "RGB"
        yield (
            f"tiff_{compression.removeprefix('tiff_')}",
            ".tif",
            lambda mode=mode, compression=compression: _pillow("TIFF", mode, compression=compression),
        )


def _arithmetic_jpeg() -> bytes:
    data = _pillow("JPEG", quality=40)
    jpegtran = shutil.which("jpegtran")
    if jpegtran is not None:
        return subprocess.run([jpegtran, "-arithmetic"], input=data, capture_output=True, check=True).stdout
    # The header decides who reads it, and the code of a fuzzed file is wrong in any case.
    return data.replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11", 1)


PICTURES = {name: (suffix, make) for name, suffix, make in _picture_makers()}


def write_samples(folder: Path) -> dict[str, Path]:
    """Writes all samples into a folder; returns their paths by their names.

    Args:
        folder: an existing folder.
    """
    paths = {}
    for name, (suffix, make) in PICTURES.items():
        paths[name] = folder / f"{name}{suffix}"
        paths[name].write_bytes(make())
    for name, (suffix, *_) in VIDEOS.items():
        paths[name] = folder / f"{name}{suffix}"
        write_video(paths[name], name)
    return paths
