from fractions import Fraction

import av
import numpy as np
import pytest

from keras_deartifact import colour, fields, quantiser, restore, video
from keras_deartifact.restore import plan

SIZE = (96, 64)
FRAMES = 8
# The two fields of a frame that moves.
UPPER, LOWER = 60, 180


def identity(frames, quantiser_map=None):
    return frames


def vertical_mean(frames, quantiser_map=None):
    """Each row becomes the mean of its neighbours: constant pictures stay as they are, others do not."""
    padded = np.pad(frames, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / np.float32(3)


def noise(pix_fmt, width, height, seed=0):
    frame = av.VideoFrame(width, height, pix_fmt)
    rng = np.random.default_rng(seed)
    top = 2 ** frame.format.components[0].bits
    for plane in frame.planes:
        codes = np.frombuffer(plane, np.uint8 if top == 256 else "<u2")
        codes[:] = rng.integers(0, top, codes.size)
    return frame


def flagged(frame, order):
    """The frame, marked as interlaced."""
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return next(video.Chain(frame, ("setfield", order)).push(frame))


def upper_shows_first(frame):
    first = next(video.Chain(frame, ("separatefields", "")).push(frame))
    rows = [video.lines(each.planes[0])[:, : frame.width] for each in (first, frame)]
    return (rows[0] == rows[1][0::2]).all()


def make(
    path, codec, order="tff", *, count=FRAMES, size=SIZE, pix_fmt="yuv420p", options=None, picture=None, only=None
):
    """Writes interlaced video: frames of `picture(index)`, by default with constant fields."""

    def striped(index):
        frame = av.VideoFrame(*size, pix_fmt)
        for plane, (upper, lower) in zip(frame.planes, ((UPPER, LOWER), (100, 150), (140, 90)), strict=True):
            rows = video.lines(plane)
            rows[0::2], rows[1::2] = upper, lower
        return frame

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 25)
        if codec == "libx264" or (codec == "mpeg2video" and only != range(0)):
            stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        stream.codec_context.field_order = 4 if order == "tff" else 5
        for index in range(count):
            frame = (picture or striped)(index)
            if only is None or index in only:
                frame = flagged(frame, order)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving(index):
    """Blocks that move between the fields of a frame."""
    blocks = np.random.default_rng(5).integers(40, 216, (8, 12, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.roll(blocks, 4 * index + shift, 1) for shift in (0, 2)]
    woven = np.where(np.arange(64)[:, None, None] % 2 == 0, *frames)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(woven), format="rgb24").reformat(format="yuv420p")


def frames_of(path):
    return [frame.image for frame in video.read_frames(path)]


def planes_of(frame):
    """The bytes of every plane, without most of the padding."""
    size = -(-frame.format.components[0].bits // 8)
    if len(frame.planes) == 1 and frame.format.is_rgb:
        size = 3 if frame.format.name.endswith("24") else 4
    return [video.lines(plane)[:, : size * plane.width].copy() for plane in frame.planes]


@pytest.mark.parametrize("size", [(34, 20), (33, 17), (32, 1), (32, 2)])
@pytest.mark.parametrize("pix_fmt", colour.SUPPORTED)
def test_fields_make_the_frame_again(pix_fmt, size):
    frame = flagged(noise(pix_fmt, *size), "tff")
    assert frame.interlaced_frame
    taken = fields.pictures(frame)
    assert [(each.width, each.height) for each in taken] == [(size[0], -(-size[1] // 2))] * 2
    woven = fields.weave(taken, frame)
    assert (woven.pts, woven.time_base, woven.format.name) == (frame.pts, frame.time_base, pix_fmt)
    for before, after in zip(planes_of(frame), planes_of(woven), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_field_is_every_second_row_of_every_plane():
    frame = flagged(noise("yuv420p", 32, 16), "bff")
    for parity, field in enumerate(fields.pictures(frame)):
        for whole, half in zip(planes_of(frame), planes_of(field), strict=True):
            np.testing.assert_array_equal(half, whole[parity::2])


def test_a_progressive_frame_is_one_picture():
    frame = noise("yuv420p", 32, 16)
    (picture,) = fields.pictures(frame)
    assert picture is frame
    assert fields.weave((picture,), frame) is picture


@pytest.mark.parametrize(("height", "stated", "expected"), [(576, 2, 6), (720, 2, 1), (720, 9, 9)])
def test_the_matrix_of_a_field_is_that_of_its_frame(height, stated, expected):
    """A field of 720 lines has 360, but no standard definition's matrix."""
    frame = noise("yuv444p", 16, height)
    frame.colorspace, frame.color_range = stated, 2
    for field in fields.pictures(flagged(frame, "tff")):
        assert (colour.matrix(field), field.color_range) == (expected, 2)


def test_the_map_of_a_field_by_hand():
    rows = np.float32([[2, 4], [4, 4], [6, 0]])
    np.testing.assert_array_equal(fields.field_map(rows), np.float32([[3, 4], [6, 0]]))
    for height in (16, 33, 480, 486, 1080):
        of_field = fields.field_map(quantiser.constant_map(height, 32))
        assert of_field.shape == quantiser.map_shape(-(-height // 2), 32)


@pytest.mark.parametrize(("codec", "order"), [("libx264", "tff"), ("libx264", "bff"), ("mpeg2video", "tff")])
def test_interlaced_video_stays_as_it_is(tmp_path, codec, order):
    source = make(tmp_path / "in.mkv", codec, order, picture=moving)
    for name, encoder, options in (("out.mkv", "ffv1", {}), ("out.mp4", "libx264", {"crf": 0, "preset": "ultrafast"})):
        report = restore.restore_video(identity, source, tmp_path / name, codec=encoder, **options)
        assert (report.frames, report.states_quantisers) == (FRAMES, True)
        for old, new in zip(frames_of(source), frames_of(tmp_path / name), strict=True):
            for before, after in zip(planes_of(old), planes_of(new), strict=True):
                np.testing.assert_array_equal(after, before)
            assert old.interlaced_frame and new.interlaced_frame
            assert upper_shows_first(old) == upper_shows_first(new) == (order == "tff")
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].codec_context.field_order in (2, 3, 4, 5)
        assert video.probe(tmp_path / name).interlaced


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {"qp": "0"}), ("mpeg2video", {"qmin": "1", "qmax": "1"}), ("ffv1", {}), ("libx264", {"qp": "28"})],
)
def test_fields_are_never_mixed(tmp_path, codec, options):
    """A network that mixes rows changes frames of two constant fields, but not the fields."""
    source = make(tmp_path / "in.mkv", codec, options=options)
    shapes = []

    def restorer(frames, quantiser_map):
        shapes.append((frames.shape, quantiser_map.shape))
        return vertical_mean(frames)

    restore.restore_video(restorer, source, tmp_path / "out.mkv", codec="ffv1", strength=1.0)
    assert shapes == [((1, 32, 96, 3), (1, 2, 6))] * (2 * FRAMES)
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        for before, after in zip(planes_of(old), planes_of(new), strict=True):
            assert np.abs(after.astype(int) - before).max() <= 1
        assert np.abs(planes_of(new)[0][0::2].astype(int) - UPPER).max() <= 4
        assert np.abs(planes_of(new)[0][1::2].astype(int) - LOWER).max() <= 4


def test_each_field_is_restored_as_a_picture(tmp_path):
    source = make(tmp_path / "in.mkv", "libx264", picture=moving, options={"qp": "30"})
    restore.restore_video(vertical_mean, source, tmp_path / "out.mkv", codec="ffv1", strength=1.0)
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        expected = []
        for field in fields.pictures(old):
            images = colour.to_rgb(field)[None].astype(np.float32) / np.float32(255)
            expected.append(colour.add_correction(field, (vertical_mean(images) - images)[0]))
        for first, second in zip(planes_of(fields.weave(tuple(expected), old)), planes_of(new), strict=True):
            assert np.abs(first.astype(int) - second).max() <= 1


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_deinterlacing_keeps_the_rows_that_are_shown_first(tmp_path, order):
    source = make(tmp_path / "in.mkv", "ffv1", order, picture=moving)
    restore.restore_video(identity, source, tmp_path / "out.mkv", codec="ffv1", deinterlace=True)
    old, new = frames_of(source), frames_of(tmp_path / "out.mkv")
    assert [frame.pts for frame in old] == [frame.pts for frame in new]
    assert not video.probe(tmp_path / "out.mkv").interlaced
    parity = 0 if order == "tff" else 1
    for before, after in zip(old, new, strict=True):
        kept, made = (planes_of(each)[0][side::2].astype(int) for each, side in ((after, parity), (after, 1 - parity)))
        np.testing.assert_array_equal(kept, planes_of(before)[0][parity::2])
        # What moves has no combs any more: rows lie between their neighbours.
        between = (kept[1:] + kept[:-1]) / 2
        inner = made[:-1] if parity == 0 else made[1:]
        combs = planes_of(before)[0][1 - parity :: 2].astype(int)
        assert (
            np.abs(inner - between).mean() < 0.5 * np.abs((combs[:-1] if parity == 0 else combs[1:]) - between).mean()
        )


def test_deinterlacing_leaves_progressive_frames_alone(tmp_path):
    source = make(tmp_path / "in.mkv", "ffv1", picture=moving, only={2, 3})
    assert [frame.interlaced_frame for frame in frames_of(source)] == [index in (2, 3) for index in range(FRAMES)]
    restore.restore_video(identity, source, tmp_path / "out.mkv", codec="ffv1", deinterlace=True)
    for index, (old, new) in enumerate(zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True)):
        assert (planes_of(old)[0] == planes_of(new)[0]).all() == (index not in (2, 3))
        assert not new.interlaced_frame


def test_formats_that_the_deinterlacer_lacks_come_back():
    deinterlacer = fields.Deinterlacer()
    made = []
    for index in range(3):
        frame = flagged(noise("nv12", 32, 16, index), "tff")
        frame.pts, frame.duration = index, 1
        made += deinterlacer.push(frame)
    made += deinterlacer.flush()
    assert [frame.format.name for frame in made] == ["nv12"] * 3
    assert [(frame.pts, frame.duration, frame.time_base) for frame in made] == [
        (index, 1, Fraction(1, 25)) for index in range(3)
    ]


@pytest.mark.parametrize(("codec", "expected"), [("ffv1", [False, True, True, False]), ("libx264", [True] * 4)])
def test_frames_that_take_turns(tmp_path, codec, expected):
    """Each goes its own way; H.264 flags all of them, with the same field first."""
    source = make(tmp_path / "in.mkv", "ffv1", "tff", count=4, picture=moving, only={1, 2})
    heights = []

    def restorer(frames, quantiser_map):
        heights.append(frames.shape[1])
        return frames

    restore.restore_video(
        restorer, source, tmp_path / "out.mkv", codec=codec, **({"crf": 0} if codec != "ffv1" else {})
    )
    assert heights == [64, 32, 32, 32, 32, 64]
    new = frames_of(tmp_path / "out.mkv")
    assert [frame.interlaced_frame for frame in new] == expected
    assert all(upper_shows_first(frame) for frame in new if frame.interlaced_frame)
    for before, after in zip(frames_of(source), new, strict=True):
        np.testing.assert_array_equal(planes_of(before)[0], planes_of(after)[0])


def test_interlaced_frames_are_found_beyond_the_beginning(tmp_path):
    """An encoder must know before its first frame."""
    parts = [
        make(tmp_path / f"{len(only)}.ts", "mpeg2video", count=40, picture=moving, only=only, options={"g": "10"})
        for only in (range(0), range(40))
    ]
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as joined:
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as container:
                stream = stream or joined.add_stream_from_template(container.streams.video[0], opaque=True)
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts = (time + number * 40 * 3600 for time in (packet.pts, packet.dts))
                        packet.stream = stream
                        joined.mux(packet)
    interlaced = [frame.interlaced_frame for frame in frames_of(source)]
    assert not any(interlaced[:30]) and all(interlaced[-30:])
    restore.restore_video(identity, source, tmp_path / "out.mkv", crf=0, preset="ultrafast")
    assert all(frame.interlaced_frame for frame in frames_of(tmp_path / "out.mkv"))


def test_the_container_tells_where_frames_do_not(tmp_path):
    source = make(tmp_path / "in.mov", "magicyuv", "bff", picture=moving)
    with av.open(str(source)) as container:
        assert not next(container.decode(video=0)).interlaced_frame
    assert video.probe(source).interlaced
    assert all(frame.interlaced_frame and not upper_shows_first(frame) for frame in frames_of(source))
    restore.restore_video(vertical_mean, make(tmp_path / "flat.mov", "magicyuv"), tmp_path / "out.mkv", strength=1.0)
    for frame in frames_of(tmp_path / "out.mkv"):
        assert frame.interlaced_frame
        assert np.abs(planes_of(frame)[0][0::2].astype(int) - UPPER).max() <= 4


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx-vp9"])
def test_encoders_without_fields_are_refused(tmp_path, codec):
    source = make(tmp_path / "in.mkv", "ffv1", picture=moving)
    with pytest.raises(ValueError, match=rf"{codec} must code interlaced.*ffv1 or libx264 .*deinterlace=True \(--dei"):
        restore.restore_video(identity, source, tmp_path / "out.mkv", codec=codec)
    report = restore.restore_video(identity, source, tmp_path / "out.mkv", codec=codec, deinterlace=True)
    assert (report.frames, video.probe(tmp_path / "out.mkv").interlaced) == (FRAMES, False)


def test_hevc_in_single_fields_is_refused(tmp_path):
    options = {"x265-params": "log-level=error:interlace=tff"}
    source = make(tmp_path / "in.mkv", "libx265", picture=moving, options=options)
    with pytest.raises(ValueError, match=r"HEVC must have whole frames.*weave"):
        restore.restore_video(identity, source, tmp_path / "out.mkv")


@pytest.mark.parametrize(
    ("size", "pix_fmt", "message"),
    [((96, 66), "yuv420p", "libx264 must take yuv420p"), ((96, 65), "yuv422p", "libx264 must take yuv422p")],
)
def test_fields_of_half_a_chroma_row_need_ffv1(tmp_path, size, pix_fmt, message):
    def picture(index):
        return noise(pix_fmt, *size, index)

    source = make(tmp_path / "in.mkv", "ffv1", size=size, pix_fmt=pix_fmt, picture=picture, count=2)
    with pytest.raises(ValueError, match=message):
        restore.restore_video(identity, source, tmp_path / "out.mkv")
    restore.restore_video(identity, source, tmp_path / "out.mkv", codec="ffv1")
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        for before, after in zip(planes_of(old), planes_of(new), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("size", "pix_fmt", "rate"), [((720, 576), "yuv420p", 25), ((720, 480), "yuv411p", 30)])
def test_tapes_in_raw_dv(tmp_path, size, pix_fmt, rate):
    """PAL and NTSC; ffmpeg counts the frames of the second wrong."""
    source = tmp_path / "in.dv"
    seconds = Fraction(1, 25) if rate == 25 else Fraction(1001, 30000)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("dvvideo", rate=1 / seconds)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = *size, pix_fmt, seconds
        for index in range(4):
            frame = flagged(noise(pix_fmt, *size, index), "bff")
            frame.pts, frame.time_base = index, seconds
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    restore.restore_video(identity, source, tmp_path / "out.mp4", crf=0, preset="ultrafast")
    info = video.probe(tmp_path / "out.mp4")
    assert (info.interlaced, info.frame_rate) == (True, 1 / seconds)
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.mp4"), strict=True):
        assert not upper_shows_first(old) and not upper_shows_first(new)
        np.testing.assert_array_equal(planes_of(old)[0], planes_of(new)[0])


@pytest.mark.parametrize("deinterlace", [False, True])
def test_an_interrupted_run_with_fields_ends_like_another(tmp_path, monkeypatch, deinterlace):
    """Frames and interlaced ones take turns, and each kind has its own predictions."""
    monkeypatch.setattr(plan, "FRAMES", 3)
    monkeypatch.setattr(plan, "PREDICT_EVERY", 2)
    turns = {2, 3, 5, 8, 9, 10, 12}
    source = make(tmp_path / "in.mkv", "ffv1", "tff", count=16, picture=moving, only=turns)

    def predictor(frames):
        shape = quantiser.map_shape(*frames.shape[1:3])
        return np.full((1, *shape), 4 + 3 * frames.mean(), np.float32)

    def run(target, limit=None):
        done = []

        def restorer(frames, quantiser_map):
            done.append(1)
            if limit is not None and len(done) > limit:
                raise KeyboardInterrupt
            return (frames + quantiser_map.mean() / 255).astype(np.float32)

        return restore.restore_video(restorer, source, target, predictor=predictor, deinterlace=deinterlace)

    whole = run(tmp_path / "whole.mkv")
    for limit in (9, 10):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out.mkv", limit)
    report = run(tmp_path / "out.mkv")
    assert report.continued > 0 and report.frames == whole.frames
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
