import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deartifact.image import luma
from keras_deartifact.metrics import (
    CLIP_METRICS,
    METRICS,
    NO_REFERENCE_CLIP_METRICS,
    NO_REFERENCE_METRICS,
    bits_per_pixel,
    psnr,
    psnr_b,
    psnr_y,
    ssim,
)

INPUTS = [
    *(f"live1/{name}.png" for name in ("bikes", "caps", "monarch", "carnivaldolls", "churchandcapitol", "statue")),
    *(f"classic5/{number}.png" for number in range(1, 6)),
]


def _load(path: Path, expected: dict[str, str]) -> np.ndarray:
    with Image.open(path) as picture:
        frame = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    grey = frame if frame.ndim == 2 else luma(frame)
    if hashlib.sha256(np.ascontiguousarray(grey).tobytes()).hexdigest() != expected["luma_sha256"]:
        pytest.skip(f"this decoder gives other pixels for {path.name} than the oracle's")
    return frame


@pytest.mark.parametrize("name", INPUTS)
def test_oracle(name, shared):
    oracle = json.loads((shared / "oracles/metrics.json").read_text())
    entry = (oracle["images"] | oracle["classic5"])[name]
    values = entry["jpeg_q10"]
    original = _load(shared / "data/eval" / name, entry["original"])
    restored = _load(shared / "oracles" / values["file"], values)
    keys = {"psnr_rgb": psnr, "psnr_y": psnr_y, "ssim": ssim, "psnr_b": psnr_b}
    compared = [key for key in keys if key in values]
    assert {"psnr_y", "ssim"} <= set(compared)
    for key in compared:
        assert keys[key](original, restored) == pytest.approx(values[key], abs=oracle["meta"]["tolerance"][key], rel=0)


def test_against_scikit_image(photo):
    metrics = pytest.importorskip("skimage.metrics")
    original, restored = photo(61, 83, seed=1), photo(61, 83, seed=2)
    # Both compute in float64; what is left is the order of summation.
    assert psnr(original, restored) == pytest.approx(metrics.peak_signal_noise_ratio(original, restored), abs=1e-9)
    theirs = metrics.structural_similarity(
        luma(original), luma(restored), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(original, restored) == pytest.approx(theirs, abs=1e-9)


def test_psnr_by_hand():
    original = np.zeros((2, 3, 3), np.uint8)
    restored = original.copy()
    restored[0, 0] = [9, 0, 0]
    # One squared error of 81 over 18 samples; in luma (2691 + 500) // 1000 = 3, so 9 over 6.
    assert psnr(original, restored) == pytest.approx(10 * math.log10(255**2 / 4.5), abs=1e-12)
    assert psnr_y(original, restored) == pytest.approx(10 * math.log10(255**2 / 1.5), abs=1e-12)
    assert psnr(np.full((1, 1), 255, np.uint8), np.zeros((1, 1), np.uint8)) == 0


def test_ssim_by_hand():
    # Two flat pictures: variances and covariance vanish, and only the means' term is left.
    original, restored = np.full((12, 13), 100, np.uint8), np.full((12, 13), 110, np.uint8)
    c1 = 2.55**2
    expected = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
    assert ssim(original, restored) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_negative_is_negative(photo):
    original = photo(40, 40)
    assert ssim(original, 255 - original) < 0


def test_psnr_b_by_hand():
    # Two flat halves that meet on the grid, 16x16: one of two edges carries a step of 10 on 16 rows.
    original = np.full((16, 16), 50, np.uint8)
    restored = original.copy()
    restored[:, 8:] = 60
    mse = 100 / 2
    # 16 steps of 100 over the 32 neighbours across an edge (16 across, 16 down); all others are 0.
    bef = 3 / 4 * (16 * 100 / 32)
    assert psnr_b(original, restored) == pytest.approx(10 * math.log10(255**2 / (mse + bef)), abs=1e-12)
    # The same step off the grid is no blocking.
    shifted = np.roll(restored, -4, axis=1)
    shifted[:, 12:] = 60
    assert psnr_b(original, shifted) == psnr_y(original, shifted)


def test_psnr_b_of_equal_pictures():
    flat = np.full((24, 24, 3), 7, np.uint8)
    assert psnr_b(flat, flat) == math.inf
    blocky = np.kron(np.arange(9).reshape(3, 3), np.ones((8, 8))).astype(np.uint8)
    assert math.isfinite(psnr_b(blocky, blocky))


def test_blocking_counts_against_psnr(photo):
    import io

    original = photo(64, 80)
    buffer = io.BytesIO()
    Image.fromarray(original).save(buffer, "JPEG", quality=5)
    with Image.open(buffer) as picture:
        compressed = np.asarray(picture)
    assert psnr_b(original, compressed) < psnr_y(original, compressed) - 0.1


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    def test_its_name(self, name):
        assert METRICS[name].__name__ == name

    def test_worse_is_lower(self, name, photo):
        original = photo(168, 184)
        noise = np.random.default_rng(0).normal(0, 1, original.shape)
        pictures = [np.clip(np.rint(original + level * noise), 0, 255).astype(np.uint8) for level in (2, 8, 32)]
        values = [METRICS[name](original, restored) for restored in pictures]
        assert values == sorted(values, reverse=True)
        assert all(type(value) is float for value in values)

    def test_equal_pictures(self, name):
        flat = np.full((168, 168, 3), 99, np.uint8)
        assert METRICS[name](flat, flat) == {"ssim": 1.0, "ms_ssim": 1.0}.get(name, math.inf)

    def test_grey_is_its_own_luma(self, name, photo):
        original, restored = luma(photo(168, 184, seed=1)), luma(photo(168, 184, seed=2))
        colour = METRICS[name](np.dstack([original] * 3), np.dstack([restored] * 3))
        assert METRICS[name](original, restored) == pytest.approx(colour, abs=1e-12)

    def test_leaves_its_arguments_alone(self, name, photo):
        original, restored = photo(168, 184, seed=1), photo(168, 184, seed=2)
        before = original.copy(), restored.copy()
        METRICS[name](original, restored)
        np.testing.assert_array_equal(original, before[0])
        np.testing.assert_array_equal(restored, before[1])

    @pytest.mark.parametrize(
        ("original", "restored", "message"),
        [
            (np.zeros((16, 16), np.float32), np.zeros((16, 16), np.uint8), r"Received: original\.dtype=float32"),
            (np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.int64), r"Received: restored\.dtype=int64"),
            (np.zeros((16, 16, 4), np.uint8), np.zeros((16, 16, 4), np.uint8), r"original\.shape=\(16, 16, 4\)"),
            (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), r"original\.shape=\(1, 16, 16, 3\)"),
            (np.zeros((0, 16), np.uint8), np.zeros((0, 16), np.uint8), r"original\.shape=\(0, 16\)"),
            (np.zeros((16, 16), np.uint8), np.zeros((16, 17), np.uint8), r"restored\.shape=\(16, 17\)"),
        ],
    )
    def test_arguments_are_checked(self, name, original, restored, message):
        with pytest.raises(ValueError, match=message):
            METRICS[name](original, restored)


@pytest.mark.parametrize("name", NO_REFERENCE_METRICS)
class TestEveryNoReferenceMetric:
    def test_its_name(self, name):
        assert NO_REFERENCE_METRICS[name].__name__ == name

    def test_noise_is_worse(self, name, photo):
        original = photo(192, 288)
        noise = np.random.default_rng(0).normal(0, 1, original.shape)
        pictures = [np.clip(np.rint(original + level * noise), 0, 255).astype(np.uint8) for level in (0, 16, 64)]
        values = [NO_REFERENCE_METRICS[name](image) for image in pictures]
        assert values == sorted(values)
        assert all(type(value) is float for value in values)

    @pytest.mark.parametrize("level", [0, 99, 255])
    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_constant_picture(self, name, level, channels):
        assert NO_REFERENCE_METRICS[name](np.full((192, 192, *channels), level, np.uint8)) == math.inf

    @pytest.mark.parametrize("period", [1, 2])
    def test_periodic_picture(self, name, period):
        # Products of neighbours have one sign only, so that a tail is empty.
        board = 255 * (np.indices((192, 288)) // period).sum(axis=0, dtype=np.uint8) % 2
        assert NO_REFERENCE_METRICS[name](board.astype(np.uint8)) >= 0

    def test_extreme_pictures_have_a_value(self, name):
        random = np.random.default_rng(0)
        for picture in (
            random.integers(0, 256, (192, 288)),
            random.integers(0, 2, (192, 288)),
            np.indices((192, 288))[0],
            np.eye(192, 288),
        ):
            assert not math.isnan(NO_REFERENCE_METRICS[name](picture.astype(np.uint8)))

    def test_grey_is_its_own_luma(self, name, photo):
        image = luma(photo(193, 291))
        assert NO_REFERENCE_METRICS[name](image) == NO_REFERENCE_METRICS[name](np.dstack([image] * 3))

    def test_layout_in_memory_does_not_matter(self, name, photo):
        image = photo(192, 288)
        assert NO_REFERENCE_METRICS[name](np.asfortranarray(image)) == NO_REFERENCE_METRICS[name](image)

    def test_leaves_its_argument_alone(self, name, photo):
        image = photo(192, 288)
        before = image.copy()
        NO_REFERENCE_METRICS[name](image)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((192, 288), np.float32), r"Received: image\.dtype=float32"),
            (np.zeros((192, 288), np.uint16), r"Received: image\.dtype=uint16"),
            (np.zeros((192, 288, 4), np.uint8), r"image\.shape=\(192, 288, 4\)"),
            (np.zeros((1, 192, 288, 3), np.uint8), r"image\.shape=\(1, 192, 288, 3\)"),
            (np.zeros((0, 16), np.uint8), r"image\.shape=\(0, 16\)"),
            (np.zeros((13, 192), np.uint8), r"expected image .*pixels\. Received: image\.shape=\(13, 192\)"),
        ],
    )
    def test_argument_is_checked(self, name, image, message):
        with pytest.raises(ValueError, match=message):
            NO_REFERENCE_METRICS[name](image)


@pytest.mark.parametrize("registry", [CLIP_METRICS, NO_REFERENCE_CLIP_METRICS])
def test_names_of_the_clip_metrics(registry):
    assert all(function.__name__ == name for name, function in registry.items())


def test_bits_per_pixel_by_hand():
    assert bits_per_pixel(1000, 20, 40) == 10
    assert bits_per_pixel(1000, 20, 40, frame_count=25) == 0.4
    assert bits_per_pixel(0, 1, 1) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 16, 16), "Received: size_bytes=-1"),
        ((1, 0, 16), "Received: height=0, width=16, frame_count=1"),
        ((1, 16, 16, 0), "Received: height=16, width=16, frame_count=0"),
    ],
)
def test_bits_per_pixel_checks(arguments, message):
    with pytest.raises(ValueError, match=message):
        bits_per_pixel(*arguments)


def test_least_sizes():
    with pytest.raises(ValueError, match=r"at least 11x11 pixels\. Received: .*shape=\(10, 40\)"):
        ssim(np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.uint8))
    with pytest.raises(ValueError, match=r"at least 9x9 pixels\. Received: .*shape=\(40, 8\)"):
        psnr_b(np.zeros((40, 8), np.uint8), np.zeros((40, 8), np.uint8))
