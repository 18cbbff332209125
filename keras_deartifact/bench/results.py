"""What was measured: rows by size, with the spread over the rounds, and the arithmetic that they take."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "NetworkRow",
    "RunRow",
    "SizeReport",
    "Spread",
    "StageRow",
    "engine_name",
    "gmac",
    "ratio",
    "read_sizes",
    "spread",
]

_REFERENCE_PIXELS = 720 * 1280

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Spread:
    """A number measured once a round: the median, the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class NetworkRow:
    """A network by itself.

    Attributes:
        name: of the model.
        engine: what runs it.
        fps: frames a second.
        ratio: `fps` over that of the first row.
        gmac: multiply-accumulates of a frame, in 10^9; None where unknown.
        gmac_per_second: `gmac * fps`.
        share_of_peak: `gmac_per_second` over the matrix product's.
        provider: of ONNX Runtime; None for another engine.
    """

    name: str
    engine: str
    fps: Spread
    ratio: Spread
    gmac: float | None
    gmac_per_second: Spread | None
    share_of_peak: Spread | None
    provider: str | None = None


@dataclass(frozen=True)
class StageRow:
    """A stage around the network by itself; `ratio` is to the first model's `fps`."""

    name: str
    fps: Spread
    ratio: Spread


@dataclass(frozen=True)
class RunRow:
    """Whole runs of `restore_video`, each in a process of its own.

    Attributes:
        name: of the model.
        engine: what runs it.
        fps: frames a second, decoding and encoding included, loading not.
        ratio: `fps` over that of the first row.
        inference_busy: share of the time inside the restorer, in `[0, 1]`.
        peak_bytes: the most memory that any of the processes held; None where the system does not tell.
        provider: of ONNX Runtime; None for another engine.
    """

    name: str
    engine: str
    fps: Spread
    ratio: Spread
    inference_busy: Spread
    peak_bytes: int | None
    provider: str | None = None


@dataclass(frozen=True)
class SizeReport:
    """What was measured at one size.

    Attributes:
        width: of the clip, in pixels.
        height: likewise.
        peak_gmac_per_second: of the matrix product.
        networks: every model with every engine, in the order given, then the quality predictor.
        stages: in the order in which a frame passes them.
        runs: those of them that `subjects.running` chose, in the same order.
    """

    width: int
    height: int
    peak_gmac_per_second: Spread
    networks: list[NetworkRow]
    stages: list[StageRow]
    runs: list[RunRow]


def engine_name(engine: str, provider: str | None) -> str:
    """What an engine is called for the reader."""
    return engine if provider in (None, "cpu") else f"{engine} with {provider}"


def spread(values: Sequence[float]) -> Spread:
    """The median of some numbers, and how far they spread."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """How numbers compare with others of the same rounds.

        median = median(values) / median(reference),   low, high = min, max over rounds of values / reference

    The median lies between the other two, because a median keeps the order of what it is taken of.
    """
    each = [value / other for value, other in zip(values, reference, strict=True)]
    return Spread(statistics.median(values) / statistics.median(reference), min(each), max(each))


def gmac(multiply_accumulates_720p: int, width: int, height: int) -> float:
    """The work for a frame of so many pixels, in 10^9 multiply-accumulates; see the package."""
    return multiply_accumulates_720p * width * height / _REFERENCE_PIXELS / 1e9


def read_sizes(values: Mapping[str, Any]) -> list[SizeReport]:
    """Reads what `deartifact bench --json` wrote.

    Args:
        values: all of it.

    Raises:
        ValueError: it is something else.
    """
    try:
        return [
            SizeReport(
                width=size["width"],
                height=size["height"],
                peak_gmac_per_second=Spread(**size["peak_gmac_per_second"]),
                networks=[_read_row(NetworkRow, row) for row in size["networks"]],
                stages=[_read_row(StageRow, row) for row in size["stages"]],
                runs=[_read_row(RunRow, row) for row in size["runs"]],
            )
            for size in values["sizes"]
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("expected what 'deartifact bench --json' writes") from error


def _read_row(kind: Callable[..., _Row], values: Mapping[str, Any]) -> _Row:
    return kind(**{name: Spread(**value) if isinstance(value, dict) else value for name, value in values.items()})
