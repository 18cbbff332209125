import shutil

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import metrics
from training import baselines
from training.evaluation.inputs import usable_filters


@pytest.mark.parametrize("name", [name for name in baselines.FILTERS if name not in baselines.VIDEOS_ONLY])
def test_every_filter_runs_on_a_jpeg(name, photo, tmp_path):
    if baselines.missing(name):
        pytest.skip(f"{name} needs {baselines.missing(name)}")
    original = photo(72, 100)
    Image.fromarray(original).save(tmp_path / "a.jpg", quality=20, subsampling=2)
    with Image.open(tmp_path / "a.jpg") as picture:
        compressed = np.asarray(picture)
    for strength in baselines.FILTERS[name][-2:]:
        filtered = baselines.filtered_rgb(tmp_path / "a.jpg", strength, (72, 100))
        assert filtered.shape == compressed.shape
        # It changes something, and leaves the picture what it is.
        assert 20 < metrics.psnr(compressed, filtered) < 60


def test_what_is_missing_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(baselines, "ffmpeg", lambda: None)
    assert usable_filters(["spp", "jpegqs"]) == []
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "left out spp: it needs imageio-ffmpeg (pip install imageio-ffmpeg)",
        "left out jpegqs: it needs jpegqs (Debian: apt install jpegqs)",
    ]


def test_names_of_filters_are_those_of_their_strengths():
    for name, strengths in baselines.FILTERS.items():
        assert len(set(strengths)) == len(strengths) > 1
        assert all(strength.startswith(f"{name}=") for strength in strengths)
