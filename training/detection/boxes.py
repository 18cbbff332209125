"""Boxes: left, top, right, bottom in pixels; which of them stay, and how a picture fits into a detector's input."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "OVERLAP",
    "Detections",
    "Detector",
    "Floats",
    "Integers",
    "Pixels",
    "corners",
    "non_maximum_suppression",
    "place",
    "select",
]

OVERLAP = 0.45
"""Of two boxes of a class that overlap by more (intersection over union), the one of less score goes."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Detections = tuple[Floats, Floats, Integers]
Detector = Callable[[Pixels], Detections]


def corners(boxes: NDArray[Any]) -> Floats:
    """Turns boxes of centre and sides into left, top, right, bottom."""
    centres, halves = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def non_maximum_suppression(boxes: Floats, scores: Floats, overlap: float = OVERLAP) -> Integers:
    """Returns the indices of the boxes that no better one covers, by falling score.

    A box goes if its intersection over union with one that stays is above `overlap`. Equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    stays = np.ones(len(order), bool)
    for index in range(len(order)):
        if stays[index]:
            rest = boxes[index + 1 :]
            sides = np.minimum(boxes[index, 2:], rest[:, 2:]) - np.maximum(boxes[index, :2], rest[:, :2])
            common = np.prod(np.maximum(sides, 0.0), axis=1)
            stays[index + 1 :] &= common <= overlap * (areas[index] + areas[index + 1 :] - common)
    return order[stays]


def select(boxes: Floats, class_scores: Floats, least_score: float, shape: tuple[int, ...]) -> Detections:
    """What stays of boxes `(n, 4)` with scores `(n, classes)`, cut at the edges of the picture.

    Each class has its own suppression, and a box may be of several classes.
    """
    height, width = shape[:2]
    boxes = np.clip(boxes, 0.0, (width, height, width, height))
    kept: list[tuple[Integers, int]] = []
    for index in np.flatnonzero((class_scores > least_score).any(axis=0)):
        rows = np.flatnonzero(class_scores[:, index] > least_score)
        kept.append((rows[non_maximum_suppression(boxes[rows], class_scores[rows, index])], int(index)))
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in kept)])
    classes = np.concatenate([np.empty(0, np.int64), *(np.full(len(rows), index) for rows, index in kept)])
    return boxes[rows], class_scores[rows, classes], classes


def place(
    pixels: Pixels, width: int, height: int, keep_aspect: bool
) -> tuple[Pixels, Callable[[NDArray[Any]], Floats]]:
    """Fits a picture into a detector's input.

    Args:
        pixels: uint8 `(height, width, 3)`.
        width: of the input.
        height: of the input.
        keep_aspect: True for a picture in the middle with grey bars beside it ("letterbox"), False to stretch it.

    Returns:
        The input, uint8 `(height, width, 3)`, and a function that turns left, top, right, bottom in its pixels into
        those of the picture.
    """
    import cv2

    rows, columns = pixels.shape[:2]
    scale = min(width / columns, height / rows)
    inner = (max(1, round(columns * scale)), max(1, round(rows * scale))) if keep_aspect else (width, height)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.full((height, width, 3), 114, np.uint8)
    resized = cv2.resize(pixels, inner, interpolation=cv2.INTER_LINEAR)
    canvas[top : top + inner[1], left : left + inner[0]] = resized

    def to_picture(boxes: NDArray[Any]) -> Floats:
        moved: Floats = (boxes - np.array((left, top) * 2)) * np.array((columns, rows) * 2) / np.array(inner * 2)
        return moved

    return canvas, to_picture
