"""What a detector still finds: labelled pictures, detectors, mean average precision, and how sure a difference is.

A `Detector` is a function of one picture, uint8 RGB `(height, width, 3)`, that returns the boxes, scores and classes of
the n objects it finds: float64 `(n, 4)` left, top, right, bottom in pixels; float64 `(n,)` up to 1; int64 `(n,)`. It
returns those of low scores too, for the average precision is an area under a curve that goes on down to them.

Average precision is COCO's: at 101 levels of recall, the precision at that recall or a higher one; its mean over them,
over the classes that have objects, and for mAP50:95 over ten thresholds of overlap from 0.5 to 0.95. What matches what
is pycocotools' word in every case. A bootstrap needs the same areas a thousand times over with pictures drawn again;
those are counted here from the matches, since they stay what they are when a picture counts twice or not at all.
"""

from training.detection.boxes import Detections, Detector, Floats, Pixels, non_maximum_suppression, place
from training.detection.detectors import (
    DETECTORS,
    LEAST_SCORE,
    detector_files,
    load_detector,
    onnx_yolo,
    opencv_darknet,
)
from training.detection.labels import LabelledPicture, read_names, read_pictures
from training.detection.precision import (
    Matches,
    bootstrap_weights,
    interval,
    match,
    mean_average_precision,
    weighted_precision,
)

__all__ = [
    "DETECTORS",
    "LEAST_SCORE",
    "Detections",
    "Detector",
    "Floats",
    "LabelledPicture",
    "Matches",
    "Pixels",
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
