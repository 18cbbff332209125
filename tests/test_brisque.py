import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_deartifact
from keras_deartifact.image import luma
from keras_deartifact.metrics import brisque
from keras_deartifact.metrics.brisque import brisque_features

DATA = Path(keras_deartifact.__file__).parent / "metrics/data"
LIVE1 = [f"live1/{name}.png" for name in ("bikes", "caps", "monarch", "carnivaldolls", "churchandcapitol", "statue")]


@pytest.mark.parametrize("kind", ["original", "jpeg_q10"])
@pytest.mark.parametrize("name", LIVE1)
def test_oracle(name, kind, shared):
    oracle = json.loads((shared / "oracles/metrics.json").read_text())
    values, tolerance = oracle["images"][name][kind], oracle["meta"]["tolerance"]
    path = shared / "data/eval" / name if kind == "original" else shared / "oracles" / values["file"]
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    if hashlib.sha256(luma(image).tobytes()).hexdigest() != values["luma_sha256"]:
        pytest.skip(f"this decoder gives other pixels for {path.name} than the oracle's")
    assert brisque(image) == pytest.approx(values["brisque"], abs=tolerance["brisque"], rel=0)
    expected = pytest.approx(values["brisque_features"], abs=tolerance["brisque_features"], rel=0)
    assert brisque_features(image).tolist() == expected


def test_the_model_is_the_release_s(shared):
    with np.load(DATA / "brisque.npz") as ours, np.load(shared / "oracles/params/brisque.npz") as theirs:
        assert set(ours.files) == set(theirs.files)
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_golden_values(photo):
    # From this implementation, after it had met every oracle to 1e-7.
    assert brisque(photo(200, 300, seed=3)) == pytest.approx(24.182145503, abs=1e-4)
    assert brisque(photo(193, 291, seed=4)) == pytest.approx(21.185785175, abs=1e-4)
    coarse = photo(192, 288, seed=3) // 32 * 32
    assert brisque(coarse) == pytest.approx(39.089105320, abs=1e-4)


def test_golden_features(photo):
    features = brisque_features(photo(200, 300, seed=3))
    assert features.shape == (36,)
    expected = [2.713, 0.48222122, 0.927, 0.04120913, 0.17949779, 0.23339765]
    assert features[:6].tolist() == pytest.approx(expected, abs=1e-6)
    expected = [2.657, 0.41489699, 0.921, 0.08087792, 0.10844266, 0.19906964]
    assert features[18:24].tolist() == pytest.approx(expected, abs=1e-6)


def test_mean_of_a_product_by_its_definition(photo):
    # The fitted mean, which the fit gets from scales, is also that of left and right variance and shape.
    features = brisque_features(photo(80, 90))
    for start in (2, 6, 10, 14, 20, 24, 28, 32):
        shape, mean, left, right = features[start : start + 4]
        constant = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
        expected = (math.sqrt(right) - math.sqrt(left)) * math.gamma(2 / shape) / math.gamma(1 / shape) * constant
        assert mean == pytest.approx(expected, abs=1e-12)


def test_far_from_all_pictures_it_is_the_offset():
    # Values 0 and 1 alone: features so far off that every support vector's weight vanishes.
    image = np.random.default_rng(0).integers(0, 2, (192, 288)).astype(np.uint8)
    assert brisque(image) == pytest.approx(153.591, abs=1e-9)


def test_features_of_a_constant_picture():
    # Where the window leaves the picture there is some deviation, but of one sign.
    features = brisque_features(np.full((64, 64), 99, np.uint8))
    assert np.isfinite(features[:2]).all() and np.isnan(features[4])
    assert np.isnan(brisque_features(np.zeros((64, 64), np.uint8))[[3, 4, 5]]).all()


@pytest.mark.parametrize("shape", [(14, 14), (15, 17), (14, 300)])
def test_least_sizes(shape, photo):
    assert math.isfinite(brisque(photo(*shape)))


def test_too_small():
    with pytest.raises(ValueError, match=r"at least 14x14 pixels\. Received: image\.shape=\(13, 40\)"):
        brisque(np.zeros((13, 40), np.uint8))
