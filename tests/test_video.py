import io
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import video

FPS = 25
SILENT_X265 = {"x265-params": "log-level=error"}


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Blocks that move two pixels a frame."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(40, 216, (-(-height // 8), -(-width // 8), 3)).astype(np.uint8)
    return np.ascontiguousarray(np.roll(blocks.repeat(8, 0).repeat(8, 1)[:height, :width], 2 * index, 1))


def make(path, codec="libx264", acodec="aac", *, times=None, size=(96, 64), pix_fmt="yuv420p", **kwargs):
    """Writes a video of 30 frames, or of frames at `times` in milliseconds, with a stereo tone beside it."""
    times = [1000 * index // FPS for index in range(30)] if times is None else times
    setup, options, copts = kwargs.get("setup", {}), kwargs.get("options", {}), kwargs.get("container_options", {})
    with av.open(str(path), "w", container_options=copts) as container:
        stream = container.add_stream(codec, rate=FPS, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        base = Fraction(1, FPS) if codec.startswith("mpeg") else Fraction(1, 1000)
        stream.codec_context.time_base = base
        for name, value in setup.items():
            setattr(stream.codec_context, name, value)
        if "rotation" in kwargs:
            stream.set_display_rotation(kwargs["rotation"])
        audio = container.add_stream(acodec, rate=44100) if acodec else None
        container.metadata["title"] = "a title"
        if audio is not None:
            audio.metadata["language"] = "fra"
        start = 44100 * times[0] // 1000
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24").reformat(format=pix_fmt)
            frame.time_base, frame.pts = base, round(Fraction(time, 1000) / base)
            container.mux(stream.encode(frame))
            if audio is not None:
                position = start + 1764 * index
                wave = (8000 * np.sin(np.arange(position, position + 1764) * (2 * np.pi * 440 / 44100))).astype(
                    np.int16
                )
                tone = av.AudioFrame.from_ndarray(wave.repeat(2)[None], format="s16", layout="stereo")
                tone.sample_rate, tone.time_base, tone.pts = 44100, Fraction(1, 44100), position
                container.mux(audio.encode(tone))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def times_of(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets_of(path, kind="audio"):
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]


def copy(source, target, **kwargs):
    kwargs = {"preset": "ultrafast", **kwargs}
    with video.VideoWriter(target, source, **kwargs) as writer:
        for frame in video.read_frames(source):
            writer.write(frame.image)
    return writer


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
def test_a_copy_keeps_times_and_audio_to_the_bit(tmp_path, extension, codec, acodec):
    source = make(tmp_path / f"in.{extension}", codec, acodec, times=[1400 + 40 * index for index in range(30)])
    target = tmp_path / f"out.{extension}"
    writer = copy(source, target, preset="veryfast")
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
def test_variable_frame_rate_is_exact(tmp_path, extension):
    times = [0, 40, 73, 140, 141, 300, 333, 900, 901, 1000, 1033, 1100]
    source = make(tmp_path / f"in.{extension}", times=[123 + time for time in times])
    copy(source, tmp_path / f"out.{extension}", preset="veryfast")
    assert times_of(source) == [Fraction(123 + time, 1000) for time in times]
    assert times_of(tmp_path / f"out.{extension}") == times_of(source)


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_avi_becomes_a_container_with_times(tmp_path, extension):
    source = make(tmp_path / "in.avi", "mpeg4", "libmp3lame")
    target = tmp_path / f"out.{extension}"
    copy(source, target)
    assert times_of(target) == times_of(source)
    assert [data for _, data in packets_of(target)] == [data for _, data in packets_of(source)]
    with pytest.raises(ValueError, match="AVI holds no presentation times"):
        video.VideoWriter(tmp_path / "out.avi", source)


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_description_shape_and_tags_are_kept(tmp_path, extension):
    setup = {"colorspace": 9, "color_range": 2, "color_primaries": 9, "color_trc": 16}
    setup["sample_aspect_ratio"] = Fraction(16, 11)
    source = make(tmp_path / f"in.{extension}", size=(95 - 1, 62), setup=setup, rotation=90)
    target = tmp_path / f"out.{extension}"
    copy(source, target)
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
def test_pixel_formats_and_odd_sizes_are_kept(tmp_path, pix_fmt, size, codec):
    options = {"libx265": SILENT_X265, "libx264": {"qp": "12"}}.get(codec, {})
    source = make(tmp_path / "in.mkv", codec, None, size=size, pix_fmt=pix_fmt, options=options, times=[0, 40, 80])
    copy(source, tmp_path / "out.mkv", codec=codec, crf=4)
    pairs = zip(video.read_frames(source), video.read_frames(tmp_path / "out.mkv"), strict=True)
    for old, new in pairs:
        assert (new.image.width, new.image.height, new.image.format.name) == (*size, old.image.format.name)
        assert old.image.format.name == pix_fmt
        difference = old.image.to_ndarray(format="gray").astype(int) - new.image.to_ndarray(format="gray")
        assert np.abs(difference).mean() < 2


def test_a_pixel_format_the_encoder_lacks(tmp_path):
    source = make(tmp_path / "in.mkv", "ffv1", None, pix_fmt="yuv411p", times=[0, 40])
    copy(source, tmp_path / "out.mkv")
    assert video.probe(tmp_path / "out.mkv").pix_fmt == "yuv422p"
    deep = make(tmp_path / "deep.mkv", "ffv1", None, pix_fmt="yuv420p12le", times=[0, 40])
    with pytest.raises(ValueError, match="libx264 must take yuv420p12le"):
        video.VideoWriter(tmp_path / "no.mkv", deep)


def test_probe_reads_the_headers(tmp_path):
    info = video.probe(make(tmp_path / "in.mp4", options={"profile": "high"}, setup={"colorspace": 1}))
    assert (info.codec, info.profile, info.width, info.height) == ("h264", "High", 96, 64)
    assert (info.pix_fmt, info.bit_depth, info.frame_rate, info.frame_count) == ("yuv420p", 8, 25, 30)
    assert (info.duration, info.start, info.time_base) == (Fraction(6, 5), 0, Fraction(1, 16000))
    assert (info.matrix, info.primaries, info.video_streams, info.rotation_degrees) == ("bt709", None, 1, 0)
    assert info.bit_rate_bps > 0
    assert info.interlaced is False
    assert info.others == (video.StreamInfo(1, "audio", "aac", "fra"),)
    assert video.probe(make(tmp_path / "ten.mkv", acodec=None, pix_fmt="yuv420p10le")).bit_depth == 10


def test_files_that_are_no_video(tmp_path):
    empty, sound = tmp_path / "empty.mp4", tmp_path / "sound.wav"
    empty.touch()
    with pytest.raises(ValueError, match="complete video file.*empty.mp4"):
        video.read_frames(empty)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    for function in (video.probe, video.read_frames):
        with pytest.raises(ValueError, match="must hold a video stream; it holds audio streams.*sound.wav"):
            function(sound)
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "missing.mp4")


def test_file_objects_are_read_too(tmp_path):
    source = make(tmp_path / "in.mp4")
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
def test_quantisers_are_the_encoders(tmp_path, codec, options, expected):
    source = make(tmp_path / "in.mkv", codec, None, size=(90, 50), options=options)
    maps = [frame.qp for frame in video.read_frames(source)]
    if codec == "mpeg2video":
        assert maps.pop() is None
    for quantiser in maps:
        assert quantiser.shape == (4, 6)
        assert quantiser.dtype == np.float32
        np.testing.assert_array_equal(quantiser, expected)
    assert all(frame.qp is None for frame in video.read_frames(source, quantisers=False))


def test_quantisers_mean_the_same_at_ten_bits(tmp_path):
    means = []
    for pix_fmt in ("yuv420p", "yuv420p10le"):
        source = make(tmp_path / f"{pix_fmt}.mkv", "libx264", None, pix_fmt=pix_fmt, options={"crf": "28"})
        means.append(np.mean([frame.qp.mean() for frame in video.read_frames(source)]))
    assert abs(means[0] - means[1]) < 2


def test_codecs_without_exported_quantisers(tmp_path):
    source = make(tmp_path / "in.mkv", "libx265", None, options=SILENT_X265)
    frames = list(video.read_frames(source))
    assert len(frames) == 30
    assert all(frame.qp is None for frame in frames)


@pytest.mark.parametrize(
    ("extension", "codec", "options"),
    [("mkv", "libx264", {}), ("mp4", "libx264", {"movflags": "faststart"}), ("avi", "mpeg4", {})],
)
def test_a_cut_file_gives_its_frames_and_then_an_error(tmp_path, extension, codec, options):
    acodec = "libmp3lame" if extension == "avi" else "aac"
    times = [40 * index for index in range(60)]
    source = make(tmp_path / f"in.{extension}", codec, acodec, container_options=options, times=times)
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


def test_a_cut_before_the_index_cannot_be_opened(tmp_path):
    source = make(tmp_path / "in.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[:-400])
    with pytest.raises(ValueError, match="cut off before its index"):
        video.probe(cut)


def test_damage_in_the_middle_is_reported_after_the_rest(tmp_path):
    source = make(tmp_path / "in.mp4", "mpeg4")
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


def test_a_corrupt_transport_stream_is_reported(tmp_path):
    source = make(tmp_path / "in.ts")
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    source.write_bytes(data)
    with pytest.raises(video.BrokenVideoError, match="damaged"):
        list(video.read_frames(source))


def test_streams_the_target_cannot_hold_are_named(tmp_path):
    source = make(tmp_path / "in.mkv", "libx264", "flac")
    with pytest.raises(ValueError, match=r"mpegts cannot hold audio stream 1 \(flac\); write \.mkv"):
        video.VideoWriter(tmp_path / "out.ts", source)
    assert not (tmp_path / "out.ts").exists()
    with pytest.raises(ValueError, match="video extension such as .mkv"):
        video.VideoWriter(tmp_path / "out", source)
    with pytest.raises(ValueError, match="source itself"):
        video.VideoWriter(source, source)
    with pytest.raises(ValueError, match="codec must be"):
        video.VideoWriter(tmp_path / "out.mkv", source, codec="nonesuch")


def test_a_temporary_name_with_the_format_given(tmp_path):
    source = make(tmp_path / "in.mkv")
    copy(source, tmp_path / "out.part", container_format="mkv", threads=1, options={"g": "5"})
    assert "matroska" in video.probe(tmp_path / "out.part").container
    assert times_of(tmp_path / "out.part") == times_of(source)


def test_subtitles_attachments_and_chapters_are_kept(tmp_path):
    source = tmp_path / "in.mkv"
    subtitles = tmp_path / "in.srt"
    subtitles.write_text("1\n00:00:00,200 --> 00:00:00,500\nBonjour\n\n2\n00:00:00,700 --> 00:00:01,000\nAdieu\n")
    plain = make(tmp_path / "plain.mkv")
    with av.open(str(plain)) as old, av.open(str(subtitles)) as text, av.open(str(source), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        titles = new.add_stream_from_template(text.streams[0], opaque=True)
        titles.metadata["language"] = "fra"
        new.add_attachment("font.ttf", "application/x-truetype-font", b"not a font")
        new.set_chapters(
            [{"id": 1, "start": 0, "end": 600, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        )
        packets = [packet for container in (old, text) for packet in container.demux() if packet.size]
        for packet in packets:
            packet.stream = titles if packet.stream.type == "subtitle" else copies[packet.stream_index]
            new.mux(packet)
    writer = copy(source, tmp_path / "out.mkv")
    assert writer.skipped == []
    assert packets_of(tmp_path / "out.mkv", "subtitle") == packets_of(source, "subtitle")
    assert len(packets_of(source, "subtitle")) == 2
    with av.open(str(tmp_path / "out.mkv")) as container:
        attachment = next(stream for stream in container.streams if stream.type == "attachment")
        assert (attachment.name, attachment.data) == ("font.ttf", b"not a font")
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
        assert next(stream for stream in container.streams if stream.type == "subtitle").language == "fra"
    with pytest.raises(ValueError, match=r"mp4 cannot hold subtitle stream 2 \(subrip\); write \.mkv"):
        video.VideoWriter(tmp_path / "out.mp4", source)


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_cover_picture_is_kept_and_is_not_the_video(tmp_path, extension):
    source, plain = tmp_path / "in.mp4", make(tmp_path / "plain.mp4")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "cover.png")
    with av.open(str(plain)) as old, av.open(str(tmp_path / "cover.png")) as image, av.open(str(source), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        cover = new.add_stream_from_template(image.streams[0], opaque=True)
        cover.disposition = av.stream.Disposition.attached_pic
        for container in (image, old):
            for packet in container.demux():
                if packet.size:
                    packet.stream = cover if container is image else copies[packet.stream_index]
                    new.mux(packet)
    copy(source, tmp_path / f"out.{extension}")
    info = video.probe(tmp_path / f"out.{extension}")
    assert (info.codec, info.video_streams) == ("h264", 1)
    assert [other.codec for other in info.others] == ["aac", "png"]
    with av.open(str(tmp_path / f"out.{extension}")) as container:
        stream = container.streams[info.others[1].index]
        data = next(bytes(packet) for packet in container.demux(stream) if packet.size)
    assert data == (tmp_path / "cover.png").read_bytes()


def test_wrong_frames_are_refused(tmp_path):
    source = make(tmp_path / "in.mkv")
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


def test_an_error_inside_the_block_passes_through_and_closes(tmp_path):
    source = make(tmp_path / "in.mkv")
    with pytest.raises(RuntimeError, match="mine"), video.VideoWriter(tmp_path / "out.mkv", source) as writer:
        writer.write(next(iter(video.read_frames(source))).image)
        raise RuntimeError("mine")
    os.remove(tmp_path / "out.mkv")


def test_frames_without_times_get_them_from_the_rate(tmp_path):
    with av.open(str(tmp_path / "in.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "threads": "1"})
        stream.width, stream.height = 96, 64
        for index in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")))
        container.mux(stream.encode(None))
    frames = [frame.image for frame in video.read_frames(tmp_path / "in.h264")]
    times = [frame.pts * frame.time_base for frame in frames]
    assert len(times) == 10
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == [Fraction(1, 25)] * 9
