"""What `--engine auto` goes by from now on."""

import contextlib
from collections.abc import Sequence

from keras_deartifact import engines
from keras_deartifact.bench.forms import twins
from keras_deartifact.bench.results import SizeReport, engine_name
from keras_deartifact.bench.subjects import Subject

__all__ = ["remember"]


def remember(subjects: Sequence[Subject], reports: Sequence[SizeReport], threads: int | None = None) -> list[str]:
    """Remembers the speeds of the networks alone, also for the models that ship with the same architecture.

    A speed counts for runs with the same number of threads alone, so that an odd number does no harm.

    Args:
        subjects: that were measured.
        reports: of `measure`.
        threads: that the engines were asked for; None for their default.

    Returns:
        For the reader, a line each: which engine "auto" takes from now on, for every model that comes in several
        forms; that nothing can be remembered, where that is so.
    """
    refused = False
    for index, subject in enumerate(subjects):
        for restorer in (subject.restorer, *_alike(subject, threads)):
            for report in reports:
                fps = report.networks[index].fps.median
                is_remembered = engines.record(restorer, fps, report.height, report.width)
                refused |= not (is_remembered or restorer.engine == "ensemble" or restorer.has_other_threads)
    lines = ["these speeds are not remembered for --engine auto: the cache cannot be written"] if refused else []
    for model in dict.fromkeys(each.model for each in subjects):
        several = len({(each.engine, each.provider) for each in subjects if each.model == model}) > 1
        chosen = _chosen(model, threads) if several else None
        if chosen is not None:
            where = "" if threads is None else f" with --threads {threads}"
            lines.append(f"--engine auto goes by these speeds from now on{where}, and takes {chosen} for {model}")
    return lines


def _alike(subject: Subject, threads: int | None) -> list[engines.LoadedRestorer]:
    """The models that have to be as fast."""
    if subject.model not in engines.pretrained_models():
        return []
    alike = []
    for name in twins(subject.model):
        # What does not load, or does not ship in this form, says so where it is used.
        with contextlib.suppress(ValueError):
            alike.append(engines.load(name, subject.engine, threads, subject.provider))
    return alike


def _chosen(model: str, threads: int | None) -> str | None:
    """What "auto" takes; None for an export that has none of the files that it chooses from."""
    try:
        restorer = engines.load(model, threads=threads)
    except ValueError:
        return None
    return engine_name(restorer.engine, restorer.provider)
