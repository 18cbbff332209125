import io

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import quantiser


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(16, 16, (1, 1)), (1, 17, (1, 2)), (48, 80, (3, 5)), (1080, 1920, (68, 120))],
)
def test_map_shape(height, width, expected):
    assert quantiser.map_shape(height, width) == expected


def test_constant_map():
    unknown = quantiser.constant_map(33, 16)
    assert unknown.shape == (3, 1)
    assert unknown.dtype == np.float32
    assert (unknown == quantiser.DEFAULT_LOG2_STEP).all()
    assert (quantiser.constant_map(33, 16, 2.5) == 2.5).all()


@pytest.mark.parametrize("quality", range(1, 101))
def test_jpeg_table_is_that_of_libjpeg(quality):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as picture:
        # Pillow gives tables in natural order since version 8.3.
        table = picture.quantization[0]
    np.testing.assert_array_equal(quantiser.jpeg_quality_table(quality), np.reshape(table, (8, 8)))
    assert quantiser.jpeg_quality_log2_step(quality) == quantiser.jpeg_table_log2_step(table)


def test_jpeg_table_by_hand():
    # Quality 10 scales by 5000 / 10 = 500 %: (16 * 500 + 50) // 100 = 80, and 61 * 5 = 305 is capped.
    coarse = quantiser.jpeg_quality_table(10)
    assert (coarse[0, 0], coarse[0, 1], coarse[1, 0], coarse[0, 7]) == (80, 55, 60, 255)
    # Quality 75 scales by 200 - 150 = 50 %: (11 * 50 + 50) // 100 = 6, rounded half up.
    fine = quantiser.jpeg_quality_table(75)
    assert (fine[0, 0], fine[0, 1], fine[7, 7]) == (8, 6, 50)
    assert (quantiser.jpeg_quality_table(100) == 1).all()


@pytest.mark.parametrize("quality", [0, 101, -3])
def test_jpeg_quality_out_of_range(quality):
    with pytest.raises(ValueError, match=rf"A JPEG quality is 1 to 100. Received: quality={quality}"):
        quantiser.jpeg_quality_table(quality)


def test_jpeg_log2_step_by_hand():
    # Twelve of the sixteen lowest frequencies at 2^3, four at 2^5: (12 * 3 + 4 * 5) / 16 = 3.5. The rest is left out.
    table = np.full((8, 8), 200)
    table[:4, :4] = 8
    table[3, :4] = 32
    assert quantiser.jpeg_table_log2_step(table) == pytest.approx(3.5, abs=1e-12)
    assert quantiser.jpeg_table_log2_step(list(table.flat)) == pytest.approx(3.5, abs=1e-12)


def test_jpeg_log2_step_range_and_order():
    steps = [quantiser.jpeg_quality_log2_step(quality) for quality in range(1, 101)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0.0
    # The docstring's anchor, and the same scale as H.264's.
    assert steps[9] == pytest.approx(6.3, abs=0.05)
    assert quantiser.log2_step_from_qp(np.float32(42), "h264") == pytest.approx(6.3, abs=0.05)
    # 16-bit tables can go beyond the range.
    assert quantiser.jpeg_table_log2_step([60000] * 64) == quantiser.MAXIMUM_LOG2_STEP


def test_estimated_jpeg_quality():
    for quality in range(1, 101):
        found = quantiser.estimated_jpeg_quality(quantiser.jpeg_quality_table(quality))
        # Up to quality 3 the tables are the same or nearly so, most of their steps at the limit, 255.
        np.testing.assert_array_equal(quantiser.jpeg_quality_table(found), quantiser.jpeg_quality_table(quality))
        assert found == quality or quality < 4
    # A table that is not libjpeg's: the same step everywhere. Quality 100 is 1 everywhere, and nothing else is nearer.
    assert quantiser.estimated_jpeg_quality([1] * 64) == 100
    with pytest.raises(ValueError, match="A JPEG quantisation table has 64 entries"):
        quantiser.estimated_jpeg_quality([1] * 63)


@pytest.mark.parametrize("table", [[1] * 63, [1] * 65, [0] + [1] * 63, []])
def test_jpeg_table_errors(table):
    with pytest.raises(ValueError, match="A JPEG quantisation table has 64 entries of at least 1. Received: table="):
        quantiser.jpeg_table_log2_step(table)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 92, 100])
def test_estimated_jpeg_quality_finds_libjpegs_own(quality):
    table = quantiser.jpeg_quality_table(quality)
    assert quantiser.estimated_jpeg_quality(table) == quality
    assert quantiser.estimated_jpeg_quality(table.ravel().tolist()) == quality


def test_estimated_jpeg_quality_of_another_table_is_near():
    # Twice the steps of quality 50 are those of quality 25.
    assert quantiser.estimated_jpeg_quality(2 * quantiser.jpeg_quality_table(50) + 1) in range(20, 26)


def test_estimated_jpeg_quality_errors():
    with pytest.raises(ValueError, match="64 entries of at least 1"):
        quantiser.estimated_jpeg_quality([0] * 64)


def test_h264_step_doubles_every_six_qp():
    steps = quantiser.log2_step_from_qp(np.arange(52, dtype=np.float32), "h264")
    assert steps.dtype == np.float32
    np.testing.assert_allclose(steps[6:] - steps[:-6], 1.0, atol=1e-6)
    assert steps[4] == 0.0
    # ISO/IEC 14496-10, Table 8-15 and its normalisation: Qstep(QP = 28) = 16.
    assert steps[28] == 4.0


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg1video", "mpeg4", "h263", "msmpeg4v3", "wmv2", "flv1"])
def test_mpeg_step_is_the_exported_code(codec):
    steps = quantiser.log2_step_from_qp(np.array([[0, 1, 2], [16, 62, 4]], np.float32), codec)
    np.testing.assert_allclose(steps, [[0, 0, 1], [4, np.log2(62), 2]], atol=1e-6)


def test_qp_is_clipped():
    # 10-bit H.264 goes down to QP -12.
    steps = quantiser.log2_step_from_qp(np.array([-12, 60], np.float32), "h264")
    np.testing.assert_array_equal(steps, [quantiser.MINIMUM_LOG2_STEP, quantiser.MAXIMUM_LOG2_STEP])


def test_unknown_codec():
    with pytest.raises(ValueError, match=r"Expected a codec of \[.*'h264', .*\]. Received: codec='hevc'"):
        quantiser.log2_step_from_qp(np.zeros((1, 1), np.float32), "hevc")


def _maps(*values, shape=(2, 3)):
    return [np.full(shape, value, np.float32) for value in values]


def test_smoothing_by_hand():
    # 4; 0.5 * 4 + 0.5 * 6 = 5; 0.5 * 5 + 0.5 * 2 = 3.5
    result = list(quantiser.smooth_in_time(_maps(4, 6, 2)))
    np.testing.assert_allclose([each[1, 2] for each in result], [4, 5, 3.5], atol=1e-6)
    # 0.75 * 4 + 0.25 * 6 = 4.5; 0.75 * 4.5 + 0.25 * 2 = 3.875
    result = list(quantiser.smooth_in_time(_maps(4, 6, 2), memory=0.75))
    np.testing.assert_allclose([each[0, 0] for each in result], [4, 4.5, 3.875], atol=1e-6)
    assert {each.dtype for each in result} == {np.dtype(np.float32)}


def test_smoothing_without_memory_changes_nothing():
    maps = [np.random.default_rng(seed).random((2, 2), np.float32) for seed in range(4)]
    np.testing.assert_array_equal(list(quantiser.smooth_in_time(maps, memory=0.0)), maps)


def test_smoothing_leaves_its_input_and_earlier_results_alone():
    maps = _maps(4, 6, 2)
    first, *_ = list(quantiser.smooth_in_time(maps))
    assert [each[0, 0] for each in maps] == [4, 6, 2]
    assert first[0, 0] == 4
    first[:] = 9
    assert maps[0][0, 0] == 4


def test_smoothing_starts_again_where_the_size_changes():
    result = list(quantiser.smooth_in_time(_maps(4, 6) + _maps(1, 3, shape=(1, 1))))
    assert [each.shape for each in result] == [(2, 3), (2, 3), (1, 1), (1, 1)]
    np.testing.assert_allclose([each[0, 0] for each in result], [4, 5, 1, 2], atol=1e-6)


@pytest.mark.parametrize("memory", [1.0, -0.1, float("nan")])
def test_smoothing_memory_out_of_range(memory):
    with pytest.raises(ValueError, match=rf"memory must lie in \[0, 1\). Received: memory={memory}"):
        list(quantiser.smooth_in_time(_maps(1), memory))


@pytest.mark.parametrize(("excess", "counts"), [(-3.0, False), (0.4, False), (0.6, True), (3.0, True)])
def test_a_prediction_counts_beyond_its_margin(excess, counts):
    stated = np.array([[2.0, 3.0, 4.0]], np.float32)
    # The medians are 3 and 3 + excess; the first block is told much coarser, the last much finer.
    predicted = np.array([[7.0, 3.0 + excess, 1.0]], np.float32)
    expected = np.array([[7.0, 3.0 + excess, 4.0]], np.float32) if counts else stated
    np.testing.assert_array_equal(quantiser.coarser(stated, predicted, 0.5), expected)


@pytest.mark.parametrize(("least", "counts"), [(4.9, True), (5.1, False)])
def test_a_prediction_counts_from_a_least_step_on(least, counts):
    stated, predicted = np.full((2, 2), 1, np.float32), np.full((2, 2), 5, np.float32)
    assert (quantiser.coarser(stated, predicted, 0.5, least) == (predicted if counts else stated)).all()


def test_one_step_of_smoothing():
    before, current = np.float32([[2.0, 4.0]]), np.float32([[4.0, 0.0]])
    np.testing.assert_array_equal(quantiser.smoothed(before, current), [[3.0, 2.0]])
    np.testing.assert_array_equal(quantiser.smoothed(before, current, 0.75), [[2.5, 3.0]])
    # Nothing before, or a video that changed its size.
    np.testing.assert_array_equal(quantiser.smoothed(None, current), current)
    np.testing.assert_array_equal(quantiser.smoothed(np.zeros((2, 2), np.float32), current), current)
