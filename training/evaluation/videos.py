"""Clips: encoded into real files, restored as `deartifact restore` does but written without loss, and measured.

PSNR and SSIM are those of the decoded luma plane, means over frames; VMAF where imageio-ffmpeg is installed; NIQE and
BRISQUE of every tenth frame; VIIDEO where a clip has its 22 frames; flicker against the original.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from keras_deartifact import engines, metrics, restore, video
from keras_deartifact.metrics.viideo import FRAMES as VIIDEO_FRAMES
from training import baselines
from training.evaluation.records import COMPRESSED, ORIGINAL, Record, keep_best_strength
from training.evaluation.stills import judged

__all__ = ["VIDEO_SETTINGS", "clip_files", "encode", "luma_planes", "measure_videos", "speeds_720p"]

# Label -> the encoder and its options.
VIDEO_SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "x264 CRF 22": ("libx264", {"crf": "22"}),
    "x264 CRF 28": ("libx264", {"crf": "28"}),
    "x264 CRF 34": ("libx264", {"crf": "34"}),
    "x264 CRF 40": ("libx264", {"crf": "40"}),
    "x265 CRF 34": ("libx265", {"crf": "34", "x265-params": "log-level=error"}),
    "MPEG-4 q 12": ("mpeg4", {"qmin": "12", "qmax": "12"}),
    "MPEG-2 q 12": ("mpeg2video", {"qmin": "12", "qmax": "12"}),
}
_NO_REFERENCE_EVERY = 10

Plane = NDArray[np.uint8]


def clip_files(folder: str) -> list[Path]:
    """Returns the clips in a folder, sorted.

    Raises:
        ValueError: there is none.
    """
    clips = sorted(path for path in Path(folder).iterdir() if path.suffix in (".mkv", ".mp4", ".y4m"))
    if not clips:
        raise ValueError(f"Expected lossless clips in {folder}, found none.")
    return clips


def measure_videos(
    folder: str, count: int, restorers: Mapping[str, engines.Restorer], filters: Sequence[str] = ()
) -> list[Record]:
    """Measures every clip in a folder at every entry of `VIDEO_SETTINGS`.

    Args:
        folder: of lossless clips, 8 bit; its name is the set's.
        count: frames of a clip.
        restorers: models by name.
        filters: keys of `baselines.FILTERS`; each gets the strength that is best for each setting.

    Raises:
        ValueError: there is no clip.
    """
    clips = clip_files(folder)
    predictor = engines.load_predictor()
    names = [name for name in filters if name not in baselines.STILLS_ONLY]
    strengths = {strength: name for name in names for strength in baselines.FILTERS[name]}
    records: list[Record] = []
    for setting, (codec, options) in VIDEO_SETTINGS.items():
        measured: list[Record] = []
        for clip in clips:
            with tempfile.TemporaryDirectory() as scratch:
                original, compressed = Path(scratch) / "original.mkv", Path(scratch) / "compressed.mkv"
                encode(clip, original, "ffv1", {}, count)
                encode(clip, compressed, codec, options, count)
                planes = list(luma_planes(original))
                files = {ORIGINAL: original, COMPRESSED: compressed}
                for name, restorer in restorers.items():
                    files[name] = Path(scratch) / f"restored-{len(files)}.mkv"
                    restore.restore_video(restorer, compressed, files[name], predictor=predictor, codec="ffv1")
                for method, file in files.items():
                    values = _figures(planes, list(luma_planes(file)), method)
                    values |= _bits(file, planes) if method == COMPRESSED else {}
                    if baselines.ffmpeg() and method != ORIGINAL:
                        values["vmaf"] = baselines.vmaf(original, file, planes[0].shape)
                    measured.append(Record(Path(folder).name, "video", setting, clip.stem, method, values))
                for strength, values in _filtered(original, compressed, planes, list(strengths)):
                    measured.append(Record(Path(folder).name, "video", setting, clip.stem, strength, values))
        records += keep_best_strength(measured, strengths, "psnr_y")
    return records


def speeds_720p(folder: str, count: int, restorers: Mapping[str, engines.Restorer]) -> dict[str, float]:
    """Returns frames a second of whole runs on the first clip at 1280x720, decoding and encoding included.

    The paper's are of its network alone, on a GPU.
    """
    predictor = engines.load_predictor()
    speeds = {}
    with tempfile.TemporaryDirectory() as scratch:
        compressed = Path(scratch) / "compressed.mp4"
        encode(clip_files(folder)[0], compressed, "libx264", {"crf": "34"}, count, size=(1280, 720))
        for name, restorer in restorers.items():
            restored = Path(scratch) / "restored.mp4"
            report = restore.restore_video(restorer, compressed, restored, predictor=predictor, overwrite=True)
            speeds[name] = report.fps
    return speeds


def encode(
    clip: Path, target: Path, codec: str, options: dict[str, str], count: int, size: tuple[int, int] | None = None
) -> None:
    """Encodes the first `count` frames of a clip, in its own pixel format and, unless one is given, size."""
    rate = video.probe(clip).frame_rate or Fraction(25)
    with av.open(str(target), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        for index, frame in zip(range(count), video.read_frames(clip, quantisers=False), strict=False):
            picture = frame.image if size is None else frame.image.reformat(*size)
            if not index:
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, picture.format.name
            # Its time and its picture type would be taken as orders.
            picture.pts, picture.time_base, picture.pict_type = index, 1 / rate, PictureType.NONE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def luma_planes(file: Path) -> Iterator[Plane]:
    """Yields the decoded luma planes, uint8 `(height, width)`."""
    for frame in video.read_frames(file, quantisers=False):
        plane: Any = frame.image.planes[0]
        yield np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()


def _mean_psnr(originals: Sequence[Plane], planes: Iterable[Plane]) -> float:
    pairs = zip(originals, planes, strict=True)
    return float(np.mean([metrics.psnr_y(original, plane) for original, plane in pairs]))


def _figures(originals: Sequence[Plane], planes: Sequence[Plane], method: str) -> dict[str, float]:
    values: dict[str, float] = {}
    if method != ORIGINAL:
        values["psnr_y"] = _mean_psnr(originals, planes)
        pairs = zip(originals, planes, strict=True)
        values["ssim"] = float(np.mean([metrics.ssim(original, plane) for original, plane in pairs]))
        values["flicker"] = metrics.flicker(originals, planes)
    each = [judged(plane) for plane in planes[::_NO_REFERENCE_EVERY]]
    for name in metrics.NO_REFERENCE_METRICS:
        if all(name in judgement for judgement in each):
            values[name] = float(np.mean([judgement[name] for judgement in each]))
    if len(planes) >= VIIDEO_FRAMES:
        values["viideo"] = metrics.viideo(planes)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _bits(file: Path, planes: Sequence[Plane]) -> dict[str, float]:
    """The rate of the coded pictures, without the container."""
    with av.open(str(file)) as container:
        size = sum(packet.size for packet in container.demux(video=0))
    return {"bits_per_pixel": metrics.bits_per_pixel(size, *planes[0].shape, frame_count=len(planes))}


def _filtered(
    original: Path, file: Path, originals: Sequence[Plane], strengths: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Runs filters at all their strengths, a process on each processor, and returns PSNR and VMAF of each."""
    shape = originals[0].shape

    def run(strength: str) -> dict[str, float]:
        psnr = _mean_psnr(originals, baselines.filtered_luma(file, strength, shape))
        return {"psnr_y": psnr, "vmaf": baselines.vmaf(original, file, shape, strength)}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(strengths, pool.map(run, strengths), strict=True)
