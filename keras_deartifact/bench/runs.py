"""Whole runs of `restore_video`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_deartifact import engines, video
from keras_deartifact.bench.processes import in_own_process
from keras_deartifact.bench.settings import Settings
from keras_deartifact.bench.stages import inputs
from keras_deartifact.bench.subjects import Subject, key, limit_tensorflow

__all__ = ["whole_runs"]


def whole_runs(
    clip: Path,
    subjects: Sequence[Subject],
    restore_video: Callable[..., Any],
    settings: Settings,
    threads: int | None,
    step: Callable[[], None],
) -> dict[str, list[dict[str, Any]]]:
    """What whole runs report, for each subject and round."""
    runs: dict[str, list[dict[str, Any]]] = {key(subject): [] for subject in subjects}
    for _ in range(settings.run_rounds):
        for subject in subjects:
            result, peak_bytes = in_own_process(
                _restore_clip, restore_video, subject.model, subject.engine, threads, os.fspath(clip)
            )
            runs[key(subject)].append({**result, "peak_bytes": peak_bytes})
            step()
    return runs


def _restore_clip(
    restore_video: Callable[..., Any], model: str, engine: str, threads: int | None, clip: str
) -> dict[str, float]:
    """Restores a clip once, after a first frame that does what only a first one does."""
    limit_tensorflow(engine, threads)
    restorer, predictor = engines.load(model, engine, threads), engines.load_predictor(threads=threads)
    images, shown, maps = inputs(next(video.read_frames(clip)))
    restorer(images, maps)
    predictor(shown)
    report = restore_video(restorer, clip, Path(clip).with_name("restored.mp4"), predictor=predictor, overwrite=True)
    return {"fps": report.fps, "inference_busy": report.inference_busy}
