"""Compares two or three picture files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keras_deartifact import metrics, stills
from keras_deartifact.compare.results import Comparison, Sample, Values, attempt, infinities

_ORIENTATION = 274

Pixels = npt.NDArray[np.uint8]


def compare_pictures(name: str, paths: Mapping[str, Path], wanted: frozenset[str]) -> Comparison:
    """Compares picture files.

    Args:
        name: what to call them.
        paths: role -> file.
        wanted: metrics to measure.

    Returns:
        The comparison, with one sample.

    Raises:
        ValueError: a file is no picture that `stills` reads, or sizes or alpha differ.
        OSError: the file system does not give one.
    """
    pixels, notes = _comparable({role: stills.read(path) for role, path in paths.items()})
    height, width = next(iter(pixels.values())).shape[:2]
    values: Values = {role: {} for role in paths}
    for role, picture in pixels.items():
        if role != "original" and "original" in pixels:
            for metric, function in metrics.METRICS.items():
                if metric in wanted:
                    values[role][metric], found = attempt(metric, function, pixels["original"], picture)
                    notes += found
        for metric, judge in metrics.NO_REFERENCE_METRICS.items():
            if metric in wanted:
                values[role][metric], found = attempt(metric, judge, picture)
                notes += found
    samples = [Sample(None, {role: dict(each) for role, each in values.items()})]
    if "bits_per_pixel" in wanted:
        for role, path in paths.items():
            values[role]["bits_per_pixel"] = metrics.bits_per_pixel(os.path.getsize(path), height, width)
    notes = list(dict.fromkeys(notes)) + infinities(values)
    return Comparison(
        name, "image", {role: str(path) for role, path in paths.items()}, width, height, 1, values, samples, notes
    )


def _comparable(pictures: Mapping[str, stills.Still]) -> tuple[dict[str, Pixels], list[str]]:
    """Brings pictures to one form; returns 8-bit RGB by role, and notes on what that took."""
    notes = []
    turns = {role: _orientation(picture) for role, picture in pictures.items()}
    if len(set(turns.values())) == 1:
        turns = dict.fromkeys(turns, 1)
    else:
        notes.append("the EXIF orientations differ: all are turned upright first")
    if any(picture.pixels.dtype == np.uint16 for picture in pictures.values()):
        notes.append("16 bits are rounded to 8")
    if len({_is_grey(picture) for picture in pictures.values()}) == 2:
        grey = ", ".join(role for role, picture in pictures.items() if _is_grey(picture))
        notes.append(f"grey is compared with colour ({grey}: grey)")
    if len({picture.icc_profile for picture in pictures.values()}) > 1:
        notes.append("the colour profiles differ, and are not applied")
    pixels = {role: _upright(_in_8_bits(picture.pixels), turns[role]) for role, picture in pictures.items()}
    require_one_size(pixels)
    hidden = _hidden(pictures, turns)
    if hidden is not None:
        notes.append("alpha is equal and not measured; what it hides counts as black")
        pixels = {role: np.where(hidden[..., None], np.uint8(0), picture) for role, picture in pixels.items()}
    return pixels, notes


def require_one_size(pixels: Mapping[str, npt.NDArray[Any]]) -> None:
    """Checks that pictures have one height and width.

    Args:
        pixels: role -> array `(height, width, ...)`.

    Raises:
        ValueError: they have not.
    """
    if len({picture.shape[:2] for picture in pixels.values()}) > 1:
        sizes = ", ".join(f"{role} {picture.shape[1]}x{picture.shape[0]}" for role, picture in pixels.items())
        raise ValueError(f"expected pictures of one size; scale or crop them first. Received: {sizes}")


def _hidden(pictures: Mapping[str, stills.Still], turns: Mapping[str, int]) -> npt.NDArray[np.bool_] | None:
    """Where nothing is seen of any picture; None where all are opaque."""
    alphas: dict[str, Pixels | None] = {}
    for role, picture in pictures.items():
        alpha = None if picture.alpha is None else _upright(_in_8_bits(picture.alpha), turns[role])
        alphas[role] = None if alpha is None or (alpha == 255).all() else alpha
    known = [alpha for alpha in alphas.values() if alpha is not None]
    if not known:
        return None
    if len(known) < len(alphas) or not all(np.array_equal(known[0], other) for other in known[1:]):
        kinds = ", ".join(f"{role} {'opaque' if alpha is None else 'with alpha'}" for role, alpha in alphas.items())
        raise ValueError(
            "expected pictures of equal alpha, for what is hidden cannot be compared; flatten them first. "
            f"Received: {kinds}{', not the same' if len(known) == len(alphas) else ''}"
        )
    hidden: npt.NDArray[np.bool_] = known[0] == 0
    return hidden


def _is_grey(picture: stills.Still) -> bool:
    return picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I;16")


def _in_8_bits(samples: stills.Pixels) -> Pixels:
    """The nearest level of 8 bits, 255 / 65535 of a level of 16."""
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8)
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation(picture: stills.Still) -> int:
    """EXIF orientation, 1 to 8; 1 is upright."""
    if picture.exif is None:
        return 1
    tags = Image.Exif()
    try:
        tags.load(picture.exif)
        value = int(tags.get(_ORIENTATION, 1))
    except Exception:
        # Pillow raises SyntaxError, struct.error, TypeError, ... for a block that is none; viewers ignore such.
        return 1
    return value if 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turns a picture as EXIF asks for: quarter turns clockwise, then mirrored left to right."""
    # The stored picture's own side comes first: 5 is the transpose, a quarter turn and a mirror.
    turns, mirrored = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (1, 1), 6: (1, 0), 7: (3, 1), 8: (3, 0)}[
        orientation
    ]
    turned = np.rot90(pixels, -turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
