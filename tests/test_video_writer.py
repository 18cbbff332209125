import os
from fractions import Fraction

import av
import numpy as np
import pytest

from keras_deartifact import video

SILENT_X265 = {"x265-params": "log-level=error"}


@pytest.mark.parametrize(
    ("extension", "codec", "acodec"),
    [
        ("mp4", "libx264", "aac"),
        ("mkv", "libx264", "aac"),
        ("ts", "libx264", "aac"),
        ("mov", "libx264", "pcm_s16le"),
        ("mkv", "mpeg2video", "pcm_s16le"),
        ("ts", "mpeg2video", "mp2"),
        ("mp4", "mpeg4", "libmp3lame"),
    ],
)
def test_a_copy_keeps_times_and_audio_to_the_bit(
    tmp_path, extension, codec, acodec, make_video, times_of, packets_of, copy_video
):
    source = make_video(tmp_path / f"in.{extension}", codec, acodec, times=[1400 + 40 * index for index in range(30)])
    target = tmp_path / f"out.{extension}"
    writer = copy_video(source, target, preset="veryfast")
    assert writer.skipped == []
    before, after = times_of(source), times_of(target)
    assert len(before) == 30
    assert after == before
    old, new = packets_of(source), packets_of(target)
    if acodec == "pcm_s16le":
        # PCM has no packets of its own; a demuxer cuts it as it likes.
        assert b"".join(data for _, data in old) == b"".join(data for _, data in new)
    else:
        assert [data for _, data in old] == [data for _, data in new]
        tolerance = 0 if extension in ("mkv", "ts") else Fraction(1, 44100)
        assert all(abs(a - b) <= tolerance for (a, _), (b, _) in zip(old, new, strict=True))


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_variable_frame_rate_is_exact(tmp_path, extension, make_video, times_of, copy_video):
    times = [0, 40, 73, 140, 141, 300, 333, 900, 901, 1000, 1033, 1100]
    source = make_video(tmp_path / f"in.{extension}", times=[123 + time for time in times])
    copy_video(source, tmp_path / f"out.{extension}", preset="veryfast")
    assert times_of(source) == [Fraction(123 + time, 1000) for time in times]
    assert times_of(tmp_path / f"out.{extension}") == times_of(source)


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_avi_becomes_a_container_with_times(tmp_path, extension, make_video, times_of, packets_of, copy_video):
    source = make_video(tmp_path / "in.avi", "mpeg4", "libmp3lame")
    target = tmp_path / f"out.{extension}"
    copy_video(source, target)
    assert times_of(target) == times_of(source)
    assert [data for _, data in packets_of(target)] == [data for _, data in packets_of(source)]
    with pytest.raises(ValueError, match="AVI holds no presentation times"):
        video.VideoWriter(tmp_path / "out.avi", source)


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_description_shape_and_tags_are_kept(tmp_path, extension, make_video, copy_video):
    setup = {"colorspace": 9, "color_range": 2, "color_primaries": 9, "color_trc": 16}
    setup["sample_aspect_ratio"] = Fraction(16, 11)
    source = make_video(tmp_path / f"in.{extension}", size=(95 - 1, 62), setup=setup, rotation=90)
    target = tmp_path / f"out.{extension}"
    copy_video(source, target)
    before, after = video.probe(source), video.probe(target)
    assert (before.matrix, before.color_range, before.primaries) == ("bt2020nc", "full", "bt2020")
    assert before.transfer == "smpte2084"
    assert before.sample_aspect_ratio == Fraction(16, 11)
    assert before.metadata["title"] == "a title"
    names = "matrix color_range primaries transfer sample_aspect_ratio rotation_degrees width height pix_fmt others"
    for name in names.split():
        assert getattr(after, name) == getattr(before, name), name
    assert after.metadata["title"] == "a title"
    assert [other.language for other in after.others] == ["fra"]
    assert before.rotation_degrees == 90


@pytest.mark.parametrize(
    ("pix_fmt", "size", "codec"),
    [
        ("yuv444p", (95, 63), "libx264"),
        ("yuv420p10le", (96, 64), "libx264"),
        ("yuvj420p", (96, 64), "libx264"),
        ("gray", (96, 64), "ffv1"),
        ("yuv420p12le", (96, 64), "libx265"),
    ],
)
def test_pixel_formats_and_odd_sizes_are_kept(tmp_path, pix_fmt, size, codec, make_video, copy_video):
    options = {"libx265": SILENT_X265, "libx264": {"qp": "12"}}.get(codec, {})
    source = make_video(
        tmp_path / "in.mkv", codec, None, size=size, pix_fmt=pix_fmt, options=options, times=[0, 40, 80]
    )
    copy_video(source, tmp_path / "out.mkv", codec=codec, crf=4)
    pairs = zip(video.read_frames(source), video.read_frames(tmp_path / "out.mkv"), strict=True)
    for old, new in pairs:
        assert (new.image.width, new.image.height, new.image.format.name) == (*size, old.image.format.name)
        assert old.image.format.name == pix_fmt
        difference = old.image.to_ndarray(format="gray").astype(int) - new.image.to_ndarray(format="gray")
        assert np.abs(difference).mean() < 2


def test_a_pixel_format_the_encoder_lacks(tmp_path, make_video, copy_video):
    source = make_video(tmp_path / "in.mkv", "ffv1", None, pix_fmt="yuv411p", times=[0, 40])
    copy_video(source, tmp_path / "out.mkv")
    assert video.probe(tmp_path / "out.mkv").pix_fmt == "yuv422p"
    deep = make_video(tmp_path / "deep.mkv", "ffv1", None, pix_fmt="yuv420p12le", times=[0, 40])
    with pytest.raises(ValueError, match="libx264 must take yuv420p12le"):
        video.VideoWriter(tmp_path / "no.mkv", deep)


def test_a_temporary_name_with_the_format_given(tmp_path, make_video, times_of, copy_video):
    source = make_video(tmp_path / "in.mkv")
    copy_video(source, tmp_path / "out.part", container_format="mkv", threads=1, options={"g": "5"})
    assert "matroska" in video.probe(tmp_path / "out.part").container
    assert times_of(tmp_path / "out.part") == times_of(source)


@pytest.mark.parametrize(
    ("size", "pix_fmt", "expected"),
    [
        ((95, 64), "yuv420p", "yuv444p"),
        ((96, 63), "yuv420p", "yuv422p"),
        ((96, 63), "yuv422p", "yuv422p"),
        ((96, 64), "yuv420p", "yuv420p"),
    ],
)
def test_x264_takes_no_half_chroma_samples(tmp_path, size, pix_fmt, expected, make_video, copy_video):
    source = make_video(tmp_path / "in.mkv", "ffv1", None, size=size, pix_fmt=pix_fmt, times=[0, 40])
    copy_video(source, tmp_path / "out.mp4", crf=0)
    info = video.probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.pix_fmt) == (*size, expected)
    for old, new in zip(video.read_frames(source), video.read_frames(tmp_path / "out.mp4"), strict=True):
        luma = [each.image.reformat(format="gray").to_ndarray() for each in (old, new)]
        np.testing.assert_array_equal(*luma)


def test_wrong_frames_are_refused(tmp_path, make_video, times_of):
    source = make_video(tmp_path / "in.mkv")
    frames = [frame.image for frame in video.read_frames(source)]
    with pytest.raises(ValueError, match="At least one frame"), video.VideoWriter(tmp_path / "a.mkv", source):
        pass
    with video.VideoWriter(tmp_path / "b.mkv", source) as writer:
        writer.write(frames[0])
        with pytest.raises(ValueError, match="after the last frame"):
            writer.write(frames[0])
        with pytest.raises(ValueError, match=r"96x64.*Received: 32x32"):
            writer.write(av.VideoFrame(32, 32, "yuv420p"))
        untimed = av.VideoFrame(96, 64, "yuv420p")
        with pytest.raises(ValueError, match="must have a pts"):
            writer.write(untimed)
        frames[1].time_base, frames[1].pts = Fraction(1, 30000), 1001
        with pytest.raises(ValueError, match="whole ticks"):
            writer.write(frames[1])
    assert times_of(tmp_path / "b.mkv") == [0]


def test_an_error_inside_the_block_passes_through_and_closes(tmp_path, make_video):
    source = make_video(tmp_path / "in.mkv")
    with pytest.raises(RuntimeError, match="mine"), video.VideoWriter(tmp_path / "out.mkv", source) as writer:
        writer.write(next(iter(video.read_frames(source))).image)
        raise RuntimeError("mine")
    os.remove(tmp_path / "out.mkv")
