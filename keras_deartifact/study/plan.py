"""What a study shows, and in which order to whom."""

import dataclasses
import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

StrPath = str | os.PathLike[str]

PLAN, PAGE, MEDIA, RATINGS = "study.json", "index.html", "media", "ratings.sqlite"

REFERENCE = "reference"
"""The condition of the originals."""

LABELS = ("Bad", "Poor", "Fair", "Good", "Excellent")
"""Of the scores 1 to 5, ITU-T P.910."""

_VERSION = 1


@dataclass(frozen=True)
class Stimulus:
    """A picture or video of a study.

    Attributes:
        condition: what was done to it, or `REFERENCE`.
        item: what it shows: the name of its files without the extension.
        file: its name in the study's folder of media, which says nothing of the condition.
        media_type: for example `"image/png"`.
        width: pixels as displayed.
        height: lines as displayed.
    """

    condition: str
    item: str
    file: str
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class Study:
    """The plan of a study, which is its `study.json`.

    Attributes:
        id: random, so that a browser can tell studies apart.
        title: shown to raters.
        question: shown with every stimulus.
        labels: of the scores 1 to 5.
        seed: of the orders of the raters, and of all other choices.
        minimum_seconds: how long a picture is seen before it can be rated.
        gap_seconds: how long the stage is grey between two stimuli, so that they are not compared directly.
        conditions: as given, the reference last.
        items: sorted; those that are for practice only are not among them.
        stimuli: by a random token, which is all that a rater's browser sees of them.
        training: tokens shown first, for practice, in this order.
        repeats: tokens shown twice.
    """

    id: str
    title: str
    question: str
    labels: tuple[str, ...]
    seed: int
    minimum_seconds: float
    gap_seconds: float
    conditions: tuple[str, ...]
    items: tuple[str, ...]
    stimuli: Mapping[str, Stimulus]
    training: tuple[str, ...]
    repeats: tuple[str, ...]

    @property
    def rated(self) -> list[str]:
        """The tokens of what is analysed: every item under every condition."""
        return [token for token, stimulus in self.stimuli.items() if stimulus.item in self.items]

    @property
    def length(self) -> int:
        """How many stimuli a rater is shown."""
        return len(self.training) + len(self.rated) + len(self.repeats)


def read_study(folder: StrPath) -> Study:
    """Reads the plan of a study.

    Raises:
        ValueError: it is not the folder of a study.
        OSError: the file system does not give it.
    """
    text = (Path(folder) / PLAN).read_text(encoding="utf-8")
    try:
        values = json.loads(text)
        if values.pop("version") != _VERSION:
            raise ValueError("another version of the format")
        values["stimuli"] = {token: Stimulus(**each) for token, each in values["stimuli"].items()}
        lists = {name: tuple(each) for name, each in values.items() if isinstance(each, list)}
        return Study(**values | lists)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"expected a folder made by 'deartifact study create' ({error}). Received: {Path(folder) / PLAN}"
        ) from error


def write_study(folder: StrPath, study: Study) -> None:
    """Writes the plan of a study into its folder."""
    values = {"version": _VERSION, **dataclasses.asdict(study)}
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (Path(folder) / PLAN).write_text(text + "\n", encoding="utf-8")


def presentations(study: Study, rater: int) -> list[str]:
    """The tokens that a rater is shown, in their order: practice, then everything else, shuffled.

    Two stimuli of one item never follow each other unless more than half of what is left are of it.

    Args:
        study: the plan.
        rater: number of the rater; with the study's seed it gives the order.
    """
    chooser = random.Random(f"{study.seed}/{rater}")
    left = [*study.rated, *study.repeats]
    chooser.shuffle(left)
    shown = list(study.training)
    while left:
        last = study.stimuli[shown[-1]].item if shown else None
        shown.append(left.pop(_next(study, left, last)))
    return shown


def _next(study: Study, left: Sequence[str], last: str | None) -> int:
    """The index of what comes next: the first of another item than the last, or of one that must not wait longer."""
    items = [study.stimuli[token].item for token in left]
    item, count = Counter(items).most_common(1)[0]
    if 2 * count > len(left):
        return items.index(item)
    return next((index for index, each in enumerate(items) if each != last), 0)


def part(study: Study, shown: Sequence[str], position: int) -> str:
    """What a presentation is for: `"training"`, `"test"`, or `"repeat"` for the second time of a stimulus."""
    count = len(study.training)
    if position < count:
        return "training"
    return "repeat" if shown[position] in shown[count:position] else "test"
