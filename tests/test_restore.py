import functools
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import colour, engines, image, quantiser, restore, stills, video
from keras_deartifact.files import TEMPORARY_PREFIX
from keras_deartifact.restore import frames as frames_module

SIZE = (96, 64)


def identity(frames, quantiser_map=None):
    return frames


def brighter(frames, quantiser_map=None):
    return frames + np.float32(16 / 255)


def local(frames, quantiser_map):
    """Depends on 7 pixels around, and on the block's step."""
    padded = np.pad(frames, ((0, 0), (7, 7), (7, 7), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    shifted = [padded[:, row : row + height, column : column + width] for row in (0, 14) for column in (0, 14)]
    steps = quantiser_map.repeat(16, 1).repeat(16, 2)[..., None]
    return (sum(shifted) / 4 + steps / 100).astype(np.float32)


def make(path, codec="libx264", audio="aac", *, count=12, size=SIZE, pix_fmt="yuv420p", times=None, options=None):
    """Writes blocks that move, at `times` in milliseconds, with a tone."""
    times = [40 * index for index in range(count)] if times is None else times
    blocks = np.random.default_rng(7).integers(40, 216, (size[1] // 8 + 1, size[0] // 8 + 1, 3)).astype(np.uint8)
    picture = blocks.repeat(8, 0).repeat(8, 1)[: size[1], : size[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        base = Fraction(1, 25) if codec.startswith("mpeg") else Fraction(1, 1000)
        stream.codec_context.time_base = base
        tone = container.add_stream(audio, rate=44100) if audio else None
        for index, time in enumerate(times):
            moved = np.ascontiguousarray(np.roll(picture, 2 * index, 1))
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format=pix_fmt)
            frame.time_base, frame.pts = base, round(Fraction(time, 1000) / base)
            container.mux(stream.encode(frame))
            if tone is not None:
                wave = (8000 * np.sin(np.arange(1764 * index, 1764 * (index + 1)) / 16)).astype(np.int16)
                sound = av.AudioFrame.from_ndarray(wave.repeat(2)[None], format="s16", layout="stereo")
                sound.sample_rate, sound.time_base, sound.pts = 44100, Fraction(1, 44100), 1764 * index
                container.mux(tone.encode(sound))
        container.mux(stream.encode(None))
        if tone is not None:
            container.mux(tone.encode(None))
    return path


def planes_of(path):
    """The code values of every frame, without the padding of the lines."""
    planes = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            sample = -(-frame.format.components[0].bits // 8)
            for plane in frame.planes:
                lines = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
                planes.append(lines[:, : plane.width * sample].tobytes())
    return planes


def times_of(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def audio_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def within(seconds, call):
    """Calls in another thread, so that a hang is a failure."""
    outcome = []

    def run():
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"still running after {seconds} s"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def assert_nothing_left(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deartifact")]


# Frames.


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (16, 32), (33, 50)])
def test_frames_of_any_size_and_depth_come_back(size, dtype):
    rng = np.random.default_rng(0)
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    frames = (rng.random((2, *size, 3)) * peak).astype(dtype)
    seen = []

    def restorer(given, quantiser_map):
        seen.append((given.dtype, given.shape, quantiser_map.dtype, quantiser_map.shape))
        return given

    restored = restore.restore_frames(restorer, frames)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, frames)
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    assert seen == [(np.float32, (2, 16 * rows, 16 * columns, 3), np.float32, (2, rows, columns))]


def test_padding_repeats_the_edge_and_the_default_map_is_known():
    frames = np.random.default_rng(1).random((1, 20, 17, 3)).astype(np.float32)

    def restorer(given, quantiser_map):
        np.testing.assert_array_equal(given[:, 20:, :17], frames[:, -1:].repeat(12, 1))
        np.testing.assert_array_equal(given[:, :, 17:], given[:, :, 16:17].repeat(15, 2))
        np.testing.assert_array_equal(quantiser_map, quantiser.DEFAULT_LOG2_STEP)
        return given

    restore.restore_frames(restorer, frames)


@pytest.mark.parametrize("size", [(16, 16), (100, 150), (64, 200), (65, 65)])
def test_tiles_give_the_same_as_the_whole(size):
    rng = np.random.default_rng(2)
    frames = rng.random((2, *size, 3)).astype(np.float32)
    maps = rng.uniform(0, 7, (2, *quantiser.map_shape(*size))).astype(np.float32)
    whole = restore.restore_frames(local, frames, maps)
    tiled = restore.restore_frames(local, frames, maps, tile=64, margin=7, whole_pixels=0)
    np.testing.assert_array_equal(tiled, whole)


def test_large_frames_are_tiled_by_default():
    shapes = []

    def restorer(given, quantiser_map):
        shapes.append(given.shape)
        return given

    frames = np.zeros((1, 1088, 1920, 3), np.float32)
    restore.restore_frames(restorer, frames)
    assert shapes == [(1, 1088, 1920, 3)]
    shapes.clear()
    frames = np.random.default_rng(0).integers(0, 256, (1, 2000, 2100, 3), np.uint8)
    np.testing.assert_array_equal(restore.restore_frames(restorer, frames), frames)
    # As many as there have to be of a side of 1024, and no larger than that takes.
    assert shapes == [(1, 752, 800, 3)] * 9


class OneSize:
    """A restorer that takes frames of one size, as `engines.load` gives one."""

    def __init__(self, function, *tile):
        self.function, self.tile, self.calls = function, tile, 0

    def __call__(self, frames, quantiser_map=None):
        assert frames.shape[1:3] == self.tile
        assert quantiser_map.shape[1:] == quantiser.map_shape(*self.tile)
        self.calls += 1
        return self.function(frames, quantiser_map)


@pytest.mark.parametrize(
    ("size", "tiles"), [((64, 96), 1), ((16, 16), 1), ((33, 50), 1), ((64, 97), 2), ((100, 90), 3), ((200, 300), 6 * 5)]
)
def test_a_restorer_of_one_size_gives_the_same_as_the_whole(size, tiles):
    rng = np.random.default_rng(4)
    frames = rng.random((2, *size, 3)).astype(np.float32)
    maps = rng.uniform(0, 7, (2, *quantiser.map_shape(*size))).astype(np.float32)
    restorer = OneSize(local, 64, 96)
    restored = restore.restore_frames(restorer, frames, maps, strength=0.5)
    whole = restore.restore_frames(local, frames, maps, strength=0.5)
    np.testing.assert_array_equal(restored, whole)
    assert restorer.calls == tiles


def test_small_tiles_have_thin_margins():
    """Nothing would be left of them otherwise."""
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), np.uint8)
    restorer = OneSize(brighter, 16, 32)
    assert (restore.restore_frames(restorer, frames) == np.minimum(frames.astype(int) + 16, 255)).all()
    assert restorer.calls == 3 * 2


def test_strength_by_hand():
    frames = np.full((1, 16, 16, 3), 100, np.uint8)
    for strength, expected in ((0, 100), (0.5, 108), (1, 116), (2, 132)):
        assert (restore.restore_frames(brighter, frames, strength=strength) == expected).all()


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((16, 16, 3), np.uint8), {}, r"shape \(n, height, width, 3\)"),
        (np.zeros((1, 16, 16, 3), np.float64), {}, "dtype float32, uint8 or uint16"),
        (np.zeros((1, 16, 16, 3), np.uint8), {"strength": -1.0}, "strength of at least 0"),
        (np.zeros((1, 16, 16, 3), np.uint8), {"strength": float("nan")}, "strength of at least 0"),
        (np.zeros((1, 16, 33, 3), np.uint8), {"quantiser_maps": np.zeros((1, 1, 2), np.float32)}, r"\(1, 1, 3\)"),
    ],
)
def test_frames_that_are_refused(frames, options, message):
    with pytest.raises(ValueError, match=message):
        restore.restore_frames(identity, frames, **options)


@pytest.mark.parametrize(
    ("restorer", "message"),
    [
        (lambda frames, quantiser_map: frames[:, :8], "keeps the shape"),
        (lambda frames, quantiser_map: frames * np.float32(np.nan), "finite"),
    ],
)
def test_restorers_that_are_refused(restorer, message):
    with pytest.raises(ValueError, match=message):
        restore.restore_frames(restorer, np.ones((1, 16, 16, 3), np.uint8))


# Pictures.


def test_a_jpeg_tells_its_step_and_keeps_its_metadata(tmp_path, photo):
    source, target = tmp_path / "old.jpg", tmp_path / "new.png"
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(photo(50, 70)).save(source, quality=20, exif=exif, dpi=(300, 300))
    seen = []

    def restorer(frames, quantiser_map):
        seen.append(quantiser_map.copy())
        return frames

    report = restore.restore_image(restorer, source, target)
    assert (report.width, report.height) == (70, 50)
    assert report.log2_step == pytest.approx(quantiser.jpeg_quality_log2_step(20))
    np.testing.assert_allclose(seen[0], np.full((1, 4, 5), report.log2_step))
    old, new = stills.read(source), stills.read(target)
    np.testing.assert_array_equal(new.pixels, old.pixels)
    assert new.exif is not None and b"a description" in new.exif
    assert new.dpi == pytest.approx((300, 300), abs=0.01)
    assert_nothing_left(tmp_path, "old.jpg", "new.png")


def always(log2_step, seen=None):
    """A predictor that sees the same step everywhere, and notes what it was given."""

    def predictor(frames):
        if seen is not None:
            seen.append(frames)
        return np.full((len(frames), *quantiser.map_shape(*frames.shape[1:3])), log2_step, np.float32)

    return predictor


@pytest.mark.parametrize(("extension", "excess"), [("png", 0.0), ("jpg", 0.4), ("jpg", 0.6), ("jpg", -3.0)])
def test_the_pixels_tell_what_the_file_does_not(extension, excess, tmp_path, photo):
    """A prediction stands in for a map, and counts beside one only where it is much coarser."""
    source = tmp_path / f"old.{extension}"
    Image.fromarray(photo(50, 70)).save(source, **({"quality": 20} if extension == "jpg" else {}))
    stated = quantiser.jpeg_quality_log2_step(20) if extension == "jpg" else None
    predicted = np.float32((stated or 4.0) + excess)
    maps, frames = [], []

    def restorer(images, quantiser_map):
        maps.append(quantiser_map.copy())
        return images

    report = restore.restore_image(restorer, source, tmp_path / "new.png", predictor=always(predicted, frames))
    counts = stated is None or excess > restore.JPEG_MARGIN
    if stated is None:
        stated = restore.LOSSLESS_LOG2_STEP
    np.testing.assert_allclose(maps[0], np.full((1, 4, 5), predicted if counts else stated), rtol=1e-6)
    assert (report.log2_step, report.predicted_log2_step) == (stated, predicted)
    assert frames[0].dtype == np.float32
    np.testing.assert_array_equal(image.to_uint8(frames[0][0]), stills.read(source).pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_depth_grey_and_alpha_are_kept(tmp_path, mode):
    rng = np.random.default_rng(3)
    shape = (40, 30, 4) if mode == "RGBA" else (40, 30)
    dtype = np.uint16 if mode == "I;16" else np.uint8
    pixels = rng.integers(0, np.iinfo(dtype).max // 2, shape).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "old.png")
    report = restore.restore_image(identity, tmp_path / "old.png", tmp_path / "new.png")
    assert report.log2_step is None
    with Image.open(tmp_path / "new.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), pixels)
    restore.restore_image(brighter, tmp_path / "old.png", tmp_path / "brighter.png", strength=1.0)
    with Image.open(tmp_path / "brighter.png") as image:
        colours = slice(0, 3) if mode == "RGBA" else slice(None)
        change = np.asarray(image).astype(int) - pixels
        assert image.mode == mode
        assert (change[..., colours] == (4112 if mode == "I;16" else 16)).all()
        if mode == "RGBA":
            assert (change[..., 3] == 0).all()


def test_strength_zero_keeps_a_picture(tmp_path, photo):
    Image.fromarray(photo(40, 40)).save(tmp_path / "old.png")
    restore.restore_image(brighter, tmp_path / "old.png", tmp_path / "new.png", strength=0)
    np.testing.assert_array_equal(stills.read(tmp_path / "new.png").pixels, photo(40, 40))


def test_what_fails_on_a_picture_leaves_nothing(tmp_path, photo):
    Image.fromarray(photo(40, 40)).save(tmp_path / "old.png")

    def restorer(frames, quantiser_map):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore.restore_image(restorer, tmp_path / "old.png", tmp_path / "new.png")
    with pytest.raises(ValueError, match=r"name ending in one of.*new\.xyz"):
        restore.restore_image(identity, tmp_path / "old.png", tmp_path / "new.xyz")
    assert_nothing_left(tmp_path, "old.png")


def test_cmyk_is_restored_as_light(tmp_path):
    inks = np.full((40, 48, 4), (100, 120, 140, 60), np.uint8)
    Image.frombytes("CMYK", (48, 40), inks.tobytes()).save(tmp_path / "old.tif")
    restore.restore_image(brighter, tmp_path / "old.tif", tmp_path / "new.tif", strength=1.0)
    with Image.open(tmp_path / "new.tif") as picture:
        assert picture.mode == "CMYK"
        # More light is less ink.
        assert (np.asarray(picture) == inks - 16).all()
    calls = []

    def noting(frames, quantiser_map):
        calls.append(frames)
        return frames

    with pytest.raises(ValueError, match=r"expected JPEG or TIFF for a picture in CMYK"):
        restore.restore_image(noting, tmp_path / "old.tif", tmp_path / "new.png")
    assert not calls


def test_16_bits_keep_what_lies_between_two_levels(tmp_path, photo):
    def finer(frames, quantiser_map):
        return frames + np.float32(0.25 / 255)

    pixels = np.dstack([photo(40, 30) // 2, photo(40, 30, seed=1)[..., 0]])
    Image.fromarray(pixels).save(tmp_path / "old.png")
    restore.restore_image(finer, tmp_path / "old.png", tmp_path / "new.png", bits=16)
    new = stills.read(tmp_path / "new.png")
    np.testing.assert_allclose(new.pixels / 257, pixels[..., :3] + 0.25, atol=0.01)
    np.testing.assert_array_equal(new.alpha, pixels[..., 3] * np.uint16(257))
    with pytest.raises(ValueError, match=r"not fewer than the source's 16\. Received: bits=8"):
        restore.restore_image(finer, tmp_path / "new.png", tmp_path / "back.png", bits=8)
    with pytest.raises(ValueError, match=r"expected 8 or 16 bits.* Received: bits=12"):
        restore.restore_image(finer, tmp_path / "old.png", tmp_path / "back.png", bits=12)


def test_what_a_target_does_not_hold_is_told(tmp_path, photo):
    Image.fromarray(photo(24, 24)).save(tmp_path / "old.jpg", comment=b"a comment")
    assert restore.restore_image(identity, tmp_path / "old.jpg", tmp_path / "new.jpg").left_out == ()
    with Image.open(tmp_path / "new.jpg") as picture:
        assert picture.info["comment"] == b"a comment"
    report = restore.restore_image(identity, tmp_path / "old.jpg", tmp_path / "new.tif")
    assert report.left_out == ("the comment (JPEG and PNG hold it)",)


# Video.


@pytest.mark.parametrize(
    ("extension", "codec", "audio"), [("mp4", "libx264", "aac"), ("mkv", "mpeg2video", "mp2"), ("mkv", "mpeg4", "mp2")]
)
def test_a_network_that_changes_nothing_gives_the_decoded_video(tmp_path, extension, codec, audio):
    source = make(tmp_path / f"in.{extension}", codec, audio)
    target = tmp_path / f"out.{extension}"
    report = within(30, lambda: restore.restore_video(identity, source, target, crf=0, preset="ultrafast"))
    assert planes_of(target) == planes_of(source)
    assert times_of(target) == times_of(source)
    assert audio_of(target) == audio_of(source)
    assert report.frames == 12
    assert report.broken is None and report.skipped == () and report.codec == "libx264" and report.states_quantisers
    assert report.fps == pytest.approx(12 / report.seconds)
    assert 0 < report.inference_busy < 1
    assert_nothing_left(tmp_path, source.name, target.name)


def test_variable_frame_rate_is_kept(tmp_path):
    source = make(tmp_path / "in.mp4", times=[0, 40, 73, 140, 141, 300, 900])
    restore.restore_video(identity, source, tmp_path / "out.mp4", preset="ultrafast")
    assert times_of(tmp_path / "out.mp4") == times_of(source)


@pytest.mark.parametrize("strength", [None, 1.0])
def test_a_change_is_held_to_what_the_quantiser_accounts_for(tmp_path, photo, strength):
    """Where no bitstream tells, by what the predictor says; a strength of the user's is taken as it is."""

    def predictor(frames):
        return np.full((len(frames), 2, 2), 5.0, np.float32)

    def change(target, restore_file, share):
        restore_file(brighter, source, target, predictor=predictor, strength=strength)
        old, new = (first_picture(path) for path in (source, target))
        expected = 16 if strength else share * 2**5 / np.sqrt(12)
        assert (new.astype(int) - old).mean() == pytest.approx(expected, abs=0.5)

    source = make(tmp_path / "in.mkv", "ffv1", None, count=2, size=(32, 32), pix_fmt="yuv444p")
    change(tmp_path / "out.mkv", functools.partial(restore.restore_video, codec="ffv1"), restore.VIDEO_SHARE)
    source = tmp_path / "in.png"
    Image.fromarray(photo(32, 32) // 2).save(source)
    change(tmp_path / "out.png", restore.restore_image, restore.STILL_SHARE)


@pytest.mark.parametrize(
    ("codec", "options", "share"),
    [
        ("mpeg2video", {"qmin": "20", "qmax": "20"}, restore.MPEG_SHARE),
        ("mpeg4", {"qmin": "20", "qmax": "20"}, restore.MPEG_SHARE),
        ("libx264", {"qp": "45"}, restore.VIDEO_SHARE),
    ],
)
def test_a_share_for_each_family_of_codecs(tmp_path, codec, options, share):
    source = make(tmp_path / "in.mkv", codec, None, count=3, size=(32, 32), options=options)
    restore.restore_video(brighter, source, tmp_path / "out.mkv", codec="ffv1")
    first = next(video.read_frames(source))
    step = 2 ** quantiser.log2_step_from_qp(first.qp, video.probe(source).codec).mean()
    change = first_picture(tmp_path / "out.mkv").astype(int) - first_picture(source)
    assert change.mean() == pytest.approx(share * step / np.sqrt(12), abs=0.75)


@pytest.mark.parametrize(("strength", "comes_back"), [(None, True), (1.0, False)])
def test_finely_compressed_drawings_come_back_as_they_were(tmp_path, strength, comes_back):
    source = make(tmp_path / "in.mkv", "libx264", None, count=3, options={"qp": "16"})
    restore.restore_video(brighter, source, tmp_path / "out.mkv", codec="ffv1", strength=strength)
    assert (planes_of(tmp_path / "out.mkv") == planes_of(source)) == comes_back


def test_where_nothing_may_change_no_network_is_asked(tmp_path):
    def network(frames, quantiser_map):
        raise AssertionError("expected no frame")

    source = make(tmp_path / "in.mkv", "libx264", None, count=3, size=(8, 8), options={"qp": "30"})
    report = restore.restore_video(network, source, tmp_path / "out.mkv", codec="ffv1")
    assert report.frames == 3
    assert planes_of(tmp_path / "out.mkv") == planes_of(source)


@pytest.mark.parametrize(
    ("subsampling", "share"),
    [(0, restore.STILL_SHARE), (1, restore.SUBSAMPLED_SHARE[0]), (2, restore.SUBSAMPLED_SHARE[0])],
)
def test_reduced_chroma_may_change_more(tmp_path, subsampling, share):
    source, target = tmp_path / "in.jpg", tmp_path / "out.png"
    Image.fromarray(np.full((32, 32, 3), 100, np.uint8)).save(source, quality=60, subsampling=subsampling)
    restore.restore_image(brighter, source, target)
    change = np.asarray(Image.open(target)).astype(int) - np.asarray(Image.open(source))
    expected = share * 2 ** quantiser.jpeg_quality_log2_step(60) / np.sqrt(12)
    assert change.mean() == pytest.approx(expected, abs=0.5)


def first_picture(path):
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    return colour.to_rgb(next(video.read_frames(path)).image)


@pytest.mark.parametrize(
    ("pix_fmt", "size"), [("gray", (96, 64)), ("yuv420p", (97, 65)), ("yuv422p10le", (96, 66)), ("yuv444p", (50, 70))]
)
def test_formats_and_odd_sizes(tmp_path, pix_fmt, size):
    source = make(tmp_path / "in.mkv", "ffv1", None, count=4, size=size, pix_fmt=pix_fmt)
    report = restore.restore_video(identity, source, tmp_path / "same.mkv", codec="ffv1")
    assert planes_of(tmp_path / "same.mkv") == planes_of(source)
    assert not report.states_quantisers
    restore.restore_video(brighter, source, tmp_path / "brighter.mkv", strength=1.0, codec="ffv1")
    old, new = (colour.to_rgb(next(video.read_frames(tmp_path / name)).image) for name in ("in.mkv", "brighter.mkv"))
    assert (new.astype(int) - old).mean() == pytest.approx(16, abs=0.5)


def test_strength_zero_keeps_the_planes(tmp_path):
    source = make(tmp_path / "in.mp4", audio=None, count=4)
    restore.restore_video(brighter, source, tmp_path / "out.mkv", strength=0, codec="ffv1")
    assert planes_of(tmp_path / "out.mkv") == planes_of(source)


@pytest.mark.parametrize(("codec", "extension"), [("libx264", "mp4"), ("mpeg2video", "mkv"), ("libvpx-vp9", "webm")])
def test_the_network_sees_the_smoothed_maps(tmp_path, codec, extension):
    source = make(tmp_path / f"in.{extension}", codec, None)
    seen = []

    def restorer(frames, quantiser_map):
        seen.append(quantiser_map[0].copy())
        return frames

    restore.restore_video(restorer, source, tmp_path / "out.mkv", preset="ultrafast")
    frames = list(video.read_frames(source))
    maps = []
    for frame in frames:
        if frame.qp is None:
            maps.append(maps[-1] if maps else quantiser.constant_map(64, 96))
        else:
            maps.append(quantiser.log2_step_from_qp(frame.qp, video.probe(source).codec))
    np.testing.assert_array_equal(seen, list(quantiser.smooth_in_time(maps)))
    missing = [frame.qp is None for frame in frames]
    assert all(missing) if codec == "libvpx-vp9" else missing == [False] * 11 + [codec == "mpeg2video"]


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_the_predictor_looks_at_some_frames_of_a_video(tmp_path, codec, monkeypatch):
    monkeypatch.setattr(restore.plan, "PREDICT_EVERY", 8)
    source = make(tmp_path / "in.mkv", codec, None, count=20)
    judged, maps = [], []

    def predictor(frames):
        # Coarser from one prediction to the next: 7, 8, ...
        judged.append(frames)
        return always(6.0 + len(judged))(frames)

    def restorer(frames, quantiser_map):
        maps.append(quantiser_map[0].copy())
        return frames

    report = restore.restore_video(restorer, source, tmp_path / "out.mkv", predictor=predictor, preset="ultrafast")
    assert report.states_quantisers == (codec == "libx264")
    assert len(judged) == -(-20 // restore.plan.PREDICT_EVERY) == 3
    assert report.predicted_log2_step == 8.0
    # Smoothed over the predictions: 7, (7 + 8) / 2, (7.5 + 9) / 2. All are far above what the bitstream states.
    shown = np.repeat([7.0, 7.5, 8.25], restore.plan.PREDICT_EVERY)[:20]
    np.testing.assert_allclose([each.mean() for each in maps], shown)
    # What it is given is the decoded frame.
    first = colour.to_rgb(next(video.read_frames(source)).image)
    np.testing.assert_array_equal(image.to_uint8(judged[0][0, :64, :96]), first)


def test_a_video_that_breaks_off_is_restored_up_to_there(tmp_path):
    whole = make(tmp_path / "whole.mkv", count=60, options={"g": "10"})
    source, target = tmp_path / "cut.mkv", tmp_path / "out.mkv"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    report = within(30, lambda: restore.restore_video(identity, source, target, crf=0, preset="ultrafast"))
    assert report.broken is not None and "breaks off" in report.broken
    assert 20 < report.frames < 60
    times = times_of(target)
    assert times == times_of(whole)[: report.frames]


def test_a_video_goes_through_a_restorer_of_one_size(tmp_path):
    source = make(tmp_path / "in.mp4", audio=None, count=3)
    restorer = OneSize(identity, 64, 64)
    report = restore.restore_video(restorer, source, tmp_path / "out.mkv", codec="ffv1")
    assert planes_of(tmp_path / "out.mkv") == planes_of(source)
    assert restorer.calls == 3 * 2
    assert 0 < report.inference_busy < 1


def test_progress_counts_frames(tmp_path):
    seen = []
    source = make(tmp_path / "in.mp4", audio=None, count=5)
    restore.restore_video(identity, source, tmp_path / "out.mp4", preset="ultrafast", progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def fails_at(number, error):
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise error
        return arguments[0]

    return failing


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_of_the_restorer_stops_everything(tmp_path, number, error):
    source = make(tmp_path / "in.mp4", count=40)
    with pytest.raises(type(error)):
        within(30, lambda: restore.restore_video(fails_at(number, error), source, tmp_path / "out.mp4"))
    assert_nothing_left(tmp_path, "in.mp4")


@pytest.mark.parametrize("stage", ["to_rgb", "add_correction"])
@pytest.mark.parametrize("number", [1, 5])
def test_an_error_of_another_stage_stops_everything(tmp_path, monkeypatch, stage, number):
    source = make(tmp_path / "in.mp4", count=40)
    before = source.read_bytes()
    real, failing = getattr(colour, stage), fails_at(number, RuntimeError("from the stage"))
    monkeypatch.setattr(colour, stage, lambda *arguments: (failing(*arguments), real(*arguments))[1])
    with pytest.raises(RuntimeError, match="from the stage"):
        within(30, lambda: restore.restore_video(identity, source, tmp_path / "out.mp4"))
    assert_nothing_left(tmp_path, "in.mp4")
    assert source.read_bytes() == before


def test_stages_wait_for_each_other(tmp_path, monkeypatch):
    decoded, restored = [], []
    real = colour.to_rgb

    def to_rgb(frame):
        decoded.append(frame.pts)
        return real(frame)

    def restorer(frames, quantiser_map):
        restored.append(len(decoded))
        return frames

    monkeypatch.setattr(colour, "to_rgb", to_rgb)
    source = make(tmp_path / "in.mp4", audio=None, count=40)
    within(30, lambda: restore.restore_video(restorer, source, tmp_path / "out.mp4", preset="ultrafast"))
    ahead = [count - index for index, count in enumerate(restored)]
    # The frame itself, two in the queue, and the one that waits for a place there.
    assert max(ahead) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "libnothing"}, "expected a codec of .*libx264.*libnothing"),
        ({"crf": 52}, "a crf of 0 to 51 for libx264. Received: crf=52"),
        ({"codec": "ffv1", "crf": 10}, "no crf for ffv1"),
        ({"preset": "warp"}, "a preset of ultrafast.*Received: preset='warp'"),
        ({"codec": "libvpx-vp9", "preset": "fast"}, "no preset for libvpx-vp9"),
        ({"strength": -0.5}, "strength of at least 0"),
    ],
)
def test_options_that_are_refused(tmp_path, options, message):
    source = make(tmp_path / "in.mp4", audio=None, count=2)
    with pytest.raises(ValueError, match=message):
        restore.restore_video(identity, source, tmp_path / "out.mkv", **options)
    assert_nothing_left(tmp_path, "in.mp4")


def test_targets_that_are_refused(tmp_path):
    source = make(tmp_path / "in.mp4", count=2)
    with pytest.raises(ValueError, match=r"hold audio stream 1 \(aac\).*out\.webm"):
        restore.restore_video(identity, source, tmp_path / "out.webm")
    with pytest.raises(ValueError, match=r"AVI holds no presentation times.*out\.avi") as caught:
        restore.restore_video(identity, source, tmp_path / "out.avi")
    assert TEMPORARY_PREFIX not in str(caught.value)
    assert_nothing_left(tmp_path, "in.mp4")


def test_an_unsupported_pixel_format_is_named(tmp_path):
    source = make(tmp_path / "in.mkv", "ffv1", None, count=2, pix_fmt="gray16le")
    with pytest.raises(ValueError, match=r"convert it first.*Received: pix_fmt=gray16le"):
        restore.restore_video(identity, source, tmp_path / "out.mkv")
    assert_nothing_left(tmp_path, "in.mkv")


def test_a_video_cut_before_its_first_frame(tmp_path):
    make(tmp_path / "whole.avi", "mjpeg", None, pix_fmt="yuvj420p", count=2)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "whole.avi").unlink()
    (tmp_path / "in.avi").write_bytes(data[: data.index(b"movi") + 60])
    with pytest.raises(video.BrokenVideoError, match=r"no frame .* decodes; check.*in\.avi"):
        restore.restore_video(identity, tmp_path / "in.avi", tmp_path / "out.mkv")
    assert_nothing_left(tmp_path, "in.avi")


def test_rgb_stays_rgb(tmp_path):
    source = make(tmp_path / "in.mkv", "libx264rgb", None, pix_fmt="rgb24", count=2)
    report = restore.restore_video(identity, source, tmp_path / "out.mkv", crf=0)
    assert report.codec == "libx264rgb"
    old, new = (colour.to_rgb(next(video.read_frames(tmp_path / name)).image) for name in ("in.mkv", "out.mkv"))
    np.testing.assert_array_equal(old, new)


# Large frames.


@pytest.fixture(scope="module")
def nano():
    return engines.load("shuffle_nano", "litert", threads=1)


def test_the_margin_is_the_networks_own_radius(nano):
    """By hand: 4 pixels for each convolution at 4x4 cells, the bank and its transpose, 8 for each at 8x8."""
    assert nano.radius == (4 + 2) * 4 + 2 * 8


def test_where_everything_reaches_everywhere_the_margin_is_the_usual_one(monkeypatch):
    """As with `dynamic_int8`, whose layers find the range of their values as they go."""
    restorer = engines.load("shuffle_nano", "litert", threads=1)
    monkeypatch.setattr(restorer, "_run", lambda images, maps: images + images.mean())
    assert restorer.radius == restore.MARGIN


def test_no_seam_is_measurable(nano, photo):
    """Tile against whole frame, in levels of 8 bits."""
    frames = photo(200, 330)[None]
    maps = np.random.default_rng(5).uniform(2, 7, (1, *quantiser.map_shape(200, 330))).astype(np.float32)
    whole = restore.restore_frames(nano, frames, maps, share=0.2)
    tiled = restore.restore_frames(nano, frames, maps, share=0.2, tile=144, whole_pixels=0)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert (whole == tiled).mean() > 0.999
    padded = image.pad_to_multiple(frames, 16)
    changes = [frames_module.corrections(nano, padded, maps, whole_pixels=pixels) for pixels in (0, 10**6)]
    np.testing.assert_allclose(changes[0], changes[1], atol=1e-5)


def test_a_predictor_sees_large_frames_in_parts(photo):
    frames = photo(100, 150)[None]
    seen = []

    def predictor(images):
        assert images.dtype == np.float32
        seen.append(images.shape[1:3])
        rows, columns = quantiser.map_shape(*images.shape[1:3])
        return (images.mean() + np.arange(rows * columns, dtype=np.float32).reshape(1, rows, columns) / 100 + 3).astype(
            np.float32
        )

    whole = frames_module.predicted_map(predictor, frames)
    np.testing.assert_array_equal(whole, predictor(image.to_float(frames))[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_module, "_PREDICTED_TILE", 64)
        seen.clear()
        parts = frames_module.predicted_map(predictor, frames, whole_pixels=0)
    assert set(seen) == {(64, 64), (64, 54), (52, 64), (52, 54)}
    assert parts.shape == whole.shape
    np.testing.assert_allclose(np.median(parts), np.median(whole), atol=0.3)
    assert np.ptp(parts) < 0.2


def test_16_bits_of_8(nano, photo):
    frames = photo(40, 50)[None]
    exact = restore.restore_frames(nano, image.to_float(frames))
    deep = restore.restore_frames(nano, frames, dtype=np.uint16)
    np.testing.assert_array_equal(deep, image.to_uint16(exact))
    with pytest.raises(ValueError, match=r"a dtype of float32, uint8 or uint16\. Received: dtype=int32"):
        restore.restore_frames(nano, frames, dtype=np.int32)


@pytest.mark.slow
def test_no_seam_of_an_untrained_large_network():
    import keras

    from keras_deartifact import models

    generator = models.GENERATORS["shuffle_small"]()
    generator.build([(None, None, None, 3), (None, None, None, 1)])
    rng = np.random.default_rng(0)
    for weight in generator.weights:
        # What starts at zero would hide how far the network sees.
        if not np.any(weight.numpy()):
            weight.assign(rng.normal(0, 0.05, weight.shape))

    def restorer(frames, quantiser_map):
        return np.asarray(keras.ops.convert_to_numpy(generator([frames, quantiser_map[..., None]], training=False)))

    frames = rng.integers(0, 256, (1, 208, 400, 3)).astype(np.uint8)
    maps = rng.uniform(2, 7, (1, 13, 25)).astype(np.float32)
    whole = restore.restore_frames(restorer, frames, maps)
    tiled = restore.restore_frames(restorer, frames, maps, tile=192, whole_pixels=0)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
