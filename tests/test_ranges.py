"""Segments that are restored apart from each other, in any order, make the file that one run makes."""

import random
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from keras_deartifact import engines, quantiser, restore, video
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


def one_run(source, target, networks=(restorer, predictor), **options):
    return restore.restore_video(networks[0], source, target, predictor=networks[1], **options)


def apart(source, target, folder, networks=(restorer, predictor), **options):
    """Restores each segment by itself, in any order, and joins them; returns plan and records."""
    planned = restore.plan_video(source, target, restore.VideoOptions(**options))
    planned = restore.VideoPlan.from_json(planned.to_json())
    indices = list(range(len(planned.segments)))
    paths = [folder / f"{index}.segment" for index in indices]
    records = dict.fromkeys(indices)
    random.Random(1).shuffle(indices)
    for index in indices:
        records[index] = restore.restore_segment(*networks, source, planned, index, paths[index])
    records = list(records.values())
    while wrong := restore.seams(records):
        for index in wrong:
            records[index] = restore.restore_segment(*networks, source, planned, index, paths[index], from_start=True)
    restore.join_segments(source, target, planned, records, paths)
    return planned, records


VARIED = [0, 20, 53, 93, 134, 254, *(1254 + 33 * index for index in range(FRAMES - 6))]
OPEN = "keyint=12:min-keyint=12:scenecut=0:open-gop=1"
X264 = {"bf": "3", "b-pyramid": "normal", "x264-params": OPEN}
X265 = {"x265-params": OPEN + ":bframes=4:log-level=error"}
MPEG = {"g": "12", "bf": "2"}
VPX = {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1", "deadline": "good", "cpu-used": "5"}
LONG = [40 * index for index in range(2 * FRAMES)]
# Name, encoder, its options and more of `make_video`.
SOURCES = [
    ("open.mp4", "libx264", X264, {}),
    ("fields.mp4", "libx264", {"x264-params": "tff=1:" + OPEN}, {}),
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
    ("a.avi", "mpeg4", MPEG, {"acodec": None, "times": LONG}),
    ("divx.avi", "mpeg4", {"g": "12"}, {"acodec": None, "times": LONG}),
    ("h264.avi", "libx264", X264, {"acodec": None, "times": LONG}),
    ("av1.mkv", "libsvtav1", {"g": "12", "preset": "10"}, {}),
]


# Those that are like others but for the container or the muxer's times.
SLOW = "open.mkv varied.mp4 later.mp4 open265.mp4 open265.ts a.mkv old.mpg divx.avi refresh.ts a.mov vp8.webm".split()


@pytest.mark.parametrize(
    ("name", "codec", "options", "more"),
    [pytest.param(*each, id=each[0], marks=pytest.mark.slow if each[0] in SLOW else ()) for each in SOURCES],
)
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
    if not name.endswith(".avi"):
        assert [record.frames for record in records] == [segment.frames for segment in planned.segments]
    # The last segments were made without decoding the first frames.
    assert len(planned.segments) >= 5 and planned.segments[-1].place is not None


def test_segments_made_apart_by_the_networks_that_ship(tmp_path, make_video):
    networks = engines.load("shuffle_nano"), engines.load_predictor()
    # Of H.265 the predictor alone knows the quality.
    source = make_video(tmp_path / "in.mkv", "libx265", options=X265, times=LONG[:FRAMES])
    one_run(source, tmp_path / "whole.mp4", networks)
    apart(source, tmp_path / "apart.mp4", tmp_path, networks)
    assert (tmp_path / "apart.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("deinterlace", [False, True])
def test_frames_and_fields_that_take_turns(tmp_path, deinterlace):
    """Each kind has its own predictions."""
    turns = {2, 3, 5, 8, 9, 10, 12, *range(20, 31), *range(40, 47)}
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.field_order = 64, 48, "yuv420p", 4
        for index in range(FRAMES):
            picture = np.random.default_rng(index // 4).integers(0, 255, (48, 64, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.roll(picture, index, 1), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            if index in turns:
                frame = next(video.Chain(frame, ("setfield", "tff")).push(frame))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    one_run(tmp_path / "in.mkv", tmp_path / "whole.mkv", deinterlace=deinterlace)
    apart(tmp_path / "in.mkv", tmp_path / "apart.mkv", tmp_path, deinterlace=deinterlace)
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def interrupted(calls, source, target):
    """Restores so many frames; returns how many of them are kept."""

    def limited(frames, quantiser_map):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise KeyboardInterrupt
        return restorer(frames, quantiser_map)

    limited.__qualname__ = restorer.__qualname__
    with pytest.raises(KeyboardInterrupt):
        restore.restore_video(limited, source, target, predictor=predictor, preset="ultrafast")
    return restore.frames_kept(target)


def test_a_run_that_goes_on_decodes_only_what_it_has_to(tmp_path, make_video, monkeypatch):
    source = make_video(tmp_path / "in.mp4", options=X264, times=LONG)
    one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    kept, decoded = interrupted(100, source, tmp_path / "out.mkv"), []
    read_frames = video.read_frames

    def counted(*arguments, **options):
        for frame in read_frames(*arguments, **options):
            decoded.append(frame.image.pts)
            yield frame

    monkeypatch.setattr(video, "read_frames", counted)
    report = one_run(source, tmp_path / "out.mkv", preset="ultrafast")
    assert 80 < report.continued == kept < 100
    assert len(decoded) < len(LONG) - report.continued + 50
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def copied(source, target, change):
    """Copies the packets of a video without audio, each changed by `change(index, packet)`; those it rejects not."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for index, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if change(index, packet):
                packet.stream = copy
                new.mux(packet)
    return target


@pytest.mark.parametrize(
    ("codec", "options", "name"),
    [("mpeg4", {"g": "250"}, "in.mp4"), ("libx265", {"x265-params": "keyint=250:log-level=error"}, "in.mkv")],
)
def test_key_frames_that_are_none(tmp_path, make_video, codec, options, name):
    """A file that calls every frame a key frame."""
    plain = make_video(tmp_path / "plain.mkv", codec, None, options=options, times=LONG)

    def lie(index, packet):
        packet.is_keyframe = True
        return True

    source = copied(plain, tmp_path / name, lie)
    one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    planned, records = apart(source, tmp_path / "apart.mkv", tmp_path, preset="ultrafast")
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert planned.segments[-1].place.number > FRAMES
    record = restore.restore_segment(restorer, predictor, source, planned, 9, tmp_path / "9.segment")
    # A decoder of MPEG-4 shows frames without their references, and only the seam tells; one of H.265 has none to show.
    assert record.from_start == (codec == "libx265")
    assert restore.seams([*records[:9], record]) == ([] if codec == "libx265" else [9])


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4"])
def test_lost_frames_are_missing_in_their_segment_alone(tmp_path, make_video, name):
    plain = make_video(tmp_path / "plain.mkv", "mpeg4", None, options={"g": "12"}, times=LONG)
    # From the middle of the 3rd segment to that of the 5th: the 4th has no frame.
    lost = range(2 * LENGTH + 5, 4 * LENGTH + 2)

    def spoil(index, packet):
        if index in lost:
            packet.update(b"\xff" * packet.size)
        return True

    source = copied(plain, tmp_path / name, spoil)
    report = one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    assert report.broken is not None
    assert report.frames == len(LONG) - len(lost)
    _, records = apart(source, tmp_path / "apart.mkv", tmp_path, preset="ultrafast")
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert [record.frames for record in records][2:5] == [5, 0, LENGTH - 2]
    assert records[0].broken is None and "does not decode" in records[4].broken


def test_a_run_that_goes_on_meets_damage(tmp_path, make_video):
    """Then it decodes from the start of the file, for what it has not done yet."""
    plain = make_video(tmp_path / "plain.mkv", "mpeg4", None, options={"g": "12"}, times=LONG)

    def spoil(index, packet):
        if index in range(100, 103):
            packet.update(b"\xff" * packet.size)
        return True

    source = copied(plain, tmp_path / "in.mkv", spoil)
    whole = one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    assert interrupted(60, source, tmp_path / "out.mkv") < 60
    seen = []
    report = one_run(source, tmp_path / "out.mkv", preset="ultrafast", progress=seen.append)
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert (report.frames, bool(report.broken)) == (whole.frames, True) == (len(LONG) - 3, True)
    assert report.continued > 30 and seen[-1] == report.frames


def test_a_recording_that_begins_between_key_frames(tmp_path, make_video):
    plain = make_video(tmp_path / "plain.ts", "libx265", options=X265, times=LONG)
    source = tmp_path / "in.ts"
    data = plain.read_bytes()
    source.write_bytes(data[len(data) // 5 // 188 * 188 :])
    report = one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    _, records = apart(source, tmp_path / "apart.mkv", tmp_path, preset="ultrafast")
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert sum(record.frames for record in records) == report.frames < len(LONG)


def test_an_edit_list(tmp_path, make_video):
    """Frames before the first that shows are decoded and dropped."""
    plain = make_video(tmp_path / "plain.mp4", acodec=None, options=X264, times=LONG)

    def later(index, packet):
        ticks = round(Fraction(7, 5) / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return True

    source = copied(plain, tmp_path / "in.mp4", later)
    report = one_run(source, tmp_path / "whole.mkv", preset="ultrafast")
    _, records = apart(source, tmp_path / "apart.mkv", tmp_path, preset="ultrafast")
    assert (tmp_path / "apart.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert report.frames == sum(record.frames for record in records) == len(LONG) - 35


def test_what_packets_do_not_tell_is_one_piece(tmp_path, make_video):
    source = make_video(tmp_path / "in.h264", acodec=None)
    planned = restore.plan_video(source, tmp_path / "out.mkv")
    assert planned.segments == ()
    with pytest.raises(ValueError, match="one piece must be restored by restore_video"):
        restore.restore_segment(restorer, predictor, source, planned, 0, tmp_path / "0")


def test_what_does_not_belong_together_is_refused(tmp_path, make_video):
    source, target = make_video(tmp_path / "in.mp4", times=LONG, options={"g": "12"}), tmp_path / "out.mkv"
    planned, records = apart(source, target, tmp_path, preset="ultrafast")
    paths = [tmp_path / f"{index}.segment" for index in range(len(records))]
    whole = target.read_bytes()
    with pytest.raises(FileExistsError):
        restore.join_segments(source, target, planned, records, paths)
    target.unlink()
    with pytest.raises(ValueError, match="index of one of 11 segments. Received: index=11"):
        restore.restore_segment(restorer, predictor, source, planned, 11, paths[0])
    with pytest.raises(ValueError, match="expected 11 segments. Received: 10 records and 11 paths"):
        restore.join_segments(source, target, planned, records[1:], paths)
    strange = replace(records[6], before="another")
    with pytest.raises(ValueError, match=r"make these anew with from_start=True. Received: \[5, 6\]"):
        restore.join_segments(source, target, planned, [*records[:6], strange, *records[7:]], paths)
    paths[3].write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be those of the record. Received: .*3\.segment"):
        restore.join_segments(source, target, planned, records, paths)
    assert not target.exists()
    record = restore.restore_segment(restorer, predictor, source, planned, 3, paths[3], from_start=True)
    assert record == replace(records[3], from_start=True)
    restore.join_segments(source, target, planned, records, paths)
    assert target.read_bytes() == whole


def test_a_place_in_another_file_is_not_found(tmp_path, make_video):
    source = make_video(tmp_path / "in.mp4", times=LONG, options={"g": "12"})
    planned = restore.plan_video(source, tmp_path / "out.mkv")
    place = planned.segments[-1].place
    other = make_video(tmp_path / "other.mp4", times=LONG, options={"g": "12", "crf": "40"})
    with pytest.raises(ValueError, match=r"must be as it was when it was planned.*other\.mp4"):
        restore.restore_segment(restorer, predictor, other, planned, 9, tmp_path / "9")
    first = next(video.read_frames(source, place=place)).image.pts
    assert planned.segments[0].last < first <= planned.segments[-2].last
