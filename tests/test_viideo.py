import hashlib
import json
import math

import av
import numpy as np
import pytest

from keras_deartifact.image import luma
from keras_deartifact.metrics import viideo


def _luma_planes(path):
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            yield np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


@pytest.fixture(scope="module")
def pan(photo):
    """A window that moves over a still picture, as a clip."""
    still = photo(64, 120, seed=5)
    return [still[:50, 2 * index : 2 * index + 60] for index in range(24)]


@pytest.mark.parametrize("kind", ["original", "x264_crf40"])
@pytest.mark.parametrize("name", ["video/carphone.mkv", "video/calendar.mkv"])
def test_oracle(name, kind, shared):
    oracle = json.loads((shared / "oracles/metrics.json").read_text())
    values = oracle["video"][name][kind]
    path = shared / "data/eval" / name if kind == "original" else shared / "oracles" / values["file"]
    frames = np.stack(list(_luma_planes(path)))
    if hashlib.sha256(frames.tobytes()).hexdigest() != values["luma_sha256"]:
        pytest.skip(f"this decoder gives other pixels for {path.name} than the oracle's")
    assert viideo(frames) == pytest.approx(values["viideo"], abs=oracle["meta"]["tolerance"]["viideo"], rel=0)


def test_golden_values(pan):
    # From this implementation, after it had met every oracle to 1e-10.
    assert viideo(pan) == pytest.approx(0.500177758, abs=1e-6)
    assert viideo([frame // 16 * 16 for frame in pan]) == pytest.approx(0.466359066, abs=1e-6)


def test_streams(pan):
    assert viideo(iter(pan)) == viideo(np.stack(pan))


def test_an_odd_last_frame_does_not_count(pan):
    assert viideo(pan[:23]) == viideo(pan[:22])
    assert viideo(pan[:24]) != viideo(pan[:22])


def test_luma_is_enough(pan):
    assert viideo(pan) == viideo([luma(frame) for frame in pan])


def test_light_that_is_added_does_not_matter(pan):
    # It looks at differences of frames only.
    dark = [frame // 2 for frame in pan]
    assert viideo([luma(frame) + np.uint8(9) for frame in dark]) == viideo([luma(frame) for frame in dark])


def test_without_motion(photo):
    assert viideo([photo(40, 50)] * 24) == math.inf
    assert viideo([np.full((40, 50), 9, np.uint8)] * 24) == math.inf
    assert viideo([np.full((36, 36), 40 * (index % 3), np.uint8) for index in range(30)]) == math.inf


def test_a_still_beginning_is_skipped(photo):
    random = np.random.default_rng(0)
    moving = [random.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(32)]
    assert math.isfinite(viideo([photo(40, 50)] * 16 + moving))


def test_pictures_smaller_than_a_block():
    frames = np.random.default_rng(0).integers(0, 256, (22, 5, 7)).astype(np.uint8)
    assert math.isfinite(viideo(frames))
    assert viideo(np.arange(22, dtype=np.uint8).reshape(22, 1, 1)) == math.inf


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], r"at least 22 frames\. Received: 0"),
        ([np.zeros((8, 8), np.uint8)] * 21, r"at least 22 frames\. Received: 21"),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)], r"one size, \(8, 8\)\. .*frame\.shape=\(8, 9\)"),
        ([np.zeros((8, 8, 4), np.uint8)], r"frame\.shape=\(8, 8, 4\)"),
        ([np.zeros((8, 8), np.float32)], r"frame\.dtype=float32"),
    ],
)
def test_frames_are_checked(frames, message):
    with pytest.raises(ValueError, match=message):
        viideo(frames)
