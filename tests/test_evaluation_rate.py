import numpy as np
import pytest

from training.evaluation import rate
from training.evaluation.records import COMPRESSED, Record, Records

pytest.importorskip("bjontegaard")

RATES = (0.2, 0.4, 0.8, 1.6)


def _records(shift, slope=3.0, items=("a",), methods=("model",)):
    """Quality rises by `slope` with each doubling of the rate; a method has `shift` more than the compressed input."""
    made = []
    for index, each in enumerate(RATES):
        for number, item in enumerate(items):
            quality = 25.0 + slope * index + number
            values = {"psnr": quality, "bits_per_pixel": each * (1 + number)}
            made.append(Record("set", "colour", f"JPEG {index}", item, COMPRESSED, values))
            made += [
                Record("set", "colour", f"JPEG {index}", item, method, {"psnr": quality + shift}) for method in methods
            ]
    return Records(made)


def test_delta_rate_by_hand():
    # 3 dB for each doubling: 3 dB more are worth half the rate, 1.5 dB more 1 - 1 / sqrt(2) of it.
    assert rate.delta_rate(_records(3.0), "model", "psnr").mean == pytest.approx(-50.0, abs=1e-6)
    assert rate.delta_rate(_records(1.5), "model", "psnr").mean == pytest.approx(-100 * (1 - 0.5**0.5), abs=1e-6)
    assert rate.delta_rate(_records(0.0), "model", "psnr").mean == pytest.approx(0.0, abs=1e-9)
    assert rate.delta_rate(_records(-3.0), "model", "psnr").mean == pytest.approx(100.0, abs=1e-6)


def test_delta_rate_is_the_mean_over_items():
    found = rate.delta_rate(_records(3.0, items=("a", "b")), "model", "psnr")
    assert found.count == 2
    assert (found.mean, found.low, found.high) == pytest.approx((-50.0, -50.0, -50.0), abs=1e-6)


@pytest.mark.parametrize("records", [_records(0.0, slope=-1.0), _records(100.0), Records(_records(1.0).all[:6])])
def test_curves_that_do_not_compare_are_left_out(records):
    assert rate.delta_rate(records, "model", "psnr") is None


def test_mean_curves():
    compressed, restored = rate.curves(_records(1.0, items=("a", "b")), "psnr")
    assert (compressed.method, restored.method) == (COMPRESSED, "model")
    np.testing.assert_allclose(compressed.rates, 1.5 * np.array(RATES))
    np.testing.assert_allclose(compressed.quality, 25.5 + 3.0 * np.arange(4))
    np.testing.assert_allclose(restored.quality, np.array(compressed.quality) + 1.0)


def test_codec_of_a_setting():
    assert rate.codec_of("x264 CRF 34") == "x264 CRF"
