"""What bitrate a restoration is worth: the Bjontegaard delta rate of restored against compressed.

A restored file has the rate of the compressed one that it was made of, and more quality; the delta rate says how much
smaller a rate would have given that quality, -20 meaning a fifth less. It is taken of each picture's or clip's own
curve, by Akima's interpolation, over the range of quality that both curves have, and averaged.

References: Bjontegaard, "Calculation of Average PSNR Differences Between RD-Curves", ITU-T VCEG-M33, 2001; Herglotz et
al., "The Bjontegaard Bible", IEEE Transactions on Image Processing 2024 (the interpolation, and the package used).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.records import COMPRESSED, Estimate, Records, estimate

__all__ = ["Curve", "codec_of", "curves", "delta_rate"]

_LEAST_POINTS = 4


@dataclass(frozen=True)
class Curve:
    """Means over the items of a set: quality over rate.

    Attributes:
        method: whose.
        rates: bits per pixel, rising.
        quality: of the metric.
    """

    method: str
    rates: list[float]
    quality: list[float]


def codec_of(setting: str) -> str:
    """Returns a setting without its knob's value: "x264 CRF 34" -> "x264 CRF"."""
    return setting.rsplit(" ", 1)[0]


def _points(records: Records, item: str, method: str, metric: str) -> list[tuple[float, float]]:
    """Rate and quality of an item at every setting, rising in rate."""
    of_item = records.where(item=item)
    points = []
    for setting in of_item.names("setting"):
        here = of_item.where(setting=setting)
        rate = here.where(method=COMPRESSED).values("bits_per_pixel").get(item)
        quality = here.where(method=method).values(metric).get(item)
        if rate is not None and quality is not None:
            points.append((rate, quality))
    return sorted(points)


def curves(records: Records, metric: str) -> list[Curve]:
    """Returns the mean curve of every method, of records of one set and codec."""
    found = []
    for method in records.names("method"):
        each = [_points(records, item, method, metric) for item in records.names("item")]
        if each and all(len(points) == len(each[0]) > 1 for points in each):
            rates, quality = np.mean(each, axis=0).T
            found.append(Curve(method, rates.tolist(), quality.tolist()))
    return found


def _rate(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> float | None:
    from bjontegaard import bd_rate

    rises = all(low[1] < high[1] for points in (before, after) for low, high in zip(points, points[1:], strict=False))
    if min(len(before), len(after)) < _LEAST_POINTS or not rises:
        return None
    (rates, quality), (new_rates, new_quality) = zip(*before, strict=True), zip(*after, strict=True)
    if min(quality[-1], new_quality[-1]) <= max(quality[0], new_quality[0]):
        return None
    with warnings.catch_warnings():
        # It warns of a small overlap, which is what a large gain looks like.
        warnings.simplefilter("ignore")
        return float(bd_rate(rates, quality, new_rates, new_quality, method="akima", min_overlap=0))


def delta_rate(records: Records, method: str, metric: str) -> Estimate | None:
    """Returns the mean delta rate in percent, of records of one set and codec.

    Items are left out whose quality does not rise with the rate, or that have fewer than four settings.

    Raises:
        ImportError: the package bjontegaard is not installed.
    """
    values = []
    for item in records.names("item"):
        value = _rate(*(_points(records, item, each, metric) for each in (COMPRESSED, method)))
        if value is not None and np.isfinite(value):
            values.append(value)
    return estimate(values)
