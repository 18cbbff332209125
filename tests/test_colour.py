import av
import numpy as np
import pytest
from av.video.format import VideoFormat

from keras_deartifact import colour

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}


def noise_frame(pix_fmt: str, width: int, height: int, seed: int = 0) -> av.VideoFrame:
    """Every code value of the depth, also in the padding of each line."""
    frame = av.VideoFrame(width, height, pix_fmt)
    depth = frame.format.components[0].bits
    rng = np.random.default_rng(seed)
    for plane in frame.planes:
        codes = np.frombuffer(plane, np.uint8 if depth == 8 else "<u2")
        codes[:] = rng.integers(0, 2**depth, codes.size)
    return frame


def codes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """The frame's planes without padding, interleaved samples side by side."""
    depth = frame.format.components[0].bits
    planes = []
    packed = frame.format.is_rgb and len(frame.planes) == 1
    samples = (3 if frame.format.name.endswith("24") else 4) if packed else 1
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8 if depth == 8 else "<u2").reshape(plane.height, -1)
        planes.append(rows[:, : plane.width * (2 if frame.format.name == "nv12" and index else samples)].copy())
    return planes


def smooth_frame(pix_fmt: str, width: int = 96, height: int = 64) -> av.VideoFrame:
    """Slow ramps, so that the way chroma is interpolated cannot matter much."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
        y, x = np.mgrid[: plane.height, : rows.shape[1]]
        rows[:] = (100 + 40 * np.sin(0.5 * index + 2 * x / plane.width) + 20 * np.cos(y / plane.height)).astype(
            np.uint8
        )
    return frame


def rgb_reference(frame: av.VideoFrame, weights: tuple[float, float], full: bool) -> np.ndarray:
    luma, blue, red = (plane.astype(np.float64) for plane in codes_of(frame))
    step_y, step_x = luma.shape[0] // blue.shape[0], luma.shape[1] // blue.shape[1]
    blue, red = (plane.repeat(step_y, 0).repeat(step_x, 1) for plane in (blue, red))
    offset, luma_scale, chroma_scale = (0, 255, 255) if full else (16, 219, 224)
    luma, blue, red = (luma - offset) / luma_scale, (blue - 128) / chroma_scale, (red - 128) / chroma_scale
    kr, kb = weights
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return 255 * np.clip(np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], -1), 0, 1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_to_rgb_matches_the_matrix_and_range(pix_fmt, name, full):
    frame = smooth_frame(pix_fmt)
    frame.colorspace, frame.color_range = CODES[name], 2 if full else 1
    difference = colour.to_rgb(frame) - rgb_reference(frame, WEIGHTS[name], full)
    # The reference repeats chroma, swscale interpolates it: a level or so on a ramp, and no shift.
    assert np.abs(difference.mean((0, 1))).max() < 0.3
    assert np.abs(difference).mean() < 0.8


@pytest.mark.parametrize(("height", "name"), [(576, "bt601"), (578, "bt709")])
def test_unspecified_matrix_is_guessed_from_the_height(height, name):
    frame = smooth_frame("yuv444p", 32, height)
    assert frame.colorspace == 2
    difference = colour.to_rgb(frame) - rgb_reference(frame, WEIGHTS[name], full=False)
    assert np.abs(difference).max() < 1.0


def test_yuvj_is_full_range_without_a_flag():
    frame = smooth_frame("yuvj444p")
    difference = colour.to_rgb(frame) - rgb_reference(frame, WEIGHTS["bt601"], full=True)
    assert np.abs(difference).max() < 1.0


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "yuv444p10le", "yuvj420p", "gbrp", "rgb24"])
@pytest.mark.parametrize("colorspace", WEIGHTS)
def test_from_rgb_inverts_to_rgb(pix_fmt, colorspace):
    y, x = np.mgrid[:50, :70]
    rgb = np.stack([100 + x, 200 - y - x / 2, 80 + 2 * y], -1).astype(np.uint8)
    frame = colour.from_rgb(rgb, pix_fmt, colorspace)
    assert frame.format.name == pix_fmt
    assert frame.colorspace == (0 if "yuv" not in pix_fmt else CODES[colorspace])
    assert frame.color_range == (1 if pix_fmt.startswith("yuv") and "yuvj" not in pix_fmt else 2)
    back = colour.to_rgb(frame).astype(int)
    assert back.shape == rgb.shape
    assert np.abs(back - rgb).max() <= 4
    assert np.abs((back - rgb.astype(int)).mean((0, 1))).max() < 0.4


def test_from_rgb_rejects_other_arrays():
    with pytest.raises(ValueError, match=r"uint8 \(height, width, 3\).*float32"):
        colour.from_rgb(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="yuv420p.*Received: pix_fmt='yuyv422'"):
        colour.from_rgb(np.zeros((4, 4, 3), np.uint8), "yuyv422")
    with pytest.raises(ValueError, match="bt601"):
        colour.from_rgb(np.zeros((4, 4, 3), np.uint8), colorspace="rec709")


@pytest.mark.parametrize("size", [(33, 17), (48, 32)])
@pytest.mark.parametrize("pix_fmt", colour.SUPPORTED)
def test_zero_correction_returns_the_same_codes(pix_fmt, size):
    width, height = size
    frame = noise_frame(pix_fmt, width, height)
    result = colour.add_correction(frame, np.zeros((height, width, 3), np.float32))
    assert result.format.name == pix_fmt
    for before, after in zip(codes_of(frame), codes_of(result), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("pix_fmt", "black", "white"), [("gray", 16, 235), ("gray10le", 64, 940), ("gray12le", 256, 3760)]
)
def test_grey_range_is_honoured(pix_fmt, black, white):
    frame = av.VideoFrame(34, 18, pix_fmt)
    dtype = np.uint8 if pix_fmt == "gray" else "<u2"
    codes = np.frombuffer(memoryview(frame.planes[0]), dtype)
    for code, limited in ((black, 0), (white, 255), ((black + white) // 2, 127)):
        codes[:] = code
        frame.color_range = 1
        np.testing.assert_allclose(colour.to_rgb(frame), np.full((18, 34, 3), limited), atol=1)
        frame.color_range = 2
        peak = 2 ** frame.format.components[0].bits - 1
        np.testing.assert_allclose(colour.to_rgb(frame), np.full((18, 34, 3), 255 * code / peak), atol=0.5)


@pytest.mark.parametrize(
    ("pix_fmt", "color_range", "step"),
    [
        ("yuv420p", 1, 9),  # 10 * 219 / 255 = 8.59
        ("yuv420p", 0, 9),
        ("yuv420p", 2, 10),
        ("yuvj420p", 0, 10),
        ("nv12", 1, 9),
        ("gray", 1, 9),
        ("yuv422p10le", 1, 34),  # 10 * 876 / 255 = 34.35
        ("yuv444p12le", 1, 137),  # 10 * 3504 / 255 = 137.4
        ("yuv420p10le", 2, 40),  # 10 * 1023 / 255 = 40.1
    ],
)
def test_a_grey_correction_moves_luma_alone(pix_fmt, color_range, step):
    frame = noise_frame(pix_fmt, 34, 18)
    frame.color_range = color_range
    result = colour.add_correction(frame, np.full((18, 34, 3), 10 / 255, np.float32))
    before, after = codes_of(frame), codes_of(result)
    top = 2 ** frame.format.components[0].bits - 1
    np.testing.assert_array_equal(after[0], np.minimum(before[0].astype(int) + step, top))
    for chroma_before, chroma_after in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(chroma_before, chroma_after)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_coloured_correction_follows_the_matrix(name):
    frame = av.VideoFrame(16, 16, "yuv444p")
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 100
    frame.colorspace, frame.color_range = CODES[name], 1
    correction = np.zeros((16, 16, 3), np.float32)
    correction[..., 2] = 0.2
    kr, kb = WEIGHTS[name]
    luma, blue, red = codes_of(colour.add_correction(frame, correction))
    assert set(luma.flat) == {round(100 + 219 * 0.2 * kb)}
    assert set(blue.flat) == {round(100 + 224 * 0.2 / 2)}
    assert set(red.flat) == {round(100 - 224 * 0.2 * kb / (2 * (1 - kr)))}


def test_rgb_planes_take_their_own_channel():
    correction = np.zeros((8, 8, 3), np.float32) + np.array([0.1, 0.2, -0.11], np.float32)
    for pix_fmt, depth in (("gbrp", 8), ("gbrp10le", 10), ("rgb24", 8), ("bgr0", 8), ("argb", 8)):
        frame = av.VideoFrame(8, 8, pix_fmt)
        for plane in frame.planes:
            np.frombuffer(plane, np.uint8 if depth == 8 else "<u2")[:] = 120
        scale = 2**depth - 1
        red, green, blue = (round(120 + scale * value) for value in (0.1, 0.2, -0.11))
        planes = codes_of(colour.add_correction(frame, correction))
        if pix_fmt == "rgb24":
            np.testing.assert_array_equal(planes[0].reshape(8, 8, 3)[3, 3], [red, green, blue])
        elif len(planes) == 1:
            expected = [blue, green, red, 120] if pix_fmt == "bgr0" else [120, red, green, blue]
            np.testing.assert_array_equal(planes[0].reshape(8, 8, 4)[3, 3], expected)
        else:
            assert [int(plane[3, 3]) for plane in planes] == [green, blue, red]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "nv12", "yuv411p", "yuv410p"])
def test_chroma_differences_are_averaged_over_their_block(pix_fmt):
    width, height = 21, 13
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 128
    frame.color_range, frame.colorspace = 2, 6
    correction = np.random.default_rng(1).uniform(-0.3, 0.3, (height, width, 3)).astype(np.float32)
    layout = VideoFormat(pix_fmt, 16, 16)
    step_x, step_y = 16 // layout.chroma_width(), 16 // layout.chroma_height()
    luma = correction @ [0.299, 0.587, 0.114]
    blue, red = (correction[..., 2] - luma) / 1.772, (correction[..., 0] - luma) / 1.402
    planes = codes_of(colour.add_correction(frame, correction))
    if pix_fmt == "nv12":
        planes = [planes[0], planes[1][:, 0::2], planes[1][:, 1::2]]
    np.testing.assert_array_equal(planes[0], np.rint(128 + 255 * luma))
    for plane, difference in zip(planes[1:], (blue, red), strict=True):
        # Blocks inside the frame; those cut by its edge average what an edge-replicated block holds.
        for y, x in ((0, 0), (height // step_y - 1, width // step_x - 1)):
            block = difference[y * step_y : (y + 1) * step_y, x * step_x : (x + 1) * step_x]
            assert int(plane[y, x]) == round(128 + 255 * float(block.mean()))


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("code", [1, 4, 5, 6, 7, 9, 10])
@pytest.mark.parametrize("sampling", ["420", "444"])
def test_a_correction_is_that_of_exact_arithmetic_within_a_code(sampling, code, full, depth):
    weights = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
    kr, kb = weights.get(code, (0.2627, 0.0593))
    frame = noise_frame(f"yuv{sampling}p{'' if depth == 8 else f'{depth}le'}", 32, 16, seed=code)
    frame.colorspace, frame.color_range = code, 2 if full else 1
    correction = np.random.default_rng(depth).normal(0, 0.1, (16, 32, 3)).astype(np.float32)
    planes = codes_of(colour.add_correction(frame, correction))
    red, green, blue = (correction[..., channel].astype(np.float64) for channel in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    scales = (2**depth - 1,) * 3 if full else tuple(each * 2 ** (depth - 8) for each in (219, 224, 224))
    differences = [luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    if sampling == "420":
        differences[1:] = [each.reshape(8, 2, 16, 2).mean((1, 3)) for each in differences[1:]]
    for before, after, scale, difference in zip(codes_of(frame), planes, scales, differences, strict=True):
        exact = np.clip(before + scale * difference, 0, 2**depth - 1)
        # Half a code of rounding, and float32.
        assert np.abs(after - exact).max() < 0.51


@pytest.mark.parametrize("pix_fmt", [each for each in colour.SUPPORTED if VideoFormat(each).components[-1].is_alpha])
def test_alpha_is_left_alone(pix_fmt):
    frame = noise_frame(pix_fmt, 34, 18)
    correction = np.random.default_rng(2).uniform(0.1, 0.3, (18, 34, 3)).astype(np.float32)
    before, after = codes_of(frame), codes_of(colour.add_correction(frame, correction))
    if len(before) == 4:
        np.testing.assert_array_equal(after[3], before[3])
    else:
        alpha = pix_fmt.index("a")
        np.testing.assert_array_equal(after[0][:, alpha::4], before[0][:, alpha::4])
    assert (np.abs(after[0].astype(int) - before[0]) > 8).mean() > 0.5
    opaque = colour.from_rgb(np.zeros((18, 34, 3), np.uint8), pix_fmt)
    top = 2 ** opaque.format.components[0].bits - 1
    assert set((codes_of(opaque)[3] if len(before) == 4 else codes_of(opaque)[0][:, alpha::4]).flat) == {top}


def test_codes_are_clipped_and_the_input_is_left_alone():
    frame = noise_frame("yuv420p10le", 32, 16)
    before = codes_of(frame)
    white = codes_of(colour.add_correction(frame, np.full((16, 32, 3), 5, np.float32)))
    black = codes_of(colour.add_correction(frame, np.full((16, 32, 3), -5, np.float32)))
    assert set(white[0].flat) == {1023}
    assert set(black[0].flat) == {0}
    for plane, same in zip(codes_of(frame), before, strict=True):
        np.testing.assert_array_equal(plane, same)


def test_attributes_are_kept_and_the_picture_type_is_open():
    frame = noise_frame("yuv420p", 16, 16)
    frame.pts, frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = 1234, 1, 2, 16, 9
    frame.pict_type = 1
    result = colour.add_correction(frame, np.zeros((16, 16, 3), np.float32))
    assert (result.pts, result.time_base) == (1234, frame.time_base)
    assert (result.colorspace, result.color_range, result.color_trc, result.color_primaries) == (1, 2, 16, 9)
    assert result.pict_type == 0


def test_bad_corrections_are_refused():
    frame = noise_frame("yuv420p", 16, 8)
    with pytest.raises(ValueError, match=r"float32 \(8, 16, 3\).*\(16, 8, 3\)"):
        colour.add_correction(frame, np.zeros((16, 8, 3), np.float32))
    with pytest.raises(ValueError, match="float64"):
        colour.add_correction(frame, np.zeros((8, 16, 3)))
    with pytest.raises(ValueError, match="finite"):
        colour.add_correction(frame, np.full((8, 16, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="yuv420p.*Received: pix_fmt='rgb565le'"):
        colour.add_correction(av.VideoFrame(16, 8, "rgb565le"), np.zeros((8, 16, 3), np.float32))
