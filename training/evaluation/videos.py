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
from training.evaluation.records import COMPRESSED, ORIGINAL, Record, best_strengths
from training.evaluation.stills import judged

__all__ = ["VIDEO_SETTINGS", "clip_files", "encode", "luma_planes", "measure_videos", "speeds_720p"]

# Label -> the encoder and its options.
VIDEO_SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "x264 CRF 12": ("libx264", {"crf": "12"}),
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
    strengths = {name: baselines.FILTERS[name] for name in filters if name not in baselines.STILLS_ONLY}
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as scratch:
        originals = {clip: Path(scratch) / f"original-{index}.mkv" for index, clip in enumerate(clips)}
        encoded = {clip: Path(scratch) / f"compressed-{index}.mkv" for index, clip in enumerate(clips)}
        alone: dict[Path, dict[str, float]] = {}
        for clip, original in originals.items():
            encode(clip, original, "ffv1", {}, count)
            alone[clip] = _alone(list(luma_planes(original)))
        for setting, (codec, options) in VIDEO_SETTINGS.items():
            values: dict[Path, dict[str, dict[str, float]]] = {clip: {ORIGINAL: alone[clip]} for clip in clips}
            for clip, compressed in encoded.items():
                original = originals[clip]
                encode(clip, compressed, codec, options, count)
                planes = list(luma_planes(original))
                values[clip][COMPRESSED] = _file_figures(original, planes, compressed) | _bits(compressed, planes)
                for name, restorer in restorers.items():
                    restored = Path(scratch) / "restored.mkv"
                    restore.restore_video(
                        restorer, compressed, restored, predictor=predictor, codec="ffv1", overwrite=True
                    )
                    values[clip][name] = _file_figures(original, planes, restored)
            best = _choose_strengths(originals, encoded, strengths)
            for clip, compressed in encoded.items():
                planes = list(luma_planes(originals[clip]))
                shape = planes[0].shape
                for name, strength in best.items():
                    filtered = list(baselines.filtered_luma(compressed, strength, shape))
                    values[clip][name] = _figures(planes, filtered)
                    values[clip][name]["vmaf"] = baselines.vmaf(originals[clip], compressed, shape, strength)
            records += [
                Record(Path(folder).name, "video", setting, clip.stem, method, figures)
                for clip in clips
                for method, figures in values[clip].items()
            ]
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


def _file_figures(original: Path, originals: Sequence[Plane], file: Path) -> dict[str, float]:
    """What a file is like beside the original, VMAF included where it can be had."""
    values = _figures(originals, list(luma_planes(file)))
    if baselines.ffmpeg():
        values["vmaf"] = baselines.vmaf(original, file, originals[0].shape)
    return values


def _figures(originals: Sequence[Plane], planes: Sequence[Plane]) -> dict[str, float]:
    pairs = list(zip(originals, planes, strict=True))
    values = {
        "psnr_y": _mean_psnr(originals, planes),
        "ssim": float(np.mean([metrics.ssim(original, plane) for original, plane in pairs])),
        "flicker": metrics.flicker(originals, planes),
    }
    return {name: value for name, value in values.items() if math.isfinite(value)} | _alone(planes)


def _alone(planes: Sequence[Plane]) -> dict[str, float]:
    """What the metrics without reference say of a clip."""
    values: dict[str, float] = {}
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


def _choose_strengths(
    originals: Mapping[Path, Path], encoded: Mapping[Path, Path], strengths: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The best strength of each filter for all clips, by the PSNR, a process on each processor.

    The other metrics take far longer, VMAF above all, for which ffmpeg filters once more.
    """
    if not strengths:
        return {}
    every = [strength for each in strengths.values() for strength in each]
    scores: dict[str, list[float]] = {strength: [] for strength in every}
    for clip, file in encoded.items():
        planes = list(luma_planes(originals[clip]))

        def score(strength: str, file: Path = file, planes: Sequence[Plane] = planes) -> float:
            return _mean_psnr(planes, baselines.filtered_luma(file, strength, planes[0].shape))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for strength, value in zip(every, pool.map(score, every), strict=True):
                scores[strength].append(value)
    return best_strengths(scores, strengths)
