"""Segments that are restored apart from each other, in any order, make the file that one run makes."""

import random

import numpy as np
import pytest

from keras_deartifact import quantiser, restore
from keras_deartifact.restore import plan

FRAMES, LENGTH = 60, 11


def restorer(frames, quantiser_map):
    """Depends on the frame and on each value of its map."""
    steps = quantiser_map.repeat(16, 1).repeat(16, 2)[..., None]
    return (frames + steps * np.float32(0.01)).astype(np.float32)


def predictor(frames):
    shape = quantiser.map_shape(*frames.shape[1:3])
    return np.full((1, *shape), 4 + 6 * frames.mean() + 3 * frames[0, 0, 0, 0], np.float32)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr(plan, "FRAMES", LENGTH)
    monkeypatch.setattr(plan, "PREDICT_EVERY", 4)


def one_run(source, target, **options):
    return restore.restore_video(restorer, source, target, predictor=predictor, **options)


def apart(source, target, folder, **options):
    """Restores each segment by itself, in any order, and joins them; returns plan and records."""
    planned = restore.plan_video(source, target, restore.VideoOptions(**options))
    planned = restore.VideoPlan.from_json(planned.to_json())
    indices = list(range(len(planned.segments)))
    paths = [folder / f"{index}.segment" for index in indices]
    records = dict.fromkeys(indices)
    random.Random(1).shuffle(indices)
    for index in indices:
        records[index] = restore.restore_segment(restorer, predictor, source, planned, index, paths[index])
    records = list(records.values())
    while wrong := restore.seams(records):
        records[wrong[0]] = restore.restore_segment(
            restorer, predictor, source, planned, wrong[0], paths[wrong[0]], from_start=True
        )
    restore.join_segments(source, target, planned, records, paths)
    return planned, records


VARIED = [0, 20, 53, 93, 134, 254, *(1254 + 33 * index for index in range(FRAMES - 6))]
OPEN = "keyint=12:min-keyint=12:scenecut=0:open-gop=1"
X264 = {"bf": "3", "b-pyramid": "normal", "x264-params": OPEN}
X265 = {"x265-params": OPEN + ":bframes=4:log-level=error"}
MPEG = {"g": "12", "bf": "2"}
VPX = {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1", "deadline": "good", "cpu-used": "5"}
# Name, encoder, its options and more of `make_video`; in how many segments, and where decoders begin: packets.
SOURCES = [
    ("open.mp4", "libx264", X264, {}),
    ("open.mkv", "libx264", X264, {}),
    ("open.ts", "libx264", X264, {}),
    ("refresh.ts", "libx264", {"bf": "0", "x264-params": "intra-refresh=1:keyint=12"}, {}),
    ("varied.mkv", "libx264", {"g": "12"}, {"times": VARIED}),
    ("varied.mp4", "libx264", X264, {"times": VARIED}),
    ("later.mp4", "libx264", X264, {"times": [40 * index + 5000 for index in range(FRAMES)]}),
    ("a.flv", "libx264", {"g": "12"}, {}),
    ("open265.mkv", "libx265", X265, {}),
    ("open265.mp4", "libx265", X265, {}),
    ("open265.ts", "libx265", X265, {}),
    ("a.ts", "mpeg2video", MPEG, {"acodec": "mp2"}),
    ("a.mpg", "mpeg2video", MPEG, {"acodec": "mp2"}),
    ("a.mkv", "mpeg2video", MPEG, {}),
    ("old.mpg", "mpeg1video", MPEG, {"acodec": "mp2"}),
    ("a.mp4", "mpeg4", MPEG, {}),
    ("a.mov", "prores_ks", {}, {"pix_fmt": "yuv422p10le", "acodec": "pcm_s16le"}),
    ("ffv1.mkv", "ffv1", {}, {}),
    ("vp8.webm", "libvpx", VPX, {"acodec": None}),
    ("vp9.webm", "libvpx-vp9", VPX, {"acodec": None}),
    ("av1.mkv", "libsvtav1", {"g": "12", "preset": "10"}, {}),
]


@pytest.mark.parametrize(("name", "codec", "options", "more"), SOURCES, ids=[each[0] for each in SOURCES])
def test_segments_made_apart_join_to_the_file_of_one_run(tmp_path, make_video, name, codec, options, more):
    more = {"times": [40 * index for index in range(FRAMES)], **more}
    source = make_video(tmp_path / name, codec, options=options, **more)
    report = one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    planned, records = apart(source, tmp_path / "apart.mkv", tmp_path, preset="ultrafast")
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert sum(record.frames for record in records) == report.frames
    assert any(record.stated for record in records) == report.states_quantisers
    predictions = [value for record in records for value in record.predictions]
    assert float(np.median(predictions)) == report.predicted_log2_step
    assert [record.frames for record in records] == [segment.frames for segment in planned.segments]
    # The last segments were made without decoding the first frames.
    assert len(planned.segments) >= 5 and planned.segments[-1].place is not None
