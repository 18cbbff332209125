"""Models between one that ships and its perceptual variant."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines, models
from keras_deartifact.cli import main
from keras_deartifact.engines.blending import blended

FAITHFUL, PERCEPTUAL = "shuffle_nano", "shuffle_nano_perceptual"


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    frames = random.random((1, 48, 64, 3), np.float32)
    return frames, random.uniform(1, 6, (1, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(("perception", "name"), [(0.0, FAITHFUL), (1.0, PERCEPTUAL)])
def test_the_ends_are_the_models(perception, name, inputs):
    restorer = engines.load(FAITHFUL, "litert", perception=perception)
    assert restorer.path == engines.pretrained_path(name)
    np.testing.assert_array_equal(restorer(*inputs), engines.load(name, "litert")(*inputs))


@pytest.mark.parametrize("perception", [0.25, 0.6])
def test_between_them_are_their_weights(perception, inputs):
    faithful, perceptual = (
        keras.models.load_model(engines.pretrained_path(name, "keras"), compile=False)
        for name in (FAITHFUL, PERCEPTUAL)
    )
    mixed = [
        (1 - perception) * a + perception * b
        for a, b in zip(faithful.get_weights(), perceptual.get_weights(), strict=True)
    ]
    assert isinstance(faithful, models.ShuffleGenerator)
    faithful.set_weights(mixed)
    frames, steps = inputs
    wanted = faithful((frames, steps[..., None]))
    np.testing.assert_allclose(engines.load(FAITHFUL, perception=perception)(frames, steps), wanted, atol=2e-5)


def test_other_architectures_are_refused():
    contents = [engines.pretrained_path(FAITHFUL).read_bytes(), engines.predictor_path().read_bytes()]
    with pytest.raises(ValueError, match="of the same architecture"):
        blended(*contents, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": PERCEPTUAL, "perception": 0.5}, f"perceptual variant: {FAITHFUL}. Received: model='{PERCEPTUAL}'"),
        ({"engine": "onnx", "perception": 0.5}, "on the engine 'litert' alone. Received: perception=0.5"),
        ({"provider": "cpu", "perception": 0.5}, "on the engine 'litert' alone"),
        ({"perception": -0.1}, "a perception of 0 to 1. Received: perception=-0.1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        engines.load(**arguments)


def test_a_run_is_not_continued_with_another():
    models = [engines.identity(engines.load(FAITHFUL, "litert", perception=each))["model"] for each in (0, 0.5, 0.6, 1)]
    assert len(set(models)) == 4


def test_command(tmp_path, capsys):
    random = np.random.default_rng(2)
    picture = Image.fromarray(random.integers(0, 256, (8, 12, 3), np.uint8)).resize((96, 64), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "old.jpg", quality=12)
    results = []
    for perception in ("0", "0.5", "1"):
        target = tmp_path / f"{perception}.png"
        assert main(["restore", str(tmp_path / "old.jpg"), "-o", str(target), "--perception", perception]) == 0
        with Image.open(target) as restored:
            results.append(np.asarray(restored, np.float32))
    assert np.abs(results[0] - results[2]).mean() > np.abs(results[0] - results[1]).mean() > 0
    assert main(["restore", str(tmp_path / "old.jpg"), "-o", str(tmp_path / "new.png"), "--perception", "1.5"]) == 2
    assert "expected 0.0 to 1.0, received 1.5" in capsys.readouterr().err
