import math

import numpy as np
import pytest

from keras_deartifact.image import luma
from keras_deartifact.metrics import ms_ssim, ssim


def test_by_hand():
    # Flat pictures: contrast and structure are 1 at every scale, and the luminance counts at the coarsest alone.
    original, restored = np.full((161, 200), 100, np.uint8), np.full((161, 200), 110, np.uint8)
    c1 = 2.55**2
    luminance = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
    assert ms_ssim(original, restored) == pytest.approx(luminance**0.1333, abs=1e-12)
    assert luminance == pytest.approx(ssim(original, restored), abs=1e-12)


def test_contrast_by_hand():
    # Stripes 64 pixels wide, against a flat picture of their mean: cs = c2 / (variance + c2), hardly anything where a
    # window crosses an edge, 1 elsewhere. A picture with ten times less contrast keeps more of it.
    stripes = np.where(np.arange(320) // 64 % 2, 200, 100).astype(np.uint8)
    original = np.tile(stripes, (320, 1))
    weak = (150 + (original.astype(int) - 150) // 10).astype(np.uint8)
    flat = np.full_like(original, 150)
    assert ms_ssim(original, flat) < ms_ssim(original, weak) < 1


@pytest.mark.parametrize("size", [(161, 203), (176, 192)])
def test_against_tensorflow(size, photo):
    tf = pytest.importorskip("tensorflow")
    original = luma(photo(*size, seed=1))
    for restored in (original // 32 * 32 + 16, luma(photo(*size, seed=2))):
        theirs = tf.image.ssim_multiscale(original[..., None], restored[..., None], max_val=255)
        # TensorFlow computes in float32; it halves an odd side as we do.
        assert ms_ssim(original, restored) == pytest.approx(float(theirs), abs=5e-5)


def test_golden_value(photo):
    # From this implementation, after it had met TensorFlow's.
    original = photo(161, 203, seed=1)
    assert ms_ssim(original, original // 32 * 32 + 16) == pytest.approx(0.975533973, abs=1e-8)


def test_a_negative_has_no_structure_in_common(photo):
    original = photo(161, 203)
    assert ms_ssim(original, 255 - original) == 0


def test_symmetric(photo):
    first, second = photo(170, 180, seed=1), photo(170, 180, seed=2)
    assert ms_ssim(first, second) == pytest.approx(ms_ssim(second, first), abs=1e-12)


def test_least_size():
    flat = np.zeros((161, 161), np.uint8)
    assert math.isclose(ms_ssim(flat, flat), 1)
    with pytest.raises(ValueError, match=r"at least 161x161 pixels\. Received: .*shape=\(160, 400\)"):
        ms_ssim(np.zeros((160, 400), np.uint8), np.zeros((160, 400), np.uint8))
