"""The measurement: at each size what is timed by itself and the whole runs, and the report of both."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from keras_deartifact import engines, files, image, quantiser
from keras_deartifact.bench.results import NetworkRow, RunRow, SizeReport, StageRow, gmac, ratio, spread
from keras_deartifact.bench.runs import whole_runs
from keras_deartifact.bench.settings import STANDARD, Settings
from keras_deartifact.bench.stages import MATRIX, PREDICTOR, STAGES, make_clip, rates_alone
from keras_deartifact.bench.subjects import Subject, key, most_runs, running, stated_work

__all__ = ["measure", "turns"]


def measure(
    subjects: Sequence[Subject],
    source: files.StrPath,
    *,
    restore_frames: Callable[..., npt.NDArray[Any]],
    restore_video: Callable[..., Any],
    settings: Settings = STANDARD,
    threads: int | None = None,
    step: Callable[[], None] = lambda: None,
) -> list[SizeReport]:
    """Measures everything, at each size.

    Args:
        subjects: of `load`; the first is what the others are compared with. Whole runs are of those that
            `subjects.running` chooses.
        source: a clip, which is scaled to each size.
        restore_frames: that of `restore`, which is of the same layer as this package.
        restore_video: likewise; another process has to be able to import it.
        settings: how much.
        threads: of the engines; one for each processor by default.
        step: called after each turn, `turns(subjects, settings)` times; at once for those that turn out not to be.

    Returns:
        A report for each size.
    """
    predictor = engines.load_predictor(threads=threads)
    reports = []
    for width, height in settings.sizes:
        with tempfile.TemporaryDirectory(prefix="deartifact-bench-") as name:
            clip = Path(name) / "clip.mp4"
            make_clip(source, clip, width, height, settings.clip_frames)
            rates = rates_alone(clip, subjects, predictor, restore_frames, settings, step)
            fps = {name: spread(each).median for name, each in rates.items()}
            chosen = running(subjects, fps)
            for _ in range(settings.run_rounds * (most_runs(subjects) - len(chosen))):
                step()
            runs = whole_runs(clip, chosen, restore_frames, restore_video, settings, threads, step)
        reports.append(_report(width, height, settings, subjects, rates, runs))
    return reports


def turns(subjects: Sequence[Subject], settings: Settings) -> int:
    """How many turns `measure` takes at most."""
    alone = settings.rounds * (len((MATRIX, PREDICTOR, *STAGES)) + len(subjects))
    return len(settings.sizes) * (alone + settings.run_rounds * most_runs(subjects))


def _report(
    width: int,
    height: int,
    settings: Settings,
    subjects: Sequence[Subject],
    rates: Mapping[str, Sequence[float]],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
) -> SizeReport:
    first = key(subjects[0])
    peak = [settings.matrix_side**3 / 1e9 * rate for rate in rates[MATRIX]]

    def network(name: str, engine: str, provider: str | None, key: str, work: float | None) -> NetworkRow:
        fps = rates[key]
        speed = None if work is None else [work * each for each in fps]
        return NetworkRow(
            name=name,
            engine=engine,
            fps=spread(fps),
            ratio=ratio(fps, rates[first]),
            gmac=work,
            gmac_per_second=None if speed is None else spread(speed),
            share_of_peak=None if speed is None else ratio(speed, peak),
            provider=provider,
        )

    def padded(multiply_accumulates_720p: int | None) -> float | None:
        rows, columns = (side * image.GRID for side in quantiser.map_shape(height, width))
        return None if multiply_accumulates_720p is None else gmac(multiply_accumulates_720p, columns, rows)

    def run(subject: Subject) -> RunRow:
        values = runs[key(subject)]
        fps = [each["fps"] for each in values]
        peaks = [each["peak_bytes"] for each in values if each["peak_bytes"] is not None]
        return RunRow(
            name=subject.name,
            engine=subject.engine,
            fps=spread(fps),
            ratio=ratio(fps, [each["fps"] for each in runs[first]]),
            inference_busy=spread([each["inference_busy"] for each in values]),
            peak_bytes=max(peaks, default=None),
            provider=subject.provider,
        )

    networks = [
        network(each.name, each.engine, each.provider, key(each), padded(each.multiply_accumulates_720p))
        for each in subjects
    ]
    predictor_card = json.loads(engines.predictor_path().with_suffix(".json").read_text("utf-8"))
    # It sees whole blocks alone.
    whole = (width // image.GRID * image.GRID, height // image.GRID * image.GRID)
    stated = stated_work(predictor_card)
    work = None if stated is None else gmac(stated, *whole)
    networks.append(network(engines.PREDICTOR, "litert", None, PREDICTOR, work))
    return SizeReport(
        width=width,
        height=height,
        peak_gmac_per_second=spread(peak),
        networks=networks,
        stages=[StageRow(name, spread(rates[name]), ratio(rates[name], rates[first])) for name in STAGES],
        runs=[run(subject) for subject in subjects if key(subject) in runs],
    )
