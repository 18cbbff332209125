import numpy as np
import pytest

from keras_deartifact.metrics import mean_interval


def test_by_hand():
    # Of two values a resample has the mean 0, 1/2 or 1 with 1/4, 1/2 and 1/4.
    assert mean_interval([0.0, 1.0]) == (0.0, 1.0)
    assert mean_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)
    assert mean_interval([2.5]) == (2.5, 2.5)
    assert mean_interval([0.25] * 7) == (0.25, 0.25)


def test_of_many_normal_values():
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    low, high = mean_interval(values)
    error = values.std() / np.sqrt(400)
    assert (low - values.mean()) / error == pytest.approx(-1.96, abs=0.1)
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.1)
    narrow = mean_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=20)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)
    # The last batch of resamples is a short one.
    assert mean_interval(values, resamples=1500) != mean_interval(values, resamples=1000)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_what_is_no_list_of_values(values):
    with pytest.raises(ValueError, match="expected a list of at least one value"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_confidence_outside(confidence):
    with pytest.raises(ValueError, match=f"between 0 and 1. Received: confidence={confidence}"):
        mean_interval([1.0], confidence=confidence)
