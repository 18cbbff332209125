import csv
import json
import math
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_deartifact import cli, colour, compare, image, metrics, stills, video
from keras_deartifact.compare import paths, results, timeline

SECOND = Fraction(1)


@pytest.fixture
def run(capfd):
    def call(*argv):
        code = cli.main(["compare", *(str(each) for each in argv)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def trio(tmp_path, photo):
    """An original, something nearer to it than a JPEG, and the JPEG."""
    pixels = photo(176, 200)
    names = tmp_path / "original.png", tmp_path / "restored.png", tmp_path / "compressed.jpg"
    Image.fromarray(pixels).save(names[0])
    Image.fromarray(pixels).save(names[2], quality=15)
    mixed = (pixels.astype(np.uint16) + stills.read(names[2]).pixels) // 2
    Image.fromarray(mixed.astype(np.uint8)).save(names[1])
    return names


def levels(path, values, times=None, size=(32, 32), pix_fmt="gray", colour_range=None):
    """A lossless video of even frames, at times in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        if colour_range is not None:
            stream.codec_context.color_range = colour_range
        for index, value in enumerate(values):
            frame = av.VideoFrame(*size, pix_fmt)
            for plane in frame.planes:
                depth = frame.format.components[0].bits
                np.frombuffer(memoryview(plane), np.uint8 if depth == 8 else "<u2")[:] = value
            frame.time_base, frame.pts = Fraction(1, 1000), 40 * index if times is None else times[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decibels(error):
    return 20 * math.log10(255 / error)


def assert_one_line(err):
    assert err.startswith("deartifact: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err


def test_every_metric_is_shown():
    registries = metrics.METRICS, metrics.NO_REFERENCE_METRICS, metrics.CLIP_METRICS, metrics.NO_REFERENCE_CLIP_METRICS
    assert {name for registry in registries for name in registry} | {"bits_per_pixel"} == set(compare.METRICS)
    higher = {name for name, metric in compare.METRICS.items() if metric.better == "higher"}
    assert higher == set(metrics.METRICS)


# Pictures.


def test_a_picture_is_measured_by_the_metrics(trio):
    found = compare.compare_files(*trio)
    pixels = {role: stills.read(path).pixels for role, path in zip(compare.ROLES, trio, strict=True)}
    # 200 pixels across have room for two blocks of NIQE, 176 for the window of MS-SSIM.
    for role, picture in pixels.items():
        expected = {name: metric(picture) for name, metric in metrics.NO_REFERENCE_METRICS.items()}
        if role != "original":
            expected |= {name: metric(pixels["original"], picture) for name, metric in metrics.METRICS.items()}
        expected["bits_per_pixel"] = 8 * trio[compare.ROLES.index(role)].stat().st_size / (176 * 200)
        assert found.values[role] == expected
    assert (found.kind, found.width, found.height, found.notes) == ("image", 200, 176, [])
    assert set(found.gains) == {*metrics.METRICS, *metrics.NO_REFERENCE_METRICS}
    restored, compressed = found.values["restored"], found.values["compressed"]
    assert all(gain == restored[name] - compressed[name] for name, gain in found.gains.items())
    assert found.gains["psnr"] > 4 and found.gains["ssim"] > 0


def test_without_an_original(trio):
    found = compare.compare_files(None, *trio[1:])
    assert list(found.values) == ["restored", "compressed"]
    assert set(found.values["restored"]) == {"niqe", "brisque", "bits_per_pixel"}
    assert set(found.gains) == {"niqe", "brisque"}
    assert not compare.compare_files(None, trio[1]).gains


def test_chosen_metrics(trio):
    found = compare.compare_files(*trio, wanted=["psnr", "niqe"])
    assert {name for each in found.values.values() for name in each} == {"psnr", "niqe"}
    with pytest.raises(ValueError, match="expected metrics among psnr, .*Received: pnsr"):
        compare.compare_files(*trio, wanted=["pnsr"])


def test_a_small_picture(tmp_path, photo):
    for name, seed in (("a.png", 0), ("b.png", 1)):
        Image.fromarray(photo(10, 12, seed)).save(tmp_path / name)
    found = compare.compare_files(tmp_path / "a.png", tmp_path / "b.png")
    lacking = {name for name, value in found.values["restored"].items() if value is None}
    assert lacking == {"ssim", "ms_ssim", "niqe", "brisque"}
    assert [note.split(":")[0] for note in found.notes] == [
        f"{name} is not measured" for name in ("NIQE", "BRISQUE", "SSIM Y", "MS-SSIM Y")
    ]
    assert "161x161" in found.notes[3] and "Received" not in "".join(found.notes)


def test_constant_pictures(tmp_path):
    for name, level in (("a.png", 90), ("b.png", 90), ("c.png", 100)):
        Image.fromarray(np.full((192, 192, 3), level, np.uint8)).save(tmp_path / name)
    found = compare.compare_files(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png")
    equal = found.values["restored"]
    assert [equal[name] for name in ("psnr", "psnr_y", "psnr_b", "ssim", "ms_ssim")] == [math.inf] * 3 + [1, 1]
    assert equal["niqe"] == equal["brisque"] == math.inf
    assert found.values["compressed"]["psnr"] == pytest.approx(decibels(10))
    assert found.gains["psnr"] == math.inf and found.gains["niqe"] is None
    assert "restored equals the original in what is measured: infinite PSNR RGB, PSNR Y, PSNR-B Y" in found.notes
    assert sum("too even" in note for note in found.notes) == 3


def test_grey_and_colour(tmp_path, photo):
    Image.fromarray(photo(32, 40)).save(tmp_path / "a.png")
    Image.fromarray(photo(32, 40)).convert("L").save(tmp_path / "b.png")
    found = compare.compare_files(tmp_path / "a.png", tmp_path / "b.png")
    grey = image.luma(photo(32, 40))
    # Pillow's luma and ours round differently.
    assert found.values["restored"]["psnr_y"] > 50
    assert found.values["restored"]["psnr"] == pytest.approx(
        metrics.psnr(photo(32, 40), np.dstack([grey] * 3)), abs=0.1
    )
    assert "grey is compared with colour (restored: grey)" in found.notes
    assert not any("grey" in note for note in compare.compare_files(tmp_path / "b.png", tmp_path / "b.png").notes)


def test_alpha(tmp_path, photo):
    first, second = photo(32, 40, 0), photo(32, 40, 1)
    alpha = np.full((32, 40), 255, np.uint8)
    Image.fromarray(np.dstack([first, alpha])).save(tmp_path / "opaque.png")
    Image.fromarray(second).save(tmp_path / "none.png")
    found = compare.compare_files(tmp_path / "opaque.png", tmp_path / "none.png")
    assert found.values["restored"]["psnr"] == metrics.psnr(first, second)
    assert not any("alpha" in note for note in found.notes)
    alpha[:, 20:] = 0
    for name, pixels in (("first.png", first), ("second.png", second)):
        Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / name)
    found = compare.compare_files(tmp_path / "first.png", tmp_path / "second.png")
    first[:, 20:] = second[:, 20:] = 0
    assert found.values["restored"]["psnr"] == metrics.psnr(first, second)
    assert "alpha is equal and not measured; what it hides counts as black" in found.notes
    with pytest.raises(ValueError, match=r"equal alpha.*Received: original with alpha, restored opaque$"):
        compare.compare_files(tmp_path / "first.png", tmp_path / "none.png")
    alpha[0] = 7
    Image.fromarray(np.dstack([second, alpha])).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="restored with alpha, not the same"):
        compare.compare_files(tmp_path / "first.png", tmp_path / "other.png")


def test_16_bits_are_rounded(tmp_path, photo, png_16_bit):
    pixels = photo(32, 40)
    offsets = np.random.default_rng(0).integers(-128, 129, pixels.shape)
    deep = np.clip(257 * pixels.astype(np.int64) + offsets, 0, 65535).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png_16_bit(deep, 2))
    Image.fromarray(pixels).save(tmp_path / "flat.png")
    found = compare.compare_files(tmp_path / "deep.png", tmp_path / "flat.png")
    assert found.values["restored"]["psnr"] == math.inf
    assert found.notes[0] == "16 bits are rounded to 8"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo(24, 40)).save(tmp_path / "stored.png", exif=exif)
    with Image.open(tmp_path / "stored.png") as stored:
        ImageOps.exif_transpose(stored).save(tmp_path / "upright.png")
    found = compare.compare_files(tmp_path / "upright.png", tmp_path / "stored.png")
    assert found.values["restored"]["psnr"] == math.inf
    assert ("the EXIF orientations differ: all are turned upright first" in found.notes) == (orientation > 1)
    # Two that are stored alike are left as they are.
    found = compare.compare_files(tmp_path / "stored.png", tmp_path / "stored.png")
    assert (found.width, found.height) == (40, 24)


def test_colour_profiles(tmp_path, photo):
    Image.fromarray(photo(32, 40)).save(tmp_path / "a.png", icc_profile=b"any")
    Image.fromarray(photo(32, 40)).save(tmp_path / "b.png")
    found = compare.compare_files(tmp_path / "a.png", tmp_path / "b.png")
    assert "the colour profiles differ, and are not applied" in found.notes


def test_different_sizes(tmp_path, run, photo, trio):
    Image.fromarray(photo(176, 199)).save(tmp_path / "narrow.png")
    code, out, err = run(trio[0], tmp_path / "narrow.png", trio[2])
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert "one size" in err and "original 200x176, restored 199x176, compressed 200x176" in err


# Times.


def test_alignment_by_hand():
    def stream(*times):
        return iter([(Fraction(time), f"{name}{time}") for time in times for name in "x"])

    alone = [0, 0, 0]
    found = list(
        timeline.align([stream(0, 40, 81, 120), stream(0, 80, 119, 160, 200), stream(1, 39, 80, 121)], SECOND, alone)
    )
    assert [time for time, _ in found] == [0, 81]
    assert found[1][1] == ["x81", "x80", "x80"]
    # 40 has no partner in the second one, 39 neither; 119 and 121 lie too far apart.
    assert alone == [2, 3, 2]


def line(times, tick, rate):
    return timeline.Timeline([Fraction(time) for time in times], Fraction(tick), Fraction(rate), 0)


def test_the_tolerance():
    ntsc = Fraction(30000, 1001)
    matroska, mp4, avi = line([0], "1/1000", ntsc), line([0], Fraction(1, 30000), ntsc), line([0], 1 / ntsc, ntsc)
    assert timeline.tolerance([matroska, mp4]) == Fraction(1, 1000) + Fraction(1, 30000)
    assert timeline.tolerance([matroska, matroska, mp4]) == Fraction(2, 1000)
    assert timeline.tolerance([avi, matroska]) == Fraction(1, 1000)
    assert timeline.tolerance([avi, avi]) == 0
    assert timeline.tolerance([line([0], "1/1000", 240)] * 2) <= Fraction(1, 480)


def test_offsets():
    regular = [Fraction(index, 25) for index in range(10)]
    late = [time + Fraction(7, 5) for time in regular]

    def both(first, second):
        return timeline.offsets([line(first, "1/1000", 25), line(second, "1/1000", 25)])

    assert both(regular, late) == [0, Fraction(7, 5)]
    # Without its first two frames a video is not shifted, nor if it ends earlier as well.
    assert both(regular, regular[2:]) == both(regular, regular[2:8]) == [0, 0]
    assert both(regular, [time + Fraction(2, 25) for time in regular]) == [0, Fraction(2, 25)]
    assert both(regular, regular) == [0, 0]


def test_a_dropped_frame_and_a_variable_rate(tmp_path):
    times = [0, 40, 90, 100, 200, 240, 333, 400]
    base = [100 + 10 * index for index in range(8)]
    errors = [1, 2, 3, 4, 5, 6, 7, 8]
    original = levels(tmp_path / "a.mkv", base, times)
    restored = [level + error for level, error in zip(base, errors, strict=True)]
    keep = [0, 1, 2, 4, 5, 6, 7]
    levels(tmp_path / "b.mkv", [restored[index] for index in keep], [times[index] for index in keep])
    found = compare.compare_files(original, tmp_path / "b.mkv")
    assert found.frame_count == 7
    assert [sample.time for sample in found.samples] == [Fraction(times[index], 1000) for index in keep]
    expected = [decibels(errors[index]) for index in keep]
    assert [sample.values["restored"]["psnr_y"] for sample in found.samples] == pytest.approx(expected)
    assert found.values["restored"]["psnr_y"] == pytest.approx(np.mean(expected))
    # The error changes by 1, but by 2 where the frame is missing.
    assert found.values["restored"]["flicker"] == pytest.approx((5 * 1 + 2) / 6)
    assert "1 frame of original without a partner at the same time, not measured" in found.notes
    assert not any("frames of restored" in note for note in found.notes)
    # Bits are spread over all frames of a file, compared or not.
    alone = compare.compare_files(original, original, wanted=["bits_per_pixel"])
    assert found.values["original"]["bits_per_pixel"] == alone.values["original"]["bits_per_pixel"]
    # A third video lacks another one.
    levels(tmp_path / "c.mkv", restored[1:], times[1:])
    found = compare.compare_files(original, tmp_path / "b.mkv", tmp_path / "c.mkv")
    assert [sample.time for sample in found.samples] == [Fraction(times[index], 1000) for index in keep[1:]]
    assert found.gains["psnr_y"] == 0
    assert "2 frames of original without a partner at the same time, not measured" in found.notes


def test_another_start(tmp_path):
    base = [100 + 10 * index for index in range(8)]
    original = levels(tmp_path / "a.mkv", base)
    late = levels(tmp_path / "b.mkv", [level + 3 for level in base], [1407 + 40 * index for index in range(8)])
    found = compare.compare_files(original, late)
    assert found.frame_count == 8
    assert found.values["restored"]["psnr_y"] == pytest.approx(decibels(3))
    assert any("start at different times (original 0.000 s, restored 1.407 s)" in note for note in found.notes)
    assert [sample.time for sample in compare.compare_files(late, original).samples][:2] == [
        Fraction(1407, 1000),
        Fraction(1447, 1000),
    ]


def test_containers_that_round_differently(tmp_path, make_video):
    base = [round(Fraction(1001 * index, 30)) for index in range(30)]
    matroska = make_video(tmp_path / "a.mkv", acodec=None, times=base, options={"bf": "0"})
    with av.open(str(matroska)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream, packet.time_base, packet.pts, packet.dts = (
                stream,
                Fraction(1, 30000),
                1001 * index,
                1001 * index,
            )
            target.mux(packet)
    found = compare.compare_files(matroska, tmp_path / "b.mp4")
    assert found.frame_count == 30
    assert found.values["restored"]["psnr"] == math.inf


def test_other_rates(tmp_path):
    original = levels(tmp_path / "a.mkv", [100] * 20)
    half = levels(tmp_path / "b.mkv", [110] * 10, [80 * index for index in range(10)])
    found = compare.compare_files(original, half)
    assert found.frame_count == 10
    assert "10 frames of original without a partner at the same time, not measured" in found.notes
    other = levels(tmp_path / "c.mkv", [110] * 20, [47 * index for index in range(20)])
    with pytest.raises(ValueError, match="shown at the same times, found 2; convert .*Received: original 20 frames"):
        compare.compare_files(original, other)


# Videos.


def planes(path):
    found = []
    for frame in video.read_frames(path, quantisers=False):
        plane = frame.image.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        found.append((rows[:, : plane.width].copy(), colour.to_rgb(frame.image)))
    return found


@pytest.fixture(scope="module")
def clips(tmp_path_factory, make_video, photo):
    """24 frames without loss, and two encodes of them with sound."""
    folder = tmp_path_factory.mktemp("clips")
    times = [40 * index for index in range(24)]
    make_video(folder / "original.mkv", "ffv1", None, times=times)
    for name, crf in (("restored.mp4", "20"), ("compressed.mp4", "38")):
        make_video(folder / name, times=times, options={"crf": crf})
    return [folder / name for name in ("original.mkv", "restored.mp4", "compressed.mp4")]


def test_a_video_is_measured_by_the_metrics(clips, packets_of):
    found = compare.compare_files(*clips, every=5)
    decoded = [planes(path) for path in clips]
    for role, path, frames in zip(compare.ROLES, clips, decoded, strict=True):
        values = found.values[role]
        if role != "original":
            pairs = list(zip(decoded[0], frames, strict=True))
            assert values["psnr"] == pytest.approx(np.mean([metrics.psnr(a[1], b[1]) for a, b in pairs]))
            assert values["psnr_y"] == pytest.approx(np.mean([metrics.psnr_y(a[0], b[0]) for a, b in pairs]))
            assert values["ssim"] == pytest.approx(np.mean([metrics.ssim(a[0], b[0]) for a, b in pairs]))
            assert values["flicker"] == metrics.flicker([a[0] for a, _ in pairs], [b[0] for _, b in pairs])
        assert values["viideo"] == metrics.viideo([frame[0] for frame in frames])
        assert values["brisque"] == pytest.approx(np.mean([metrics.brisque(frame[0]) for frame in frames[::5]]))
        assert values["niqe"] is None
        size = sum(len(packet) for _, packet in packets_of(path, "video"))
        assert values["bits_per_pixel"] == pytest.approx(8 * size / (24 * 96 * 64))
    assert found.gains["psnr_y"] > 5 and found.gains["flicker"] < 0
    assert "NIQE and BRISQUE: of every 5th frame, 5 in all" in found.notes
    assert sum("NIQE is not measured" in note for note in found.notes) == 1
    assert found.broken == []


def test_a_video_without_an_original(clips):
    found = compare.compare_files(None, *clips[1:])
    assert set(found.values["restored"]) == {"niqe", "brisque", "viideo", "bits_per_pixel"}
    assert len(found.samples) == 24
    assert [bool(sample.values["restored"]) for sample in found.samples[:12]] == [True, *[False] * 9, True, False]


def test_a_short_video_and_equal_frames(tmp_path):
    original = levels(tmp_path / "a.mkv", [100, 110, 120])
    found = compare.compare_files(original, original)
    assert found.values["restored"]["psnr"] == math.inf and found.values["restored"]["flicker"] == 0
    assert found.values["restored"]["viideo"] is None
    assert any("VIIDEO is not measured: expected at least 22 frames" in note for note in found.notes)
    # Infinite frames are left out of the mean, in both videos.
    first = levels(tmp_path / "b.mkv", [100, 114, 124])
    second = levels(tmp_path / "c.mkv", [105, 110, 125])
    found = compare.compare_files(original, first, second)
    assert found.values["restored"]["psnr_y"] == pytest.approx(decibels(4))
    assert found.values["compressed"]["psnr_y"] == pytest.approx(decibels(5))
    assert found.gains["psnr_y"] == pytest.approx(decibels(4) - decibels(5))
    assert "the mean of PSNR Y leaves out 2 of 3 frames, where it is infinite" in found.notes
    # Of one frame there is no flicker.
    single = levels(tmp_path / "d.mkv", [100])
    assert compare.compare_files(single, single).values["restored"]["flicker"] is None


def test_deep_planes_keep_their_depth(tmp_path):
    original = levels(tmp_path / "a.mkv", [400, 410], pix_fmt="yuv420p10le")
    restored = levels(tmp_path / "b.mkv", [401, 411], pix_fmt="yuv420p10le")
    found = compare.compare_files(original, restored)
    assert found.values["restored"]["psnr_y"] == pytest.approx(decibels(1 / 4))
    assert 0.999 < found.values["restored"]["ssim"] < 1
    assert any("more than 8 bits" in note for note in found.notes)
    # Code 400 of 10 bits is code 100 of 8.
    flat = levels(tmp_path / "c.mkv", [100, 102], pix_fmt="yuv420p")
    values = [sample.values["restored"]["psnr_y"] for sample in compare.compare_files(original, flat).samples]
    assert values == [math.inf, pytest.approx(decibels(1 / 2))]
    small = levels(tmp_path / "d.mkv", [400, 410], size=(10, 10), pix_fmt="yuv420p10le")
    found = compare.compare_files(small, small)
    assert found.values["restored"]["ssim"] is None and found.values["restored"]["psnr_y"] == math.inf


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv444p", "yuv411p", "bgra", "yuv422p10le"])
def test_odd_sizes(tmp_path, pix_fmt):
    original = levels(tmp_path / "a.mkv", [100, 110], size=(35, 23), pix_fmt=pix_fmt)
    restored = levels(tmp_path / "b.mkv", [105, 115], size=(35, 23), pix_fmt=pix_fmt)
    found = compare.compare_files(original, restored)
    assert (found.width, found.height) == (35, 23)
    step = 4 if pix_fmt.endswith("10le") else 1
    assert found.values["restored"]["psnr_y"] == pytest.approx(decibels(5 / step))


def test_planes_that_mean_something_else(tmp_path):
    # Limited 16 + 219/2 and full 255/2 are both middle grey.
    limited = levels(tmp_path / "a.mkv", [126, 126], pix_fmt="gray", colour_range=1)
    full = levels(tmp_path / "b.mkv", [128, 128], pix_fmt="gray", colour_range=2)
    found = compare.compare_files(limited, full)
    assert found.values["restored"]["psnr_y"] == math.inf
    assert any("luma is computed from RGB" in note for note in found.notes)


def test_rotation(tmp_path, make_video):
    times = [0, 40, 80]
    turned = make_video(tmp_path / "a.mp4", acodec=None, times=times, rotation=90, options={"crf": "1"})
    same = compare.compare_files(turned, turned)
    assert (same.width, same.height) == (96, 64)
    degrees = video.probe(turned).rotation_degrees
    with av.open(str(tmp_path / "upright.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv444p"
        for index, (_, rgb) in enumerate(planes(turned)):
            upright = np.ascontiguousarray(np.rot90(rgb, degrees // 90))
            frame = av.VideoFrame.from_ndarray(upright, format="rgb24").reformat(format="yuv444p")
            frame.time_base, frame.pts = Fraction(1, 25), index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = compare.compare_files(turned, tmp_path / "upright.mkv")
    assert (found.width, found.height) == (64, 96)
    assert found.values["restored"]["psnr"] > 40
    assert any("the rotations differ (degrees of original" in note for note in found.notes)


def test_videos_of_other_sizes(tmp_path, run):
    original = levels(tmp_path / "a.mkv", [100, 110])
    code, out, err = run(original, levels(tmp_path / "b.mkv", [100, 110], size=(32, 30)))
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert "original 32x32, restored 32x30" in err


def test_a_video_that_breaks_off(tmp_path, run, make_video):
    original = make_video(
        tmp_path / "a.mkv", acodec=None, times=[40 * index for index in range(60)], options={"g": "5"}
    )
    cut = tmp_path / "b.mkv"
    cut.write_bytes(original.read_bytes()[: original.stat().st_size * 3 // 5])
    code, out, err = run(original, cut)
    assert code == 3
    assert err.startswith("deartifact: warning: The video breaks off") and err.count("\n") == 1
    assert "frames of original without a partner" in out


def test_our_own_errors_do_not_hang(clips, monkeypatch):
    def wrong(*frames):
        raise RuntimeError("a bug")

    monkeypatch.setattr(metrics, "psnr", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        compare.compare_files(*clips)
    monkeypatch.undo()
    monkeypatch.setitem(metrics.CLIP_METRICS, "flicker", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        compare.compare_files(*clips)


# The command.


def test_the_table_of_a_picture(run, trio):
    code, out, err = run(*trio)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{trio[1]}: image, 200x176"
    assert lines[4].split() == ["better", "original", "restored", "compressed", "gain"]
    values = compare.compare_files(*trio)
    row = next(line.split() for line in lines if line.startswith("PSNR RGB"))
    restored, compressed = (values.values[role]["psnr"] for role in ("restored", "compressed"))
    assert row[3:] == ["higher", f"{restored:.2f}", f"{compressed:.2f}", f"{restored - compressed:+.2f}"]
    assert next(line.split()[1] for line in lines if line.startswith("NIQE")) == "lower"
    assert len({line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in lines[4:12]}) == 1


def test_json(tmp_path, run, trio):
    code, out, err = run(*trio, "--json", "-")
    assert (code, err) == (0, "")
    values = json.loads(out)
    found = compare.compare_files(*trio)
    assert values["values"] == found.values and values["gains"] == found.gains
    assert values["better"]["ssim"] == "higher" and values["better"]["bits_per_pixel"] is None
    assert values["files"] == {role: str(path) for role, path in zip(compare.ROLES, trio, strict=True)}
    code, out, err = run(*trio, "--json", tmp_path / "values.json")
    assert code == 0 and "PSNR RGB" in out
    assert json.loads((tmp_path / "values.json").read_text()) == values


def test_json_holds_neither_nan_nor_infinity(tmp_path, run):
    for name, level in (("a.png", 90), ("b.png", 100)):
        Image.fromarray(np.full((96, 192, 3), level, np.uint8)).save(tmp_path / name)

    def refuse(constant):
        raise AssertionError(constant)

    code, out, _ = run(tmp_path / "a.png", tmp_path / "a.png", tmp_path / "b.png", "--json", "-")
    values = json.loads(out, parse_constant=refuse)
    assert code == 0
    assert values["values"]["restored"]["psnr"] == values["gains"]["psnr"] == "Infinity"
    assert float(values["values"]["restored"]["psnr"]) == math.inf
    assert values["values"]["restored"]["ms_ssim"] is values["gains"]["niqe"] is None
    out = run(tmp_path / "a.png", tmp_path / "a.png", tmp_path / "b.png")[1]
    assert "nan" not in out.lower().split("\n", 4)[-1]
    row = next(line.split() for line in out.splitlines() if line.startswith("PSNR RGB"))
    assert row[-3:] == ["inf", "28.13", "+inf"]
    assert next(line.split() for line in out.splitlines() if line.startswith("MS-SSIM"))[-3:] == ["-", "-", "-"]


def test_csv_of_a_video(tmp_path, run, clips):
    code, out, _ = run(*clips, "--csv", tmp_path / "frames.csv", "--every", "7")
    assert code == 0
    with open(tmp_path / "frames.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [Fraction(row["pts"]) for row in rows] == [Fraction(index, 25) for index in range(24)]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([index / 25 for index in range(24)])
    found = compare.compare_files(*clips, every=7)
    for role in ("restored", "compressed"):
        for name in ("psnr", "psnr_y", "ssim", "brisque"):
            column = [float(row[f"{role}_{name}"]) for row in rows if row[f"{role}_{name}"]]
            assert np.mean(column) == pytest.approx(found.values[role][name])
            assert len(column) == (4 if name == "brisque" else 24)
    mean = np.mean([float(row["restored_psnr_y"]) for row in rows])
    line = next(line.split() for line in out.splitlines() if line.startswith("PSNR Y"))
    assert line[4] == f"{mean:.2f}"
    assert "original_psnr" not in rows[0]


def test_files_are_not_replaced_unless_told(tmp_path, run, trio):
    target = tmp_path / "values.json"
    target.write_text("old")
    code, out, err = run(*trio, "--json", target)
    assert (code, out) == (2, "") and target.read_text() == "old"
    assert_one_line(err)
    assert "--overwrite" in err
    assert run(*trio, "--json", target, "--overwrite")[0] == 0
    assert json.loads(target.read_text())["kind"] == "image"
    for option, name in (("--json", "original.png"), ("--csv", "missing/a.csv"), ("--csv", "b.jpg")):
        before = trio[0].read_bytes()
        code, out, err = run(*trio, option, tmp_path / name, "--overwrite")
        assert (code, out) == (2, "") and trio[0].read_bytes() == before
        assert_one_line(err)
    code, _, err = run(*trio, "--json", tmp_path / "same", "--csv", tmp_path / "same")
    assert code == 2 and "different files" in err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_no_original_on_the_command_line(run, trio):
    code, out, err = run("-", trio[1])
    assert (code, err) == (0, "")
    assert out.splitlines()[2].split() == ["better", "restored"]
    assert "NIQE" in out and "PSNR" not in out


def test_bad_input_is_one_line(tmp_path, run, trio, clips):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("nothing to see\n" * 9)
    (tmp_path / "other").mkdir()
    shutil.copy(trio[0], tmp_path / "other" / "elsewhere.png")
    (tmp_path / "third").mkdir()
    shutil.copy(trio[0], tmp_path / "third")
    for argv, message in [
        ((trio[0], clips[0]), "pictures or videos, not both"),
        ((trio[0], tmp_path / "missing.png"), "there is no file"),
        ((tmp_path / "missing.png", trio[0]), "there is no file"),
        ((trio[0], tmp_path / "text.txt"), "expected a picture or a video"),
        ((tmp_path / "empty", tmp_path / "other"), "expected a folder with pictures or videos"),
        ((tmp_path / "other", tmp_path / "third"), "none has a partner"),
        ((tmp_path / "other", trio[0]), "expected a folder, like the others"),
        ((tmp_path / "other", tmp_path / "missing"), "expected a folder"),
        ((tmp_path / "other", tmp_path / "other"), "expected different folders"),
        ((trio[0],), "required: RESTORED"),
        ((trio[0], trio[1], "--every", "0"), "expected 1 to inf"),
        ((trio[0], trio[1], "--metrics", "psnr,sim"), "expected metrics among"),
    ]:
        code, out, err = run(*argv)
        assert (code, out) == (2, ""), argv
        assert_one_line(err)
        assert message in err


# Folders.


def paired(*names):
    return {
        role: [paths.Path(name) for name in found.split()] for role, found in zip(compare.ROLES, names, strict=False)
    }


def test_partners_by_hand():
    rows, unmatched = paths.match(
        paired(
            "a.png b.bmp sub/a.png g.gif v.avi x.jpg x.png y.png z.1.png",
            "a.jpg b.png sub/a.png g.gif.png v.avi.mkv x.jpg x.png y.jpg y.png z.1.jpg z.2.jpg",
        )
    )
    assert {name: str(row["original"]) for name, row in rows.items()} == {
        "a.jpg": "a.png",
        "b.png": "b.bmp",
        "g.gif.png": "g.gif",
        "sub/a.png": "sub/a.png",
        "v.avi.mkv": "v.avi",
        "x.jpg": "x.jpg",
        "x.png": "x.png",
        "y.png": "y.png",
        "z.1.jpg": "z.1.png",
    }
    assert unmatched == {"restored": ["y.jpg", "z.2.jpg"]}


@pytest.fixture
def folders(tmp_path, photo, clips):
    """Five pictures and a video, with a partner missing on either side and a broken file."""
    roles = [tmp_path / name for name in compare.ROLES]
    for folder in roles:
        (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("a", "b", "deep/c", "lost", "broken")):
        pixels = photo(48, 56, index)
        Image.fromarray(pixels).save(roles[0] / f"{name}.png")
        Image.fromarray(pixels).save(roles[1] / f"{name}.jpg", quality=60)
        Image.fromarray(pixels).save(roles[2] / f"{name}.jpg", quality=20)
    stills.write(roles[1] / "b.png", stills.read(roles[1] / "b.jpg").pixels)
    for name in ("b.jpg", "lost.jpg"):
        (roles[1] / name).unlink()
    Image.fromarray(pixels).save(roles[1] / "new.png")
    (roles[1] / "broken.jpg").write_bytes((roles[1] / "broken.jpg").read_bytes()[:500])
    (roles[0] / "notes.txt").write_text("nothing to see\n" * 9)
    for folder, path in zip(roles, clips, strict=True):
        shutil.copy(path, folder / f"v{path.suffix}")
    return roles


def test_a_folder(folders, run, tmp_path):
    code, out, err = run(*folders, "--json", tmp_path / "values.json", "--csv", tmp_path / "frames.csv")
    assert code == 2
    assert err.startswith("deartifact: error: broken.jpg: ") and err.count("\n") == 1
    values = json.loads((tmp_path / "values.json").read_text())
    assert [row["name"] for row in values["rows"]] == ["a.jpg", "b.png", "deep/c.jpg", "v.mp4"]
    assert values["unmatched"] == {"original": ["lost.png"], "restored": ["new.png"], "compressed": ["lost.jpg"]}
    assert list(values["failed"]) == ["broken.jpg"]
    assert values["skipped"] == [str(folders[0] / "notes.txt")]
    for row in values["rows"]:
        alone = compare.compare_files(*(row["files"][role] for role in compare.ROLES))
        assert (row["values"], row["gains"]) == (alone.values, alone.gains)
    gains = [row["gains"]["psnr_y"] for row in values["rows"]]
    low, high = metrics.mean_interval(gains)
    assert values["gains"]["psnr_y"] == {
        "mean": pytest.approx(np.mean(gains)),
        "low": low,
        "high": high,
        "files": 4,
        "files_better": 4,
    }
    means = {role: values["means"][role]["psnr_y"] for role in ("restored", "compressed")}
    assert means["restored"] - means["compressed"] == pytest.approx(np.mean(gains))
    brisque = values["gains"]["brisque"]
    assert brisque["files_better"] == sum(row["gains"]["brisque"] < 0 for row in values["rows"]) != 2
    assert values["gains"]["flicker"]["files_better"] == 1
    # The pictures are too small for MS-SSIM, and a video has none.
    assert "ms_ssim" not in values["means"]["restored"] and values["gains"]["viideo"]["files"] == 1
    lines = out.splitlines()
    assert "mean of 4 files" in lines
    row = next(line for line in lines if line.startswith("PSNR Y"))
    assert f"{low:+.2f} to {high:+.2f}" in row and row.endswith("4 of 4")
    assert "note: original: 1 without a partner: lost.png" in lines
    assert "note: 1 could not be compared: broken.jpg" in lines
    with open(tmp_path / "frames.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["a.jpg", "b.png", "deep/c.jpg", *["v.mp4"] * 24]
    assert rows[0]["pts"] == rows[0]["seconds"] == "" and float(rows[0]["restored_psnr"]) > 0


def test_equal_gains_have_no_interval(tmp_path):
    for folder, level in (("o", 100), ("r", 102), ("c", 105)):
        (tmp_path / folder).mkdir()
        for index in range(5):
            pixels = np.full((16, 16), level + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    found = compare.compare_folders(tmp_path / "o", tmp_path / "r", tmp_path / "c")
    gain = found.gains["psnr"]
    assert gain.low == gain.high == pytest.approx(gain.mean) == pytest.approx(decibels(2) - decibels(5))
    assert (gain.count, gain.better) == (5, 5)
    assert found.gains == compare.compare_folders(tmp_path / "o", tmp_path / "r", tmp_path / "c").gains
    # NIQE cannot be measured and BRISQUE is infinite: neither has a gain.
    assert "niqe" not in found.gains and "brisque" not in found.gains
    assert found.means["restored"]["brisque"] == math.inf
    assert [note for note in found.notes if note.startswith("NIQE")] == [
        "NIQE is not measured: expected image with room for two blocks of 96x96 pixels (all files)"
    ]


def test_means_leave_out_infinite_files(tmp_path):
    for folder, added in (("o", [0, 0, 0]), ("r", [2, 0, 4]), ("c", [5, 5, 5])):
        (tmp_path / folder).mkdir()
        for index, offset in enumerate(added):
            Image.fromarray(np.full((16, 16), 100 + offset, np.uint8)).save(tmp_path / folder / f"{index}.png")
    found = compare.compare_folders(tmp_path / "o", tmp_path / "r", tmp_path / "c")
    assert found.means["restored"]["psnr"] == pytest.approx((decibels(2) + decibels(4)) / 2)
    assert found.means["compressed"]["psnr"] == pytest.approx(decibels(5))
    assert found.gains["psnr"].count == 2
    assert (
        "PSNR RGB, PSNR Y, PSNR-B Y: mean over 2 of 3 files; of the others it is infinite or not measured"
        in found.notes
    )
    assert any(note.endswith("PSNR RGB, PSNR Y, PSNR-B Y (1.png)") for note in found.notes)


def test_folders_in_folders(tmp_path, photo):
    for name in ("in/out", "in/third"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("in/a.png", "in/out/a.png", "in/third/a.png"):
        Image.fromarray(photo(24, 24)).save(tmp_path / name)
    outer, *inner = (tmp_path / name for name in ("in", "in/out", "in/third"))
    for folders in ((outer, *inner), (inner[0], outer, inner[1])):
        found = compare.compare_folders(*folders)
        assert [row.name for row in found.rows] == ["a.png"] and not found.unmatched


def test_pooling():
    assert results.pool({"a": [1.0, 3.0, math.inf], "b": [2.0, 2.0, 9.0]}) == {"a": 2, "b": 2}
    assert results.pool({"a": [math.inf, 4.0], "b": [1.0, None]}) == {"a": math.inf, "b": 1}
    assert results.pool({"a": [None], "b": [1.0]}) == {"a": None, "b": 1}
    assert results.difference(math.inf, math.inf) is results.difference(None, 1.0) is None
