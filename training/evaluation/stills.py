"""Still pictures: compressed by Pillow, restored as `deartifact restore` does, measured against what they were.

Two protocols. "colour": RGB, 4:2:0, Pillow's default decoding. "grey", that of the literature on JPEG artefacts: the
luma of MATLAB's rgb2ycbcr (BT.601, 16 to 235), rounded to 8 bits, as a grey JPEG; a grey picture is its own luma.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import data, engines, image, metrics, restore
from keras_deartifact import stills as pictures
from training import baselines
from training.evaluation.records import COMPRESSED, ORIGINAL, Record, best_strengths

__all__ = ["Shown", "judged", "measure_stills", "studio_luma"]

_STUDIO_WEIGHTS = np.array((65.481, 128.553, 24.966)) / 255.0
# NIQE wants two blocks of 96 pixels.
_SHORT, _LONG = 96, 192

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A picture for the report to show.

    Attributes:
        item: its name.
        setting: how it was compressed.
        versions: uint8 RGB by method.
    """

    item: str
    setting: str
    versions: dict[str, Pixels]


def studio_luma(rgb: Pixels) -> Pixels:
    """Returns MATLAB's luma, 16 to 235, rounded to 8 bits, `(height, width)`.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255
    """
    return np.rint(16.0 + rgb @ _STUDIO_WEIGHTS).astype(np.uint8)


def measure_stills(
    folder: str,
    protocol: str,
    qualities: Sequence[int],
    restorers: Mapping[str, engines.Restorer],
    filters: Sequence[str] = (),
    shown: int = 0,
    more_metrics: Mapping[str, Callable[[Pixels, Pixels], float]] | None = None,
) -> tuple[list[Record], list[Shown]]:
    """Measures every picture below a folder at every JPEG quality.

    Args:
        folder: of clean pictures; its name is the set's.
        protocol: "colour" or "grey", see the module.
        qualities: of JPEG.
        restorers: models by name.
        filters: keys of `baselines.FILTERS`; each gets the strength that is best for each quality.
        shown: pictures to keep for the report, at the first quality, evenly spread.
        more_metrics: against the original, of colour pictures, by name.

    Raises:
        ValueError: there is no picture.
    """
    files = data.image_files(folder)
    predictor = engines.load_predictor()
    strengths = {name: baselines.FILTERS[name] for name in filters if name not in baselines.VIDEOS_ONLY}
    names = _names(files)
    showing = set(files[:: max(1, len(files) // shown)][:shown]) if shown else set()
    alone: dict[str, dict[str, float]] = {}
    records: list[Record] = []
    kept: list[Shown] = []
    for quality in qualities:
        setting = f"JPEG {quality}"
        values: dict[str, dict[str, dict[str, float]]] = {file: {} for file in files}
        with tempfile.TemporaryDirectory() as scratch:
            jpegs = {file: Path(scratch) / f"{index}.jpg" for index, file in enumerate(files)}
            for file, jpeg in jpegs.items():
                original = _original(file, protocol)
                Image.fromarray(original).save(jpeg, quality=quality, subsampling=2)
                versions = {COMPRESSED: _read(jpeg, protocol)}
                for name, restorer in restorers.items():
                    png = Path(scratch) / "restored.png"
                    restore.restore_image(restorer, jpeg, png, predictor=predictor, overwrite=True)
                    versions[name] = _read(png, protocol)
                if file not in alone:
                    # The same at every quality.
                    alone[file] = _alone(original, protocol)
                values[file][ORIGINAL] = alone[file]
                bits = {"bits_per_pixel": metrics.bits_per_pixel(jpeg.stat().st_size, *original.shape[:2])}
                for method, pixels in versions.items():
                    values[file][method] = _figures(original, pixels, protocol, more_metrics or {}) | bits
                if file in showing and quality == qualities[0]:
                    kept.append(Shown(names[file], setting, {ORIGINAL: original, **versions}))
            best = _choose_strengths(jpegs, strengths, protocol)
            for file, jpeg in jpegs.items():
                original = _original(file, protocol)
                filtered = _filtered(jpeg, list(best.values()), original.shape, protocol)
                for name, (_, pixels) in zip(best, filtered, strict=True):
                    values[file][name] = _figures(original, pixels, protocol, more_metrics or {})
        records += [
            Record(Path(folder).name, protocol, setting, names[file], method, figures)
            for file in files
            for method, figures in values[file].items()
        ]
    return records, kept


# The metrics against the original by protocol.
_METRICS: dict[str, dict[str, Callable[[Pixels, Pixels], float]]] = {
    "colour": {name: metrics.METRICS[name] for name in ("psnr", "psnr_y", "ssim", "psnr_b")},
    "grey": {name: metrics.METRICS[name] for name in ("psnr_y", "ssim", "psnr_b")},
}
# That by which a filter's strength is chosen.
_CHOOSING = {"colour": "psnr", "grey": "psnr_y"}


def _names(files: Sequence[str]) -> dict[str, str]:
    """Names that tell the files apart: without their folder where that will do."""
    stems = [Path(file).stem for file in files]
    return {file: stem if stems.count(stem) == 1 else file for file, stem in zip(files, stems, strict=True)}


def _original(file: str, protocol: str) -> Pixels:
    still = pictures.read(file)
    if still.pixels.dtype != np.uint8:
        raise ValueError(f"expected pictures of 8 bits. Received: {file} of {still.pixels.dtype}")
    if protocol == "colour":
        return still.pixels
    is_grey = bool((still.pixels == still.pixels[..., :1]).all())
    return still.pixels[..., 0] if is_grey else studio_luma(still.pixels)


def _read(file: Path, protocol: str) -> Pixels:
    pixels = pictures.read(file).pixels
    return pixels if protocol == "colour" else image.luma(pixels)


def _choose_strengths(
    jpegs: Mapping[str, Path], strengths: Mapping[str, Sequence[str]], protocol: str
) -> dict[str, str]:
    """The best strength of each filter for all pictures, by the PSNR alone; the other metrics take far longer."""
    if not strengths:
        return {}
    every = [strength for each in strengths.values() for strength in each]
    scores: dict[str, list[float]] = {strength: [] for strength in every}
    choose = _METRICS[protocol][_CHOOSING[protocol]]
    for file, jpeg in jpegs.items():
        original = _original(file, protocol)
        for strength, pixels in _filtered(jpeg, every, original.shape, protocol):
            scores[strength].append(choose(original, pixels))
    return best_strengths(scores, strengths)


def _filtered(
    jpeg: Path, strengths: Sequence[str], shape: tuple[int, ...], protocol: str
) -> Iterator[tuple[str, Pixels]]:
    """Runs filters at all their strengths, a process on each processor."""

    def run(strength: str) -> Pixels:
        rgb = baselines.filtered_rgb(jpeg, strength, (shape[0], shape[1]))
        return rgb if protocol == "colour" else image.luma(rgb)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(strengths, pool.map(run, strengths), strict=True)


def _figures(
    original: Pixels, pixels: Pixels, protocol: str, more_metrics: Mapping[str, Callable[[Pixels, Pixels], float]]
) -> dict[str, float]:
    against = {name: float(metric(original, pixels)) for name, metric in _METRICS[protocol].items()}
    return (
        against | _alone(pixels, protocol) | {name: metric(original, pixels) for name, metric in more_metrics.items()}
    )


def _alone(pixels: Pixels, protocol: str) -> dict[str, float]:
    return judged(pixels) if protocol == "colour" else {}


def judged(pixels: Pixels) -> dict[str, float]:
    """Returns what the metrics without reference say of a picture: none of one too small for them or without detail."""
    short, long = sorted(pixels.shape[:2])
    if short < _SHORT or long < _LONG:
        return {}
    values = {name: float(metric(pixels)) for name, metric in metrics.NO_REFERENCE_METRICS.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}
