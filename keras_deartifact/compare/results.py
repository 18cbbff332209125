"""What a comparison finds, and how numbers of frames and of files are pooled."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from keras_deartifact.metrics import mean_interval

ROLES = ("original", "restored", "compressed")

Values = dict[str, dict[str, float | None]]
"""Role -> metric -> value."""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        label: its name with what it is measured on.
        unit: may be empty.
        decimals: to print.
        better: `"higher"`, `"lower"`, or None for what is no quality.
    """

    label: str
    unit: str
    decimals: int
    better: str | None


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR RGB", "dB", 2, "higher"),
    "psnr_y": Metric("PSNR Y", "dB", 2, "higher"),
    "psnr_b": Metric("PSNR-B Y", "dB", 2, "higher"),
    "ssim": Metric("SSIM Y", "", 4, "higher"),
    "ms_ssim": Metric("MS-SSIM Y", "", 4, "higher"),
    "flicker": Metric("flicker", "", 3, "lower"),
    "niqe": Metric("NIQE", "", 2, "lower"),
    "brisque": Metric("BRISQUE", "", 1, "lower"),
    "viideo": Metric("VIIDEO", "", 3, "lower"),
    "bits_per_pixel": Metric("bits/pixel", "", 3, None),
}


@dataclass(frozen=True)
class Sample:
    """What is measured of one frame, or of a picture.

    Attributes:
        time: at which the frame is shown, in seconds; that of the first role. None of a picture.
        values: those that belong to a single frame.
    """

    time: Fraction | None
    values: Values


@dataclass(frozen=True)
class Comparison:
    """What is found of one picture or video.

    Attributes:
        name: what to call it.
        kind: `"image"` or `"video"`.
        files: role -> path.
        width: of the pictures compared, pixels.
        height: likewise.
        frame_count: how many frames are compared; 1 of a picture.
        values: means over the frames where a metric has one for each.
        samples: a frame each, in order.
        notes: what a reader of the values has to know, a sentence each.
        broken: for every video that breaks off or is damaged, what is wrong.
    """

    name: str
    kind: str
    files: dict[str, str]
    width: int
    height: int
    frame_count: int
    values: Values
    samples: list[Sample]
    notes: list[str]
    broken: list[str] = field(default_factory=list)

    @property
    def gains(self) -> dict[str, float | None]:
        """Restored minus compressed, of every metric that both have; None where both are infinite."""
        restored, compressed = (self.values.get(role, {}) for role in ("restored", "compressed"))
        shared = (name for name in restored if name in compressed and METRICS[name].better is not None)
        return {name: difference(restored[name], compressed[name]) for name in shared}


@dataclass(frozen=True)
class Gain:
    """What restoring gains on the files of a folder.

    Attributes:
        mean: of restored minus compressed, over the files.
        low: lower end of the 95 % bootstrap interval of that mean.
        high: upper end.
        count: how many files.
        better: on how many of them restoring made it better.
    """

    mean: float
    low: float
    high: float
    count: int
    better: int


@dataclass(frozen=True)
class FolderComparison:
    """What is found of the files of folders.

    Attributes:
        folders: role -> path.
        rows: a file each, by name.
        unmatched: role -> files that have no partner in every other folder.
        failed: file -> why it could not be compared.
        skipped: files that are neither pictures nor videos, and do not claim to be.
    """

    folders: dict[str, str]
    rows: list[Comparison]
    unmatched: dict[str, list[str]]
    failed: dict[str, str]
    skipped: list[str]

    def columns(self, metric: str) -> dict[str, list[float | None]]:
        """Role -> a metric's value of every row, for the roles that have any."""
        every = {role: [row.values.get(role, {}).get(metric) for row in self.rows] for role in self.folders}
        return {role: column for role, column in every.items() if any(value is not None for value in column)}

    @property
    def means(self) -> Values:
        """Means over the rows that have a finite value of the metric in every role."""
        means: Values = {role: {} for role in self.folders}
        for metric in METRICS:
            for role, mean in pool(self.columns(metric)).items():
                means[role][metric] = mean
        return means

    @property
    def gains(self) -> dict[str, Gain]:
        """The gain of every metric that any row has one of."""
        gains = {}
        for metric, shown in METRICS.items():
            each = [row.gains.get(metric) for row in self.rows]
            finite = [gain for gain in each if gain is not None and math.isfinite(gain)]
            if finite:
                better = sum(gain < 0 if shown.better == "lower" else gain > 0 for gain in finite)
                gains[metric] = Gain(float(np.mean(finite)), *mean_interval(finite), len(finite), better)
        return gains

    @property
    def notes(self) -> list[str]:
        """The notes of the rows, each once, with the files that it is of; and what the means leave out."""
        files: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                files.setdefault(note, []).append(row.name)
        notes = [f"{note} ({_listed(names, len(self.rows))})" for note, names in files.items()]
        shares: dict[int, list[str]] = {}
        for metric, shown in METRICS.items():
            columns = self.columns(metric)
            if columns and 0 < sum(_complete(columns)) < len(self.rows):
                shares.setdefault(sum(_complete(columns)), []).append(shown.label)
        return notes + [
            f"{', '.join(labels)}: mean over {count} of {len(self.rows)} files; of the others it is infinite "
            "or not measured"
            for count, labels in shares.items()
        ]


def difference(restored: float | None, compressed: float | None) -> float | None:
    """Restored minus compressed; None where either is, or where both are infinite."""
    if restored is None or compressed is None or (math.isinf(restored) and math.isinf(compressed)):
        return None
    return restored - compressed


def attempt(metric: str, function: Callable[..., float], *arguments: object) -> tuple[float | None, list[str]]:
    """The value of a metric, or None with a note that says what it asks for, of pictures known to be valid."""
    try:
        return function(*arguments), []
    except ValueError as error:
        reason = str(error).split(" Received")[0].rstrip(".")
        return None, [f"{METRICS[metric].label} is not measured: {reason}"]


def pool(columns: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """Means over the places where all columns have finite values.

    Args:
        columns: by role, of one length.

    Returns:
        By role; where there is no such place, the mean of what the column has, which may be infinite, or None.
    """
    complete = _complete(columns)
    means: dict[str, float | None] = {}
    for role, column in columns.items():
        known = [value for value in column if value is not None]
        chosen = [value for value, whole in zip(column, complete, strict=True) if whole and value is not None] or known
        means[role] = float(np.mean(chosen)) if chosen else None
    return means


def left_out(metric: str, columns: Mapping[str, Sequence[float | None]]) -> list[str]:
    """The note that says how many frames the mean of a metric leaves out because it is infinite there."""
    complete = _complete(columns)
    infinite = [any(value is not None and math.isinf(value) for value in place) for place in _places(columns)]
    if not any(complete) or not any(infinite):
        return []
    label = METRICS[metric].label
    return [f"the mean of {label} leaves out {sum(infinite)} of {len(infinite)} frames, where it is infinite"]


def infinities(values: Values) -> list[str]:
    """The notes that explain infinite values of a picture or video."""
    notes = []
    for role in ROLES:
        names = [name for name, value in values.get(role, {}).items() if value is not None and math.isinf(value)]
        fidelity = [METRICS[name].label for name in names if METRICS[name].better == "higher"]
        statistics = [METRICS[name].label for name in names if METRICS[name].better == "lower"]
        if fidelity:
            notes.append(f"{role} equals the original in what is measured: infinite {', '.join(fidelity)}")
        if statistics:
            notes.append(f"{role} is too even, or moves too little, to be judged: infinite {', '.join(statistics)}")
    return notes


def _places(columns: Mapping[str, Sequence[float | None]]) -> Iterable[tuple[float | None, ...]]:
    return zip(*columns.values(), strict=True)


def _complete(columns: Mapping[str, Sequence[float | None]]) -> list[bool]:
    return [all(value is not None and math.isfinite(value) for value in place) for place in _places(columns)]


def _listed(names: list[str], total: int) -> str:
    if len(names) == total:
        return "all files" if total > 1 else names[0]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
