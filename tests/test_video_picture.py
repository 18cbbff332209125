"""Colour, HDR metadata, chroma siting and alpha from file to file, for every pixel format."""

import io
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from av.codec.codec import Codec
from av.video.format import VideoFormat

from keras_deartifact import colour, restore, video
from keras_deartifact.video import hdr, matroska, pixel_formats, siting

# Of a display with the primaries of P3 and 0.0001 to 1000 cd/m2.
P3 = tuple(Fraction(each, 50000) for each in (34000, 16000, 13250, 34500, 7500, 3000))
MASTERED = hdr.Static(
    P3, (Fraction(15635, 50000), Fraction(16450, 50000)), (Fraction(1, 10000), Fraction(1000)), (1000, 400)
)
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
HDR10 = f"log-level=none:repeat-headers=1:master-display={DISPLAY}:max-cll=1000,400"
# MPEG-2, H.264, broadcast in 4:2:2, PQ, HLG and a camera's full range: matrix, range, primaries, transfer, chroma.
DESCRIPTIONS = [
    (6, 1, 6, 6, "left"),
    (5, 1, 5, 6, "center"),
    (1, 1, 1, 1, "left"),
    (9, 1, 9, 16, "topleft"),
    (9, 1, 9, 18, "topleft"),
    (10, 1, 9, 14, "left"),
    (1, 2, 1, 13, "top"),
    (7, 2, 7, 7, "center"),
]
FFV1 = [each for each in colour.SUPPORTED if each in {offer.name for offer in Codec("ffv1", "w").video_formats}]


def identity(frames, quantiser_map=None):
    return frames


def brighter(frames, quantiser_map=None):
    return frames + np.float32(16 / 255)


def make(
    path, codec="ffv1", *, pix_fmt="yuv420p", size=(34, 18), count=3, description=None, options=None, stream_tags=None
):
    """Writes noise of all codes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        context = stream.codec_context
        context.time_base = Fraction(1, 25)
        if description is not None:
            names = ("colorspace", "color_range", "color_primaries", "color_trc")
            for name, value in zip(names, description, strict=False):
                setattr(context, name, value)
            context.options = dict(context.options) | {"chroma_sample_location": description[4]}
        stream.metadata.update(stream_tags or {})
        for index in range(count):
            frame = av.VideoFrame(*size, pix_fmt)
            top = 2 ** frame.format.components[0].bits
            rng = np.random.default_rng(index)
            for plane in frame.planes:
                codes = np.frombuffer(plane, np.uint8 if top == 256 else "<u2")
                codes[:] = rng.integers(0, top, codes.size)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path):
    return [frame.image for frame in video.read_frames(path)]


def planes_of(frame):
    size = -(-frame.format.components[0].bits // 8)
    if len(frame.planes) == 1 and frame.format.is_rgb:
        size = 4
    return [video.lines(plane)[:, : size * plane.width].copy() for plane in frame.planes]


def description_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        codes = context.colorspace, context.color_range, context.color_primaries, context.color_trc
        return (*map(int, codes), siting.chroma_location(stream))


def assert_same_planes(before, after):
    for old, new in zip(frames_of(before), frames_of(after), strict=True):
        assert new.format.name == old.format.name
        for first, second in zip(planes_of(old), planes_of(new), strict=True):
            np.testing.assert_array_equal(second, first)


@pytest.mark.parametrize("pix_fmt", FFV1)
def test_a_network_that_changes_nothing_gives_every_code_back(tmp_path, pix_fmt):
    rgb = VideoFormat(pix_fmt).is_rgb
    # Each format has some of them, HDR among them, and each of them some formats.
    for description in {*DESCRIPTIONS[FFV1.index(pix_fmt) % 3 :: 3], DESCRIPTIONS[3]}:
        given = None if rgb else description
        source = make(tmp_path / "in.mkv", pix_fmt=pix_fmt, description=given)
        restore.restore_video(identity, source, tmp_path / "out.mkv", codec="ffv1", overwrite=True)
        assert_same_planes(source, tmp_path / "out.mkv")
        assert description_of(tmp_path / "out.mkv") == description_of(source)
        assert rgb or description_of(source)[:4] == description[:4]


def test_all_that_archives_have_is_among_the_tested_formats():
    for sampling in ("420", "422", "444"):
        assert {f"yuv{sampling}p{depth}" for depth in ("", "10le", "12le")} <= set(FFV1)
    assert {"gray", "gray10le", "gray12le", "gbrp10le", "gbrap10le", "bgr0", "bgra", "yuva420p", "yuva444p10le"} <= set(
        FFV1
    )


@pytest.mark.parametrize("description", DESCRIPTIONS)
@pytest.mark.parametrize(("codec", "name"), [("libx264", "out.mp4"), ("libx264", "out.mkv"), ("libx265", "out.ts")])
def test_the_description_of_colour_is_kept(tmp_path, codec, name, description):
    source = make(tmp_path / "in.mkv", pix_fmt="yuv420p10le", size=(96, 64), description=description)
    restore.restore_video(identity, source, tmp_path / name, codec=codec, preset="ultrafast")
    assert description_of(source) == description
    assert description_of(tmp_path / name) == description


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("libx264", "out.mp4"),
        ("libx264", "out.mov"),
        ("libx264", "out.mkv"),
        ("libx265", "out.mp4"),
        ("libx265", "out.mkv"),
        ("libx265", "out.ts"),
        ("libsvtav1", "out.mp4"),
        ("ffv1", "out.mkv"),
    ],
)
def test_static_hdr_metadata_is_kept(tmp_path, codec, name):
    options = {"x265-params": HDR10}
    source = make(
        tmp_path / "in.mp4",
        "libx265",
        pix_fmt="yuv420p10le",
        size=(96, 64),
        description=DESCRIPTIONS[3],
        options=options,
    )
    assert hdr.static(frames_of(source)[0]) == MASTERED
    restore.restore_video(identity, source, tmp_path / name, codec=codec, **({} if codec == "ffv1" else {"crf": 30}))
    found = hdr.static(frames_of(tmp_path / name)[0])
    assert found.light == MASTERED.light
    # AV1 counts in 1/65536 and, of the darkest, in 1/16384.
    tolerance = Fraction(1, 32768) if codec == "libsvtav1" else 0
    for before, after in ((MASTERED.primaries, found.primaries), (MASTERED.white, found.white)):
        assert all(abs(first - second) <= tolerance for first, second in zip(before, after, strict=True))
    assert all(abs(a - b) <= tolerance for a, b in zip(MASTERED.luminance, found.luminance, strict=True))
    assert description_of(tmp_path / name) == DESCRIPTIONS[3]


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_what_only_the_container_says_of_hdr_is_kept_too(tmp_path, codec):
    """Light levels without a display, of a codec whose bitstream says nothing."""
    first = make(
        tmp_path / "first.mkv", "libx265", size=(96, 64), options={"x265-params": "log-level=none:max-cll=700,70"}
    )
    restore.restore_video(identity, first, tmp_path / "in.mkv", codec="ffv1")
    restore.restore_video(identity, tmp_path / "in.mkv", tmp_path / "out.mkv", codec=codec)
    assert hdr.static(frames_of(tmp_path / "out.mkv")[0]) == hdr.Static(None, None, None, (700, 70))


def test_what_encoders_are_told_of_hdr():
    assert hdr.encoder_options("libx264", MASTERED) == {"x264-params": f"mastering-display={DISPLAY}:cll=1000,400"}
    assert hdr.encoder_options("libx265", MASTERED) == {"x265-params": f"master-display={DISPLAY}:max-cll=1000,400"}
    assert hdr.encoder_options("libsvtav1", MASTERED) == {
        "svtav1-params": "mastering-display=G(0.265000,0.690000)B(0.150000,0.060000)R(0.680000,0.320000)"
        "WP(0.312700,0.329000)L(1000.000000,0.000100):content-light=1000,400"
    }
    assert hdr.encoder_options("ffv1", MASTERED) == {}
    assert hdr.encoder_options("libx265", hdr.Static(None, None, None, (1, 2))) == {"x265-params": "max-cll=1,2"}
    assert hdr.encoder_options("libx265", hdr.Static(P3, MASTERED.white, None, None)) == {}


# A scene by SMPTE ST 2094-40 in a prefix SEI message.
HDR10_PLUS = bytes.fromhex(
    "4e010431b5003c00010401400000030000c80064003200fa2408000428000850000cc8001190001658001ad0001ef80023180024000080"
)


def test_hdr_metadata_of_single_frames_is_refused_or_named(tmp_path):
    options = {"x265-params": "log-level=none:repeat-headers=1"}
    plain = make(tmp_path / "plain.ts", "libx265", pix_fmt="yuv420p10le", size=(96, 64), options=options)
    source = tmp_path / "in.ts"
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                changed = av.Packet(b"\0\0\1\x46\1\x50" + b"\0\0\1" + HDR10_PLUS + bytes(packet))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.stream, changed.is_keyframe = copy, packet.is_keyframe
                new.mux(changed)
    for codec in ("libx264", "libsvtav1"):
        with pytest.raises(ValueError, match=rf"{codec} cannot hold HDR10\+ metadata, which no codec here can.*--drop"):
            restore.restore_video(identity, source, tmp_path / "out.mkv", codec=codec)
    told = []
    report = restore.restore_video(identity, source, tmp_path / "out.mkv", drop=True, notice=told.append)
    assert report.skipped == tuple(told) == ("HDR10+ metadata, which no codec here can hold",)


@pytest.mark.parametrize("pix_fmt", [each for each in FFV1 if pixel_formats.has_alpha(each)])
def test_alpha_is_kept_to_the_bit(tmp_path, pix_fmt):
    source = make(tmp_path / "in.mkv", pix_fmt=pix_fmt)
    report = restore.restore_video(brighter, source, tmp_path / "out.mkv", strength=1.0)
    assert report.codec == "ffv1"
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        before, after = planes_of(old), planes_of(new)
        assert (before[0] != after[0]).any()
        if len(before) == 4:
            np.testing.assert_array_equal(after[3], before[3])
        else:
            np.testing.assert_array_equal(after[0][:, 3::4], before[0][:, 3::4])


def test_alpha_of_webm_is_read_and_written(tmp_path):
    options = {"crf": "4", "b": "0", "cpu-used": "5"}
    source = make(
        tmp_path / "in.webm",
        "libvpx-vp9",
        pix_fmt="yuva420p",
        size=(96, 64),
        options=options,
        stream_tags={"alpha_mode": "1"},
    )
    assert video.probe(source).pix_fmt == "yuva420p"
    restore.restore_video(identity, source, tmp_path / "out.mkv")
    assert_same_planes(source, tmp_path / "out.mkv")
    restore.restore_video(identity, source, tmp_path / "out.webm", crf=4)
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out.webm"), strict=True):
        for before, after in zip(planes_of(old), planes_of(new), strict=True):
            # As lossy as the picture.
            assert np.abs(before.astype(int) - after).mean() < 4
    restore.restore_video(identity, source, tmp_path / "out.mp4", crf=0, drop=True)
    assert video.probe(tmp_path / "out.mp4").pix_fmt == "yuv420p"


@pytest.mark.parametrize(("name", "codec"), [("out.mp4", "libx264"), ("out.mkv", "libx265"), ("out.mov", "libx264")])
@pytest.mark.parametrize("pix_fmt", ["yuva420p", "yuva444p10le"])
def test_alpha_is_refused_or_named(tmp_path, name, codec, pix_fmt):
    source = make(tmp_path / "in.mkv", pix_fmt=pix_fmt)
    with pytest.raises(ValueError, match=rf"{codec} cannot hold alpha, which ffv1 in \.mkv can hold.*--drop"):
        restore.restore_video(identity, source, tmp_path / name, codec=codec)
    report = restore.restore_video(identity, source, tmp_path / name, codec="libx264", crf=0, drop=True)
    assert report.skipped == ("alpha, which ffv1 in .mkv can hold, and libvpx-vp9 in .webm that of yuva420p",)
    for old, new in zip(frames_of(source), frames_of(tmp_path / name), strict=True):
        assert new.format.name == pix_fmt.replace("a", "")
        for before, after in zip(planes_of(old)[:3], planes_of(new), strict=True):
            # x264 is lossless at CRF 0 only of 8 bits.
            codes = [each.view(np.uint8 if old.format.components[0].bits == 8 else "<u2") for each in (before, after)]
            assert np.abs(codes[0].astype(int) - codes[1]).mean() <= (0 if pix_fmt == "yuva420p" else 6)


def test_prores_4444_keeps_its_alpha(tmp_path):
    source = make(tmp_path / "in.mov", "prores_ks", pix_fmt="yuva444p10le", size=(96, 64), options={"profile": "4444"})
    assert video.probe(source).pix_fmt.startswith("yuva444p1")
    restore.restore_video(identity, source, tmp_path / "out.mkv")
    assert_same_planes(source, tmp_path / "out.mkv")


@pytest.mark.parametrize(
    ("codec", "name", "shape"),
    [
        ("libx264", "out.mkv", Fraction(16, 11)),
        ("libsvtav1", "out.mp4", Fraction(10, 11)),
        ("libsvtav1", "out.mkv", Fraction(10, 11)),
        ("libvpx-vp9", "out.webm", Fraction(12, 11)),
        ("ffv1", "out.mp4", Fraction(8, 9)),
        ("ffv1", "out.mkv", Fraction(8, 9)),
        ("ffv1", "out.mkv", Fraction(10, 11)),
        ("ffv1", "out.mkv", Fraction(64, 45)),
    ],
)
def test_the_shape_of_pixels_is_kept(tmp_path, make_video, times_of, codec, name, shape):
    source = make_video(tmp_path / "in.mkv", acodec=None, setup={"sample_aspect_ratio": shape}, times=[0, 40])
    report = restore.restore_video(identity, source, tmp_path / name, codec=codec)
    assert report.skipped == ()
    assert video.probe(tmp_path / name).sample_aspect_ratio == shape
    assert times_of(tmp_path / name) == times_of(source)


def test_the_header_of_matroska_stays_whole(tmp_path, make_video, packets_of):
    """All that is behind the track is where it was, and the checksum of the tracks is right."""
    source = make_video(tmp_path / "in.mkv", "ffv1", "aac", times=[40 * index for index in range(9)])
    before = source.read_bytes()
    with source.open("r+b") as file:
        assert matroska.state_pixel_shape(file, Fraction(12, 11), (96, 64))
    after = source.read_bytes()
    assert len(after) == len(before)
    start = after.rindex(bytes.fromhex("1654ae6b"), 0, after.index(b"FFV1"))
    changed = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert start < changed[0] and changed[-1] < before.index(b"FFV1") + 200
    length = int.from_bytes(after[start + 4 : start + 6], "big") & 0x3FFF
    tracks = after[start + 6 : start + 6 + length]
    assert tracks[:2] == b"\xbf\x84"
    assert int.from_bytes(tracks[2:6], "little") == zlib.crc32(tracks[6:])
    assert video.probe(source).sample_aspect_ratio == Fraction(12, 11)
    assert len(packets_of(source)) > 5


def test_a_header_without_room_is_left_alone(tmp_path):
    """Elements by hand: a track that is not a byte longer than it must be."""
    track = b"\xae\x8d\xd7\x81\x01\xe0\x88\xb0\x82\x00\x60\xba\x82\x00\x40"
    tracks = b"\x16\x54\xae\x6b" + bytes([0x80 | len(track)]) + track
    whole = b"\x18\x53\x80\x67" + bytes([0x80 | len(tracks)]) + tracks
    file = io.BytesIO(whole)
    assert not matroska.state_pixel_shape(file, Fraction(8, 9), (96, 64))
    assert file.getvalue() == whole
