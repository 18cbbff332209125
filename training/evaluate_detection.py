"""Measures what compression and restoring do to a detector.

    python -m training.evaluate_detection --pictures=DIR --detector=FILE.cfg:FILE.weights --json=FILE

The labelled pictures below `--pictures` (the layout: `detection.read_pictures`) are compressed by Pillow (4:2:0) and
restored as `deartifact restore` does. The same detector looks at the originals, at what its decoder makes of the
compressed, at the restored, and at what classical filters make of the compressed.

Figures are COCO's mAP50 and mAP50:95 by pycocotools. Differences are those of the compressed against the originals, and
of the restored against the compressed, with the 95 % bootstrap interval over pictures: the same pictures are drawn for
both. A filter gets the strength with the highest mAP50 at each quality, which favours it.
"""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from keras_deartifact import engines, restore, stills
from training import baselines, detection
from training.evaluation import tables
from training.evaluation.inputs import check_targets, load_restorers, model_files, usable_filters
from training.evaluation.other_programs import DETECTION_METRICS, detection_table
from training.evaluation.records import COMPRESSED, ORIGINAL, best_strengths

FLAGS = flags.FLAGS


def measure(
    pictures: Sequence[detection.LabelledPicture],
    names: Sequence[str],
    detector: detection.Detector,
    qualities: Sequence[int],
    restorers: Mapping[str, engines.Restorer],
    filters: Sequence[str] = (),
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Returns a row for the originals and, at every quality, for the compressed, each model and each filter.

    Args:
        pictures: what to find.
        names: of the detector's classes.
        detector: see `training.detection`.
        qualities: of JPEG.
        restorers: models by name.
        filters: keys of `baselines.FILTERS`.
        resamples: of the bootstrap.

    Returns:
        Dicts of "quality", "method" and the two figures; but for the originals also of "against", the method that it is
        compared with, and "difference" of each figure: the value, and the lower and the upper end of its interval.

    Raises:
        ValueError: a picture cannot be read or restored, or see `detection.match`.
    """
    weights = detection.bootstrap_weights(len(pictures), resamples)

    def found(detections: Sequence[detection.Detections]) -> tuple[dict[str, float], list[detection.Matches]]:
        matches, figures = detection.match(pictures, detections, names)
        return dict(zip(DETECTION_METRICS, figures, strict=True)), matches

    def resample(method: str) -> detection.Floats:
        return detection.mean_average_precision(results[method][1], weights)

    def row(quality: int, method: str, against: str) -> dict[str, Any]:
        figures, base = results[method][0], results[against][0]
        made: dict[str, Any] = {"quality": quality, "method": method, **figures, "against": against, "difference": {}}
        for name, values in zip(DETECTION_METRICS, (resampled[method] - resampled[against]).T, strict=True):
            made["difference"][name] = [figures[name] - base[name], *detection.interval(values)]
        return made

    originals = [_eight_bits(picture.file) for picture in pictures]
    results = {ORIGINAL: found([detector(original) for original in originals])}
    resampled = {ORIGINAL: resample(ORIGINAL)}
    rows: list[dict[str, Any]] = [{"quality": None, "method": ORIGINAL, **results[ORIGINAL][0]}]
    strengths = [strength for name in filters for strength in baselines.FILTERS[name]]
    predictor = engines.load_predictor()
    for quality in qualities:
        seen: dict[str, list[detection.Detections]] = {}
        for original in originals:
            for method, pixels in _versions(original, quality, restorers, strengths, predictor):
                seen.setdefault(method, []).append(detector(pixels))
        results |= {method: found(detections) for method, detections in seen.items()}
        scores = {strength: [results[strength][0]["mAP50"]] for strength in strengths}
        best = best_strengths(scores, {name: baselines.FILTERS[name] for name in filters})
        resampled |= {method: resample(method) for method in (COMPRESSED, *restorers, *best.values())}
        rows.append(row(quality, COMPRESSED, ORIGINAL))
        rows += [row(quality, name, COMPRESSED) for name in restorers]
        for name, strength in best.items():
            rows.append(row(quality, strength, COMPRESSED) | {"method": name, "strength": strength})
    return rows


def _eight_bits(file: str) -> detection.Pixels:
    pixels = stills.read(file).pixels
    if pixels.dtype != np.uint8:
        raise ValueError(f"Expected pictures of 8 bits. Received: {file} of {pixels.dtype}")
    return np.asarray(pixels, np.uint8)


def _versions(
    original: detection.Pixels,
    quality: int,
    restorers: Mapping[str, engines.Restorer],
    strengths: Sequence[str],
    predictor: engines.Predictor,
) -> Iterator[tuple[str, detection.Pixels]]:
    """Yields what decoder, models and filters make of a picture's JPEG; filters run at once on all processors."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        jpeg, png = Path(scratch) / "compressed.jpg", Path(scratch) / "restored.png"
        Image.fromarray(original).save(jpeg, quality=quality, subsampling=2)
        yield COMPRESSED, _eight_bits(str(jpeg))
        for name, restorer in restorers.items():
            restore.restore_image(restorer, jpeg, png, predictor=predictor, overwrite=True)
            yield name, _eight_bits(str(png))
        run = partial(baselines.filtered_rgb, jpeg, shape=original.shape[:2])
        yield from zip(strengths, pool.map(run, strengths), strict=True)


def _digests(files: Sequence[Path]) -> dict[str, str]:
    """The hash of every file, those of folders included."""
    every = [each for file in files for each in (sorted(file.rglob("*")) if file.is_dir() else [file])]
    return {each.name: engines.digest(each) for each in every if each.is_file()}


def _names_file(files: Sequence[Path]) -> Path:
    """The only file of names beside the detector."""
    beside = sorted(files[0].parent.glob("*.names"))
    if len(beside) != 1:
        raise ValueError(f"Give --names: expected one .names file in {files[0].parent}, found {len(beside)}.")
    return beside[0]


def _evaluate() -> dict[str, Any]:
    check_targets(FLAGS.json)
    files = detection.detector_files(FLAGS.detector)
    names = detection.read_names(FLAGS.names or _names_file(files))
    pictures = detection.read_pictures(FLAGS.pictures, names)
    restorers = load_restorers(FLAGS.model)
    filters = usable_filters(FLAGS.filters)
    qualities = [int(quality) for quality in FLAGS.qualities]
    if not all(1 <= quality <= 100 for quality in qualities):
        raise ValueError(f"Expected qualities from 1 to 100. Received: {qualities}")
    detector = detection.load_detector(FLAGS.detector, least_score=FLAGS.least_score)
    rows = measure(pictures, names, detector, qualities, restorers, filters, FLAGS.resamples)
    return {
        "command": f"python -m training.evaluate_detection {shlex.join(sys.argv[1:])}",
        "pictures": len(pictures),
        "pictures without labels": sum(not picture.labelled for picture in pictures),
        "objects": sum(len(picture.classes) for picture in pictures),
        "sha256": _digests([*files, *model_files(FLAGS.model).values()]),
        "least score": FLAGS.least_score,
        "resamples": FLAGS.resamples,
        "rows": rows,
    }


def main(argv: list[str]) -> None:
    """Prints the table that the flags ask for."""
    del argv
    if not (FLAGS.pictures and FLAGS.detector):
        raise SystemExit("error: give --pictures and --detector.")
    try:
        figures = _evaluate()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(*tables.markdown(detection_table(figures)), sep="\n")
    if FLAGS.json:
        Path(FLAGS.json).write_text(json.dumps(figures, indent=1) + "\n")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_multi_string("model", [engines.DEFAULT_MODEL], "A shipped model's name, or a model's file or folder.")
    flags.DEFINE_string("pictures", None, "Folder of clean pictures with YOLO labels.")
    flags.DEFINE_string("detector", None, "FILE.cfg:FILE.weights of Darknet, or FILE.onnx with YOLO's output.")
    flags.DEFINE_string("names", None, "File of the classes' names; the only .names file beside the detector.")
    flags.DEFINE_list("qualities", ["10", "20", "40"], "JPEG qualities.")
    flags.DEFINE_list("filters", ["spp"], f"Filters to compare with, of {', '.join(baselines.FILTERS)}.")
    flags.DEFINE_integer("resamples", 1000, "Resamples of the bootstrap.", lower_bound=1)
    flags.DEFINE_float(
        "least_score", detection.LEAST_SCORE, "Detections below it do not count.", lower_bound=0.0, upper_bound=1.0
    )
    flags.DEFINE_string("json", None, "File for the figures.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
