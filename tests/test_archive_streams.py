"""What an archive's files hold beside the picture, made by ffmpeg, and what becomes of it."""

import re
import subprocess
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av.stream import AttachmentStream, Disposition
from PIL import Image

from keras_deartifact import restore, video
from keras_deartifact.cli import main
from keras_deartifact.video.clock import Clock

VIDEO = "-f lavfi -i testsrc2=s=96x64:r=30000/1001:d=1"
SOUND = "-f lavfi -i sine=440:d=1:r=44100"
X264 = "-c:v libx264 -preset veryfast -bf 3"
SUBTITLES = "1\n00:00:00,200 --> 00:00:00,500\nBonjour\n\n2\n00:00:00,700 --> 00:00:01,000\nAdieu\n"
METADATA = """;FFMETADATA1
title=A title
comment=remarks
[CHAPTER]
TIMEBASE=1/1000
START=0
END=400
title=One
[CHAPTER]
TIMEBASE=1/1000
START=400
END=1000
title=Two
"""


@pytest.fixture
def ffmpeg(tmp_path):
    """`ffmpeg(arguments, name)`: runs it in a folder with subtitles, tags and a cover; returns the file's path."""
    program = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed").get_ffmpeg_exe()
    (tmp_path / "s.srt").write_text(SUBTITLES)
    (tmp_path / "meta.txt").write_text(METADATA)
    (tmp_path / "font.ttf").write_bytes(b"not a font")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "cover.png")

    def run(arguments, name):
        command = [program, "-hide_banner", "-loglevel", "error", "-y", *arguments.split(), name]
        subprocess.run(command, cwd=tmp_path, check=True)
        return tmp_path / name

    return run


def streams_of(path):
    """Of every stream: kind, disposition, language, and the times and contents of its packets, or its data."""
    with av.open(str(path)) as container:
        found = {stream.index: [] for stream in container.streams}
        for packet in container.demux():
            if packet.size:
                seconds = [None if t is None else t * packet.time_base for t in (packet.pts, packet.dts)]
                length = (packet.duration or 0) * packet.time_base
                found[packet.stream_index].append((*seconds, length, bytes(packet)))
        return [
            (
                stream.type,
                stream.disposition,
                stream.language,
                stream.data if isinstance(stream, AttachmentStream) else found[stream.index],
            )
            for stream in container.streams
        ]


def others_of(path):
    """The same of all but the first stream, which is the picture, and but the tracks that muxers write themselves."""
    return [each for each in streams_of(path)[1:] if each[0] != "data"]


def chapters_of(path):
    with av.open(str(path)) as container:
        return [
            (each["start"] * each["time_base"], each["end"] * each["time_base"], each["metadata"]["title"])
            for each in container.chapters()
        ]


def tags_of(path):
    with av.open(str(path)) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


def test_all_of_an_mp4_is_kept(tmp_path, ffmpeg, copy_video, times_of):
    source = ffmpeg(
        f"{VIDEO} {SOUND} -f lavfi -i sine=880:d=1:r=48000 -i s.srt -i meta.txt -i cover.png -map 0 -map 1 -map 2"
        f" -map 3 -map 5 -map_metadata 4 -map_chapters 4 {X264} -c:v:1 copy -disposition:v:1 attached_pic -c:a aac"
        " -c:s mov_text -metadata:s:a:0 language=fra -metadata:s:a:1 language=deu -disposition:a:1 comment"
        " -metadata:s:s:0 language=fra -disposition:s:0 forced -metadata:s:v:0 timecode=01:00:00:00 -aspect 16:9",
        "in.mp4",
    )
    writer = copy_video(source, tmp_path / "out.mp4")
    assert writer.skipped == []
    assert times_of(tmp_path / "out.mp4") == times_of(source)
    before, after = others_of(source), others_of(tmp_path / "out.mp4")
    assert [each[0] for each in before] == ["audio", "audio", "subtitle", "video"]
    assert after == before
    assert before[0][3][0][0] == Fraction(-1024, 44100)
    assert chapters_of(tmp_path / "out.mp4") == chapters_of(source) != []
    assert tags_of(tmp_path / "out.mp4")["comment"] == "remarks"
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:00:00:00"


def test_all_of_an_mkv_is_kept(tmp_path, ffmpeg, copy_video, times_of):
    source = ffmpeg(
        f"{VIDEO} {SOUND} {SOUND} -i s.srt -i s.srt -i meta.txt -map 0 -map 1 -map 2 -map 3 -map 4 -map_metadata 5"
        f" -map_chapters 5 {X264} -c:a:0 libopus -ar:a:0 48000 -c:a:1 flac -c:s:0 srt -c:s:1 ass"
        " -metadata:s:a:0 language=fra -disposition:a:1 hearing_impaired -disposition:s:1 forced -attach font.ttf"
        " -metadata:s:t:0 mimetype=application/x-truetype-font -attach cover.png -metadata:s:t:1 mimetype=image/png"
        " -metadata:s:t:1 filename=front.png",
        "in.mkv",
    )
    assert copy_video(source, tmp_path / "out.mkv").skipped == []
    assert times_of(tmp_path / "out.mkv") == times_of(source)
    before, after = others_of(source), others_of(tmp_path / "out.mkv")
    # Matroska states no length of a FLAC packet; what ffmpeg makes of the last one's is rounded.
    length = before[1][3].pop()[2], after[1][3].pop()[2]
    assert abs(length[1] - length[0]) <= Fraction(1, 1000)
    assert after == before
    assert [each[0] for each in before] == ["audio", "audio", "subtitle", "subtitle", "attachment", "video"]
    assert chapters_of(tmp_path / "out.mkv") == chapters_of(source) != []
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[1].metadata["filename"] == "front.png"

    with pytest.raises(ValueError, match=r"mp4 cannot hold subtitle.*subtitle.*font\.ttf.*write \.mkv.*--drop"):
        video.VideoWriter(tmp_path / "out.mp4", source)
    events = []
    report = restore.restore_video(
        lambda frames, quantiser_map: frames,
        source,
        tmp_path / "out.mp4",
        drop=True,
        notice=events.append,
        progress=events.append,
    )
    assert events[:4] == [*report.skipped, 1]
    assert report.skipped[0] == "subtitle stream 3 (subrip), which .mkv can hold"
    assert [each[0] for each in others_of(tmp_path / "out.mp4")] == ["audio", "audio", "video"]


def test_timecode_and_languages_of_quicktime(tmp_path, ffmpeg, copy_video):
    source = ffmpeg(
        f"{VIDEO} {SOUND} {X264} -c:a pcm_s16le -timecode 01:00:00:00 -metadata:s:v:0 reel_name=A001"
        " -metadata:s:a:0 language=ger",
        "in.mov",
    )
    for name in ("out.mov", "out.mp4", "out.mkv"):
        assert copy_video(source, tmp_path / name).skipped == []
        with av.open(str(tmp_path / name)) as container:
            tags = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
            assert tags["timecode"] == "01:00:00:00"
            assert [stream.type for stream in container.streams].count("data") == (name != "out.mkv")
    german = ffmpeg("-i in.mov -map 0:v -map 0:a -c copy -metadata:s:a:0 language=deu", "german.mp4")
    copy_video(german, tmp_path / "german.mov")
    assert [other.language for other in video.probe(tmp_path / "german.mov").others if other.kind == "audio"] == ["ger"]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].metadata["REEL_NAME"] == "A001"


def test_tags_of_any_name_and_code_page_are_kept(tmp_path, ffmpeg, copy_video):
    arguments = f"{VIDEO} {X264} -movflags use_metadata_tags -metadata com.example.camera=X1 -metadata title=Name"
    source = ffmpeg(arguments, "in.mp4")
    for name in ("out.mp4", "out.mov", "out.mkv"):
        copy_video(source, tmp_path / name)
        assert tags_of(tmp_path / name)["com.example.camera"] == "X1"
        assert tags_of(tmp_path / name)["title"] == "Name"
    old = ffmpeg(f"{VIDEO} -c:v mpeg4 -metadata title=Cafe", "old.avi")
    old.write_bytes(old.read_bytes().replace(b"Cafe", "Café".encode("cp1252")))
    copy_video(old, tmp_path / "new.mkv")
    assert video.probe(old).metadata["title"] == tags_of(tmp_path / "new.mkv")["title"] == "Café"


@pytest.mark.parametrize(
    ("name", "codecs", "frame"),
    [
        ("in.mkv", "-c:a aac", 1024),
        ("in.flv", "-c:a aac", 1024),
        ("in.ts", "-c:a aac", 1024),
        ("in.mkv", "-c:a mp3", 1152),
    ],
)
def test_audio_of_coarse_clocks_begins_at_the_sample_in_mp4(tmp_path, ffmpeg, copy_video, name, codecs, frame):
    source = ffmpeg(f"{VIDEO} {SOUND} {X264} {codecs.replace('mp3', 'libmp3lame')}", name)
    copy_video(source, tmp_path / "out.mp4")
    stated, written = ([packet[0] for packet in others_of(path)[0][3]] for path in (source, tmp_path / "out.mp4"))
    with av.open(str(source)) as container:
        tick = container.streams.audio[0].time_base
    assert len(stated) == len(written) > 30
    assert {second - first for first, second in pairwise(written)} == {Fraction(frame, 44100)}
    with av.open(str(source)) as container:
        starts = [stream.start_time * stream.time_base for stream in container.streams]
    earlier = min(starts) if name == "in.ts" else 0
    assert max(abs(after + earlier - before) for before, after in zip(stated, written, strict=True)) <= tick


def test_a_late_audio_start_is_exact(tmp_path, ffmpeg, copy_video, times_of):
    source = ffmpeg(f"{VIDEO} -itsoffset 0.4 {SOUND} -map 0 -map 1 {X264} -c:a aac", "in.mp4")
    for name in ("out.mp4", "out.mov"):
        copy_video(source, tmp_path / name)
        assert [each[3] for each in others_of(tmp_path / name)] == [each[3] for each in others_of(source)]
        assert times_of(tmp_path / name) == times_of(source)
    assert others_of(source)[0][3][0][0] > Fraction(3, 10)


@pytest.mark.parametrize("start", ["36000", "95441.9"])
def test_transport_streams_may_begin_anywhere(tmp_path, ffmpeg, copy_video, times_of, start):
    """After hours, or just before their clock of 33 bits wraps; other containers begin at 0 with what comes first."""
    source = ffmpeg(f"{VIDEO} {SOUND} {X264} -c:a ac3 -output_ts_offset {start}", "in.ts")
    frames = [frame.image.pts * frame.image.time_base for frame in video.read_frames(source)]
    assert {second - first for first, second in pairwise(frames)} == {Fraction(3003, 90000)}
    sound = others_of(source)[0][3]
    first = min(frames[0], sound[0][0])
    # ffmpeg counts from where the clock wraps, and no container holds what comes before.
    for name, earlier in (("out.ts", min(first, 0)), ("out.mp4", first), ("out.mkv", first)):
        copy_video(source, tmp_path / name)
        times = [time + earlier for time in times_of(tmp_path / name)]
        assert len(times) == len(frames) == 30
        assert max(abs(new - old) for old, new in zip(frames, times, strict=True)) <= (
            Fraction(1, 2000) if name == "out.mkv" else 0
        )
        new = others_of(tmp_path / name)[0][3]
        assert [packet[3] for packet in new] == [packet[3] for packet in sound]
        apart = [abs(after[0] + earlier - before[0]) for before, after in zip(sound, new, strict=True)]
        assert max(apart) <= Fraction(1, 2000 if name == "out.mkv" else 90000)


@pytest.mark.parametrize(
    ("name", "codecs"),
    [("in.mpg", "-c:v mpeg2video -bf 2 -c:a mp2"), ("in.3gp", "-c:v mpeg4 -c:a aac"), ("in.mp4", f"{X264} -c:a aac")],
)
def test_frames_and_packets_of_other_containers(tmp_path, ffmpeg, copy_video, name, codecs):
    extra = " -x264-params open-gop=1:keyint=9" if name == "in.mp4" else ""
    source = ffmpeg(f"{VIDEO} {SOUND} {codecs}{extra}", name)
    frames = [frame.image.pts * frame.image.time_base for frame in video.read_frames(source)]
    copy_video(source, tmp_path / "out.mp4")
    old, new = others_of(source)[0][3], others_of(tmp_path / "out.mp4")[0][3]
    earlier = min(frames[0], old[0][0]) if name == "in.mpg" else 0
    written = [frame.image.pts * frame.image.time_base for frame in video.read_frames(tmp_path / "out.mp4")]
    assert [time + earlier for time in written] == frames
    assert [packet[3] for packet in new] == [packet[3] for packet in old]


def test_the_default_video_is_the_main_one_else_the_largest(tmp_path, ffmpeg, copy_video):
    both = f"{VIDEO} -map 0 -map 0 {X264} -s:v:0 48x32"
    small = ffmpeg(f"{both} -disposition:v:0 default -disposition:v:1 0", "small.mkv")
    assert (video.probe(small).width, video.probe(small).video_streams) == (48, 2)
    large = ffmpeg(f"{both} -disposition:v:0 0 -disposition:v:1 0", "large.mkv")
    assert video.probe(large).width == 96
    copy_video(large, tmp_path / "out.mkv")
    assert [packet[3] for packet in others_of(tmp_path / "out.mkv")[0][3]] == [p[3] for p in streams_of(large)[0][3]]


def test_metadata_streams_stay_where_they_can(tmp_path, make_video, copy_video):
    source, plain = tmp_path / "in.ts", make_video(tmp_path / "plain.ts")
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        data = new.add_data_stream("klv")
        data.time_base = Fraction(1, 90000)
        for number, packet in enumerate(packet for packet in old.demux() if packet.size):
            packet.stream = copies[packet.stream_index]
            if number % 20 == 0:
                measured = av.Packet(b"\x06\x0e\x2b\x34" + bytes([number] * 12))
                measured.stream, measured.time_base = data, Fraction(1, 90000)
                measured.pts = measured.dts = round(packet.dts * packet.time_base * 90000)
                new.mux(measured)
            new.mux(packet)
    assert [other.codec for other in video.probe(source).others] == ["aac", "klv"]
    with pytest.raises(ValueError, match=r"mp4 cannot hold data stream 2 \(klv\); write \.ts instead"):
        video.VideoWriter(tmp_path / "out.mp4", source)
    assert copy_video(source, tmp_path / "out.ts").skipped == []
    before, after = streams_of(source)[2], streams_of(tmp_path / "out.ts")[2]
    assert [packet[3] for packet in after[3]] == [packet[3] for packet in before[3]] != []


def with_captions(source, target):
    """Writes an H.264 transport stream with CEA-708 data of its own in every picture; returns what each holds."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        given = {}
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            data = bytes(packet)
            given[packet.pts * packet.time_base] = pairs = bytes([0xFC, 0x80 | number, 0x61, 0xFD, 0x94, 0x2C])
            payload = b"\xb5\x00\x31GA94\x03" + bytes([0xC0 | len(pairs) // 3, 0xFF]) + pairs + b"\xff"
            message = b"\x00\x00\x01\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
            slices = [data.find(b"\x00\x00\x01" + bytes([kind])) for kind in (0x65, 0x41, 0x01, 0x61, 0x21)]
            first = min(place for place in slices if place >= 0)
            changed = av.Packet(data[:first] + message + data[first:])
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.stream, changed.is_keyframe = copy, packet.is_keyframe
            new.mux(changed)
    return given


def captions_of(path):
    found = {}
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            data = frame.side_data.get("A53_CC")
            found[frame.pts * frame.time_base] = None if data is None else bytes(data)
    return found


def test_closed_captions_stay_with_their_frames(tmp_path, make_video):
    plain = make_video(tmp_path / "plain.ts", acodec=None, options={"bf": "2"}, times=[40 * i for i in range(20)])
    given = with_captions(plain, tmp_path / "in.ts")
    assert captions_of(tmp_path / "in.ts") == given
    assert len(set(given.values())) == 20

    def brighter(frames, quantiser_map):
        return np.minimum(frames + np.float32(0.25), np.float32(1))

    for name, codec in (("out.mp4", "libx264"), ("out.mkv", "libx265")):
        report = restore.restore_video(brighter, tmp_path / "in.ts", tmp_path / name, codec=codec, strength=1.0)
        assert report.skipped == ()
        assert list(captions_of(tmp_path / name).values()) == [given[time] for time in sorted(given)]
        pictures = zip(video.read_frames(tmp_path / "in.ts"), video.read_frames(tmp_path / name), strict=True)
        for old, new in pictures:
            means = [each.image.reformat(format="gray").to_ndarray().mean() for each in (old, new)]
            assert means[1] - means[0] > 20
    writer = video.VideoWriter(tmp_path / "out.webm", tmp_path / "in.ts", codec="libvpx-vp9")
    assert writer.skipped == ["closed captions, which libx264 and libx265 can hold"]


def test_packets_get_the_times_that_muxers_want(tmp_path, make_video):
    with av.open(str(make_video(tmp_path / "in.mkv"))) as container:
        clock = Clock(container.streams.audio[0])
    times = []
    for pts, dts in ((5, 5), (None, None), (40, None), (30, 30), (None, 80)):
        packet = av.Packet(b"data")
        packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, 23, Fraction(1, 1000)
        clock.complete(packet)
        times.append((packet.pts, packet.dts))
    assert times == [(5, 5), (28, 28), (40, 40), (41, 41), (80, 80)]


def test_gaps_in_audio_stay(tmp_path, make_video):
    with av.open(str(make_video(tmp_path / "in.mkv"))) as container:
        clock = Clock(container.streams.audio[0])
    written = []
    for pts in (0, 23, 46, 1070, 1093):
        packet = av.Packet(b"data")
        packet.pts = packet.dts = pts
        packet.duration, packet.time_base = 23, Fraction(1, 1000)
        clock.complete(packet)
        clock.set(packet, Fraction(1, 44100))
        written.append(packet.pts)
    assert written[:3] == [0, 1024, 2048]
    assert written[3:] == [round(1.07 * 44100), round(1.07 * 44100) + 1024]


def test_dispositions_of_the_picture(tmp_path, ffmpeg, copy_video):
    source = ffmpeg(f"{VIDEO} {X264} -disposition:v:0 default+original", "in.mkv")
    copy_video(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].disposition == Disposition.default | Disposition.original


@pytest.mark.parametrize("name", ["copy.mkv", "copy.mp4"])
def test_damaged_audio_is_left_out_and_named(tmp_path, make_video, name):
    """In a transport stream each packet of AAC has a header, without which other containers cannot take it."""
    source = make_video(tmp_path / "old.ts", times=[40 * index for index in range(50)])
    contents = bytearray(source.read_bytes())
    audio = [at for at in range(0, len(contents), 188) if int.from_bytes(contents[at + 1 : at + 3]) & 0x5FFF == 0x101]
    for at in audio[len(audio) // 2 : len(audio) // 2 + 3]:
        contents[at + 4 : at + 188] = bytes(184)
    source.write_bytes(contents)
    report = restore.restore_video(lambda frames, _: frames, source, tmp_path / name, preset="ultrafast")
    assert report.frames == 50
    assert re.fullmatch(r"damaged packets were left out: \d of audio stream 1 \(aac\)", report.broken)
    assert main(["restore", str(source), "-o", str(tmp_path / f"again-{name}"), "--strength", "0"]) == 3
    kept = []
    for path in (source, tmp_path / name):
        with av.open(str(path)) as container:
            kept.append(sum(1 for packet in container.demux(audio=0) if packet.size))
    assert 0 < kept[1] < kept[0]
