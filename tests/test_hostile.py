"""Files made to do harm: names, sizes that no machine has the memory for, data that never ends."""

import errno
import os
import re
import shutil
import socket
import struct
import zlib
from pathlib import Path

import pytest
from fuzz_samples import PICTURES, VIDEOS, write_video
from PIL import Image

from keras_deartifact import bounds, engines, stills, video
from keras_deartifact.stills import png_chunks, several
from keras_deartifact.video import containers


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch):
    """No network is needed to see what is refused."""
    monkeypatch.setattr(engines, "load", lambda *arguments: lambda frames, quantiser_map=None: frames)


def chunk(kind, data):
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind, data, folder):
    """A PNG with a further chunk before its pixels."""
    path = folder / "bomb.png"
    whole = PICTURES["png_alpha"][1]()
    path.write_bytes(whole[:33] + chunk(kind, data) + whole[33:])
    return path


# Names.


def test_names_are_taken_as_they_are(tmp_path, run, monkeypatch):
    for folder in ("in", "out", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", "mp4_h264")
    (tmp_path / "a.jpg").write_bytes(PICTURES["jpeg"][1]())
    long = "x" * 251
    pictures = [
        "-o.jpg",
        "--help.jpg",
        "...jpg",
        "a\nb.jpg",
        "\x1b[31m.jpg",
        f"{long}.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
    ]
    videos = ["http:x.mp4", "concat:a|b.mp4", "100%d.mp4", f"{long}.mp4", os.fsdecode(b"caf\xe9.mp4")]
    for name in pictures + videos:
        shutil.copy(tmp_path / f"a{name[-4:]}", tmp_path / "in" / name)
    code, out, err = run("restore", "in", "-o", "out", "--preset=ultrafast")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(pictures + videos) + 1
    assert "\x1b" not in out and "a\\nb.jpg" in out and "caf\\udce9.jpg" in out
    assert sorted(os.listdir("out")) == sorted(pictures + videos)
    assert os.listdir("elsewhere") == []


def test_what_is_no_file_and_what_leads_elsewhere_is_told_and_left(tmp_path, run):
    for folder in ("in/sub", "out", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    source = tmp_path / "in"
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(PICTURES["jpeg"][1]())
    (source / "sub" / "folder").symlink_to("../../elsewhere")
    (source / "up").symlink_to("..")
    (source / "one.jpg").symlink_to("two.jpg")
    (source / "two.jpg").symlink_to("one.jpg")
    (source / "nowhere.mp4").symlink_to("nothing")
    os.mkfifo(source / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(source / "socket.avi"))
    (source / "device.png").symlink_to("/dev/zero")
    (source / ("y" * 251 + ".gif")).write_bytes(PICTURES["gif"][1]())
    code, out, err = run("restore", source, "-o", tmp_path / "out")
    assert code == 2
    assert [line.rsplit(": ", 1)[0].count("Traceback") for line in err.splitlines()] == [0] * 7
    assert err.count("not a device, pipe or socket") == 3
    assert err.count(os.strerror(errno.ELOOP)) == 2
    assert err.count("give it a shorter name") == 1
    assert err.count("there is no file or folder") == 1
    assert out.splitlines()[-1].endswith("0 restored, 0 incomplete, 0 skipped, 7 failed")
    assert list((tmp_path / "out").rglob("*")) == []
    assert os.listdir(tmp_path / "elsewhere") == ["a.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile a.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_lists_of_files_and_addresses_are_not_opened(text, tmp_path):
    write_video(tmp_path / "a.mp4", "mp4_h264")
    (tmp_path / "list").write_text(text)
    with pytest.raises(ValueError, match=r"^source must be a complete video file; it is .*of another kind"):
        containers.open_input(tmp_path / "list")


def test_a_name_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", "mp4_h264")
    os.rename("a.mp4", "http:a.mp4")
    assert video.probe("http:a.mp4").codec == "h264"


# Sizes.


@pytest.mark.parametrize("name", ["jpeg", "png_16", "tiff_lzw", "webp", "gif", "avif"])
def test_pictures_above_the_bound_are_refused(name, tmp_path, run):
    suffix, make = PICTURES[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make())
    code, _, err = run("probe", path, "--max-pixels", 40 * 30 - 2)
    assert code == 2
    assert f"at most {40 * 30 - 2} pixels (--max-pixels allows more). Received: path=" in err
    assert run("probe", path, "--max-pixels", 40 * 30)[0] == 0


def test_max_pixels_allows_more_than_pillow_does(tmp_path, run, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(PICTURES["png"][1]())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert run("probe", path)[0] == 2
    assert run("probe", path, "--max-pixels", 5000)[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 500


def test_the_default_bounds_are_those_that_the_help_states(run):
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS == bounds.PICTURE_PIXELS - bounds.PICTURE_PIXELS % 2
    assert bounds.frame_pixels() == bounds.FRAME_PIXELS == 35_651_584 >= 8192 * 4320
    _, out, _ = run("restore", "--help")
    text = " ".join(out.split())
    assert str(bounds.PICTURE_PIXELS) in text and str(bounds.FRAME_PIXELS) in text


@pytest.mark.parametrize("name", ["mp4_h264", "raw_h264", "avi_mjpeg"])
def test_videos_above_the_bound_are_refused(name, tmp_path, run):
    path = tmp_path / f"a{VIDEOS[name][0]}"
    write_video(path, name)
    code, _, err = run("restore", path, "-o", tmp_path / "b.mkv", "--max-pixels", 64 * 48 - 1)
    assert code == 2
    assert err.startswith(f"deartifact: error: source must be a video of at most {64 * 48 - 1} pixels a frame")
    assert run("restore", path, "-o", tmp_path / "b.mkv", "--max-pixels", 64 * 48)[0] == 0


def test_texts_that_unpack_to_more_than_the_bound_are_refused(tmp_path, run):
    bomb = zlib.compress(bytes(2 << 20), 9)
    for kind, head in ((b"iCCP", b"icc\0\0"), (b"zTXt", b"words\0\0"), (b"iTXt", b"words\0\1\0\0\0")):
        code, _, err = run("restore", with_chunk(kind, head + bomb, tmp_path), "-o", tmp_path / "b.png")
        assert code == 2
        assert "expected texts and a colour profile of at most 1048576 bytes each" in err


def test_resources_in_a_text_are_unpacked_up_to_the_bound(monkeypatch):
    block = b"8BIM" + bytes(3000)
    text = png_chunks.RAW_PROFILE.encode() + b"\0\0" + zlib.compress(png_chunks.raw_profile(block).encode())
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"zTXt", text)
    assert png_chunks.kept(png) == (block, [])
    monkeypatch.setattr(bounds, "TEXT_BYTES", 1000)
    resources, others = png_chunks.kept(png)
    assert resources is not None and block.startswith(resources) and others == []


def directory(entries, following):
    return struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries) + following


def tiff_of(*directories):
    return b"II*\0" + struct.pack("<I", 8) + b"".join(directories) + bytes(2000)


PLAIN = [
    (256, 4, 1, 8),
    (257, 4, 1, 8),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (279, 4, 1, 64),
]


def test_a_tiff_whose_pages_lead_in_a_circle_is_one_page(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of(directory(PLAIN, struct.pack("<I", 8))))
    assert stills.read(tmp_path / "a.tif").pixels.shape == (8, 8, 3)


def test_very_many_pages_are_not_counted(tmp_path):
    size = len(directory(PLAIN, bytes(4)))
    pages = [directory(PLAIN, struct.pack("<I", 8 + size * number)) for number in range(1, 50_000)]
    (tmp_path / "a.tif").write_bytes(tiff_of(*pages, directory(PLAIN, bytes(4))))
    assert stills.is_still(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=rf"^expected at most {several.MOST} pages\. Received: path=.*a.tif$"):
        stills.series(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_pixels_of_all_pictures_of_a_file_are_bounded(tmp_path, run, name):
    frames = [Image.new("RGB", (64, 48), (6 * index, 0, 0)) for index in range(40)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    # A picture may have so many, sixteen of them fill a file.
    for pixels, code in ((64 * 48 * 40 // 16, 0), (64 * 48 * 38 // 16, 2)):
        found = run("restore", tmp_path / name, "-o", tmp_path / f"b{Path(name).suffix}".replace("gif", "png"),
                    "--max-pixels", pixels, "--overwrite", "--strength", "0")  # fmt: skip
        assert found[0] == code, found
    assert re.match(r"deartifact: error: expected at most \d+ pixels in \d+ pictures \(--max-pixels", found[2])


def test_a_later_page_may_be_no_larger_than_the_first(tmp_path, run):
    pages = [Image.new("L", (8, 8)), Image.new("L", (64, 64))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    code, _, err = run("restore", tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--max-pixels", 4000)
    assert code == 2 and "expected an image of at most 4000 pixels (--max-pixels allows more)" in err


def test_of_very_many_warnings_some_are_shown(tmp_path, run):
    tags = [(1000 + number, 4, 1 << 28, 8) for number in range(2000)]
    (tmp_path / "a.tif").write_bytes(tiff_of(directory(tags, bytes(4))))
    code, _, err = run("probe", tmp_path / "a.tif")
    lines = err.splitlines()
    assert code == 2 and len(lines) == 11
    assert all(line.startswith("deartifact: warning: ") for line in lines[:10])


def test_what_libtiff_says_of_a_broken_picture_is_one_line(tmp_path, run):
    data = bytearray(PICTURES["tiff_group4"][1]())
    (tmp_path / "a.tif").write_bytes(data)
    with Image.open(tmp_path / "a.tif") as image:
        start = image.tag_v2[273][0]
    data[start + 20 : start + 40] = bytes(20)
    (tmp_path / "a.tif").write_bytes(data)
    assert stills.read(tmp_path / "a.tif").remarks
    code, _, err = run("restore", tmp_path / "a.tif", "-o", tmp_path / "b.png")
    assert code == 0
    assert err.startswith(f"deartifact: warning: {tmp_path / 'a.tif'}: Fax4Decode: ")


def test_a_broken_avif_is_no_video(tmp_path):
    data = PICTURES["avif"][1]()
    (tmp_path / "a.avif").write_bytes(data.replace(b"ispe", b"xxxx"))
    with pytest.raises(ValueError, match="expected an AVIF that Pillow reads"):
        stills.is_still(tmp_path / "a.avif")


# Data that never ends.


def repeating(data, count):
    """A MOV whose video is its first sample, `count` times: the index is changed, and the data stays."""
    parts, position = [], 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + size]
        if kind in (b"moov", b"mdia", b"minf", b"stbl") or (kind == b"trak" and b"vmhd" in body):
            body = repeating(body, count)
        elif kind == b"stts":
            body = struct.pack(">IIII", 0, 1, count, 1)
        elif kind == b"stsc":
            body = struct.pack(">IIIII", 0, 1, 1, 1, 1)
        elif kind == b"stsz":
            body = struct.pack(">III", 0, struct.unpack_from(">I", body, 12)[0], count)
        elif kind == b"stco":
            body = struct.pack(">II", 0, count) + body[8:12] * count
        if kind != b"stss":
            parts.append(struct.pack(">I4s", 8 + len(body), kind) + body)
        position += size
    return b"".join(parts)


def test_an_index_that_names_the_same_bytes_again_and_again_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_BYTES_AT_LEAST", 0)
    write_video(tmp_path / "a.mov", "mov_mjpeg")
    data = (tmp_path / "a.mov").read_bytes()
    (tmp_path / "few.mov").write_bytes(repeating(data, 20))
    assert sum(1 for _ in video.read_frames(tmp_path / "few.mov")) == 20
    (tmp_path / "many.mov").write_bytes(repeating(data, 100_000))
    with pytest.raises(video.BrokenVideoError, match="read error: the index names the same bytes again and again"):
        for number, _ in enumerate(video.read_frames(tmp_path / "many.mov"), 1):
            assert number < 10_000


def test_streams_that_begin_late_do_not_stop_the_reading(tmp_path):
    for name in ("flv_flv1", "flv_h264"):
        write_video(tmp_path / f"{name}.flv", name)
    first, second = ((tmp_path / f"{name}.flv").read_bytes() for name in ("flv_flv1", "flv_h264"))
    (tmp_path / "a.flv").write_bytes(first + second[13:])
    count = 0
    with containers.open_input(tmp_path / "a.flv") as opened:
        for packet in containers.packets(opened, *opened.streams):
            count += bool(packet.size)
    assert count >= 10


def test_a_stream_that_nothing_here_knows_has_no_name(tmp_path):
    write_video(tmp_path / "a.mkv", "mkv_ffv1")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"A_FLAC", b"A_WHAT"))
    others = video.probe(tmp_path / "a.mkv").others
    assert [(other.kind, other.codec) for other in others] == [("audio", None), ("subtitle", "subrip")]
