"""Curves over time as SVG, which a page's own style colours."""

import html
import math
from collections.abc import Sequence

from keras_deartifact.report.samples import Curve

__all__ = ["plot"]

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 52, 34


def plot(title: str, curves: Sequence[Curve], least: float | None = None) -> str:
    """Draws curves over a common time.

    Args:
        title: what they show.
        curves: at least one point among them.
        least: a value that the axis includes.

    Returns:
        An `svg` element; its lines have the classes `line0`, `line1` and so on.
    """
    values = [value for curve in curves for _, value in curve.points] + ([] if least is None else [least])
    end = max(max(time for curve in curves for time, _ in curve.points), 1e-3)
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def across(time: float) -> float:
        return _LEFT + time / end * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    ]
    places = [(0.0, "start"), (end / 2, "middle"), (end, "end")]
    parts += [
        f'<text x="{across(time):.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}">{_time(time)}</text>'
        for time, anchor in places
    ]
    parts.append(f'<text x="{_LEFT}" y="16" class="title">{html.escape(title)}</text>')
    if len(curves) > 1:
        names = "".join(
            f'<tspan class="name{index}" dx="{12 if index else 0}">{html.escape(curve.name)}</tspan>'
            for index, curve in enumerate(curves)
        )
        parts.append(f'<text x="{_LEFT}" y="38">{names}</text>')
    for index, curve in reversed(list(enumerate(curves))):
        points = " ".join(f"{across(time):.1f},{up(value):.1f}" for time, value in curve.points)
        if len(curve.points) == 1:
            time, value = curve.points[0]
            parts.append(f'<circle class="line{index}" cx="{across(time):.1f}" cy="{up(value):.1f}" r="3"/>')
        else:
            parts.append(f'<polyline class="line{index}" points="{points}"/>')
    name = html.escape(f"{title}, from {min(values):.2f} to {max(values):.2f}", quote=True)
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        + "".join(parts)
        + "</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around a range."""
    span = max(high - low, 1e-6 * max(abs(high), abs(low), 1.0), 0.1)
    step = 10.0 ** math.floor(math.log10(span / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 9) for place in range(first, max(last, first + 1) + 1)]


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
