"""Classical filters to compare with: ffmpeg's, run by the binary that the package imageio-ffmpeg holds.

They are asked for the same thing as a model, on the same file, and get the strength that suits each setting best.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTERS", "ffmpeg", "filtered_luma", "filtered_rgb"]

# Filter -> its strengths to choose from, evenly spread in the range that helps; qp=0 means that of the bitstream.
FILTERS: dict[str, tuple[str, ...]] = {
    "spp": tuple(f"spp=quality=6:qp={qp}" for qp in (0, 6, 10, 16, 24, 32, 40)),
    "fspp": tuple(f"fspp=quality=5:qp={qp}" for qp in (0, 6, 10, 16, 24, 32, 40)),
}


def ffmpeg() -> str | None:
    """Returns the path of an ffmpeg with the filters, or None where imageio-ffmpeg is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _raw(binary: str, file: Path, chain: str, pix_fmt: str) -> bytes:
    command = [binary, "-v", "error", "-export_side_data", "venc_params", "-i", str(file), "-vf", chain]
    command += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "-pix_fmt", pix_fmt, "-f", "rawvideo", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def filtered_rgb(binary: str, file: Path, chain: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns a still picture through a filter chain, uint8 RGB `(height, width, 3)`."""
    return np.frombuffer(_raw(binary, file, chain, "rgb24"), np.uint8).reshape(*shape, 3)


def filtered_luma(binary: str, file: Path, chain: str, shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yields the luma planes `(height, width)` of a 4:2:0 video through a filter chain."""
    height, width = shape
    frame_bytes = height * width + 2 * (-(-height // 2) * -(-width // 2))
    raw = np.frombuffer(_raw(binary, file, chain, "yuv420p"), np.uint8).reshape(-1, frame_bytes)
    for frame in raw:
        yield frame[: height * width].reshape(height, width)
