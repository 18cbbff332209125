from fractions import Fraction

import av
import pytest
from PIL import Image

from keras_deartifact import video


def test_streams_the_target_cannot_hold_are_named(tmp_path, make_video):
    source = make_video(tmp_path / "in.mkv", "libx264", "flac")
    with pytest.raises(ValueError, match=r"mpegts cannot hold audio stream 1 \(flac\); write \.mkv"):
        video.VideoWriter(tmp_path / "out.ts", source)
    assert not (tmp_path / "out.ts").exists()
    with pytest.raises(ValueError, match="video extension such as .mkv"):
        video.VideoWriter(tmp_path / "out", source)
    with pytest.raises(ValueError, match="source itself"):
        video.VideoWriter(source, source)
    with pytest.raises(ValueError, match="codec must be"):
        video.VideoWriter(tmp_path / "out.mkv", source, codec="nonesuch")


def test_subtitles_attachments_and_chapters_are_kept(tmp_path, make_video, packets_of, copy_video):
    source = tmp_path / "in.mkv"
    subtitles = tmp_path / "in.srt"
    subtitles.write_text("1\n00:00:00,200 --> 00:00:00,500\nBonjour\n\n2\n00:00:00,700 --> 00:00:01,000\nAdieu\n")
    plain = make_video(tmp_path / "plain.mkv")
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
    writer = copy_video(source, tmp_path / "out.mkv")
    assert writer.skipped == []
    assert packets_of(tmp_path / "out.mkv", "subtitle") == packets_of(source, "subtitle")
    assert len(packets_of(source, "subtitle")) == 2
    with av.open(str(tmp_path / "out.mkv")) as container:
        attachment = next(stream for stream in container.streams if stream.type == "attachment")
        assert (attachment.name, attachment.data) == ("font.ttf", b"not a font")
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
        assert next(stream for stream in container.streams if stream.type == "subtitle").language == "fra"
    with pytest.raises(ValueError, match=r"mp4 cannot hold subtitle stream 2 \(subrip\), attachment.*; write \.mkv"):
        video.VideoWriter(tmp_path / "out.mp4", source)


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_cover_picture_is_kept_and_is_not_the_video(tmp_path, extension, make_video, copy_video):
    source, plain = tmp_path / "in.mp4", make_video(tmp_path / "plain.mp4")
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
    copy_video(source, tmp_path / f"out.{extension}")
    info = video.probe(tmp_path / f"out.{extension}")
    assert (info.codec, info.video_streams) == ("h264", 1)
    assert [other.codec for other in info.others] == ["aac", "png"]
    with av.open(str(tmp_path / f"out.{extension}")) as container:
        stream = container.streams[info.others[1].index]
        data = next(bytes(packet) for packet in container.demux(stream) if packet.size)
    assert data == (tmp_path / "cover.png").read_bytes()


def test_what_no_container_can_hold_is_told_with_a_way_out(tmp_path, make_video):
    source = make_video(tmp_path / "an old.wmv", "wmv2", "wmav2")
    with pytest.raises(ValueError, match=r"stream 1 \(wmav2\); convert.*'ffmpeg -i '.*an old.wmv' -map 0"):
        video.VideoWriter(tmp_path / "out.mkv", source)
