"""Measures what a model gains over the compressed input, beside a classical filter in the same run.

    python -m training.evaluate --model=shuffle_nano --stills=DIR --videos=DIR --json=FILE

Stills: every picture below `--stills`, compressed by Pillow (4:2:0, its default decoding), restored as
`deartifact restore` does; PSNR over RGB, PSNR and SSIM over luma (full range); NIQE and BRISQUE (down is better) of the
compressed, the restored and the original, where the pictures are large enough for them.

Videos: the first frames of every clip below `--videos` (lossless, 8 bit), encoded into a real file and restored as
`deartifact restore` does, but written without loss; PSNR over the luma plane.

Figures are means over pictures or clips, gains those of each one's gain; a clip's PSNR is the mean over its frames. The
filter gets the strength that is best for each row, which favours it. `--model` may be given several times, for a table
each.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from absl import app, flags
from av.video.frame import PictureType
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import data, engines, metrics, restore, stills, video
from keras_deartifact.metrics.psnr import decibels, mean_squared_error
from training import baselines

FLAGS = flags.FLAGS

Figures = dict[str, float]
Value = TypeVar("Value")

# Label -> the encoder and its options.
VIDEO_SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "x264 CRF 28": ("libx264", {"crf": "28"}),
    "x264 CRF 34": ("libx264", {"crf": "34"}),
    "x264 CRF 40": ("libx264", {"crf": "40"}),
    "x265 CRF 34": ("libx265", {"crf": "34", "x265-params": "log-level=error"}),
    "MPEG-4 q 12": ("mpeg4", {"qmin": "12", "qmax": "12"}),
    "MPEG-2 q 12": ("mpeg2video", {"qmin": "12", "qmax": "12"}),
}


def evaluate_stills(restorer: engines.Restorer, folder: str, qualities: list[int], chain: str | None) -> list[Figures]:
    """Returns a row of figures for every JPEG quality."""
    files = data.image_files(folder)
    predictor = engines.load_predictor()
    binary = baselines.ffmpeg()
    strengths = [name for name in baselines.FILTERS.get(chain or "", ()) if binary and not name.endswith("qp=0")]
    rows = []
    for quality in qualities:
        figures: dict[str, list[float]] = {}
        by_strength: dict[str, list[Figures]] = {name: [] for name in strengths}
        for file in files:
            original = stills.read(file).pixels
            with tempfile.TemporaryDirectory() as scratch:
                jpeg, png = Path(scratch) / "compressed.jpg", Path(scratch) / "restored.png"
                Image.fromarray(original).save(jpeg, quality=quality, subsampling=2)
                restore.restore_image(restorer, jpeg, png, predictor=predictor)
                pictures = {
                    "input": stills.read(jpeg).pixels,
                    "restored": stills.read(png).pixels,
                    "original": original,
                }
                before, after = (_still_figures(original, pictures[name]) for name in ("input", "restored"))
                for name, value in _no_reference_figures(pictures).items():
                    figures.setdefault(name, []).append(value)
                for name, value in before.items():
                    figures.setdefault(f"input {name}", []).append(value)
                    figures.setdefault(f"gain {name}", []).append(after[name] - value)
                measure = partial(_filtered_still, str(binary), jpeg, original, before)
                for strength, gain in _side_by_side(measure, strengths):
                    by_strength[strength].append(gain)
        row = {"quality": float(quality), "pictures": float(len(files))}
        row |= {name: float(np.mean(values)) for name, values in figures.items()}
        means = [
            {name: float(np.mean([g[name] for g in gains])) for name in gains[0]} for gains in by_strength.values()
        ]
        if means:
            best = max(means, key=lambda mean: mean["psnr"])
            row |= {f"{chain} gain {name}": value for name, value in best.items()}
        rows.append(row)
    return rows


def _side_by_side(measure: Callable[[str], Value], strengths: Sequence[str]) -> Iterator[tuple[str, Value]]:
    """Runs a filter at all its strengths, a process on each processor."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(strengths, pool.map(measure, strengths), strict=True)


def _filtered_still(binary: str, jpeg: Path, original: NDArray[np.uint8], before: Figures, strength: str) -> Figures:
    filtered = baselines.filtered_rgb(binary, jpeg, strength, original.shape[:2])
    return {name: metrics.METRICS[name](original, filtered) - before[name] for name in ("psnr", "psnr_y")}


def _filtered_clip(
    binary: str, compressed: Path, originals: list[NDArray[np.uint8]], before: float, strength: str
) -> float:
    return _psnr(originals, baselines.filtered_luma(binary, compressed, strength, originals[0].shape)) - before


def _still_figures(original: NDArray[np.uint8], restored: NDArray[np.uint8]) -> Figures:
    return {name: float(metrics.METRICS[name](original, restored)) for name in ("psnr", "psnr_y", "ssim")}


def _no_reference_figures(pictures: dict[str, NDArray[np.uint8]]) -> Figures:
    short, long = sorted(pictures["original"].shape[:2])
    if short < 96 or long < 192:
        return {}
    return {
        f"{role} {name}": float(metric(pixels))
        for name, metric in metrics.NO_REFERENCE_METRICS.items()
        for role, pixels in pictures.items()
    }


def clip_files(folder: str) -> list[Path]:
    """Returns the clips in a folder, sorted.

    Raises:
        ValueError: there is none.
    """
    clips = sorted(path for path in Path(folder).iterdir() if path.suffix in (".mkv", ".mp4", ".y4m"))
    if not clips:
        raise ValueError(f"Expected lossless clips in {folder}, found none.")
    return clips


def evaluate_videos(restorer: engines.Restorer, folder: str, count: int, chain: str | None) -> list[dict[str, Any]]:
    """Returns a row of figures for every entry of `VIDEO_SETTINGS`."""
    clips = clip_files(folder)
    predictor = engines.load_predictor()
    binary = baselines.ffmpeg()
    strengths = baselines.FILTERS.get(chain or "", ()) if binary else ()
    rows: list[dict[str, Any]] = []
    for label, (codec, options) in VIDEO_SETTINGS.items():
        inputs, gains = [], []
        by_strength: dict[str, list[float]] = {name: [] for name in strengths}
        for clip in clips:
            with tempfile.TemporaryDirectory() as scratch:
                compressed, restored = Path(scratch) / "compressed.mkv", Path(scratch) / "restored.mkv"
                originals = _encode(clip, compressed, codec, options, count)
                restore.restore_video(restorer, compressed, restored, predictor=predictor, codec="ffv1")
                inputs.append(_psnr(originals, _luma_planes(compressed)))
                gains.append(_psnr(originals, _luma_planes(restored)) - inputs[-1])
                measure = partial(_filtered_clip, str(binary), compressed, originals, inputs[-1])
                for strength, gain in _side_by_side(measure, strengths):
                    by_strength[strength].append(gain)
        row = {"setting": label, "clips": len(clips), "input psnr_y": float(np.mean(inputs))}
        row |= {"gain psnr_y": float(np.mean(gains)), "gain of the worst clip": min(gains)}
        if strengths:
            row[f"{chain} gain psnr_y"] = max(float(np.mean(values)) for values in by_strength.values())
        rows.append(row)
    return rows


def _encode(clip: Path, target: Path, codec: str, options: dict[str, str], count: int) -> list[NDArray[np.uint8]]:
    """Encodes the first `count` frames of a clip and returns their luma planes."""
    rate = video.probe(clip).frame_rate or Fraction(25)
    planes: list[NDArray[np.uint8]] = []
    with av.open(str(target), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        for index, frame in zip(range(count), video.read_frames(clip, quantisers=False), strict=False):
            image = frame.image
            planes.append(_luma(image))
            if not index:
                stream.width, stream.height, stream.pix_fmt = image.width, image.height, image.format.name
            # Its time and its picture type would be taken as orders.
            image.pts, image.time_base, image.pict_type = index, 1 / rate, PictureType.NONE
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return planes


def _luma(frame: Any) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()


def _luma_planes(file: Path) -> Iterator[NDArray[np.uint8]]:
    return (_luma(frame.image) for frame in video.read_frames(file, quantisers=False))


def _psnr(originals: list[NDArray[np.uint8]], planes: Iterable[NDArray[np.uint8]]) -> float:
    return float(np.mean([decibels(mean_squared_error(*pair)) for pair in zip(originals, planes, strict=True)]))


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    names = list(rows[0])
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        cells: list[str] = []
        for name in names:
            value = row.get(name, "")
            form: Callable[[Any], str] = str
            if isinstance(value, float):
                decimals = 0 if name in ("quality", "pictures", "clips") else 4 if "ssim" in name else 2
                form = (f"{{:+.{decimals}f}}" if "gain" in name else f"{{:.{decimals}f}}").format
            cells.append(form(value))
        yield "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> None:
    """Prints the tables that the flags ask for."""
    del argv
    if not (FLAGS.stills or FLAGS.videos):
        raise SystemExit("error: give --stills, --videos or both.")
    if FLAGS.json and len(FLAGS.model) > 1:
        raise SystemExit("error: give one --model with --json, or several without.")
    if FLAGS.filter and not baselines.ffmpeg():
        print("no classical filter: imageio-ffmpeg is not installed")
    try:
        for model in FLAGS.model:
            figures = _evaluate(model)
            print(
                model,
                *(line for part in ("stills", "videos") if part in figures for line in ("", *_table(figures[part]))),
                sep="\n",
            )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    if FLAGS.json:
        Path(FLAGS.json).write_text(json.dumps(figures, indent=2) + "\n")


def _evaluate(model: str) -> dict[str, Any]:
    figures: dict[str, Any] = {"filter": FLAGS.filter if baselines.ffmpeg() else ""}
    restorer = engines.load(model)
    if Path(model).is_file() or not Path(model).exists():
        figures["sha256"] = engines.digest(Path(model) if Path(model).is_file() else engines.pretrained_path(model))
    if FLAGS.stills:
        qualities = [int(quality) for quality in FLAGS.qualities]
        figures["stills"] = evaluate_stills(restorer, FLAGS.stills, qualities, FLAGS.filter)
    if FLAGS.videos:
        figures["videos"] = evaluate_videos(restorer, FLAGS.videos, FLAGS.frames, FLAGS.filter)
    return figures


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_multi_string("model", [engines.DEFAULT_MODEL], "A shipped model's name, or a model's file or folder.")
    flags.DEFINE_string("stills", None, "Folder of clean pictures.")
    flags.DEFINE_string("videos", None, "Folder of lossless clips.")
    flags.DEFINE_list("qualities", ["10", "20", "30", "40", "90"], "JPEG qualities.")
    flags.DEFINE_enum("filter", "spp", ["", *baselines.FILTERS], "Classical filter to compare with.")
    flags.DEFINE_integer("frames", 20, "Frames of a clip.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
