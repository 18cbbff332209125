import numpy as np
import pytest
from PIL import Image

from training import drawings
from training.motion import is_drawing, pan_over, scroll_over, soften_and_grain


def _shift(first, second):
    """How far `second` lies from `first`, whole pixels, by phase correlation under a window."""
    window = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    spectra = [np.fft.fft2((each[..., 1] - each[..., 1].mean()) * window) for each in (first, second)]
    cross = spectra[0].conj() * spectra[1]
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    found = np.unravel_index(peak.argmax(), peak.shape)
    return np.array([(value + size // 2) % size - size // 2 for value, size in zip(found, peak.shape, strict=True)])


@pytest.fixture(scope="module")
def photograph(photo):
    return Image.fromarray(photo(300, 400))


def test_shift_by_hand(photo):
    picture = photo(80, 90)
    # What was at (5, 3) of the first is at (0, 0) of the second.
    np.testing.assert_array_equal(_shift(picture[:64, :64], picture[5:69, 3:67]), [-5, -3])


def test_shape_and_seed(photograph):
    clips = [pan_over(np.random.default_rng(seed), photograph, 64, 5) for seed in (1, 1, 2)]
    assert clips[0].shape == (5, 64, 64, 3)
    assert clips[0].dtype == np.uint8
    np.testing.assert_array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


def test_frames_move_along_a_line(photograph):
    moving = still = 0
    for seed in range(20):
        clip = pan_over(np.random.default_rng(seed), photograph, 96, 6)
        still += all((clip[index] == clip[index + 1]).all() for index in range(5))
        steps = np.array([_shift(clip[index], clip[index + 1]) for index in range(5)])
        total = steps.sum(axis=0)
        if np.linalg.norm(total) < 5:
            continue
        moving += 1
        # No step goes back by more than rounding, and their sum is what the first and the last frame say.
        direction = total / np.linalg.norm(total)
        assert (steps @ direction).min() >= -1.0, seed
        if np.linalg.norm(total) < 20:
            assert np.abs(_shift(clip[0], clip[-1]) - total).max() <= 3, seed
    assert moving >= 5
    # A window that starts in a corner and wants to leave stays where it is: few do.
    assert still <= 2


@pytest.mark.parametrize("size", [(64, 64), (80, 72), (300, 64), (150, 200)])
def test_nothing_but_the_photograph_is_seen(size):
    """White all over: a corner of the window outside it would be black. Noise and rounding leave it light."""
    photograph = Image.new("RGB", size, (255, 255, 255))
    for seed in range(40):
        assert pan_over(np.random.default_rng(seed), photograph, 64, 12).min() > 220, seed


def test_brightness_is_kept():
    # Bicubic sampling and reduction keep the mean; noise has none.
    plain = Image.new("RGB", (200, 200), (100, 50, 200))
    for seed in range(5):
        clip = pan_over(np.random.default_rng(seed), plain, 64, 3)
        np.testing.assert_allclose(clip.mean(axis=(0, 1, 2)), [100, 50, 200], atol=0.5)


def test_a_photograph_is_no_drawing(photograph):
    assert not is_drawing(photograph)


def test_photograph_is_too_small():
    with pytest.raises(ValueError, match=r"Expected a photograph of at least 64 pixels. Received: size=\(100, 63\)"):
        pan_over(np.random.default_rng(0), Image.new("RGB", (100, 63)), 64, 3)


def test_softening_takes_detail_away_and_grain_adds_it(photo):
    frames = np.stack([photo(64, 80)] * 3)

    def detail(clip):
        return np.abs(np.diff(clip.astype(float), axis=2)).mean()

    untouched = soften_and_grain(np.random.default_rng(0), frames, 0.0, 0.0)
    np.testing.assert_array_equal(untouched, frames)
    grains = []
    for seed in range(10):
        soft = soften_and_grain(np.random.default_rng(seed), frames, 1.0, 0.0)
        np.testing.assert_array_equal(soft, [soft[0]] * 3)
        assert detail(soft) < detail(frames)
        grainy = soften_and_grain(np.random.default_rng(seed), frames, 0.0, 1.0)
        assert grainy.dtype == np.uint8
        # New in every frame, and on either side of what was there.
        grain = grainy.astype(float) - frames
        grains.append(grain.std())
        if grain.std() > 1.0:
            assert abs(np.corrcoef(grain[0].ravel(), grain[1].ravel())[0, 1]) < 0.1
            assert abs(grain[(frames > 30) & (frames < 225)].mean()) < 0.2
    assert min(grains) < 2.0 < max(grains)


def test_drawings_scroll_by_whole_pixels():
    """Every colour of a clip is one of the drawing, most clips move, and parts of all stand still."""
    drawing = drawings.draw(np.random.default_rng(2), "chart", 160, 128)

    def numbers(pixels):
        return pixels.astype(int) @ [1 << 16, 1 << 8, 1]

    assert is_drawing(drawing)
    still = []
    for seed in range(12):
        clip = scroll_over(np.random.default_rng(seed), drawing, 96, 8)
        assert (clip.shape, clip.dtype) == ((8, 96, 96, 3), np.uint8)
        assert np.isin(numbers(clip), numbers(np.asarray(drawing))).all()
        still.append(np.mean((np.diff(clip.astype(int), axis=0) == 0).all(-1)))
    assert min(still) < 0.9 and max(still) > 0.95
    with pytest.raises(ValueError, match=r"at least 96 pixels. Received: size=\(160, 95\)"):
        scroll_over(np.random.default_rng(0), drawing.crop((0, 0, 160, 95)), 96, 8)
