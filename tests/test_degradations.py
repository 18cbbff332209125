import dataclasses

import numpy as np
import pytest

from keras_deartifact import codecs, quantiser
from keras_deartifact.degradations import VideoConfig, degrade_clip, random_encoding

SHAPE = (4, 64, 80, 3)
ALWAYS_TWICE = {"double_share": 1.0, "unknown_share": 0.0}


@pytest.fixture(scope="module")
def clip(photo):
    """Four frames of a picture that moves by two pixels a frame."""
    picture = photo(64, 96)
    return np.stack([picture[:, 2 * index : 2 * index + 80] for index in range(4)])


def _draws(config, count=4000, shape=(20, 272, 272, 3)):
    rng = np.random.default_rng(0)
    return [random_encoding(rng, shape, config) for _ in range(count)]


def test_the_same_seed_gives_the_same_choices():
    config = VideoConfig()
    assert _draws(config, 50) == _draws(config, 50)
    rng = np.random.default_rng(1)
    assert [random_encoding(rng, (20, 272, 272, 3), config) for _ in range(50)] != _draws(config, 50)


def test_codec_shares():
    names = [name for name, _ in _draws(VideoConfig())]
    for name, share in VideoConfig().codec_shares:
        # Four standard deviations of 4000 draws are at most 0.032.
        assert names.count(name) / len(names) == pytest.approx(share, abs=0.032)
    # They are weights: their sum does not matter.
    names = [name for name, _ in _draws(VideoConfig(codec_shares=(("h264", 3.0), ("mpeg4", 1.0))))]
    assert set(names) == {"h264", "mpeg4"}
    assert names.count("h264") / len(names) == pytest.approx(0.75, abs=0.03)


def test_crf_ranges():
    config = VideoConfig(codec_shares=(("h264", 1.0),), bitrate_share=0.0, crf_range=(24, 44), wide_share=0.25)
    values = np.array([settings["crf"] for _, settings in _draws(config)])
    assert (values.min(), values.max()) == config.wide_crf_range
    # 3/4 lie inside, and of the others those 21 of 41 that happen to.
    inside = ((values >= 24) & (values <= 44)).mean()
    assert inside == pytest.approx(0.75 + 0.25 * 21 / 41, abs=0.02)
    narrow = VideoConfig(codec_shares=(("h265", 1.0),), bitrate_share=0.0, wide_share=0.0, crf_range=(30, 32))
    assert {settings["crf"] for _, settings in _draws(narrow, 200)} == {30, 31, 32}


def test_qscale_range():
    config = VideoConfig(codec_shares=(("mpeg2", 1.0),), bitrate_share=0.0)
    values = np.array([settings["qscale"] for _, settings in _draws(config)])
    assert (values.min(), values.max()) == config.qscale_range
    # Even in the logarithm: half below the geometric mean, 7.2.
    assert (values <= 7).mean() == pytest.approx(np.log(7.5 / 2) / np.log(26 / 2), abs=0.035)


def test_bitrates_follow_the_number_of_pixels():
    config = VideoConfig(codec_shares=(("mpeg4", 1.0),), bitrate_share=1.0)
    values = np.array([settings["bitrate_kbps"] for _, settings in _draws(config)])
    pixel_rate = 272 * 272 * 25 / 1000
    assert values.min() >= 0.02 * pixel_rate - 0.5
    assert values.max() <= 0.4 * pixel_rate + 0.5
    assert (values < np.sqrt(0.02 * 0.4) * pixel_rate).mean() == pytest.approx(0.5, abs=0.035)
    # Encoders refuse next to nothing.
    assert {settings["bitrate_kbps"] for _, settings in _draws(config, 50, (4, 16, 16, 3))} == {8}


def test_every_knob_is_used_and_only_where_it_belongs():
    draws = _draws(VideoConfig())
    for name, settings in draws:
        rate = {"crf", "qscale", "bitrate_kbps"} & set(settings)
        assert len(rate) == 1
        assert ("crf" in settings) <= (name in ("h264", "h265"))
        assert ("qscale" in settings) <= (name in ("mpeg2", "mpeg4"))
        assert ("preset" in settings) == ("gop" in settings) == (name in ("h264", "h265"))
        assert ("pix_fmt" in settings) <= (name == "h264")
    bitrates = sum("bitrate_kbps" in settings for _, settings in draws)
    assert bitrates / len(draws) == pytest.approx(0.15, abs=0.025)
    h264 = [settings for name, settings in draws if name == "h264"]
    assert sum("pix_fmt" in settings for settings in h264) / len(h264) == pytest.approx(0.1, abs=0.025)
    assert {settings["preset"] for settings in h264} == {"veryfast", "fast", "medium", "slow"}
    assert {settings["gop"] for settings in h264} == {12, 50, 250}
    assert {settings["b_frames"] for settings in h264} == {0, 1, 2, 3}
    # x265's slow presets take far longer than what they change is worth.
    assert "slow" not in {settings["preset"] for name, settings in draws if name == "h265"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264", {"crf": 48, "preset": "slow", "gop": 250, "b_frames": 3, "pix_fmt": "yuv444p"}),
        ("h265", {"crf": 18, "preset": "veryfast", "gop": 12, "b_frames": 0}),
        ("mpeg2", {"bitrate_kbps": 8, "b_frames": 2}),
        ("mpeg4", {"bitrate_kbps": 8, "b_frames": 0}),
        ("mpeg2", {"qscale": 26, "b_frames": 2}),
        ("h264", {"bitrate_kbps": 8, "preset": "veryfast", "gop": 50, "b_frames": 1}),
        ("h265", {"bitrate_kbps": 8, "preset": "medium", "gop": 250, "b_frames": 3}),
    ],
)
def test_the_ends_of_the_ranges_encode(name, settings, clip):
    assert codecs.CODECS[name](clip, **settings).frames.shape == clip.shape


def test_the_same_seed_gives_the_same_clip(clip):
    results = [degrade_clip(np.random.default_rng(5), clip, VideoConfig()) for _ in range(2)]
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_single_encode(clip):
    config = VideoConfig(codec_shares=(("h264", 1.0),), double_share=0.0, unknown_share=0.0, bitrate_share=0.0)
    original, compressed, maps = degrade_clip(np.random.default_rng(0), clip, config)
    np.testing.assert_array_equal(original, clip)
    assert compressed.shape == clip.shape
    assert (compressed.dtype, maps.dtype) == (np.uint8, np.float32)
    assert maps.shape == (4, 4, 5)
    assert not np.array_equal(compressed, clip)
    # It is what the codec itself gives for the choices of that seed, its maps smoothed in time.
    rng = np.random.default_rng(0)
    rng.random()
    name, settings = random_encoding(rng, clip.shape, config)
    expected = codecs.CODECS[name](clip, **settings)
    np.testing.assert_array_equal(compressed, expected.frames)
    np.testing.assert_array_equal(maps, list(quantiser.smooth_in_time(expected.quantisers)))


def test_the_input_is_left_alone(clip):
    before = clip.copy()
    degrade_clip(np.random.default_rng(0), clip, VideoConfig(**ALWAYS_TWICE, misaligned_share=1.0))
    np.testing.assert_array_equal(clip, before)


def test_misaligned_clip(clip):
    config = VideoConfig(codec_shares=(("h264", 1.0),), crf_range=(18, 20), wide_share=0.0, bitrate_share=0.0,
                         misaligned_share=1.0, **ALWAYS_TWICE)  # fmt: skip
    original, compressed, maps = degrade_clip(np.random.default_rng(3), clip, config)
    assert original.shape == compressed.shape == (4, 48, 64, 3)
    assert maps.shape == (4, 3, 4)
    # The original is a window on what went in, off the grid each way, and the compressed clip shows the same window.
    offsets = [
        (row, column)
        for row in range(17)
        for column in range(17)
        if np.array_equal(clip[:, row : row + 48, column : column + 64], original)
    ]
    assert len(offsets) == 1
    assert 1 <= offsets[0][0] <= 15
    assert 1 <= offsets[0][1] <= 15
    errors = {
        (row, column): np.abs(np.roll(compressed, (row, column), (1, 2))[:, 2:-2, 2:-2].astype(int) - inside).mean()
        for inside in [original[:, 2:-2, 2:-2]]
        for row in range(-2, 3)
        for column in range(-2, 3)
    }
    assert min(errors, key=errors.get) == (0, 0)


def test_double_encode_without_a_crop(clip):
    config = VideoConfig(codec_shares=(("mpeg4", 1.0),), misaligned_share=0.0, **ALWAYS_TWICE)
    original, compressed, _ = degrade_clip(np.random.default_rng(0), clip, config)
    np.testing.assert_array_equal(original, clip)
    rng = np.random.default_rng(0)
    rng.random()
    name, settings = random_encoding(rng, clip.shape, config)
    once = codecs.CODECS[name](clip, **settings).frames
    rng.random()
    name, settings = random_encoding(rng, clip.shape, config)
    np.testing.assert_array_equal(compressed, codecs.CODECS[name](once, **settings).frames)


@pytest.mark.parametrize("config", [VideoConfig(codec_shares=(("h265", 1.0),)), VideoConfig(unknown_share=1.0)])
def test_unknown_quantisers(config, clip):
    _, _, maps = degrade_clip(np.random.default_rng(0), clip, config)
    assert maps.shape[1:] in ((4, 5), (3, 4))
    assert (maps == quantiser.DEFAULT_LOG2_STEP).all()


def test_clean_clips(clip):
    """Reduced, to the next smaller multiple of 16, and nothing else."""
    original, compressed, maps = degrade_clip(np.random.default_rng(0), clip, VideoConfig(clean_share=1.0))
    np.testing.assert_array_equal(original, compressed)
    # 64 / 1.4 = 45.7, 80 / 1.4 = 57.1.
    assert original.shape == (4, 32, 48, 3)
    np.testing.assert_array_equal(maps, np.zeros((4, 2, 3)))
    # It shows the same: block means of either.
    blocks = [each[0].reshape(2, -1, 2, each.shape[2] // 2, 3).mean((1, 3)) for each in (original, clip)]
    np.testing.assert_allclose(*blocks, atol=3.0)


def test_coarser_of_double_without_a_crop(clip):
    config = VideoConfig(codec_shares=(("h264", 1.0),), misaligned_share=0.0, bitrate_share=0.0, **ALWAYS_TWICE)
    coarser = dataclasses.replace(config, coarser_of_double=True)
    finer_first = 0
    for seed in range(6):
        _, _, last = degrade_clip(np.random.default_rng(seed), clip, config)
        _, compressed, both = degrade_clip(np.random.default_rng(seed), clip, coarser)
        rng = np.random.default_rng(seed)
        rng.random()
        name, settings = random_encoding(rng, clip.shape, config)
        first = np.stack(list(quantiser.smooth_in_time(codecs.CODECS[name](clip, **settings).quantisers)))
        np.testing.assert_array_equal(both, np.maximum(first, last))
        finer_first += bool((first < last).any())
    assert 0 < finer_first < 6


def test_coarser_of_double_on_a_shifted_grid(clip, monkeypatch):
    """The first encode's map is a slope, and what remains of it after the crop is the slope at the new blocks."""
    slope = np.arange(4.0)[:, None] + 0.25 * np.arange(5.0)
    real = codecs.CODECS["h264"]
    shapes = []

    def encode(frames, **settings):
        result = real(frames, **settings)
        shapes.append(frames.shape)
        steps = np.stack([slope] * len(frames)) if len(shapes) == 1 else np.zeros_like(result.quantisers)
        return dataclasses.replace(result, quantisers=steps.astype(np.float32))

    monkeypatch.setitem(codecs.CODECS, "h264", encode)
    config = VideoConfig(codec_shares=(("h264", 1.0),), misaligned_share=1.0, coarser_of_double=True, **ALWAYS_TWICE)
    original, _, maps = degrade_clip(np.random.default_rng(3), clip, config)
    assert shapes == [clip.shape, original.shape]
    row, column = next(
        (row, column)
        for row in range(1, 16)
        for column in range(1, 16)
        if np.array_equal(clip[:, row : row + 48, column : column + 64], original)
    )
    expected = slope[:3, :4] + row / 16 + 0.25 * column / 16
    np.testing.assert_allclose(maps, np.stack([expected] * 4), atol=1e-5)


def test_jpeg_first(clip):
    config = VideoConfig(codec_shares=(("h264", 1.0),), crf_range=(18, 18), wide_share=0.0, bitrate_share=0.0,
                         misaligned_share=0.0, still_first_share=1.0, **ALWAYS_TWICE)  # fmt: skip
    config = dataclasses.replace(config, coarser_of_double=True)
    _, _, maps = degrade_clip(np.random.default_rng(0), clip, config)
    steps = {np.float32(quantiser.jpeg_quality_log2_step(quality)) for quality in range(8, 91)}
    # Every frame has the one step of its JPEG, which is coarser than that of CRF 18.
    assert maps.min() == maps.max()
    assert maps.max() in steps
