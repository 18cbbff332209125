import numpy as np
import pytest

from keras_deartifact import image


def test_to_float_by_hand():
    frames = np.array([0, 51, 255], np.uint8)
    np.testing.assert_array_equal(image.to_float(frames), np.array([0, 0.2, 1], np.float32))
    deep = np.array([0, 13107, 65535], np.uint16)
    np.testing.assert_array_equal(image.to_float(deep), np.array([0, 0.2, 1], np.float32))
    assert image.to_float(frames).dtype == image.to_float(deep).dtype == np.float32


def test_to_uint8_rounds_half_up_and_clips():
    # 0.5 / 255 and so on are no binary fractions; a peak of 255 times k / 510 is exact in float64.
    levels = np.array([-3, 0, 0.49, 0.5, 1.5, 2.5, 254.49, 254.5, 255, 300])
    expected = np.array([0, 0, 0, 1, 2, 3, 254, 255, 255, 255])
    np.testing.assert_array_equal(image.to_uint8(levels / 255), expected)
    np.testing.assert_array_equal(image.to_uint8(np.array([-0.1, 0.25, 7], np.float16)), [0, 64, 255])


@pytest.mark.parametrize(("back", "dtype"), [(image.to_uint8, np.uint8), (image.to_uint16, np.uint16)])
def test_integer_round_trip_is_exact(back, dtype):
    frames = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(1, -1, 1)
    restored = back(image.to_float(frames))
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, frames)


def test_conversions_leave_their_input_alone():
    images = np.full((2, 2, 3), 0.3, np.float32)
    image.to_uint8(images)
    np.testing.assert_array_equal(images, np.float32(0.3))


def test_dtypes_are_checked():
    with pytest.raises(ValueError, match=r"uint8 or uint16\. Received: frames\.dtype=float32"):
        image.to_float(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"float dtype\. Received: images\.dtype=uint8"):
        image.to_uint8(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"float dtype\. Received: images\.dtype=int64"):
        image.to_uint16(np.zeros((2, 2, 3), np.int64))


@pytest.mark.parametrize(
    ("rgb", "ycbcr"),
    [
        ([0, 0, 0], [0, 0.5, 0.5]),
        ([1, 1, 1], [1, 0.5, 0.5]),
        ([1, 0, 0], [0.299, 0.5 - 0.299 / 1.772, 1]),
        ([0, 0, 1], [0.114, 1, 0.5 - 0.114 / 1.402]),
        ([0, 1, 0], [0.587, 0.5 - 0.587 / 1.772, 0.5 - 0.587 / 1.402]),
    ],
)
def test_ycbcr_by_hand(rgb, ycbcr):
    images = np.array(rgb, np.float64).reshape(1, 1, 3)
    np.testing.assert_allclose(image.rgb_to_ycbcr(images).ravel(), ycbcr, atol=1e-12)
    np.testing.assert_allclose(image.ycbcr_to_rgb(image.rgb_to_ycbcr(images)), images, atol=1e-12)


def test_ycbcr_agrees_with_libjpeg(photo):
    from PIL import Image

    frames = photo(32, 48)
    theirs = np.asarray(Image.fromarray(frames).convert("YCbCr")).astype(int)
    ours = image.to_uint8(image.rgb_to_ycbcr(image.to_float(frames))).astype(int)
    # libjpeg centres chroma on 128, not 127.5, and adds in fixed point.
    assert np.abs(ours - theirs).max() <= 1


def test_ycbcr_keeps_dtype_and_leading_axes():
    images = np.random.default_rng(0).random((2, 3, 4, 5, 3)).astype(np.float32)
    converted = image.rgb_to_ycbcr(images)
    assert converted.dtype == np.float32
    assert image.ycbcr_to_rgb(converted).dtype == np.float32
    np.testing.assert_array_equal(converted[1, 2], image.rgb_to_ycbcr(images[1, 2]))
    np.testing.assert_allclose(image.ycbcr_to_rgb(converted), images, atol=1e-6)
    with pytest.raises(ValueError, match=r"\(\.\.\., height, width, 3\)\. Received: images\.shape=\(4, 5, 1\)"):
        image.rgb_to_ycbcr(images[0, 0, ..., :1])
    with pytest.raises(ValueError, match=r"Received: images\.shape=\(3,\)"):
        image.ycbcr_to_rgb(images[0, 0, 0, 0])


def test_luma_by_hand():
    frames = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30], [1, 1, 0]]], np.uint8)
    # 76.245, 149.685, 29.07, 255, 18.15, 0.886
    np.testing.assert_array_equal(image.luma(frames), [[76, 150, 29, 255, 18, 1]])
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(image.luma(grey), grey[..., 0])
    assert image.luma(np.zeros((2, 5, 4, 6, 3), np.uint8)).shape == (2, 5, 4, 6)
    with pytest.raises(ValueError, match=r"dtype uint8\. Received: frames\.dtype=float64"):
        image.luma(frames / 255)
    with pytest.raises(ValueError, match=r"Received: frames\.shape=\(1, 6\)"):
        image.luma(frames[..., 0])


def test_pad_repeats_bottom_and_right():
    frames = np.arange(2 * 3 * 5 * 1, dtype=np.uint8).reshape(2, 3, 5, 1)
    padded = image.pad_to_multiple(frames, 4)
    assert padded.shape == (2, 4, 8, 1)
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(image.crop(padded, 3, 5), frames)
    np.testing.assert_array_equal(padded[:, 3, :5], frames[:, 2])
    np.testing.assert_array_equal(padded[:, :3, 5:], np.repeat(frames[:, :, 4:], 3, axis=2))
    np.testing.assert_array_equal(padded[:, 3, 5:], np.broadcast_to(frames[:, 2, 4:], (2, 3, 1)))
    assert image.pad_to_multiple(frames, 1) is frames


def test_pad_and_crop_check_their_arguments():
    frames = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"multiple >= 1\. Received: multiple=0"):
        image.pad_to_multiple(frames, 0)
    with pytest.raises(ValueError, match=r"channels\)\. Received: frames\.shape=\(4, 6\)"):
        image.pad_to_multiple(frames[..., 0], 2)
    with pytest.raises(ValueError, match=r"1x1 to 4x6 pixels\. Received: height=5, width=6"):
        image.crop(frames, 5, 6)
    with pytest.raises(ValueError, match=r"Received: height=0, width=6"):
        image.crop(frames, 0, 6)


SIZES = [(1, 1), (16, 16), (37, 500), (64, 64), (65, 63), (80, 129), (161, 97), (200, 48)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("tile", "margin"), [(64, 0), (64, 5), (64, 16), (96, 17)])
def test_tiles_cover_the_picture_once(height, width, tile, margin):
    covered = np.zeros((height, width), int)
    shapes = set()
    for source, inner, destination in image.tile_grid(height, width, tile, margin):
        covered[destination] += 1
        origin_row, origin_column = source[0].start, source[1].start
        assert origin_row % 16 == origin_column % 16 == 0
        part = np.empty((height, width))[source]
        shapes.add(tuple(-(-side // 16) * 16 for side in part.shape))
        assert part[inner].shape == covered[destination].shape
        for axis, size in enumerate((height, width)):
            assert source[axis].start + inner[axis].start == destination[axis].start
            assert source[axis].stop <= size
            assert source[axis].stop - source[axis].start <= tile
            # Either enough context or the picture's own border.
            assert inner[axis].start >= margin or source[axis].start == 0 == inner[axis].start
            assert source[axis].stop - destination[axis].stop >= margin or destination[axis].stop == size
    assert (covered == 1).all()
    assert len(shapes) == 1


def _network(frames, radius):
    """Zero padding, a box of the given radius after a step that only multiples of 4 shift with the input."""
    height, width = frames.shape[-3:-1]
    padded = image.pad_to_multiple(frames, 4)
    phase = np.arange(padded.shape[-3])[:, None] % 4 * 10 + np.arange(padded.shape[-2]) % 4
    weighted = padded * (1 + phase[..., None])
    framed = np.pad(weighted, [(0, 0)] * (frames.ndim - 3) + [(radius, radius), (radius, radius), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(framed, (2 * radius + 1, 2 * radius + 1), axis=(-3, -2))
    return image.crop(windows.sum(axis=(-1, -2)), height, width)


@pytest.mark.parametrize(("height", "width"), [(37, 130), (100, 64), (113, 150)])
@pytest.mark.parametrize("radius", [3, 16])
def test_tiles_give_the_whole_frame_result(height, width, radius):
    # Integers, so that equality is exact whatever the order of summation.
    frames = np.random.default_rng(1).integers(0, 256, (2, height, width, 1))
    tiled = np.empty_like(frames)
    for source, inner, destination in image.tile_grid(height, width, 64, radius):
        tiled[:, *destination] = _network(frames[:, *source], radius)[:, *inner]
    np.testing.assert_array_equal(tiled, _network(frames, radius))


def test_a_margin_that_is_too_small_shows():
    frames = np.random.default_rng(1).integers(0, 256, (100, 100, 1))
    tiled = np.empty_like(frames)
    for source, inner, destination in image.tile_grid(100, 100, 64, 16):
        tiled[destination] = _network(frames[source], 17)[inner]
    assert (tiled != _network(frames, 17)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 64, 8), "at least 1x1 pixels. Received: height=0, width=5"),
        ((9, 9, 64, -1), "margin >= 0. Received: margin=-1"),
        ((9, 9, 60, 8), "multiple of 16, at least 48. Received: tile=60"),
        ((9, 9, 32, 8), "multiple of 16, at least 48. Received: tile=32"),
    ],
)
def test_tile_grid_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        image.tile_grid(*arguments)
