import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines, stills
from training import baselines, detection, evaluate_detection

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["cat", "dog"]


@pytest.fixture
def folder(photo, tmp_path):
    """Makes a folder of pictures 40 wide and 20 high out of the text of their labels; None for no file."""

    def make(**labels):
        for index, (name, text) in enumerate(labels.items()):
            Image.fromarray(photo(20, 40, index)).save(tmp_path / f"{name}.png")
            if text is not None:
                (tmp_path / f"{name}.txt").write_text(text)
        return tmp_path

    return make


@pytest.fixture
def detector_form(shared):
    files = [shared / "data" / "detector" / f"yolo-fastest-1.1-xl.{suffix}" for suffix in ("cfg", "weights")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"needs {files[0]}")
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    return ":".join(map(str, files))


def _picture(boxes, classes):
    return detection.LabelledPicture("", np.reshape(np.float64(boxes), (-1, 4)), np.array(classes, np.int64), True)


def _found(boxes, scores, classes):
    return np.reshape(np.float64(boxes), (-1, 4)), np.float64(scores), np.array(classes, np.int64)


NOTHING = _found([], [], [])


def _random_case(rng, pictures=12, classes=4, ties=False):
    """Boxes with some of them found, some missed, some moved, and some that are not there."""
    truth, found = [], []
    for _ in range(pictures):
        count = rng.integers(0, 6)
        corners = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], axis=1)
        labels = rng.integers(0, classes, count)
        truth.append(_picture(boxes, labels))
        seen = np.repeat(np.arange(count), rng.integers(0, 3, count))
        moved = np.sort((boxes[seen] + rng.normal(0, 2, (len(seen), 4))).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        extra = np.concatenate([corners, corners + 20], axis=1)
        scores = rng.uniform(0, 1, len(seen) + len(extra))
        scores = np.round(scores, 1) if ties else scores
        labels = np.concatenate([labels[seen], rng.integers(0, classes, len(extra))])
        found.append(_found(np.concatenate([moved, extra]), scores, labels))
    return truth, found


def test_labels_are_read_in_pixels(folder):
    path = folder(a="1 0.5 0.5 0.5 1\n\n0 0.25 0.5 0.1 0.2\n", b="", c=None)
    a, b, c = detection.read_pictures(path, NAMES)
    assert np.allclose(a.boxes, [[10, 0, 30, 20], [8, 8, 12, 12]], rtol=0, atol=1e-12)
    assert a.classes.tolist() == [1, 0]
    assert b.boxes.shape == c.boxes.shape == (0, 4)
    assert (a.labelled, b.labelled, c.labelled) == (True, True, False)


@pytest.mark.parametrize(
    ("picture", "labels", "given"),
    [
        ("x.png", "labels/x.txt", ""),
        ("images/x.png", "labels/x.txt", ""),
        ("images/x.png", "labels/x.txt", "images"),
        ("images/train/x.png", "labels/train/x.txt", ""),
    ],
)
def test_labels_are_found_where_yolo_has_them(photo, tmp_path, picture, labels, given):
    for file in (picture, labels):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(20, 40)).save(tmp_path / picture)
    (tmp_path / labels).write_text("0 0.5 0.5 1 1")
    (read,) = detection.read_pictures(tmp_path / given, NAMES)
    assert read.boxes.tolist() == [[0, 0, 40, 20]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", r"a\.txt, line 2: expected `class x y width height`"),
        ("cat 0.5 0.5 0.5 0.5", r"a\.txt, line 2: expected `class x y width height`"),
        ("0.5 0.5 0.5 0.5 0.5", r"a\.txt, line 2: expected `class x y width height`"),
        ("0 200 100 50 50", r"a\.txt, line 2: expected `class x y width height`"),
        ("0 nan 0.5 0.5 0.5", r"a\.txt, line 2: expected `class x y width height`"),
        ("2 0.5 0.5 0.5 0.5", r"a\.txt, line 2: expected a class of the detector's 2, 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", r"a\.txt, line 2: expected a class of the detector's 2, 0 to 1"),
    ],
)
def test_labels_that_are_none_are_named(folder, line, message):
    with pytest.raises(ValueError, match=message):
        detection.read_pictures(folder(a=f"0 0.5 0.5 0.5 0.5\n{line}\n"), NAMES)


def test_no_label_at_all_is_an_error(folder):
    with pytest.raises(ValueError, match=r"Expected labels .* found none"):
        detection.read_pictures(folder(a=None, b=""), NAMES)


def test_names(tmp_path):
    (tmp_path / "some.names").write_text("cat\ntraffic light\n\n")
    assert detection.read_names(tmp_path / "some.names") == ["cat", "traffic light"]
    with pytest.raises(ValueError, match="no file"):
        detection.read_names(tmp_path / "other.names")
    (tmp_path / "empty.names").write_text("\n")
    with pytest.raises(ValueError, match="found none"):
        detection.read_names(tmp_path / "empty.names")


def test_suppression_by_hand():
    # The second overlaps the first by 8 of 12 (0.667), the third by 6 of 14 (0.429), the fourth not at all.
    boxes = np.float64([[0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1], [20, 0, 30, 1]])
    assert detection.non_maximum_suppression(boxes, np.float64([0.9, 0.8, 0.7, 0.95]), 0.5).tolist() == [3, 0, 2]
    assert detection.non_maximum_suppression(boxes, np.float64([0.9, 0.8, 0.7, 0.95]), 0.4).tolist() == [3, 0]
    assert detection.non_maximum_suppression(boxes, np.float64([0.5, 0.5, 0.5, 0.5]), 0.4).tolist() == [0, 3]
    # What goes takes nothing with it: the third overlaps the second by 0.667, which is gone.
    assert detection.non_maximum_suppression(boxes, np.float64([0.9, 0.8, 0.7, 0.1]), 0.5).tolist() == [0, 2, 3]
    assert detection.non_maximum_suppression(boxes[:0], np.float64([])).tolist() == []
    # Boxes without an area are no division by zero.
    assert detection.non_maximum_suppression(np.zeros((2, 4)), np.float64([0.2, 0.3])).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (33, 500), (320, 320), (7, 3)])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_boxes_come_back_to_the_picture(shape, keep_aspect):
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    pixels = np.full((*shape, 3), 255, np.uint8)
    canvas, to_picture = detection.place(pixels, 320, 192, keep_aspect)
    assert canvas.shape == (192, 320, 3)
    inside = (canvas == 255).all(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    # Bars are as wide on either side, and there are none one way.
    assert len(rows) == 192 or len(columns) == 320
    assert abs(rows[0] - (191 - rows[-1])) <= 1
    assert abs(columns[0] - (319 - columns[-1])) <= 1
    edges = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
    assert np.allclose(to_picture(edges), [[0, 0, shape[1], shape[0]]], rtol=0, atol=1e-9)
    middle = edges.reshape(2, 2).mean(axis=0)
    assert np.allclose(to_picture(np.tile(middle, 2)[None]), [[shape[1] / 2, shape[0] / 2] * 2], rtol=0, atol=1e-9)


def _average_precision(truth, found):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    return detection.match(truth, found, NAMES)


def test_precision_by_hand():
    truth = [_picture([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0]), _picture([], [])]
    # Union 10, intersection 6: right at the thresholds 0.5, 0.55 and 0.6 of ten.
    overlaps_by_06 = [0, 0, 6, 10]
    _, figures = _average_precision(truth[:1] * 1, [_found([overlaps_by_06, [50, 50, 60, 60]], [0.9, 0.8], [0, 0])])
    # Above 0.6 the first is wrong and the second right: precision 1/2 up to recall 1/2, which is 51 levels of 101.
    assert figures == pytest.approx((1.0, (3 * 1.0 + 7 * 0.5 * 51 / 101) / 10), abs=1e-12)
    # One of two found: precision 1 up to recall 1/2.
    _, figures = _average_precision(truth, [_found([[0, 0, 10, 10]], [0.9], [0]), NOTHING])
    assert figures == pytest.approx((51 / 101, 51 / 101), abs=1e-12)
    # A wrong one in the other picture with a higher score halves that; with a lower one it costs nothing.
    for score, precision in ((0.95, 0.5), (0.1, 1.0)):
        found = [_found([[0, 0, 10, 10]], [0.9], [0]), _found([[0, 0, 10, 10]], [score], [0])]
        assert _average_precision(truth, found)[1] == pytest.approx([precision * 51 / 101] * 2, abs=1e-12)
    # The right place with the wrong name, the same object twice, nothing at all.
    assert _average_precision(truth, [_found([[0, 0, 10, 10]], [0.9], [1]), NOTHING])[1] == (0.0, 0.0)
    twice = _found([[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]], [0.9, 0.7, 0.8], [0, 0, 0])
    assert _average_precision(truth, [twice, NOTHING])[1][0] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert _average_precision(truth, [NOTHING, NOTHING])[1] == (0.0, 0.0)


def test_only_classes_with_objects_count():
    truth = [_picture([[0, 0, 10, 10]], [1])]
    matches, figures = _average_precision(truth, [_found([[0, 0, 10, 10], [0, 0, 5, 5]], [0.9, 0.95], [1, 0])])
    assert len(matches) == 1
    assert figures == pytest.approx((1.0, 1.0))


def test_a_class_without_a_name_is_an_error():
    with pytest.raises(ValueError, match=r"Expected classes below 2, as many as names\. The detector gave: 2"):
        _average_precision([_picture([[0, 0, 1, 1]], [0])], [_found([[0, 0, 1, 1]], [0.5], [2])])


@pytest.mark.parametrize("seed", range(4))
def test_resampled_precision_is_that_of_pycocotools(seed):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    rng = np.random.default_rng(seed)
    names = list("abcd")
    truth, found = _random_case(rng)
    matches, figures = detection.match(truth, found, names)
    assert 0.05 < figures[1] < figures[0] < 0.95
    once = detection.mean_average_precision(matches, np.ones((1, len(truth)), np.int64))
    assert np.allclose(once, [figures], rtol=0, atol=1e-9)
    weights = detection.bootstrap_weights(len(truth), 20, seed)
    for drawn, got in zip(weights, detection.mean_average_precision(matches, weights), strict=True):
        indices = np.repeat(np.arange(len(truth)), drawn)
        _, expected = detection.match([truth[i] for i in indices], [found[i] for i in indices], names)
        assert np.allclose(got, expected, rtol=0, atol=1e-9)


def test_equal_scores_are_ranked_as_pycocotools_does():
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    truth, found = _random_case(np.random.default_rng(9), pictures=30, ties=True)
    matches, figures = detection.match(truth, found, list("abcd"))
    once = detection.mean_average_precision(matches, np.ones((1, len(truth)), np.int64))
    assert np.allclose(once, [figures], rtol=0, atol=1e-9)


def test_resamples_without_objects_have_no_precision():
    truth = [_picture([[0, 0, 10, 10]], [0]), _picture([], [])]
    matches, _ = _average_precision(truth, [_found([[0, 0, 10, 10]], [0.9], [0]), NOTHING])
    values = detection.mean_average_precision(matches, np.array([[2, 0], [1, 1], [0, 2]]))
    assert np.allclose(values, [[1, 1], [1, 1], [np.nan, np.nan]], equal_nan=True)
    assert detection.interval(values[:, 0]) == pytest.approx((1.0, 1.0))


def test_bootstrap_draws_as_many_pictures_the_same_way_every_time():
    weights = detection.bootstrap_weights(7, 2000)
    assert weights.shape == (2000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)
    assert np.array_equal(weights, detection.bootstrap_weights(7, 2000))
    assert not np.array_equal(weights, detection.bootstrap_weights(7, 2000, seed=1))


def test_interval_holds_the_share():
    low, high = detection.interval(np.append(np.arange(1001.0), np.nan))
    assert (low, high) == pytest.approx((25.0, 975.0))


def _onnx(path, rows, transposed):
    """A model whose output is always the same."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    values = np.float32(rows)[None]
    values = values.transpose(0, 2, 1) if transposed else values
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    brightest = helper.make_node("ReduceMax", ["images"], ["brightest"], keepdims=0)
    nodes = [brightest, helper.make_node("Mul", ["rows", "brightest"], ["output"])]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", kind, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output", kind, values.shape)],
        [onnx.numpy_helper.from_array(values, "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("version", [5, 8])
def test_onnx_detector(tmp_path, version):
    # Centre and sides in the input's pixels, and scores of two classes; v5 has one score more in front of them.
    rows = [[32, 32, 32, 16, 0.2, 0.9], [33, 32, 32, 16, 0.0, 0.8], [16, 32, 8, 8, 0.5, 0.0]] + [[0] * 6] * 20
    rows = [row[:4] + [0.5] + row[4:] for row in rows] if version == 5 else rows
    detector = detection.load_detector(str(_onnx(tmp_path / "some.onnx", rows, version == 8)))
    # 128 wide and 64 high: half the size, with 16 pixels of grey above and below.
    boxes, scores, classes = detector(np.full((64, 128, 3), 255, np.uint8))
    share = 0.5 if version == 5 else 1.0
    assert classes.tolist() == [0, 0, 1]
    assert scores == pytest.approx(np.array([0.5, 0.2, 0.9]) * share)
    assert boxes == pytest.approx(np.float64([[24, 24, 40, 40], [32, 16, 96, 48], [32, 16, 96, 48]]))


def test_boxes_end_at_the_edges(tmp_path):
    rows = [[0, 32, 32, 100, 0.2, 0.9]] + [[0] * 6] * 20
    detector = detection.onnx_yolo(_onnx(tmp_path / "some.onnx", rows, True), least_score=0.5)
    boxes, scores, classes = detector(np.full((64, 128, 3), 255, np.uint8))
    assert boxes.tolist() == [[0, 0, 32, 64]]
    assert classes.tolist() == [1]


def test_detectors_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a detector FILE\.cfg:FILE\.weights or FILE\.onnx"):
        detection.load_detector("some.pt")
    with pytest.raises(ValueError, match="no detector file"):
        detection.load_detector(f"{tmp_path}/a.cfg:{tmp_path}/a.weights")
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    for name, text in (("a.cfg", "no configuration"), ("a.weights", ""), ("a.onnx", "no model")):
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no detector that OpenCV can read"):
        detection.load_detector(f"{tmp_path}/a.cfg:{tmp_path}/a.weights")
    (tmp_path / "a.cfg").write_text("[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=21\nsize=1\n")
    with pytest.raises(ValueError, match=r"Expected \d+ bytes or more of weights"):
        detection.load_detector(f"{tmp_path}/a.cfg:{tmp_path}/a.weights")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with pytest.raises(ValueError, match="no model that ONNX Runtime can load"):
        detection.load_detector(str(tmp_path / "a.onnx"))


def _blocks_detector(pixels):
    """Finds one object in every picture, where it is if the picture has no blocks of 8 pixels."""
    steps = np.abs(np.diff(pixels[..., 1].astype(float), axis=1)).mean(axis=0)
    is_blocky = steps[7::8].mean() > 1.3 * np.delete(steps, np.s_[7::8]).mean()
    return _found([[30, 30, 40, 40] if is_blocky else [0, 0, 20, 20]], [0.9], [0])


@pytest.fixture
def scene(photo, tmp_path):
    for index in range(3):
        Image.fromarray(photo(64, 96, index)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"0 {10 / 96} {10 / 64} {20 / 96} {20 / 64}")
    return detection.read_pictures(tmp_path, NAMES)


def test_measures_versions_side_by_side(scene):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    restorers = {
        "unchanged": lambda frames, quantiser_map=None: frames,
        # Near enough to the picture that quality 2 can account for the change.
        "smooth": lambda frames, quantiser_map=None: np.mean([np.roll(frames, k, 2) for k in range(-4, 4)], axis=0),
    }
    rows = evaluate_detection.measure(scene, NAMES, _blocks_detector, [2, 95], restorers, resamples=50)
    assert [(row["quality"], row["method"], row.get("against")) for row in rows] == [
        (None, "original", None),
        (2, "compressed", "original"),
        (2, "unchanged", "compressed"),
        (2, "smooth", "compressed"),
        (95, "compressed", "original"),
        (95, "unchanged", "compressed"),
        (95, "smooth", "compressed"),
    ]
    assert [row["mAP50"] for row in rows] == pytest.approx([1, 0, 0, 1, 1, 1, 1])
    assert [row["difference"]["mAP50"] for row in rows[1:]] == [
        pytest.approx([value] * 3) for value in (-1, 0, 1, 0, 0, 0)
    ]


def test_a_filter_gets_its_best_strength(scene, monkeypatch):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")

    def filtered(file, strength, shape):
        with Image.open(file) as picture:
            assert picture.size == shape[::-1]
            return np.zeros((*shape, 3), np.uint8) if strength == "smooth" else np.asarray(picture)

    monkeypatch.setattr(baselines, "filtered_rgb", filtered)
    monkeypatch.setitem(baselines.FILTERS, "spp", ("weak", "smooth", "none"))
    rows = evaluate_detection.measure(scene, NAMES, _blocks_detector, [2], {}, ["spp"], resamples=10)
    assert [row["method"] for row in rows] == ["original", "compressed", "spp"]
    assert [row["mAP50"] for row in rows] == pytest.approx([1, 0, 1])
    assert rows[2]["strength"] == "smooth"
    assert rows[2]["difference"]["mAP50"] == pytest.approx([1, 1, 1])


def test_darknet_detector_finds_less_on_strong_jpegs(detector_form, shared):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    names = detection.read_names(shared / "data" / "detector" / "coco.names")
    pictures = detection.read_pictures(shared / "data" / "eval" / "detection", names)[:12]
    detector = detection.load_detector(detector_form)
    rows = evaluate_detection.measure(pictures, names, detector, [5], {}, resamples=100)
    assert rows[0]["mAP50"] > 0.4
    assert rows[1]["difference"]["mAP50"][0] < -0.1
    assert rows[0]["mAP50:95"] < rows[0]["mAP50"]
    with Image.open(pictures[0].file) as picture:
        pixels = np.asarray(picture)
    boxes, scores, classes = detector(pixels)
    assert scores.min() > detection.LEAST_SCORE
    assert all(np.array_equal(*pair) for pair in zip(detector(pixels), (boxes, scores, classes), strict=True))
    assert (boxes >= 0).all()
    assert (boxes <= (pixels.shape[1], pixels.shape[0]) * 2).all()


def test_resampled_precision_of_a_real_detector_is_that_of_pycocotools(detector_form, shared):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    names = detection.read_names(shared / "data" / "detector" / "coco.names")
    pictures = detection.read_pictures(shared / "data" / "eval" / "detection", names)[:12]
    detector = detection.load_detector(detector_form)
    found = [detector(stills.read(picture.file).pixels) for picture in pictures]
    matches, figures = detection.match(pictures, found, names)
    weights = np.concatenate([np.ones((1, 12), np.int64), detection.bootstrap_weights(12, 3)])
    for drawn, got in zip(weights, detection.mean_average_precision(matches, weights), strict=True):
        indices = np.repeat(np.arange(12), drawn)
        _, expected = detection.match([pictures[i] for i in indices], [found[i] for i in indices], names)
        assert np.allclose(got, expected, rtol=0, atol=1e-9)


def test_darknet_weights_cut_short_are_refused(detector_form, tmp_path):
    cfg, weights = map(Path, detector_form.split(":"))
    (tmp_path / "short.weights").write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="bytes or more of weights"):
        detection.opencv_darknet(cfg, tmp_path / "short.weights")


@pytest.mark.slow
def test_published_figures_of_the_public_pictures(detector_form, shared):
    """Those were taken with OpenCV's own threshold, and another count of the average precision."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    names = detection.read_names(shared / "data" / "detector" / "coco.names")
    pictures = detection.read_pictures(shared / "data" / "eval" / "detection", names)
    for least_score, expected in ((0.2, (0.370, 0.233, 0.310)), (detection.LEAST_SCORE, (0.428, 0.286, 0.399))):
        detector = detection.load_detector(detector_form, least_score=least_score)
        rows = evaluate_detection.measure(pictures, names, detector, [10, 20], {}, resamples=10)
        assert [row["mAP50"] for row in rows] == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": None}, "error: give --pictures and --detector."),
        ({"detector": "other.onnx"}, "error: There is no detector file other.onnx."),
        ({"names": "other.names"}, "error: There is no file other.names of the names of classes."),
        ({"names": None}, r"error: Give --names: expected one .names file in .*, found 2."),
        ({"model": ["other.tflite"]}, "error: There is no model file other.tflite."),
        ({"filters": ["other"]}, "error: Expected filters of .*"),
        ({"qualities": ["0"]}, r"error: Expected qualities from 1 to 100. Received: \[0\]"),
        ({"json": "nowhere/figures.json"}, "error: There is no folder for nowhere/figures.json."),
        ({"pictures": "other"}, "error: Expected pictures .* below other, found none."),
    ],
)
def test_program_refuses_in_one_line(folder, monkeypatch, change, message):
    path = folder(a="1 0.5 0.5 1 1")
    (path / "some.onnx").write_text("")
    for name in ("some.names", "more.names"):
        (path / name).write_text("cat\ndog\n")
    values = {
        "pictures": str(path),
        "detector": str(path / "some.onnx"),
        "names": str(path / "some.names"),
        "model": [],
        "filters": [],
        "qualities": ["10"],
        "json": None,
    }
    monkeypatch.setattr(evaluate_detection, "FLAGS", SimpleNamespace(**values | change))
    with pytest.raises(SystemExit) as stopped:
        evaluate_detection.main([])
    assert re.fullmatch(message, str(stopped.value))


def test_program(tmp_path, folder):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    rows = [[32, 32, 64, 32, 0.2, 0.9]] + [[0] * 6] * 20
    model = _onnx(tmp_path / "some.onnx", rows, True)
    (tmp_path / "some.names").write_text("cat\ndog\n")
    path = folder(a="1 0.5 0.5 1 1", b=None)
    command = [sys.executable, "-m", "training.evaluate_detection", f"--pictures={path}", f"--detector={model}",
               "--qualities=10", "--filters=", "--resamples=20", f"--json={tmp_path / 'figures.json'}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Detection: 1 objects on 2 pictures, 1 of them without a file of labels" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["pictures without labels"] == 1
    assert figures["command"].startswith(f"python -m training.evaluate_detection --pictures={path} ")
    shipped = engines.pretrained_path(engines.DEFAULT_MODEL)
    assert figures["sha256"] == {file.name: engines.digest(file) for file in (model, shipped)}
    assert [row["method"] for row in figures["rows"]] == ["original", "compressed", engines.DEFAULT_MODEL]
    assert figures["rows"][0]["mAP50"] > 0.9
