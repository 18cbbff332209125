import numpy as np
import pytest

from keras_deartifact import image, limit


def noise(shape, rms):
    values = np.random.default_rng(3).choice([-1.0, 1.0], shape)
    return (rms / 255 * values).astype(np.float32)


def rms(values):
    return 255 * np.sqrt(np.mean(np.square(values, dtype=np.float64)))


@pytest.mark.parametrize(("log2_step", "share"), [(-1, 0.5), (0, 0.5), (0.25, 0.5), (2, 0.5), (2, 0.2), (4, 0.2)])
def test_a_change_is_held_to_its_share_of_the_quantisers_error(log2_step, share):
    correction = noise((32, 48, 3), 20.0)
    held = limit.limited(correction, np.full((2, 3), log2_step, np.float32), share)
    expected = share * np.sqrt(max(0, 4**log2_step - 1) / 12)
    assert rms(held) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(held, correction * expected / rms(correction), rtol=1e-5)


def test_what_is_small_enough_is_left_alone():
    correction = noise((32, 48, 3), 0.5)
    assert limit.limited(correction, np.full((2, 3), 4, np.float32), 0.2) is correction
    assert limit.limited(noise((16, 32, 3), 90.0), np.array([[-1, 0]], np.float32), np.inf).all()
    assert not limit.limited(np.zeros((16, 16, 3), np.float32), np.full((1, 1), -1, np.float32), 0.0).any()


def test_between_blocks_the_scale_is_interpolated():
    """Of two blocks side by side, the left may change by a quarter of what the right may."""
    correction = noise((16, 32, 3), 8.0)
    steps = np.array([[1.0, 3.0]], np.float32)
    scale = limit.limited(correction, steps, 1.0)[0, :, 0] / correction[0, :, 0]
    left, right = np.sqrt(3 / 12) / 8, np.sqrt(63 / 12) / 8
    np.testing.assert_allclose(scale[:8], left, rtol=1e-5)
    np.testing.assert_allclose(scale[-8:], right, rtol=1e-5)
    np.testing.assert_allclose(scale[8:-8], left + (right - left) * (np.arange(16) + 0.5) / 16, rtol=1e-5)


def test_a_tile_gives_what_the_whole_gives_but_for_its_outermost_blocks():
    correction, steps = noise((64, 96, 3), 8.0), np.random.default_rng(5).uniform(0, 4, (4, 6)).astype(np.float32)
    whole = limit.limited(correction, steps, 0.5)
    part = limit.limited(correction[:, 16:80], steps[:, 1:5], 0.5)
    np.testing.assert_array_equal(part[:, 8:-8], whole[:, 24:72])


def test_bands_and_places_do_not_matter(monkeypatch):
    generator = np.random.default_rng(2)
    correction = generator.normal(0, 0.05, (96, 64, 3)).astype(np.float32)
    steps = generator.uniform(2, 5, (6, 4)).astype(np.float32)
    whole = limit.limited(correction, steps, 0.5)
    monkeypatch.setattr(limit, "_ROWS", 1)
    np.testing.assert_allclose(limit.limited(correction, steps, 0.5), whole, rtol=1e-6)
    assert limit.limited(correction, steps, 0.5, out=correction) is correction
    np.testing.assert_allclose(correction, whole, rtol=1e-6)


GREY, RED = (np.broadcast_to(np.float32(colour), (16, 16, 3)) for colour in ((0.5, 0.5, 0.5), (0.6, 0.1, 0.1)))


def luma(rgb):
    return rgb @ np.array(image.LUMA_WEIGHTS, np.float32)


@pytest.mark.parametrize("log2_step", [0.0, 3.0])
def test_reduced_chroma_is_held_apart_from_luma(log2_step):
    correction = np.random.default_rng(1).normal(0, 0.1, (16, 16, 3)).astype(np.float32)
    held = limit.held(RED, correction, np.full((1, 1), log2_step, np.float32), (0.5, 2.0))
    chroma = held - luma(held)[..., None]
    assert rms(luma(held)) == pytest.approx(0.5 * np.sqrt((4**log2_step - 1) / 12), rel=1e-4, abs=1e-4)
    assert rms(chroma) == pytest.approx(2 * 2**log2_step / np.sqrt(12), rel=1e-4)


def test_what_is_grey_gets_no_colour():
    correction = np.random.default_rng(1).normal(0, 0.1, (16, 16, 3)).astype(np.float32)
    steps = np.full((1, 1), 3, np.float32)
    held = limit.held(GREY, correction, steps, (0.5, 2.0))
    np.testing.assert_array_equal(held, np.repeat(held[..., :1], 3, axis=-1))
    np.testing.assert_allclose(luma(held), luma(limit.held(RED, correction, steps, (0.5, 2.0))), atol=1e-6)
    np.testing.assert_array_equal(limit.held(GREY, correction, steps, 0.5), limit.limited(correction, steps, 0.5))


def grain(height, width):
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


def drawing(height, width):
    """Areas of 4x4 pixels, black or white."""
    areas = np.random.default_rng(4).integers(0, 2, (height // 4, width // 4, 1), np.uint8)
    return (255 * areas).repeat(4, 0).repeat(4, 1).repeat(3, 2)


@pytest.mark.parametrize(
    ("log2_step", "part"), [(-1.0, 0.0), (3.0, 0.0), (3.5, 0.25), (4.0, 0.5), (5.0, 1.0), (6.5, 1.0)]
)
def test_what_is_drawn_may_change_less_where_the_step_is_fine(log2_step, part):
    steps = np.full((4, 6), log2_step, np.float32)
    drawn, filmed = (limit.shares(make(64, 96), steps, 0.2) for make in (drawing, grain))
    assert drawn.shape == (4, 6)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, 0.2 * part, atol=1e-6)
    np.testing.assert_allclose(filmed, 0.2 if log2_step > 0 else 0.0)


def test_each_part_of_a_frame_is_looked_at_by_itself():
    picture = np.concatenate((drawing(160, 160), grain(160, 160)), axis=1)
    shares = limit.shares(picture, np.full((10, 20), 3, np.float32), 0.2)
    assert shares[:, :6].max() == 0
    np.testing.assert_allclose(shares[:, 14:], 0.2)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (44, 0), (92, 0), (0, 44), (36, 52)])
def test_bars_are_no_drawing(rows, columns):
    """What is soft has no edges of its own; those of the bars do not count."""
    picture = np.full((320, 320, 3), 16, np.uint8)
    wave = 120 + 50 * np.sin(np.arange(320) / 20)[:, None] * np.cos(np.arange(320) / 30)
    inside = slice(rows, 320 - rows), slice(columns, 320 - columns)
    picture[inside] = (wave[..., None] + np.random.default_rng(1).normal(0, 3, (320, 320, 3)))[inside].astype(np.uint8)
    shares = limit.shares(picture, np.full((20, 20), 3, np.float32), 0.2)
    np.testing.assert_allclose(shares[6:14, 6:14], 0.2)


def test_a_caption_weighs_on_what_is_beside_it_alone():
    picture = np.repeat((120 + np.random.default_rng(1).normal(0, 3, (320, 320, 1))).astype(np.uint8), 3, axis=2)
    picture[288:304, 96:224] = drawing(16, 128)
    shares = limit.shares(picture, np.full((20, 20), 3, np.float32), 0.2)
    assert shares[18, 8:12].max() < 0.05
    assert shares[:14].min() > 0.15


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_where_nothing_is_to_be_seen_nothing_may_change(channel):
    picture = np.full((80, 96, 3), (200, 100, 50), np.uint8)
    picture[40, 40, channel] += 1
    shares = limit.shares(picture, np.full((5, 6), 6, np.float32), 0.6)
    expected = np.zeros((5, 6))
    expected[1:4, 1:4] = 0.6
    np.testing.assert_allclose(shares, expected)


def test_a_share_for_each_block():
    correction, steps = noise((32, 48, 3), 8.0), np.full((2, 3), 4, np.float32)
    same = limit.limited(correction, steps, np.full((2, 3), 0.3, np.float32))
    np.testing.assert_array_equal(same, limit.limited(correction, steps, np.float32(0.3)))
    shares = np.zeros((2, 3), np.float32)
    shares[1, 2] = 1.0
    held = limit.limited(correction, steps, shares)
    assert not held[:8].any() and not held[:, :24].any()
    np.testing.assert_allclose(rms(held[24:, 40:]), np.sqrt(255 / 12), rtol=1e-5)
