import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from keras_deartifact import video

SILENT_X265 = {"x265-params": "log-level=error"}


def test_file_objects_are_read_too(tmp_path, make_video):
    source = make_video(tmp_path / "in.mp4")
    frames = list(video.read_frames(io.BytesIO(source.read_bytes())))
    assert [frame.image.pts for frame in frames] == [frame.image.pts for frame in video.read_frames(source)]
    assert video.probe(io.BytesIO(source.read_bytes())).codec == "h264"


@pytest.mark.parametrize(
    ("codec", "options", "expected"),
    [
        ("libx264", {"qp": "30", "x264-params": "ipratio=1:pbratio=1"}, 30),
        ("mpeg4", {"qmin": "7", "qmax": "7"}, 14),
        ("mpeg2video", {"qmin": "7", "qmax": "7"}, 14),
    ],
)
def test_quantisers_are_the_encoders(tmp_path, codec, options, expected, make_video):
    source = make_video(tmp_path / "in.mkv", codec, None, size=(90, 50), options=options)
    maps = [frame.qp for frame in video.read_frames(source)]
    if codec == "mpeg2video":
        assert maps.pop() is None
    for quantiser in maps:
        assert quantiser.shape == (4, 6)
        assert quantiser.dtype == np.float32
        np.testing.assert_array_equal(quantiser, expected)
    assert all(frame.qp is None for frame in video.read_frames(source, quantisers=False))


def test_quantisers_mean_the_same_at_ten_bits(tmp_path, make_video):
    means = []
    for pix_fmt in ("yuv420p", "yuv420p10le"):
        source = make_video(tmp_path / f"{pix_fmt}.mkv", "libx264", None, pix_fmt=pix_fmt, options={"crf": "28"})
        means.append(np.mean([frame.qp.mean() for frame in video.read_frames(source)]))
    assert abs(means[0] - means[1]) < 2


def test_codecs_without_exported_quantisers(tmp_path, make_video):
    source = make_video(tmp_path / "in.mkv", "libx265", None, options=SILENT_X265)
    frames = list(video.read_frames(source))
    assert len(frames) == 30
    assert all(frame.qp is None for frame in frames)


@pytest.mark.parametrize(
    ("extension", "codec", "options"),
    [("mkv", "libx264", {}), ("mp4", "libx264", {"movflags": "faststart"}), ("avi", "mpeg4", {})],
)
def test_a_cut_file_gives_its_frames_and_then_an_error(tmp_path, extension, codec, options, make_video):
    acodec = "libmp3lame" if extension == "avi" else "aac"
    times = [40 * index for index in range(60)]
    source = make_video(tmp_path / f"in.{extension}", codec, acodec, container_options=options, times=times)
    whole = [frame.image.pts for frame in video.read_frames(source)]
    assert len(whole) == 60
    data = source.read_bytes()
    cut = tmp_path / f"cut.{extension}"
    cut.write_bytes(data[: len(data) // 2])
    got = []
    with pytest.raises(video.BrokenVideoError, match=r"breaks off after \d\.\d\d s.*cut\."):
        for frame in video.read_frames(cut):
            got.append(frame.image.pts)
    assert 15 <= len(got) < 45
    assert set(got) <= set(whole)


def test_damage_in_the_middle_is_reported_after_the_rest(tmp_path, make_video):
    source = make_video(tmp_path / "in.mp4", "mpeg4")
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        position, size = packets[10].pos, packets[10].size
    data = bytearray(source.read_bytes())
    data[position : position + size] = bytes(size)
    source.write_bytes(data)
    got = []
    with pytest.raises(video.BrokenVideoError, match="damaged in 1 places.*does not decode"):
        for frame in video.read_frames(source):
            got.append(frame.image.pts)
    assert 28 <= len(got) <= 29


def test_a_corrupt_transport_stream_is_reported(tmp_path, make_video):
    source = make_video(tmp_path / "in.ts")
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    source.write_bytes(data)
    with pytest.raises(video.BrokenVideoError, match="damaged"):
        list(video.read_frames(source))


def test_frames_without_times_get_them_from_the_rate(tmp_path, photo):
    with av.open(str(tmp_path / "in.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "threads": "1"})
        stream.width, stream.height = 96, 64
        for index in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo(64, 96, index), format="rgb24")))
        container.mux(stream.encode(None))
    frames = [frame.image for frame in video.read_frames(tmp_path / "in.h264")]
    times = [frame.pts * frame.time_base for frame in frames]
    assert len(times) == 10
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == [Fraction(1, 25)] * 9


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "3"}), ("mpeg4", {"bf": "2"}), ("mpeg4", {})])
def test_avi_times_are_even_in_spite_of_b_frames(tmp_path, make_video, codec, options):
    source = make_video(tmp_path / "in.avi", codec, None, options=options)
    times = [frame.image.pts * frame.image.time_base for frame in video.read_frames(source)]
    assert len(times) == 30
    assert {second - first for first, second in pairwise(times)} == {Fraction(1, 25)}
    # ffmpeg delays the first frame by what the decoder holds back.
    assert times[0] == {"libx264": 2, "mpeg4": len(options)}[codec] * Fraction(1, 25)


@pytest.mark.parametrize("as_file", [False, True])
def test_times_that_go_back_are_not_believed(tmp_path, make_video, as_file):
    """A muxer that knows no B-frames gives the decoding times for presentation times."""
    plain, source = make_video(tmp_path / "plain.mp4", acodec=None, options={"bf": "2"}), tmp_path / "in.mp4"
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        packets = [packet for packet in old.demux(video=0) if packet.size]
        start = packets[0].dts
        for packet in packets:
            packet.dts -= start
            packet.pts, packet.stream = packet.dts, copy
            new.mux(packet)
    with av.open(str(source)) as container:
        written = [frame.pts for frame in container.decode(video=0)]
    assert written != sorted(written)
    given = io.BytesIO(source.read_bytes()) if as_file else source
    times = [frame.image.pts * frame.image.time_base for frame in video.read_frames(given)]
    assert len(times) == 30
    assert {second - first for first, second in pairwise(times)} == {Fraction(1, 25)}
