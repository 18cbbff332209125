"""Average precision by COCO's rule, of all pictures and of pictures drawn again, and how sure a difference is."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.detection.boxes import Detections, Floats, Integers
from training.detection.labels import LabelledPicture

__all__ = ["Matches", "bootstrap_weights", "interval", "match", "mean_average_precision", "weighted_precision"]


@dataclass(frozen=True, eq=False)
class Matches:
    """What of the detections in all pictures is right, for one class.

    Attributes:
        pictures: int64 `(n,)`, the index of each detection's picture, by falling score.
        right: bool `(10, n)`, whether it is one of the objects, by overlap from 0.5 to 0.95.
        objects: int64 `(pictures,)`, how many there are in each picture.
    """

    pictures: Integers
    right: NDArray[np.bool_]
    objects: Integers


def match(
    pictures: Sequence[LabelledPicture], detections: Sequence[Detections], names: Sequence[str]
) -> tuple[list[Matches], tuple[float, float]]:
    """Compares detections with labels, by pycocotools.

    Args:
        pictures: what there is to find.
        detections: what was found in each.
        names: of the detector's classes.

    Returns:
        A `Matches` for each class that has objects, and mAP50 and mAP50:95 over all pictures.

    Raises:
        ValueError: pycocotools is not installed, or the detector has more classes than `names`.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError(
            "The mean average precision needs pycocotools: pip install 'keras_deartifact[measure]'"
        ) from error
    highest = max((int(classes.max()) for _, _, classes in detections if len(classes)), default=-1)
    if highest >= len(names):
        raise ValueError(f"Expected classes below {len(names)}, as many as names. The detector gave: {highest}")
    present = sorted({int(index) for picture in pictures for index in picture.classes})

    def annotated(found: Sequence[tuple[Floats, Floats, Integers]]) -> Any:
        # pycocotools takes a match with number 0 for none.
        annotations: list[dict[str, Any]] = []
        for picture, (boxes, scores, classes) in enumerate(found):
            for box, score, index in zip(boxes.tolist(), scores.tolist(), classes.tolist(), strict=True):
                width, height = box[2] - box[0], box[3] - box[1]
                annotation = {"id": len(annotations) + 1, "image_id": picture, "category_id": index, "score": score}
                annotations.append(
                    annotation | {"bbox": [box[0], box[1], width, height], "area": width * height, "iscrowd": 0}
                )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": picture} for picture in range(len(found))],
            "annotations": annotations,
            "categories": [{"id": index} for index in present],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        truth = [(picture.boxes, np.ones(len(picture.boxes)), picture.classes) for picture in pictures]
        evaluation = COCOeval(annotated(truth), annotated(detections), "bbox")
        evaluation.params.imgIds = list(range(len(pictures)))
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0.0, np.inf]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    by_class = np.reshape(np.array(evaluation.evalImgs, object), (len(present), len(pictures)))
    matches = []
    for index, results in zip(present, by_class, strict=True):
        found = [(number, result) for number, result in enumerate(results) if result]
        scores = np.concatenate([result["dtScores"] for _, result in found])
        order = np.argsort(-scores, kind="stable")
        owners = np.repeat([number for number, _ in found], [len(result["dtScores"]) for _, result in found])
        right = np.concatenate([result["dtMatches"] for _, result in found], axis=1) > 0
        objects = np.array([np.sum(picture.classes == index) for picture in pictures], np.int64)
        matches.append(Matches(owners[order], right[:, order], objects))
    return matches, (float(precision[0].mean()), float(precision.mean()))


def weighted_precision(matches: Matches, weights: Integers) -> Floats:
    """Returns average precisions of a class where the pictures count several times or not at all.

    Exactly what COCO's rule gives for a set that holds picture i as often as its weight says. Only at a right detection
    does recall move, and within its copies precision rises, so that the last stands for all of them:

        recall[k] = right[k] / objects                right[k], all[k]: weights of detections down to the k-th right one
        precision[k] = right[k] / all[k]
        result = sum over k of max(precision[k:]) * (levels of recall in (recall[k - 1], recall[k]]) / 101

    Args:
        matches: of the class.
        weights: int64 `(sets, pictures)`.

    Returns:
        float64 `(sets, 10)`, by overlap; NaN for a set without such an object.
    """
    levels = np.linspace(0.0, 1.0, 101)
    objects = (weights @ matches.objects)[:, None]
    by_detection = weights[:, matches.pictures]
    so_far = np.cumsum(by_detection, axis=1)
    result = np.zeros((len(weights), len(matches.right)))
    for column, is_right in enumerate(matches.right):
        rows = np.flatnonzero(is_right)
        right = np.cumsum(by_detection[:, rows], axis=1)
        # The smallest step at 1 is pycocotools' guard against 0 / 0.
        precision = right / (so_far[:, rows] + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(levels, right / np.maximum(objects, 1), side="right")
        result[:, column] = np.sum(best * np.diff(reached, axis=1, prepend=0), axis=1) / len(levels)
    return np.where(objects > 0, result, np.nan)


def mean_average_precision(matches: Sequence[Matches], weights: Integers) -> Floats:
    """Returns mAP50 and mAP50:95 where the pictures count several times or not at all.

    Args:
        matches: of each class.
        weights: int64 `(sets, pictures)`.

    Returns:
        float64 `(sets, 2)`; NaN for a set without any object.
    """
    totals, counts = np.zeros((len(weights), 2)), np.zeros((len(weights), 1))
    for each in matches:
        precision = weighted_precision(each, weights)
        has_objects = ~np.isnan(precision[:, :1])
        totals += np.where(has_objects, np.stack([precision[:, 0], precision.mean(axis=1)], axis=1), 0.0)
        counts += has_objects
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def bootstrap_weights(pictures: int, resamples: int, seed: int = 0) -> Integers:
    """Returns how often each picture is drawn in each resample, int64 `(resamples, pictures)`.

    The same for every method that is compared: pictures differ far more than what was done to them.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)


def interval(values: Floats, share: float = 0.95) -> tuple[float, float]:
    """Returns the percentile interval that holds a share of the resampled values `(n,)`, leaving out NaN.

    Meant for differences between two methods. A resample's mAP tends to lie above that of all pictures: on 64 of COCO
    its median by a twentieth, that of a difference by 0.01 at most away from zero.
    """
    low, high = np.nanquantile(values, ((1 - share) / 2, (1 + share) / 2))
    return float(low), float(high)
