import numpy as np
import pytest

from training.evaluation.records import COMPRESSED, Record, Records, best_strengths, estimate


def _record(setting, item, method, **values):
    return Record("set", "colour", setting, item, method, values)


RECORDS = Records(
    [
        _record("JPEG 10", "a", COMPRESSED, psnr=20.0, niqe=5.0),
        _record("JPEG 10", "b", COMPRESSED, psnr=30.0),
        _record("JPEG 10", "a", "model", psnr=21.0),
        _record("JPEG 10", "b", "model", psnr=33.0),
        _record("JPEG 20", "a", COMPRESSED, psnr=25.0),
    ]
)


def test_questions_by_hand():
    ten = RECORDS.where(setting="JPEG 10")
    assert ten.names("method") == [COMPRESSED, "model"]
    assert RECORDS.names("setting") == ["JPEG 10", "JPEG 20"]
    assert ten.where(method="model").values("psnr") == {"a": 21.0, "b": 33.0}
    assert ten.where(method="model").mean("psnr").mean == 27.0
    gain = ten.gain("model", "psnr")
    # 1 and 3: every resample's mean lies between them.
    assert (gain.mean, gain.low, gain.high, gain.count) == (2.0, 1.0, 3.0, 2)


def test_what_was_not_measured_is_none():
    assert RECORDS.where(setting="JPEG 20").gain("model", "psnr") is None
    assert RECORDS.mean("viideo") is None
    assert RECORDS.where(method=COMPRESSED).mean("niqe").count == 1
    assert estimate([]) is None


def test_equal_gains_have_no_width():
    values = estimate([0.5] * 4)
    assert (values.mean, values.low, values.high) == (0.5, 0.5, 0.5)


def test_the_best_mean_counts_not_the_best_picture():
    scores = {"weak": [1.0, 4.0], "strong": [3.0, 3.0], "other": [9.0, 0.0], "same": [0.0, 9.0]}
    filters = {"filter": ("weak", "strong"), "another": ("other", "same")}
    # The first of equal ones.
    assert best_strengths(scores, filters) == {"filter": "strong", "another": "other"}
    assert best_strengths({}, {}) == {}


@pytest.mark.parametrize("count", [3, 30])
def test_the_interval_holds_the_mean(count):
    values = np.random.default_rng(count).normal(1.0, 1.0, count)
    found = estimate(values)
    assert found.low < found.mean < found.high
    # About two standard errors each way.
    assert found.high - found.low == pytest.approx(3.92 * values.std() / np.sqrt(count), rel=0.25)
