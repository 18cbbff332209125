"""What was measured: one record for each picture or clip, setting and method. Tables and curves are made of these."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.metrics import mean_interval

__all__ = ["COMPRESSED", "ORIGINAL", "Estimate", "Record", "Records", "best_strengths", "estimate"]

ORIGINAL, COMPRESSED = "original", "compressed"


@dataclass(frozen=True)
class Record:
    """What one method made of one picture or clip at one setting.

    Attributes:
        data: name of the set.
        protocol: "colour", "grey" or "video".
        setting: the codec and its knob, such as "JPEG 10".
        item: name of the picture or clip.
        method: "original", "compressed", or the name of a model or filter.
        values: by metric.
    """

    data: str
    protocol: str
    setting: str
    item: str
    method: str
    values: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures or clips with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int


class Records:
    """A list of records, and what is asked of it.

    Args:
        records: in the order in which tables show their settings and methods.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.all = list(records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.all)

    def where(self, **wanted: str) -> "Records":
        """Returns the records with these attributes."""
        return Records(
            record for record in self.all if all(getattr(record, name) == value for name, value in wanted.items())
        )

    def names(self, attribute: str) -> list[str]:
        """Returns the different values of an attribute, in the order in which they come up."""
        return list(dict.fromkeys(getattr(record, attribute) for record in self.all))

    def values(self, metric: str) -> dict[str, float]:
        """Returns a metric by item; items where it could not be measured are left out."""
        return {record.item: record.values[metric] for record in self.all if metric in record.values}

    def mean(self, metric: str) -> Estimate | None:
        """Returns the mean over items; None where nothing was measured."""
        return estimate(list(self.values(metric).values()))

    def gain(self, method: str, metric: str) -> Estimate | None:
        """Returns the mean over items of what a method has over the compressed input, of records of one setting."""
        before, after = (self.where(method=each).values(metric) for each in (COMPRESSED, method))
        return estimate([after[item] - before[item] for item in after if item in before])


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate | None:
    """Returns the mean with its interval; None of nothing."""
    if len(values) == 0:
        return None
    array = np.asarray(values, np.float64)
    low, high = mean_interval(array)
    return Estimate(float(array.mean()), low, high, len(array))


def best_strengths(scores: Mapping[str, Sequence[float]], filters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the strength of each filter that has the best mean, the first of equal ones.

    Args:
        scores: of each picture or clip, by strength; higher is better.
        filters: the strengths of each.
    """
    return {name: max(each, key=lambda strength: np.mean(scores[strength])) for name, each in filters.items()}
