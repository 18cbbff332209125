import json

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import description


def make(path, codec, options=None, count=4):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        rng = np.random.default_rng(0)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (64, 96, 3), np.uint8), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("quality", "subsampling"), [(10, "4:2:0"), (75, "4:4:4"), (92, "4:2:2")])
def test_a_jpeg(tmp_path, photo, quality, subsampling):
    Image.fromarray(photo(50, 70)).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    values = description.describe(tmp_path / "a.jpg")
    assert (values["kind"], values["format"], values["width"], values["height"]) == ("image", "JPEG", 70, 50)
    assert values["estimated_quality"] == quality
    assert values["standard_table"] is True
    assert values["subsampling"] == subsampling
    assert [len(table) for table in values["quantisation_tables"]] == [64, 64, 64]
    json.dumps(values, allow_nan=False)


def test_a_table_of_its_own(tmp_path, photo):
    Image.fromarray(photo(16, 16)).save(tmp_path / "a.jpg", qtables=[[7] * 64, [7] * 64])
    values = description.describe(tmp_path / "a.jpg")
    assert values["standard_table"] is False
    assert values["log2_step"] == pytest.approx(np.log2(7), abs=0.01)


def test_a_picture_that_does_not_tell(tmp_path, photo):
    Image.fromarray(photo(16, 16)).save(tmp_path / "a.png")
    values = description.describe(tmp_path / "a.png")
    assert values["log2_step"] is None and "unknown" in values["compression_from"]


def test_a_video_that_tells(tmp_path):
    values = description.describe(make(tmp_path / "a.mp4", "libx264", {"qp": "28", "aq-mode": "0", "g": "1"}))
    assert (values["kind"], values["codec"], values["frame_count"]) == ("video", "h264", 4)
    assert values["frame_rate"] == "25" and values["duration_seconds"] == pytest.approx(0.16)
    assert values["frames_looked_at"] == 4
    # x264 codes intra frames 3 finer than what it is told for the others.
    assert values["qp"] == {"mean": 25, "minimum": 25, "maximum": 25}
    assert values["log2_step"] == {"mean": 3.5, "minimum": 3.5, "maximum": 3.5}
    json.dumps(values, allow_nan=False)


def test_a_video_that_does_not_tell(tmp_path):
    values = description.describe(make(tmp_path / "a.webm", "libvpx-vp9"))
    assert values["log2_step"] is None and "unknown" in values["compression_from"] and "qp" not in values


def test_no_more_frames_than_said_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(description, "FRAMES", 2)
    assert description.describe(make(tmp_path / "a.mp4", "libx264"))["frames_looked_at"] == 2


def test_a_video_that_breaks_off(tmp_path):
    whole = make(tmp_path / "whole.mkv", "libx264", {"g": "1"}, count=30)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    values = description.describe(tmp_path / "cut.mkv")
    assert "breaks off" in values["broken"] and 5 < values["frames_looked_at"] < 25
