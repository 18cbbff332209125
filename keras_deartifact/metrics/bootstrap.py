"""How far a mean over pictures can be trusted."""

import numpy as np
import numpy.typing as npt

_BATCH = 1000


def mean_interval(
    values: npt.ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, over the things that it is a mean of.

    Of gains, each picture's own, it is the interval of the paired difference. It says what other pictures of the same
    kind would give, not how exactly these were measured.

    Args:
        values: one-dimensional, at least one.
        confidence: share of the resamples' means that lie within, in `(0, 1)`.
        resamples: each as many values, drawn with replacement.
        seed: of the draws.

    Returns:
        The lower and the upper end; both are the value where there is one only.

    Raises:
        ValueError: no values, or a confidence outside.

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"expected a list of at least one value. Received: values.shape={array.shape}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1. Received: confidence={confidence}")
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            array[rng.integers(array.size, size=(min(_BATCH, resamples - begun), array.size))].mean(axis=1)
            for begun in range(0, resamples, _BATCH)
        ]
    )
    outside = 50.0 * (1.0 - confidence)
    low, high = np.percentile(means, [outside, 100.0 - outside])
    return float(low), float(high)
