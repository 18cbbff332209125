import numpy as np
import pytest

from keras_deartifact.image import luma
from keras_deartifact.metrics import flicker


def _flat(*levels):
    return [np.full((4, 6), level, np.uint8) for level in levels]


def test_by_hand():
    # Errors 0, 4, 4, -2: changes 0 -> 4, 4 -> 4, 4 -> -2.
    assert flicker(_flat(10, 20, 10, 30), _flat(10, 24, 14, 28)) == pytest.approx((4 + 0 + 6) / 3, abs=1e-12)
    # The whole range, both ways.
    assert flicker(_flat(0, 255), _flat(255, 0)) == 510


def test_a_quarter_of_the_pixels_by_hand():
    original, restored = _flat(50, 50), _flat(50, 50)
    restored[1][:2, :3] = 58
    assert flicker(original, restored) == pytest.approx(8 * np.sqrt(6 / 24), abs=1e-12)


def test_motion_of_the_original_does_not_count(photo):
    clip = [photo(24, 32, seed=seed) for seed in range(3)]
    assert flicker(clip, clip) == 0


def test_a_lasting_error_does_not_count():
    assert flicker(_flat(10, 90, 30), _flat(15, 95, 35)) == 0


def test_luma_is_what_counts(photo):
    original = [photo(24, 32, seed=seed) for seed in range(3)]
    restored = [frame // 8 * 8 for frame in original]
    value = flicker(original, restored)
    assert value > 0
    assert value == flicker(map(luma, original), map(luma, restored)) == flicker(restored, original)


def test_streams():
    alive = 0

    def frames():
        nonlocal alive
        for level in range(20):
            alive += 1
            yield np.full((4, 4), level, np.uint8)

    def checked():
        for index, frame in enumerate(frames()):
            assert alive <= 2 * index + 2
            yield frame

    assert flicker(checked(), frames()) == 0


@pytest.mark.parametrize(
    ("original", "restored", "message"),
    [
        (_flat(1, 2, 3), _flat(1, 2), r"equal length\. Received: restored_frames ends after 2 frames"),
        (_flat(1), _flat(1, 2), r"equal length\. Received: original_frames ends after 1 frames"),
        (_flat(1), _flat(1), r"at least 2 frames\. Received: 1"),
        ([], [], r"at least 2 frames\. Received: 0"),
        (_flat(1, 2), [np.zeros((4, 7), np.uint8)] * 2, r"restored\.shape=\(4, 7\)"),
        ([np.zeros((4, 4, 4), np.uint8)] * 2, [np.zeros((4, 4, 4), np.uint8)] * 2, r"shape=\(4, 4, 4\)"),
        (
            [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)],
            [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)],
            r"one size, \(4, 4\)\. Received: shape=\(4, 5\)",
        ),
    ],
)
def test_frames_are_checked(original, restored, message):
    with pytest.raises(ValueError, match=message):
        flicker(original, restored)
