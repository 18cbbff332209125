"""Fixtures that every test may ask for."""

import os
from collections.abc import Callable
from pathlib import Path

# TensorFlow reads these once, at its import. Results must not depend on the machine's fast paths.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

import numpy as np
import numpy.typing as npt
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture with what photographs have: shading, edges at all angles, texture of falling spectrum, some noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / np.float64(max(height, width))
    picture = np.empty((height, width, 3))
    for channel, (base, slope) in enumerate(generator.uniform([60, -50], [190, 50], (3, 2))):
        picture[..., channel] = base + slope * (rows + columns)
    for _ in range(12):
        angle, offset = generator.uniform(0, 2 * np.pi), generator.uniform(0, 1, 2)
        across = (rows - offset[0]) * np.cos(angle) + (columns - offset[1]) * np.sin(angle)
        along = (columns - offset[1]) * np.cos(angle) - (rows - offset[0]) * np.sin(angle)
        inside = (np.abs(across) < generator.uniform(0.03, 0.3)) & (np.abs(along) < generator.uniform(0.03, 0.3))
        picture[inside] = 0.5 * picture[inside] + 0.5 * generator.uniform(0, 255, 3)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(generator.standard_normal((height, width))) / (frequency + 0.02)
    texture = np.fft.irfft2(spectrum, (height, width))
    picture += (12 * texture / texture.std())[..., None] + generator.normal(0, 1.5, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photo() -> Callable[..., npt.NDArray[np.uint8]]:
    """`photo(height, width, seed=0)`: a natural-looking uint8 RGB picture, the same every time."""
    return _photo


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds oracles and data; a test that needs it is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}")
    return SHARED
