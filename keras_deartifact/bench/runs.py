"""Whole runs of `restore_video`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from keras_deartifact import engines, video
from keras_deartifact.bench.processes import in_own_process
from keras_deartifact.bench.settings import Settings
from keras_deartifact.bench.stages import inputs
from keras_deartifact.bench.subjects import Subject, key

__all__ = ["whole_runs"]


def whole_runs(
    clip: Path,
    subjects: Sequence[Subject],
    restore_frames: Callable[..., npt.NDArray[Any]],
    restore_video: Callable[..., Any],
    settings: Settings,
    threads: int | None,
    step: Callable[[], None],
) -> dict[str, list[dict[str, Any]]]:
    """What whole runs report, for each subject and round."""
    runs: dict[str, list[dict[str, Any]]] = {key(subject): [] for subject in subjects}
    for _ in range(settings.run_rounds):
        for subject in subjects:
            network = (os.fspath(subject.restorer.path), subject.engine, threads, subject.provider)
            result, peak_bytes = in_own_process(_restore_clip, restore_frames, restore_video, network, os.fspath(clip))
            runs[key(subject)].append({**result, "peak_bytes": peak_bytes})
            step()
    return runs


def _restore_clip(
    restore_frames: Callable[..., npt.NDArray[Any]],
    restore_video: Callable[..., Any],
    network: tuple[str, str, int | None, str | None],
    clip: str,
) -> dict[str, float]:
    """Restores a clip once, after a first frame that does what only a first one does."""
    restorer, predictor = engines.load(*network), engines.load_predictor(threads=network[2])
    images, shown, maps = inputs(next(video.read_frames(clip)))
    restore_frames(restorer, images, maps)
    predictor(shown)
    report = restore_video(restorer, clip, Path(clip).with_name("restored.mp4"), predictor=predictor, overwrite=True)
    return {"fps": report.fps, "inference_busy": report.inference_busy}
