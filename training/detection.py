"""What a detector still finds: labelled pictures, detectors, mean average precision, and how sure a difference is.

A `Detector` is a function of one picture, uint8 RGB `(height, width, 3)`, that returns the boxes, scores and classes of
the n objects it finds: float64 `(n, 4)` left, top, right, bottom in pixels; float64 `(n,)` up to 1; int64 `(n,)`. It
returns those of low scores too, for the average precision is an area under a curve that goes on down to them.

Average precision is COCO's: at 101 levels of recall, the precision at that recall or a higher one; its mean over them,
over the classes that have objects, and for mAP50:95 over ten thresholds of overlap from 0.5 to 0.95. What matches what
is pycocotools' word in every case. A bootstrap needs the same areas a thousand times over with pictures drawn again;
those are counted here from the matches, since they stay what they are when a picture counts twice or not at all.
"""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import data

__all__ = [
    "DETECTORS",
    "LEAST_SCORE",
    "Detections",
    "Detector",
    "LabelledPicture",
    "Matches",
    "bootstrap_weights",
    "detector_files",
    "interval",
    "load_detector",
    "match",
    "mean_average_precision",
    "non_maximum_suppression",
    "onnx_yolo",
    "opencv_darknet",
    "place",
    "read_names",
    "read_pictures",
    "weighted_precision",
]

LEAST_SCORE = 0.001
"""Below it a detection is not worth its time: it hardly moves the average precision."""
OVERLAP = 0.45
"""Of two boxes of a class that overlap by more (intersection over union), the one of less score goes."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Detections = tuple[Floats, Floats, Integers]
Detector = Callable[[Pixels], Detections]

_INSTALL = "pip install 'keras_deartifact[measure]'"


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
    return LabelledPicture(str(file), _corners(values[:, 1:]) * sides, values[:, 0].astype(np.int64), bool(label_file))


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


def _corners(boxes: NDArray[Any]) -> Floats:
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


def _select(boxes: Floats, class_scores: Floats, least_score: float, shape: tuple[int, ...]) -> Detections:
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


def opencv_darknet(cfg: str | Path, weights: str | Path, *, least_score: float = LEAST_SCORE) -> Detector:
    """Returns a detector of Darknet's (YOLO v2 to v4 and their kin), run by OpenCV.

    Pictures are stretched to the size that the configuration states, as Darknet does.

    Args:
        cfg: the network's configuration.
        weights: its weights.
        least_score: below it nothing is returned. OpenCV takes 0.2 by default, which cuts the curve of precision over
            recall short: on 64 pictures of COCO it makes of Yolo-Fastest's mAP50 0.37 for 0.43, and 0.24 for 0.29 of
            their JPEGs at quality 10.

    Raises:
        ValueError: OpenCV is not installed or cannot read the files.
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"A Darknet detector needs OpenCV: {_INSTALL}") from error
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise ValueError(f"OpenCV {cv2.__version__} does not read Darknet's files any more, 4 does: {_INSTALL}")
    # OpenCV zeroes scores below the key `thresh` of each of these layers.
    text = re.sub(r"(?m)^\s*thresh\s*=.*$", "", Path(cfg).read_text("utf-8"))
    text = re.sub(r"(?m)^\s*\[(yolo|region)\]", rf"[\1]\nthresh={least_score:g}", text)
    sides = [re.search(rf"(?m)^\s*{side}\s*=\s*(\d+)", text) for side in ("width", "height")]
    content = np.fromfile(weights, np.uint8)
    try:
        width, height = (int(side[1]) for side in sides if side)
        network = cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode(), np.uint8), content)
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{cfg} with {weights} is no detector that OpenCV can read.") from error
    # OpenCV reads past the end of the weights without a word. They follow 16 or 20 bytes; anchors are not among them.
    layers = [network.getLayer(name) for name in network.getLayerNames()]
    needed = 16 + 4 * sum(blob.size for layer in layers if layer.type != "Region" for blob in layer.blobs)
    if content.size < needed:
        raise ValueError(f"Expected {needed} bytes or more of weights for {cfg}. Received: {weights} of {content.size}")
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    outputs = network.getUnconnectedOutLayersNames()

    def detect(pixels: Pixels) -> Detections:
        canvas, to_picture = place(pixels, width, height, keep_aspect=False)
        network.setInput(cv2.dnn.blobFromImage(canvas, 1 / 255))
        # A row: centre and sides as shares, whether there is anything, and the score of each class, that included.
        rows = np.concatenate([output.reshape(-1, output.shape[-1]) for output in network.forward(outputs)])
        boxes = to_picture(_corners(rows[:, :4]) * np.array((width, height) * 2))
        return _select(boxes, rows[:, 5:].astype(np.float64), least_score, pixels.shape)

    return detect


def onnx_yolo(model: str | Path, *, least_score: float = LEAST_SCORE) -> Detector:
    """Returns a detector in ONNX that has YOLO's output, run by ONNX Runtime.

    Its input is float32 `(1, 3, height, width)` RGB in `[0, 1]`, pictures in the middle of grey bars; 640 pixels each
    way where the file leaves that open. Its output is `(1, 4 + classes, boxes)` as of YOLO v8 on, or
    `(1, boxes, 5 + classes)` as of v5, with centre and sides in pixels of the input; the longer axis is that of boxes.

    Args:
        model: the file.
        least_score: below it nothing is returned.

    Raises:
        ValueError: ONNX Runtime or OpenCV is not installed or the file is no such model.
    """
    try:
        import cv2  # noqa: F401  (for `place`)
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"An ONNX detector needs {error.name}: {_INSTALL.replace('[', '[train,')}") from error
    try:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of its own for each way to fail.
        raise ValueError(f"{model} is no model that ONNX Runtime can load.") from error
    given = session.get_inputs()[0]
    shapes = [given.shape, session.get_outputs()[0].shape]
    if [len(shape) for shape in shapes] != [4, 3]:
        raise ValueError(f"Expected an input of 4 axes and an output of 3 in {model}. Received: {shapes}")
    height, width = (side if isinstance(side, int) else 640 for side in given.shape[2:])

    def detect(pixels: Pixels) -> Detections:
        canvas, to_picture = place(pixels, width, height, keep_aspect=True)
        images = np.float32(canvas.transpose(2, 0, 1)[None]) / np.float32(255)
        rows = session.run(None, {given.name: images})[0][0].astype(np.float64)
        scores = rows[4:].T if len(rows) < rows.shape[1] else rows[:, 4:5] * rows[:, 5:]
        boxes = rows[:4].T if len(rows) < rows.shape[1] else rows[:, :4]
        return _select(to_picture(_corners(boxes)), scores, least_score, pixels.shape)

    return detect


# Each takes its files and gives a detector.
DETECTORS: dict[str, Callable[..., Detector]] = {"opencv_darknet": opencv_darknet, "onnx_yolo": onnx_yolo}
_FORMS = {(".cfg", ".weights"): "opencv_darknet", (".onnx",): "onnx_yolo"}


def detector_files(form: str) -> list[Path]:
    """Returns the files of `CFG:WEIGHTS` or `FILE.onnx`.

    Raises:
        ValueError: it is neither, or a file is missing.
    """
    files = [Path(part) for part in form.split(":")]
    if tuple(file.suffix for file in files) not in _FORMS:
        raise ValueError(f"Expected a detector FILE.cfg:FILE.weights or FILE.onnx. Received: {form}")
    for file in files:
        if not file.is_file():
            raise ValueError(f"There is no detector file {file}.")
    return files


def load_detector(form: str, *, least_score: float = LEAST_SCORE) -> Detector:
    """Loads the detector of `CFG:WEIGHTS` or `FILE.onnx`.

    Args:
        form: its files.
        least_score: below it nothing is returned.

    Raises:
        ValueError: there is none, or it cannot be loaded.
    """
    files = detector_files(form)
    return DETECTORS[_FORMS[tuple(file.suffix for file in files)]](*files, least_score=least_score)


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
        raise ValueError(f"The mean average precision needs pycocotools: {_INSTALL}") from error
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
