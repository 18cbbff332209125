import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_deartifact
from keras_deartifact.image import luma
from keras_deartifact.metrics import niqe

DATA = Path(keras_deartifact.__file__).parent / "metrics/data"
LIVE1 = [f"live1/{name}.png" for name in ("bikes", "caps", "monarch", "carnivaldolls", "churchandcapitol", "statue")]


@pytest.mark.parametrize("kind", ["original", "jpeg_q10"])
@pytest.mark.parametrize("name", LIVE1)
def test_oracle(name, kind, shared):
    oracle = json.loads((shared / "oracles/metrics.json").read_text())
    values = oracle["images"][name][kind]
    path = shared / "data/eval" / name if kind == "original" else shared / "oracles" / values["file"]
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    if hashlib.sha256(luma(image).tobytes()).hexdigest() != values["luma_sha256"]:
        pytest.skip(f"this decoder gives other pixels for {path.name} than the oracle's")
    assert niqe(image) == pytest.approx(values["niqe"], abs=oracle["meta"]["tolerance"]["niqe"], rel=0)


def test_the_model_is_the_release_s(shared):
    with np.load(DATA / "niqe.npz") as ours, np.load(shared / "oracles/params/niqe.npz") as theirs:
        assert set(ours.files) == set(theirs.files)
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_licence_is_beside_the_models():
    notice = (DATA / "LICENSE-LIVE.txt").read_text()
    assert notice.count("COPYRIGHT NOTICE STARTS") == notice.count("COPYRIGHT NOTICE ENDS") == 2
    assert {path.name for path in DATA.glob("*.npz")} == {"niqe.npz", "brisque.npz"}


def test_golden_values(photo):
    # From this implementation, after it had met every oracle to 1e-9.
    assert niqe(photo(200, 300, seed=3)) == pytest.approx(5.908469277, abs=1e-5)
    assert niqe(photo(193, 291, seed=4)) == pytest.approx(5.729423750, abs=1e-5)
    coarse = photo(192, 288, seed=3) // 32 * 32
    assert niqe(coarse) == pytest.approx(8.515935511, abs=1e-5)


def test_what_is_no_whole_block_is_cut_off(photo):
    image = photo(200, 300)
    assert niqe(image) == niqe(image[:192, :288])
    assert niqe(image) != niqe(image[8:])


def test_blocks_without_texture(photo):
    image = photo(192, 384)
    # Two blocks are left: too little for a covariance of 36 features, enough for a value. One is not.
    image[:, :288] = 77
    assert math.isfinite(niqe(image))
    image[:96] = 77
    assert niqe(image) == math.inf


@pytest.mark.parametrize("shape", [(96, 96), (191, 191), (95, 400, 3), (400, 95)])
def test_too_small(shape):
    with pytest.raises(ValueError, match=r"room for two blocks of 96x96 pixels\. Received: image\.shape="):
        niqe(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(96, 192), (192, 96), (97, 193)])
def test_least_sizes(shape, photo):
    assert math.isfinite(niqe(photo(*shape)))
