"""Labelled pictures: what there is to find."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_deartifact import data
from training.detection.boxes import Floats, Integers, corners

__all__ = ["LabelledPicture", "read_names", "read_pictures"]


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture and what is on it.

    Attributes:
        file: its path.
        boxes: float64 `(n, 4)`, left, top, right, bottom in pixels.
        classes: int64 `(n,)`.
        labelled: False where there is no file of labels: such a picture counts as one with nothing on it.
    """

    file: str
    boxes: Floats
    classes: Integers
    labelled: bool


def read_names(file: str | Path) -> list[str]:
    """Returns the names of a detector's classes from a file, a line each.

    Raises:
        ValueError: there is no such file, or nothing in it.
    """
    if not Path(file).is_file():
        raise ValueError(f"There is no file {file} of the names of classes.")
    names = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ValueError(f"Expected names of classes in {file}, a line each, found none.")
    return names


def read_pictures(folder: str | Path, names: Sequence[str]) -> list[LabelledPicture]:
    """Returns the pictures below a folder with their labels, sorted.

    The labels of `x.jpg` are in `x.txt`, a line `class x y width height` for each object: the class from 0, the box's
    centre and its sides as shares of the picture's. The file is beside the picture, in a folder `labels` there, or
    where the path has `labels` for its last `images`.

    Raises:
        ValueError: there is no picture or no label at all, or a line that is none.
    """
    pictures = [_read_picture(Path(file), names) for file in data.image_files(folder)]
    if not any(len(picture.classes) for picture in pictures):
        raise ValueError(
            f"Expected labels (x.txt beside x.jpg, in labels/, or in labels/ for images/) below {folder}, found none."
        )
    return pictures


def _read_picture(file: Path, names: Sequence[str]) -> LabelledPicture:
    candidates = [file.with_suffix(".txt"), file.parent / "labels" / f"{file.stem}.txt"]
    parts = list(file.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
        candidates.append(Path(*parts))
    label_file = next((candidate for candidate in candidates if candidate.is_file()), None)
    rows = []
    for number, line in enumerate(label_file.read_text("utf-8").splitlines() if label_file else [], 1):
        if line.strip():
            rows.append(_read_label(line, names, f"{label_file}, line {number}"))
    values = np.array(rows, np.float64).reshape(-1, 5)
    with Image.open(file) as picture:
        sides = np.array(picture.size * 2, np.float64)
    return LabelledPicture(str(file), corners(values[:, 1:]) * sides, values[:, 0].astype(np.int64), bool(label_file))


def _read_label(line: str, names: Sequence[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    # A label tool's centre may lie a rounding outside; a box in pixels lies far outside.
    if len(values) != 5 or not all(0 <= value <= 1.001 for value in values[1:]) or not values[0].is_integer():
        raise ValueError(f"{where}: expected `class x y width height`, shares of the picture. Received: {line!r}")
    if not 0 <= values[0] < len(names):
        raise ValueError(
            f"{where}: expected a class of the detector's {len(names)}, 0 to {len(names) - 1}. Received: {line!r}"
        )
    return values
