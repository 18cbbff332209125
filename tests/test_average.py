"""Networks between two."""

import json

import numpy as np
import pytest

from export.networks import for_deployment, load_network
from keras_deartifact.models import make_generator
from training import average

SIZES = {"filters": 6, "depth": 2, "coarse_filters": 8, "coarse_depth": 1}


def _made(seed, **sizes):
    generator = make_generator("shuffle_pico", **{**SIZES, **sizes})
    random = np.random.default_rng(seed)
    generator.set_weights([value + random.normal(0, 0.05, value.shape) for value in generator.get_weights()])
    return generator


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    _made(1).save(folder / "generator.keras")
    (folder / "config.json").write_text('{"config": {"steps": 7}}')
    (folder / "progress.json").write_text('{"step": 7}')
    return folder


def _kernels(network):
    return for_deployment(network).get_weights()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("folded", [False, True])
def test_kernels_lie_between(tmp_path, run, folded, share):
    start = _made(2)
    (for_deployment(start) if folded else start).save(tmp_path / "start.keras")
    average.average(tmp_path / "start.keras", run, share, tmp_path / "out")
    found = _kernels(load_network(tmp_path / "out")[0])
    for old, new, between in zip(_kernels(start), _kernels(load_network(run)[0]), found, strict=True):
        np.testing.assert_allclose(between, (1 - share) * old + share * new, atol=1e-6)
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["config"] == {"steps": 7}
    assert (record["averaged"]["file"], record["averaged"]["share"]) == ("start.keras", share)
    assert json.loads((tmp_path / "out" / "progress.json").read_text()) == {"step": 7}


def test_another_architecture_is_refused(tmp_path, run):
    _made(2, filters=8).save(tmp_path / "start.keras")
    with pytest.raises(ValueError, match="no larger than"):
        average.average(tmp_path / "start.keras", run, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path, run):
    _made(2).save(tmp_path / "start.keras")
    with pytest.raises(FileExistsError):
        average.average(tmp_path / "start.keras", run, 0.5, run)
