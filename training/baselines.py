"""Classical filters to compare with: ffmpeg's, run by the binary that the package imageio-ffmpeg holds, and jpegqs.

They are asked for the same thing as a model, on the same file, and get the strength that suits each setting best.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FILTERS", "STILLS_ONLY", "VIDEOS_ONLY", "ffmpeg", "filtered_luma", "filtered_rgb", "missing", "vmaf"]

_QPS = (0, 6, 10, 16, 24, 32, 40)

# Filter -> its strengths to choose from, evenly spread in the range that helps; qp=0 means that of the bitstream.
FILTERS: dict[str, tuple[str, ...]] = {
    "spp": tuple(f"spp=quality=6:qp={qp}" for qp in _QPS),
    "fspp": tuple(f"fspp=quality=5:qp={qp}" for qp in _QPS),
    "uspp": tuple(f"uspp=quality=3:qp={qp}" for qp in _QPS),
    "pp7": tuple(f"pp7=mode=medium:qp={qp}" for qp in _QPS),
    "deblock": tuple(
        f"deblock={kind}:alpha={0.098 * much:g}:beta={0.05 * much:g}:gamma={0.05 * much:g}:delta={0.05 * much:g}"
        for kind in ("weak", "strong")
        for much in (0.5, 1.0, 2.0)
    ),
    "jpegqs": tuple(f"jpegqs={quality}" for quality in (3, 4, 5, 6)),
}
STILLS_ONLY = ("jpegqs",)
# It encodes, with an encoder that does not take a JPEG's full range.
VIDEOS_ONLY = ("uspp",)


def ffmpeg() -> str | None:
    """Returns the path of an ffmpeg with the filters and VMAF, or None where imageio-ffmpeg is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def missing(name: str) -> str | None:
    """Returns what a filter needs and is not installed, None where it can run."""
    if name == "jpegqs":
        return None if shutil.which("jpegqs") else "jpegqs (Debian: apt install jpegqs)"
    return None if ffmpeg() else "imageio-ffmpeg (pip install imageio-ffmpeg)"


def _chain(strength: str, shape: tuple[int, int]) -> str:
    """The filter, with what it needs around it."""
    height, width = shape
    missing_columns = -width % 16
    if not strength.startswith("fspp") or not missing_columns:
        return strength
    # It writes past the end of such rows: ffmpeg 9 dies of it.
    padded = f"pad={width + missing_columns}:{height},fillborders=right={missing_columns}:mode=smear"
    return f"{padded},{strength},crop={width}:{height}:0:0"


def _raw(file: Path, chain: str, pix_fmt: str) -> bytes:
    command = [str(ffmpeg()), "-v", "error", "-export_side_data", "venc_params", "-i", str(file), "-vf", chain]
    command += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "-pix_fmt", pix_fmt, "-f", "rawvideo", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def filtered_rgb(file: Path, strength: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns a JPEG through a filter, uint8 RGB `(height, width, 3)`."""
    if strength.startswith("jpegqs="):
        with tempfile.TemporaryDirectory() as scratch:
            smooth = Path(scratch) / "smooth.jpg"
            command = ["jpegqs", "-i", "0", "-t", "1", "-q", strength.removeprefix("jpegqs="), str(file), str(smooth)]
            subprocess.run(command, capture_output=True, check=True)
            with Image.open(smooth) as picture:
                return np.asarray(picture.convert("RGB"))
    return np.frombuffer(_raw(file, _chain(strength, shape), "rgb24"), np.uint8).reshape(*shape, 3)


def filtered_luma(file: Path, strength: str, shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yields the luma planes `(height, width)` of a 4:2:0 video through a filter."""
    height, width = shape
    frame_bytes = height * width + 2 * (-(-height // 2) * -(-width // 2))
    raw = np.frombuffer(_raw(file, _chain(strength, shape), "yuv420p"), np.uint8).reshape(-1, frame_bytes)
    for frame in raw:
        yield frame[: height * width].reshape(height, width)


def vmaf(original: Path, restored: Path, shape: tuple[int, int], strength: str = "null") -> float:
    """Returns VMAF (model v0.6.1, mean over frames, 0 to 100) of a video of a size, through a filter if one is given.

    The two must have the same frames in the same order; their times do not matter.
    """
    graph = f"[0:v]{_chain(strength, shape)},setpts=N[restored];[1:v]setpts=N[original];"
    graph += "[restored][original]libvmaf=n_threads=2"
    command = [str(ffmpeg()), "-v", "info", "-export_side_data", "venc_params", "-i", str(restored)]
    command += ["-i", str(original), "-lavfi", graph, "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    return float(log.rsplit("VMAF score:", 1)[1].split()[0])
