import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, features

from keras_deartifact import codecs, quantiser

# One row a codec: its own knob, from fine to coarse.
KNOBS = {
    "jpeg": [{"quality": 90}, {"quality": 40}, {"quality": 10}],
    "jpeg2000": [{"ratio": 5}, {"ratio": 15}, {"ratio": 60.5}],
    "webp": [{"quality": 90}, {"quality": 40}, {"quality": 5}],
    "mpeg2": [{"qscale": 2}, {"qscale": 8}, {"qscale": 31}],
    "mpeg4": [{"qscale": 2}, {"qscale": 8}, {"qscale": 31}],
    "h264": [{"crf": 12}, {"crf": 26}, {"crf": 40.5}],
    "h265": [{"crf": 12}, {"crf": 26}, {"crf": 40.5}],
    "vp9": [{"crf": 10}, {"crf": 35}, {"crf": 60}],
    "av1": [{"crf": 10}, {"crf": 35}, {"crf": 60}],
}
VIDEO = ("mpeg2", "mpeg4", "h264", "h265", "vp9", "av1")
TELLING = ("jpeg", "mpeg2", "mpeg4", "h264")


def make_frames(count=5, height=48, width=64):
    """Uint8 RGB frames: a gradient, fine texture and a square that moves 3 pixels a frame."""
    texture = np.random.default_rng(7).normal(0.0, 12.0, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    gradient = np.stack([40 + 2 * columns, 60 + 2 * rows, 200 - columns - rows], axis=-1)
    frames = np.repeat((gradient + texture)[None], count, axis=0)
    for index in range(count):
        left = 4 + 3 * index
        frames[index, height // 4 : height // 2, left : left + width // 4] = (230, 30, 60)
    return np.clip(frames, 0, 255).astype(np.uint8)


def error(frames, result):
    return float(np.mean((result.frames.astype(np.float64) - frames) ** 2))


def test_every_codec_has_a_row():
    assert list(KNOBS) == list(codecs.CODECS)
    assert all(name == function.__name__ for name, function in codecs.CODECS.items())


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize("shape", [(5, 48, 64), (1, 48, 64), (3, 47, 61), (2, 7, 9)])
def test_contract(name, shape):
    frames = make_frames(*shape)
    before = frames.copy()
    result = codecs.CODECS[name](frames, **KNOBS[name][1])
    again = codecs.CODECS[name](frames, **KNOBS[name][1])
    np.testing.assert_array_equal(frames, before)
    assert result.frames.shape == frames.shape
    assert result.frames.dtype == np.uint8
    assert result.size_bytes > 0
    assert (result.quantisers is not None) == (name in TELLING)
    if result.quantisers is not None:
        assert result.quantisers.shape == (shape[0], *quantiser.map_shape(*shape[1:]))
        assert result.quantisers.dtype == np.float32
        np.testing.assert_array_equal(again.quantisers, result.quantisers)
    np.testing.assert_array_equal(again.frames, result.frames)
    assert again.size_bytes == result.size_bytes


@pytest.mark.parametrize("name", KNOBS)
def test_coarser_is_smaller_and_worse(name):
    frames = make_frames()
    results = [codecs.CODECS[name](frames, **knobs) for knobs in KNOBS[name]]
    sizes = [result.size_bytes for result in results]
    errors = [error(frames, result) for result in results]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    assert errors == sorted(errors) and len(set(errors)) == 3
    if results[0].quantisers is not None:
        means = [result.quantisers.mean() for result in results]
        assert means == sorted(means) and len(set(means)) == 3


@pytest.mark.parametrize("name", VIDEO)
def test_bitrate_is_smaller_and_worse(name):
    # Noise that is new in every frame, so that no encoder runs out of bits to spend.
    frames = make_frames(25)
    noise = np.random.default_rng(3).normal(0.0, 12.0, frames.shape)
    frames = np.clip(frames + noise, 0, 255).astype(np.uint8)
    fine, coarse = (codecs.CODECS[name](frames, bitrate_kbps=kbps) for kbps in (400, 100))
    assert coarse.size_bytes < fine.size_bytes
    assert error(frames, coarse) > error(frames, fine)


@pytest.mark.parametrize("name", ["mpeg2", "mpeg4"])
def test_mpeg_keeps_to_its_bitrate(name):
    frames = np.random.default_rng(3).integers(0, 256, (50, 48, 64, 3), np.uint8)
    assert codecs.CODECS[name](frames, bitrate_kbps=500).size_bytes * 8 / 2 == pytest.approx(500_000, rel=0.25)


@pytest.mark.parametrize("name", VIDEO)
def test_order_and_count_survive_reordering(name):
    # Frame i is grey level 40 + 8 i: a frame out of place is 8 levels off. Twenty frames are several groups.
    frames = np.empty((20, 32, 32, 3), np.uint8)
    frames[:] = (40 + 8 * np.arange(20))[:, None, None, None]
    result = codecs.CODECS[name](frames, **KNOBS[name][0], gop=7)
    assert np.abs(result.frames.mean(axis=(1, 2, 3)) - frames[:, 0, 0, 0]).max() < 3.0


@pytest.mark.parametrize("subsampling", codecs.SUBSAMPLINGS)
def test_jpeg_equals_pillow(subsampling):
    frames = make_frames(2)
    result = codecs.jpeg(frames, 35, subsampling)
    size_bytes = 0
    for index, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="JPEG", quality=35, subsampling=subsampling)
        size_bytes += len(buffer.getvalue())
        with Image.open(buffer) as image:
            np.testing.assert_array_equal(result.frames[index], np.asarray(image))
    assert result.size_bytes == size_bytes
    np.testing.assert_array_equal(
        result.quantisers, np.full((2, 3, 4), quantiser.jpeg_quality_log2_step(35), np.float32)
    )


def test_jpeg2000_keeps_its_ratio():
    frames = make_frames(2, 256, 256)
    assert codecs.jpeg2000(frames, 24).size_bytes == pytest.approx(frames.size / 24, rel=0.05)


def test_h264_quantisers_are_the_bitstreams(monkeypatch):
    # Ask x264 for a constant QP by its own option. It codes I frames at qp - 3 (ipratio 1.4) and P frames at qp.
    monkeypatch.setattr(codecs, "_crf_options", lambda *_: {"qp": "30"})
    result = codecs.h264(make_frames(3), crf=0, b_frames=0)
    np.testing.assert_allclose(result.quantisers[0], (27 - 4) / 6, rtol=1e-6)
    np.testing.assert_allclose(result.quantisers[1:], (30 - 4) / 6, rtol=1e-6)


def test_h264_b_frames_are_coarser():
    result = codecs.h264(make_frames(9), crf=28)
    frame_means = result.quantisers.mean(axis=(1, 2))
    assert frame_means[1:].max() > frame_means[0]


@pytest.mark.parametrize(("name", "codec_name"), [("mpeg2", "mpeg2video"), ("mpeg4", "mpeg4")])
def test_mpeg_quantisers_are_the_scale(name, codec_name):
    # Also in B-frames and in the last frame, which ffmpeg gives without QPs on a flush. ffmpeg exports twice the scale.
    result = codecs.CODECS[name](make_frames(6), qscale=6)
    expected = quantiser.log2_step_from_qp(np.float32([12]), codec_name)
    np.testing.assert_allclose(result.quantisers, np.full((6, 3, 4), expected[0]), rtol=1e-6)


def test_h264_does_not_depend_on_what_memory_held():
    # On one thread and with AVX-512, x264 gave several results at this width before it was kept to AVX2.
    frames = make_frames(6, 144, 176)
    results = set()
    for index in range(12):
        rubbish = [np.full(1000 * (index + 1), 37 * index % 251, np.uint8) for _ in range(50)]
        results.add(codecs.h264(frames, crf=24).frames.tobytes())
        del rubbish
    assert len(results) == 1


@pytest.mark.parametrize("shape", [(3, 8, 8), (5, 48, 64), (5, 80, 64)])
def test_small_h265_does_not_vary(shape):
    # One column of coding tree units made x265 vary in one run of five, and write outside its memory.
    frames = make_frames(*shape)
    assert len({codecs.h265(frames, crf=18).frames.tobytes() for _ in range(20)}) == 1


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_more_chroma_is_nearer(name):
    # The texture's chroma is as fine as its luma, so halving it costs more than the quantiser does.
    frames = make_frames(2, 47, 63)
    errors = [
        error(frames, codecs.CODECS[name](frames, crf=10, pix_fmt=pix_fmt))
        for pix_fmt in ("yuv444p", "yuv422p", "yuv420p")
    ]
    assert errors[0] < 20 < errors[1] < errors[2]


def test_tall_frames_keep_their_colours():
    # Above 576 lines an unlabelled stream is read as BT.709; MPEG-4 has no label.
    frames = np.full((1, 592, 32, 3), (200, 30, 40), np.uint8)
    for name in ("mpeg4", "h264"):
        result = codecs.CODECS[name](frames, **KNOBS[name][0])
        assert np.abs(result.frames.astype(int) - frames).max() <= 4


def test_frame_rate_and_groups_matter():
    frames = make_frames(12)
    assert codecs.h264(frames, crf=26, gop=1).size_bytes > codecs.h264(frames, crf=26).size_bytes
    film = Fraction(24000, 1001)
    assert codecs.mpeg2(frames, qscale=6, frame_rate=film).frames.shape == frames.shape


@pytest.mark.parametrize("name", KNOBS)
def test_no_noise(name, capfd):
    codecs.CODECS[name](make_frames(2), **KNOBS[name][1])
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("jpeg", {"quality": 0}, r"`quality` in \[1, 100\]. Received: quality=0"),
        ("jpeg", {"quality": 101}, r"`quality` in \[1, 100\]. Received: quality=101"),
        ("jpeg", {"quality": 50, "subsampling": "4:1:1"}, r"4:4:4, 4:2:2, 4:2:0. Received: subsampling='4:1:1'"),
        ("jpeg2000", {"ratio": 0.5}, r"`ratio` in \[1, 1000\]. Received: ratio=0.5"),
        ("webp", {"quality": -1}, r"`quality` in \[0, 100\]. Received: quality=-1"),
        ("mpeg2", {"qscale": 0}, r"`qscale` in \[1, 31\]. Received: qscale=0"),
        ("mpeg4", {"qscale": 32}, r"`qscale` in \[1, 31\]. Received: qscale=32"),
        ("mpeg4", {}, r"exactly one of `qscale` and `bitrate_kbps`. Received: qscale=None, bitrate_kbps=None"),
        ("h264", {"crf": 20, "bitrate_kbps": 100}, r"exactly one of .* Received: crf=20, bitrate_kbps=100"),
        ("h264", {"crf": 52}, r"`crf` in \[0, 51\]. Received: crf=52"),
        ("h264", {"crf": float("nan")}, r"`crf` in \[0, 51\]. Received: crf=nan"),
        ("h264", {"crf": 20, "preset": "placebo"}, r"`preset` to be one of .* Received: preset='placebo'"),
        ("h264", {"crf": 20, "pix_fmt": "nv12"}, r"`pix_fmt` to be one of .* Received: pix_fmt='nv12'"),
        ("h264", {"crf": 20, "gop": 0}, r"`gop` in \[1, 600\]. Received: gop=0"),
        ("h264", {"crf": 20, "b_frames": 17}, r"`b_frames` in \[0, 16\]. Received: b_frames=17"),
        ("h264", {"crf": 20, "frame_rate": 0}, r"`frame_rate` in \[1, 240\]. Received: frame_rate=0"),
        ("h264", {"bitrate_kbps": 0}, r"`bitrate_kbps` in \[1, 1000000\]. Received: bitrate_kbps=0"),
        ("mpeg2", {"qscale": 2, "frame_rate": 7}, r"'mpeg2video' accepts. Received: .*frame_rate=7"),
        ("h265", {"crf": -1}, r"`crf` in \[0, 51\]. Received: crf=-1"),
        ("vp9", {"crf": 64}, r"`crf` in \[0, 63\]. Received: crf=64"),
        ("vp9", {"crf": 30, "speed": 9}, r"`speed` in \[0, 8\]. Received: speed=9"),
        ("av1", {"crf": 0}, r"`crf` in \[1, 63\]. Received: crf=0"),
        ("av1", {"crf": 30, "speed": 14}, r"`speed` in \[0, 13\]. Received: speed=14"),
    ],
)
def test_knobs_out_of_range(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        codecs.CODECS[name](make_frames(1), **knobs)


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 16, 16, 3), np.float32),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((2, 16, 16, 4), np.uint8),
        np.zeros((0, 16, 16, 3), np.uint8),
    ],
)
def test_frames_out_of_range(name, frames):
    with pytest.raises(ValueError, match="Expected `frames` to be uint8 RGB .* Received: frames.dtype="):
        codecs.CODECS[name](frames, **KNOBS[name][0])


def test_missing_libraries_are_named(monkeypatch):
    def lacks(name, mode):
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av, "Codec", lacks)
    with pytest.raises(ValueError, match="PyAV with the encoder 'libx265'; the installed one lacks it. Received: av"):
        codecs.h265(make_frames(1), crf=20)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ValueError, match="Pillow with the codec 'webp'; the installed one lacks it. Received: PIL"):
        codecs.webp(make_frames(1), 20)
