import numpy as np
import pytest
from PIL import Image

from keras_deartifact import codecs, metrics
from training import sweep_shares


def test_gains_grow_with_the_share_where_the_change_is_right():
    """The restorer knows the original: all of its change is best, none is worth nothing."""
    original = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)
    trip = codecs.jpeg(original, 30)
    wanted = iter(original.astype(np.float32) / 255)
    gains = sweep_shares.gains(lambda *_: next(wanted)[None], original, trip, [0.0, 0.5, np.inf], luma=False)
    assert gains[0] == 0
    before = metrics.psnr(original[0], trip.frames[0])
    assert 0.3 < gains[1] < gains[2] == pytest.approx(sweep_shares._MOST_DB - before, abs=0.1)


def test_gains_fall_with_the_share_where_the_change_is_wrong():
    original = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3)).astype(np.uint8)
    trip = codecs.jpeg(original, 90)
    noise = np.random.default_rng(2).normal(0, 0.05, (1, 32, 48, 3)).astype(np.float32)
    gains = sweep_shares.gains(lambda frames, _: frames + noise, original, trip, [0.0, 0.5, 1.0, np.inf], luma=True)
    assert gains[0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(gains) < 0).all()


def test_the_table_has_a_row_for_every_codec_and_quality(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_shares, "QUALITIES", (20,))
    monkeypatch.setattr(sweep_shares, "VIDEOS", {"x264 CRF": (sweep_shares.VIDEOS["x264 CRF"][0], (30,))})
    monkeypatch.setattr(sweep_shares, "FRAMES", 2)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rows = dict(
        sweep_shares.measure(lambda frames, _: frames, [str(tmp_path / "a.png")], [(0.2, 0.2), (np.inf, np.inf)])
    )
    assert list(rows) == ["JPEG 4:2:0 20", "JPEG 4:4:4 20", "x264 CRF 30"]
    for found in rows.values():
        np.testing.assert_allclose(found, np.zeros((1, 2)), atol=1e-6)
