"""What the ratings of a study say: mean opinion scores, their confidence, and which raters to leave out.

The formulas are those of Recommendations ITU-R BT.500 (analysis of results, screening of observers) and ITU-T P.910
(ACR with hidden reference). Practice is left out, and the second rating of what was shown twice counts for the
consistency of a rater only. A rater who stopped early counts with what they rated.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from keras_deartifact.study import plan
from keras_deartifact.study.ratings import Rating, Ratings

# Scores by rater and token of the stimulus.
_Scores = Mapping[int, Mapping[str, int]]

SCREENED_FROM = 6
"""With fewer raters than these no score can be `2 S` from the mean: the most is `(N - 1) / sqrt(N)` S."""


@dataclass(frozen=True)
class Opinion:
    """A mean of scores.

    Attributes:
        mean: the mean opinion score (MOS); None without a rating.
        deviation: standard deviation `S` of the scores; None with fewer than two.
        interval: half the width of the 95 % confidence interval, see `opinion`; None with fewer than two.
        count: number of scores, `N`.
    """

    mean: float | None
    deviation: float | None
    interval: float | None
    count: int


@dataclass(frozen=True)
class Screening:
    """How often a rater's scores lie far off the mean, see `screen`: above (`P`), below (`Q`), of how many."""

    above: int
    below: int
    count: int
    rejected: bool


@dataclass(frozen=True)
class RaterSummary:
    """A rater of a study.

    Attributes:
        number: of the rater, from 1.
        ratings: how many they gave, with practice and repeats.
        complete: whether they rated everything.
        screening: what BT.500 says of them.
        repeats: how many they rated twice.
        repeat_difference: mean absolute difference of their two scores of those; None without any.
        median_seconds: they took for a rating.
    """

    number: int
    ratings: int
    complete: bool
    screening: Screening
    repeats: int
    repeat_difference: float | None
    median_seconds: float


@dataclass(frozen=True)
class Analysis:
    """What the ratings of a study say. All but `before_screening` and `raters` is without the rejected raters.

    Attributes:
        title: of the study.
        raters: everyone with a rating that counts.
        rejected: numbers of the raters that screening leaves out.
        conditions: MOS by condition.
        before_screening: the same of all raters.
        differences: DMOS by condition but the reference, see `difference_scores`.
        items: MOS by item and condition.
        scores: all scores by condition, by rater and item, which the box plot shows.
        repeat_difference: mean over raters of theirs; None without any.
    """

    title: str
    raters: list[RaterSummary]
    rejected: list[int]
    conditions: dict[str, Opinion]
    before_screening: dict[str, Opinion]
    differences: dict[str, Opinion]
    items: dict[str, dict[str, Opinion]]
    scores: dict[str, list[int]]
    repeat_difference: float | None


def analyse(folder: plan.StrPath) -> Analysis:
    """Analyses the ratings of a study; it may be served at the same time.

    Args:
        folder: of the study.

    Returns:
        The same for the same ratings.

    Raises:
        ValueError: it is not the folder of a study, or fewer than two raters have rated.
        OSError: the file system does not give a file.
    """
    study = plan.read_study(folder)
    rows = _rows(folder, study)
    scores: dict[int, dict[str, int]] = defaultdict(dict)
    for row in rows:
        if row.part == "test":
            scores[row.rater][row.stimulus] = row.score
    if len(scores) < 2:
        raise ValueError(
            f"expected ratings by at least two raters; let more people rate with 'deartifact study serve {folder}'. "
            f"Received: {len(scores)}, practice not counted"
        )
    screened = screen(scores)
    rejected = [number for number, each in screened.items() if each.rejected]
    kept = {number: each for number, each in scores.items() if number not in rejected}
    raters = [_summary(study, [row for row in rows if row.rater == number], screened[number]) for number in scores]
    consistent = [each.repeat_difference for each in raters if each.repeat_difference is not None]
    return Analysis(
        title=study.title,
        raters=raters,
        rejected=rejected,
        conditions={name: opinion(_of_condition(study, kept, name)) for name in study.conditions},
        before_screening={name: opinion(_of_condition(study, scores, name)) for name in study.conditions},
        differences={
            name: opinion(difference_scores(study, kept, name)) for name in study.conditions if name != plan.REFERENCE
        },
        items={
            item: {name: opinion(_of_condition(study, kept, name, item)) for name in study.conditions}
            for item in study.items
        },
        scores={name: _of_condition(study, kept, name) for name in study.conditions},
        repeat_difference=float(np.mean(consistent)) if consistent else None,
    )


def opinion(scores: Sequence[int]) -> Opinion:
    """Mean, standard deviation and 95 % confidence interval of scores, ITU-R BT.500.

        mean = sum of u / N
        S = sqrt(sum of (mean - u)^2 / (N - 1))
        interval = t * S / sqrt(N)

    with `t` the 97.5 % quantile of Student's distribution with `N - 1` degrees of freedom, which is more for few
    ratings than the 1.96 of BT.500, its limit for many. `N` counts the ratings of all raters and items, which
    are taken to be independent: the interval says nothing of how other contents or a stricter crowd would shift the
    mean.

    Args:
        scores: the ratings.
    """
    count = len(scores)
    if not count:
        return Opinion(None, None, None, 0)
    mean = math.fsum(scores) / count
    if count == 1:
        return Opinion(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((mean - score) ** 2 for score in scores) / (count - 1))
    return Opinion(mean, deviation, student_t(count - 1) * deviation / math.sqrt(count), count)


def difference_scores(study: plan.Study, scores: _Scores, condition: str) -> list[int]:
    """The scores against the hidden reference, ITU-T P.910; their mean is the DMOS.

        DV = V(stimulus) - V(its original) + 5

    of every rater who rated both. 5 is as good as the original, more is better than it; such values are kept as they
    are, without the crushing function that P.910 leaves to choice.
    """
    originals = {each.item: token for token, each in study.stimuli.items() if each.condition == plan.REFERENCE}
    return [
        own[token] - own[originals[each.item]] + 5
        for own in scores.values()
        for token, each in study.stimuli.items()
        if each.condition == condition and token in own and originals[each.item] in own
    ]


def screen(scores: _Scores) -> dict[int, Screening]:
    """Screens raters by ITU-R BT.500, the procedure for all methods with one score a presentation.

    For each presentation, over the `N` raters who rated it, with `mean` and `S` as in `opinion`:

        m_x = sum of (u - mean)^x / N
        beta_2 = m_4 / m_2^2
        threshold = 2 * S if 2 <= beta_2 <= 4 (the scores look normal) else sqrt(20) * S

    A rater's `P` counts the presentations with `u >= mean + threshold`, `Q` those with `u <= mean - threshold`. They
    are rejected if

        (P + Q) / number of presentations > 0.05   and   |P - Q| / (P + Q) < 0.3

    that is, if they are often far off, and about as often above as below: one who is always strict is kept. Where all
    agree, `S = 0`, nobody is far off. The number of presentations is that of the rater, who may have stopped early.

    BT.500 applies this once, not to what it has left over. With fewer than `SCREENED_FROM` raters it rejects nobody;
    nor does it find one outlier among scores that otherwise agree (`beta_2 > 4`) with fewer than 22.

    Args:
        scores: by rater and presentation.

    Returns:
        A screening by rater, in the order of `scores`.
    """
    far: dict[int, list[int]] = {number: [0, 0] for number in scores}
    for token in sorted({token for own in scores.values() for token in own}):
        own = {number: each[token] for number, each in scores.items() if token in each}
        low, high = _limits(list(own.values()))
        for number, score in own.items():
            far[number][0] += score >= high
            far[number][1] += score <= low
    return {number: _screening(above, below, len(scores[number])) for number, (above, below) in far.items()}


def _limits(scores: Sequence[int]) -> tuple[float, float]:
    """What is far off, below and above, of the scores of a presentation."""
    count = len(scores)
    mean = math.fsum(scores) / count
    second, fourth = (math.fsum((score - mean) ** power for score in scores) / count for power in (2, 4))
    if second == 0:
        return -math.inf, math.inf
    factor = 2.0 if 2 <= fourth / second**2 <= 4 else math.sqrt(20)
    threshold = factor * math.sqrt(second * count / (count - 1))
    return mean - threshold, mean + threshold


def _screening(above: int, below: int, count: int) -> Screening:
    far = above + below
    return Screening(above, below, count, far > 0.05 * count and abs(above - below) < 0.3 * far)


@lru_cache
def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution, within 1e-9.

    Solves `A(t) = 0.95` by bisection, with the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4 for
    `A(t) = P(|T| <= t)`.

    Args:
        degrees: of freedom, at least 1.
    """
    low, high = 0.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(bound: float, degrees: int) -> float:
    angle = math.atan(bound / math.sqrt(degrees))
    odd = degrees % 2
    total, term = 0.0, math.cos(angle) ** odd
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def box_plot(analysis: Analysis, target: plan.StrPath) -> None:
    """Draws a box of the scores of each condition: median, quartiles, whiskers to 1.5 times their distance, and beyond.

    A diamond marks the MOS with its 95 % confidence interval.

    Args:
        analysis: of the ratings.
        target: the file to write; its extension gives the format: `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: matplotlib is not installed, or the format is none of these.
    """
    if Path(target).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"expected the name of a plot, ending in .png, .svg or .pdf. Received: {target}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f"a plot needs a package that is not installed ({error.name}): pip install 'keras_deartifact[measure]'"
        ) from error

    rated = {name: scores for name, scores in analysis.scores.items() if scores}
    places = range(1, len(rated) + 1)
    figure = Figure(figsize=(max(4.0, 1.5 + 1.1 * len(rated)), 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.boxplot(
        list(rated.values()),
        widths=0.5,
        patch_artist=True,
        boxprops={"facecolor": "#dfe5ec", "edgecolor": "#44546a"},
        medianprops={"color": "#44546a", "linewidth": 2},
        flierprops={"marker": "o", "markersize": 4, "markeredgecolor": "#8a94a3"},
    )
    for place, name in zip(places, rated, strict=True):
        found = analysis.conditions[name]
        axes.errorbar(
            place, found.mean or 0, found.interval or 0, fmt="D", color="#c0392b", markersize=6, capsize=5, zorder=3
        )
        axes.annotate(
            f"{found.mean:.2f}",
            (place, found.mean or 0),
            (26, 0),
            textcoords="offset points",
            color="#c0392b",
            va="center",
        )
    axes.set_xticks(list(places), [f"{name}\nN = {len(scores)}" for name, scores in rated.items()])
    if max(map(len, rated), default=0) > 12:
        axes.tick_params("x", rotation=20)
    axes.set_yticks(range(1, 6), [f"{score} {label}" for score, label in enumerate(plan.LABELS, 1)])
    axes.set_ylim(0.7, 5.3)
    axes.set_xlim(0.4, len(rated) + 0.75)
    axes.yaxis.grid(True, color="#e3e3e3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    count = len(analysis.raters) - len(analysis.rejected)
    axes.set_title(f"{analysis.title}: {count} raters; MOS and 95 % interval in red", fontsize=10)
    figure.savefig(Path(target))


def _rows(folder: plan.StrPath, study: plan.Study) -> list[Rating]:
    if not (Path(folder) / plan.RATINGS).exists():
        return []
    with Ratings(folder, study) as ratings:
        return ratings.rows()


def _of_condition(study: plan.Study, scores: _Scores, condition: str, item: str | None = None) -> list[int]:
    tokens = [
        token for token, each in study.stimuli.items() if each.condition == condition and item in (None, each.item)
    ]
    return [own[token] for own in scores.values() for token in tokens if token in own]


def _summary(study: plan.Study, rows: Sequence[Rating], screening: Screening) -> RaterSummary:
    first = {row.stimulus: row.score for row in rows if row.part == "test"}
    differences = [abs(row.score - first[row.stimulus]) for row in rows if row.part == "repeat"]
    return RaterSummary(
        number=rows[0].rater,
        ratings=len(rows),
        complete=len(rows) == study.length,
        screening=screening,
        repeats=len(differences),
        repeat_difference=_mean(differences),
        median_seconds=float(np.median([row.seconds for row in rows])),
    )


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return math.fsum(found) / len(found) if found else None
