"""Measures a quality predictor: `python -m training.evaluate_predictor --stills=DIR --videos=DIR`.

Stills, every picture below `--stills` by Pillow (4:2:0): the share whose quality is told within 3 points, the median
predicted step being turned into the nearest libjpeg quality; the share told within 0.5 of the coarser step where a
second compression hides it, with and without a shift of 4 pixels in between; and what is told of the pictures as they
are, with how many of them are taken for compressed ones, a log2 step above 2.

Videos, the first frames of every clip below `--videos` by x264: the share of frames whose mean step is within 0.5
(3 QP) of the mean that the bitstream states, both smoothed over time as restoring does, and frame by frame.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from numpy.typing import NDArray

from keras_deartifact import codecs, colour, data, engines, image, quantiser, stills, video
from training.evaluation.videos import clip_files

FLAGS = flags.FLAGS

QUALITIES = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
DOUBLES = ((10, 75), (20, 80), (30, 90), (50, 95))
CRFS = (20, 24, 28, 34, 40)
_STEPS = np.array([quantiser.jpeg_quality_log2_step(quality) for quality in range(1, 101)])


def quality_of(log2_step: float) -> int:
    """Returns the libjpeg quality whose step is nearest."""
    return int(np.abs(_STEPS - log2_step).argmin()) + 1


def _predict(predictor: engines.Predictor, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return predictor(image.to_float(frames))


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    return codecs.jpeg(pixels[None], quality).frames[0]


def evaluate_stills(predictor: engines.Predictor, files: Sequence[str]) -> dict[str, Any]:
    """Returns shares by quality, shares by pair of qualities, and the steps told of the pictures as they are."""
    pictures = [stills.read(file).pixels for file in files]

    def told(pixels: NDArray[np.uint8]) -> float:
        return float(np.median(_predict(predictor, pixels[None])))

    within, hidden = {}, {}
    for quality in QUALITIES:
        errors = [quality_of(told(_jpeg(pixels, quality))) - quality for pixels in pictures]
        within[str(quality)] = float(np.mean(np.abs(errors) <= 3))
    for first, second in DOUBLES:
        for shift in (0, 4):
            steps = [told(_jpeg(_jpeg(pixels, first)[shift:, shift:], second)) for pixels in pictures]
            close = np.abs(np.array(steps) - quantiser.jpeg_quality_log2_step(first)) <= 0.5
            hidden[f"{first} then {second}, shift {shift}"] = float(close.mean())
    clean = [told(pixels) for pixels in pictures]
    return {
        "pictures": len(pictures),
        "within 3 points": within,
        "coarser of two within 0.5": hidden,
        "as they are": {
            "median": float(np.median(clean)),
            "90 %": float(np.percentile(clean, 90)),
            "above 2": int(np.sum(np.array(clean) > 2.0)),
        },
    }


def evaluate_videos(predictor: engines.Predictor, clips: Sequence[Path], count: int) -> dict[str, Any]:
    """Returns the shares of frames, by CRF and over all, smoothed in time and frame by frame."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for clip in clips:
        frames = [colour.to_rgb(frame.image) for frame in islice(video.read_frames(clip, quantisers=False), count)]
        for crf in CRFS:
            result = codecs.h264(np.stack(frames), crf=crf)
            maps = [_predict(predictor, frame[None])[0] for frame in result.frames], result.quantisers
            raw, smooth = _differences(*maps), _differences(*map(quantiser.smooth_in_time, maps))
            errors.setdefault(str(crf), []).extend(zip(raw, smooth, strict=True))
    shares = {crf: (np.abs(values) <= 0.5).mean(axis=0) for crf, values in errors.items()}
    shares["all"] = np.mean(list(shares.values()), axis=0)
    return {
        "clips": len(clips),
        "frame by frame": {crf: float(share[0]) for crf, share in shares.items()},
        "smoothed": {crf: float(share[1]) for crf, share in shares.items()},
    }


def _differences(predicted: Any, stated: Any) -> Iterator[float]:
    """Yields by how much the means of successive maps differ."""
    return (float(each.mean() - other.mean()) for each, other in zip(predicted, stated, strict=True))


def main(argv: list[str]) -> None:
    """Prints what the flags ask for."""
    del argv
    file = FLAGS.predictor or engines.predictor_path()
    try:
        predictor = engines.load_predictor(file)
        figures: dict[str, Any] = {"sha256": engines.digest(file)}
        if FLAGS.stills:
            figures["stills"] = evaluate_stills(predictor, data.image_files(FLAGS.stills))
        if FLAGS.videos:
            figures["videos"] = evaluate_videos(predictor, clip_files(FLAGS.videos), FLAGS.frames)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    text = json.dumps(figures, indent=2)
    print(text)
    if FLAGS.json:
        Path(FLAGS.json).write_text(text + "\n")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("predictor", None, "Exported .tflite file; the one that ships by default.")
    flags.DEFINE_string("stills", None, "Folder of clean pictures.")
    flags.DEFINE_string("videos", None, "Folder of lossless clips.")
    flags.DEFINE_integer("frames", 30, "Frames of a clip.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
