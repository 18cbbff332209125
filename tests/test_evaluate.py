import json

import numpy as np
import pytest
from PIL import Image

from export import card, tflite
from keras_deartifact import engines, metrics, models, quantiser, restore, stills
from training import baselines, evaluate, runs, train
from training.configs import CONFIGS, as_dict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "pico.tflite"
    file.write_bytes(tflite.convert(models.make_generator("shuffle_pico")))
    return file


@pytest.fixture
def pictures(photo, tmp_path):
    for index in range(2):
        Image.fromarray(photo(64, 96, index)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_stills_are_measured_as_the_metrics_say(model, pictures):
    restorer = engines.load(model)
    (row,) = evaluate.evaluate_stills(restorer, str(pictures), [10], None)
    gains = []
    for file in sorted(pictures.glob("*.png")):
        original = stills.read(file).pixels
        Image.fromarray(original).save(pictures / "by-hand.jpg", quality=10, subsampling=2)
        compressed = stills.read(pictures / "by-hand.jpg").pixels
        maps = quantiser.constant_map(64, 96, quantiser.jpeg_quality_log2_step(10))[None]
        restored = restore.restore_frames(restorer, compressed[None], maps)[0]
        gains.append(metrics.METRICS["psnr"](original, restored) - metrics.METRICS["psnr"](original, compressed))
    assert row["pictures"] == 2
    assert row["gain psnr"] == pytest.approx(np.mean(gains), abs=1e-9)
    assert abs(row["gain psnr"]) > 1e-3
    assert not any(name.startswith("spp") for name in row)


def test_pictures_large_enough_get_no_reference_figures(photo, tmp_path):
    Image.fromarray(photo(112, 200)).save(tmp_path / "large.png")
    (row,) = evaluate.evaluate_stills(lambda frames, quantiser_map=None: frames, str(tmp_path), [10], None)
    original = stills.read(tmp_path / "large.png").pixels
    for name, metric in metrics.NO_REFERENCE_METRICS.items():
        assert row[f"original {name}"] == metric(original)
        # A restorer that changes nothing.
        assert row[f"restored {name}"] == row[f"input {name}"] != row[f"original {name}"]


def test_videos_are_measured_on_the_decoded_luma(model, make_video, tmp_path, monkeypatch):
    clip = make_video(tmp_path / "clip.mkv", acodec=None, options={"crf": "0"})
    monkeypatch.setattr(evaluate, "VIDEO_SETTINGS", {"x264 CRF 40": ("libx264", {"crf": "40"})})

    def unchanged(frames, quantiser_map=None):
        return frames

    (row,) = evaluate.evaluate_videos(unchanged, str(tmp_path), 8, None)
    assert row["gain psnr_y"] == 0.0
    assert 15 < row["input psnr_y"] < 45
    (row,) = evaluate.evaluate_videos(engines.load(model), str(tmp_path), 8, None)
    assert row["gain psnr_y"] != 0.0
    assert clip.exists()


def test_no_clip_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="lossless clips"):
        evaluate.evaluate_videos(lambda frames, quantiser_map=None: frames, str(tmp_path), 2, None)


@pytest.mark.skipif(baselines.ffmpeg() is None, reason="imageio-ffmpeg is not installed")
def test_the_filter_gets_its_best_strength(model, pictures, monkeypatch):
    strengths = ("spp=quality=3:qp=4", "spp=quality=3:qp=30")
    restorer = engines.load(model)
    rows = []
    for chosen in (strengths, strengths[:1], strengths[1:]):
        monkeypatch.setitem(baselines.FILTERS, "spp", chosen)
        rows += evaluate.evaluate_stills(restorer, str(pictures), [10], "spp")
    both, *each = (row["spp gain psnr"] for row in rows)
    assert both == max(each)
    assert each[0] != each[1]


def test_a_card_is_of_exactly_one_file(model, tmp_path):
    run = tmp_path / "run"
    runs.open_run(run, {"config": as_dict(CONFIGS["testing"])})
    train.make_model(CONFIGS["testing"]).generator.save(run / "generator.keras")
    (run / "progress.json").write_text('{"step": 7}')
    evaluation = tmp_path / "figures.json"
    digest = engines.digest(model)
    evaluation.write_text(json.dumps({"sha256": digest, "stills": []}))
    made = card.make_card(run, model, evaluation, "what it is", "what it saw")
    assert made["sha256"] == digest
    assert made["steps"] == 7
    assert made["config"]["generator"] == CONFIGS["testing"].generator
    json.dumps(made)
    model_bytes = bytearray(model.read_bytes())
    model_bytes[-1] ^= 1
    other = tmp_path / "other.tflite"
    other.write_bytes(model_bytes)
    with pytest.raises(ValueError, match="another file"):
        card.make_card(run, other, evaluation, "what it is", "what it saw")
