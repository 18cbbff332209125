"""Detectors in files: Darknet's, run by OpenCV, and those with YOLO's output, run by ONNX Runtime."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.detection.boxes import Detections, Detector, Pixels, corners, place, select

__all__ = ["DETECTORS", "LEAST_SCORE", "detector_files", "load_detector", "onnx_yolo", "opencv_darknet"]

LEAST_SCORE = 0.001
"""Below it a detection is not worth its time: it hardly moves the average precision."""

_INSTALL = "pip install 'keras_deartifact[measure]'"


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
        boxes = to_picture(corners(rows[:, :4]) * np.array((width, height) * 2))
        return select(boxes, rows[:, 5:].astype(np.float64), least_score, pixels.shape)

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
        return select(to_picture(corners(boxes)), scores, least_score, pixels.shape)

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
