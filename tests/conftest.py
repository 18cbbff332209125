"""Fixtures that every test may ask for."""

import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

# TensorFlow reads these once, at its import. Results must not depend on the machine's fast paths.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

import av
import numpy as np
import numpy.typing as npt
import pytest

from keras_deartifact import cli, video


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights that start at random are the same in every run."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Speeds that tests measure are not those that the user's own runs go by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run(*argv)` is the command `deartifact` in this process: exit code, stdout, stderr."""

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(each) for each in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return call


SHARED = Path(__file__).resolve().parents[2] / "shared"


def _photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture with what photographs have: shading, edges at all angles, texture of falling spectrum, some noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / np.float64(max(height, width))
    picture = np.empty((height, width, 3))
    for channel, (base, slope) in enumerate(generator.uniform([60, -50], [190, 50], (3, 2))):
        picture[..., channel] = base + slope * (rows + columns)
    for _ in range(12):
        angle, offset = generator.uniform(0, 2 * np.pi), generator.uniform(0, 1, 2)
        across = (rows - offset[0]) * np.cos(angle) + (columns - offset[1]) * np.sin(angle)
        along = (columns - offset[1]) * np.cos(angle) - (rows - offset[0]) * np.sin(angle)
        inside = (np.abs(across) < generator.uniform(0.03, 0.3)) & (np.abs(along) < generator.uniform(0.03, 0.3))
        picture[inside] = 0.5 * picture[inside] + 0.5 * generator.uniform(0, 255, 3)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(generator.standard_normal((height, width))) / (frequency + 0.02)
    texture = np.fft.irfft2(spectrum, (height, width))
    picture += (12 * texture / texture.std())[..., None] + generator.normal(0, 1.5, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _png_16_bit(samples: npt.NDArray[np.uint16], colour_type: int, extra: bytes = b"", interlace: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    passes = [samples]
    if interlace:
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [samples[row::down, column::across] for row, column, down, across in starts]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlace)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


@pytest.fixture(scope="session")
def png_16_bit() -> Callable[..., bytes]:
    """`png_16_bit(samples, colour_type, extra, interlace)`: a PNG without filters, by the specification."""
    return _png_16_bit


@pytest.fixture
def deep() -> npt.NDArray[np.uint16]:
    """Noise of 16 bits in four channels."""
    return np.random.default_rng(3).integers(0, 65536, (21, 34, 4)).astype(np.uint16)


def _moving_blocks(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Blocks that move two pixels a frame."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(40, 216, (-(-height // 8), -(-width // 8), 3)).astype(np.uint8)
    return np.ascontiguousarray(np.roll(blocks.repeat(8, 0).repeat(8, 1)[:height, :width], 2 * index, 1))


def _make_video(
    path: Path,
    codec: str = "libx264",
    acodec: str | None = "aac",
    *,
    times: list[int] | None = None,
    size: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    setup: dict[str, Any] | None = None,
    rotation: int | None = None,
) -> Path:
    times = [40 * index for index in range(30)] if times is None else times
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        # MPEG knows no finer one, and AVI would fill the time between with empty frames.
        base = Fraction(1, 25) if codec.startswith("mpeg") or path.suffix == ".avi" else Fraction(1, 1000)
        stream.codec_context.time_base = base
        for name, value in (setup or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(acodec, rate=44100, layout="stereo") if acodec else None
        container.metadata["title"] = "a title"
        if audio is not None:
            audio.bit_rate = 128_000
            audio.metadata["language"] = "fra"
        start = 44100 * times[0] // 1000
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(_moving_blocks(index, *size), format="rgb24").reformat(format=pix_fmt)
            frame.time_base, frame.pts = base, round(Fraction(time, 1000) / base)
            container.mux(stream.encode(frame))
            if audio is not None:
                position = start + 1764 * index
                wave = 8000 * np.sin(np.arange(position, position + 1764) * (2 * np.pi * 440 / 44100))
                sound = wave.astype(np.int16).repeat(2)[None]
                tone = av.AudioFrame.from_ndarray(sound, format="s16", layout="stereo")
                tone.sample_rate, tone.time_base, tone.pts = 44100, Fraction(1, 44100), position
                container.mux(audio.encode(tone))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """`make_video(path, codec, acodec, *, times, size, ...)`: blocks that move, with a stereo tone beside them.

    30 frames at 25 a second, or frames at `times` in milliseconds; `setup` are attributes of the encoder.
    """
    return _make_video


def _times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.fixture(scope="session")
def times_of() -> Callable[[Path], list[Fraction]]:
    """`times_of(path)`: the presentation time of every frame, in seconds."""
    return _times_of


@pytest.fixture(scope="session")
def photo() -> Callable[..., npt.NDArray[np.uint8]]:
    """`photo(height, width, seed=0)`: a natural-looking uint8 RGB picture, the same every time."""
    return _photo


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds oracles and data; a test that needs it is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}")
    return SHARED


def _packets_of(path: Path, kind: str = "audio") -> list[tuple[Fraction, bytes]]:
    """Presentation times and contents of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]


@pytest.fixture(scope="session")
def packets_of() -> Callable[..., list[tuple[Fraction, bytes]]]:
    return _packets_of


def _copy_video(source: Path, target: Path, **kwargs: Any) -> video.VideoWriter:
    """Writes a video's decoded frames into a new file of it; returns the writer."""
    with video.VideoWriter(target, source, **{"preset": "ultrafast", **kwargs}) as writer:
        for frame in video.read_frames(source):
            writer.write(frame.image)
    return writer


@pytest.fixture(scope="session")
def copy_video() -> Callable[..., video.VideoWriter]:
    return _copy_video


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a small generator that changes what it is given, for tests of serving; only to be read."""
    import serving_server

    path = tmp_path_factory.mktemp("export") / "1"
    serving_server.write_export(path)
    return path


@pytest.fixture(scope="session")
def browser():
    """A real headless Chromium; skipped where it or playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
