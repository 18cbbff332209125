from itertools import islice

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import codecs, colour, engines, quantiser, video
from training import evaluate_predictor


def test_the_nearest_quality():
    for quality in (10, 40, 95):
        assert evaluate_predictor.quality_of(quantiser.jpeg_quality_log2_step(quality)) == quality
    # From 98 on, all of the steps that count are 1.
    assert evaluate_predictor.quality_of(-5.0) == 98


def test_shares_of_stills_by_hand(photo, tmp_path, monkeypatch):
    """A predictor that says quality 31 whatever it sees: within 3 points of 30, and of nothing else."""
    Image.fromarray(photo(50, 70)).save(tmp_path / "0.png")
    step = quantiser.jpeg_quality_log2_step(31)
    seen = []

    def predictor(frames):
        seen.append(frames.shape)
        return np.full((1, frames.shape[1] // 16, frames.shape[2] // 16), step, np.float32)

    figures = evaluate_predictor.evaluate_stills(predictor, [str(tmp_path / "0.png")])
    assert figures["within 3 points"] == {str(q): float(q == 30) for q in evaluate_predictor.QUALITIES}
    close = {
        first for first, _ in evaluate_predictor.DOUBLES if abs(step - quantiser.jpeg_quality_log2_step(first)) < 0.5
    }
    assert close == {30}
    for name, share in figures["coarser of two within 0.5"].items():
        assert share == float(name.startswith("30 then"))
    assert figures["as they are"]["median"] == pytest.approx(step)
    assert figures["as they are"]["above 2"] == 1
    # The second compression begins 4 pixels further down and right.
    assert set(seen) == {(1, 50, 70, 3), (1, 46, 66, 3)}


def test_shares_of_frames_by_hand(make_video, tmp_path, monkeypatch):
    clip = make_video(tmp_path / "clip.mkv", acodec=None, options={"crf": "0"})
    monkeypatch.setattr(evaluate_predictor, "CRFS", (40,))

    def always(step):
        return lambda frames: np.full((1, frames.shape[1] // 16, frames.shape[2] // 16), step, np.float32)

    frames = np.stack([colour.to_rgb(frame.image) for frame in islice(video.read_frames(clip), 3)])
    means = codecs.h264(frames, crf=40).quantisers.mean(axis=(1, 2))
    near, far = (evaluate_predictor.evaluate_videos(always(step), [clip], 3) for step in (means[0], means.max() + 3.0))
    assert near["clips"] == 1
    assert far["smoothed"] == far["frame by frame"] == {"40": 0.0, "all": 0.0}
    assert near["frame by frame"]["40"] == pytest.approx(np.mean(np.abs(means - means[0]) <= 0.5))
    assert near["smoothed"]["40"] > 0.0


def test_the_shipped_one_on_a_generated_picture(photo, tmp_path):
    Image.fromarray(photo(192, 256)).save(tmp_path / "0.png")
    figures = evaluate_predictor.evaluate_stills(engines.load_predictor(), [str(tmp_path / "0.png")])
    assert np.mean(list(figures["within 3 points"].values())) >= 0.7
