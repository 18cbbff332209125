import h5py
import numpy as np
import pytest

from keras_deartifact import codecs
from keras_deartifact.deep_distance import deep_distance

CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Every convolution hands its first channel on, and only that; the first one takes the green."""
    file = tmp_path_factory.mktemp("weights") / "vgg16.h5"
    with h5py.File(file, "w") as target:
        channels = 3
        for block, (depth, filters) in enumerate(zip(DEPTHS, CHANNELS, strict=True), 1):
            for index in range(1, depth + 1):
                kernel = np.zeros((3, 3, channels, filters), np.float32)
                kernel[1, 1, 1 if channels == 3 else 0, 0] = 1.0
                bias = np.zeros(filters, np.float32)
                if channels == 3:
                    # What the mean takes away, and 20 in a second channel, handed on as well.
                    bias[:2] = 116.66877, 20.0
                else:
                    kernel[1, 1, 1, 1] = 1.0
                group = target.create_group(f"block{block}_conv{index}")
                group.attrs["weight_names"] = [b"kernel", b"bias"]
                group["kernel"], group["bias"] = kernel, bias
                channels = filters
    return file


def test_by_hand(weights):
    """Two flat pictures: the features are (green, 20) at every layer, so that the angle between them is known."""
    distance = deep_distance("hed_vgg16", weights)
    first, second = (np.full((32, 48, 3), value, np.uint8) for value in (0, 20))
    # (0, 20) and (20, 20): 45 degrees apart, and the squared distance of their directions is 2 - sqrt(2); five layers.
    assert distance(first, second) == pytest.approx(5 * (2 - 2**0.5), rel=1e-4)
    assert distance(first, first) == 0.0
    assert distance(second, first) == pytest.approx(distance(first, second))


def test_stronger_compression_is_further_away(weights, photo):
    distance = deep_distance("hed_vgg16", weights)
    original = photo(64, 96)
    near, far = (distance(original, codecs.jpeg(original[None], quality).frames[0]) for quality in (80, 10))
    assert 0.0 < near < far


def test_pictures_must_match(weights):
    with pytest.raises(ValueError, match="two pictures"):
        deep_distance("hed_vgg16", weights)(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 48, 3), np.uint8))
