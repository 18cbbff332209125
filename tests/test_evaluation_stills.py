from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from export import tflite
from keras_deartifact import engines, image, metrics, models, quantiser, restore, stills
from training import baselines
from training.evaluation.records import COMPRESSED, ORIGINAL, Records
from training.evaluation.stills import measure_stills, studio_luma


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "pico.tflite"
    file.write_bytes(tflite.convert(models.make_generator("shuffle_pico")))
    return engines.load(file)


@pytest.fixture
def pictures(photo, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(photo(64, 96, index)).save(folder / f"{index}.png")
    return folder


def _unchanged(frames, quantiser_map=None):
    return frames


def test_stills_are_measured_as_the_metrics_say(restorer, pictures, tmp_path):
    made, shown = measure_stills(str(pictures), "colour", [10], {"model": restorer})
    records = Records(made)
    assert records.names("data") == ["pictures"]
    assert records.names("method") == [ORIGINAL, COMPRESSED, "model"]
    assert shown == []
    for index in range(2):
        original = stills.read(pictures / f"{index}.png").pixels
        jpeg = tmp_path / "by-hand.jpg"
        Image.fromarray(original).save(jpeg, quality=10, subsampling=2)
        compressed = stills.read(jpeg).pixels
        maps = quantiser.constant_map(64, 96, quantiser.jpeg_quality_log2_step(10))[None]
        restored = restore.restore_frames(restorer, compressed[None], maps)[0]
        of_item = records.where(item=str(index))
        for method, pixels in ((COMPRESSED, compressed), ("model", restored)):
            values = of_item.where(method=method).all[0].values
            for name in ("psnr", "psnr_y", "ssim", "psnr_b"):
                assert values[name] == pytest.approx(metrics.METRICS[name](original, pixels), abs=1e-9)
            assert values["bits_per_pixel"] == jpeg.stat().st_size * 8 / (64 * 96)
            # Too small for these.
            assert "niqe" not in values


def test_pictures_large_enough_get_no_reference_figures(photo, tmp_path):
    Image.fromarray(photo(112, 200)).save(tmp_path / "large.png")
    made, _ = measure_stills(str(tmp_path), "colour", [10], {"same": _unchanged})
    original = stills.read(tmp_path / "large.png").pixels
    values = {record.method: record.values for record in made}
    for name, metric in metrics.NO_REFERENCE_METRICS.items():
        assert values[ORIGINAL][name] == metric(original)
        assert values["same"][name] == values[COMPRESSED][name] != values[ORIGINAL][name]
    assert "psnr" not in values[ORIGINAL]


def test_studio_luma_by_hand():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    # 16 + 219; 16 + 65.481; 16 + 128.553; 16 + 24.966.
    np.testing.assert_array_equal(studio_luma(colours), [[16, 235, 81, 145, 41]])


def test_grey_protocol(photo, tmp_path):
    """Colour becomes MATLAB's luma; a grey picture stays as it is; either is compressed as a grey JPEG."""
    folder = tmp_path / "set"
    folder.mkdir()
    colour, grey = photo(64, 96, 1), image.luma(photo(64, 96, 2))
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(grey).save(folder / "grey.png")
    made, _ = measure_stills(str(folder), "grey", [20], {"same": _unchanged})
    for name, luma in (("colour", studio_luma(colour)), ("grey", grey)):
        jpeg = tmp_path / f"{name}.jpg"
        Image.fromarray(luma).save(jpeg, quality=20)
        with Image.open(jpeg) as picture:
            assert picture.mode == "L"
            decoded = np.asarray(picture)
        values = {record.method: record.values for record in made if record.item == name}
        assert values[COMPRESSED]["psnr_y"] == metrics.psnr_y(luma, decoded)
        assert values["same"]["psnr_y"] == values[COMPRESSED]["psnr_y"]
        assert set(values["same"]) == {"psnr_y", "ssim", "psnr_b", "bits_per_pixel"}


def test_shown_pictures(restorer, pictures):
    _, shown = measure_stills(str(pictures), "colour", [10, 20], {"model": restorer}, shown=1)
    (picture,) = shown
    assert (picture.item, picture.setting) == ("0", "JPEG 10")
    assert list(picture.versions) == [ORIGINAL, COMPRESSED, "model"]
    np.testing.assert_array_equal(picture.versions[ORIGINAL], stills.read(pictures / "0.png").pixels)


def _best(records, methods, metric):
    return max(methods, key=lambda name: records.where(method=name).mean(metric).mean)


@pytest.mark.skipif(baselines.ffmpeg() is None, reason="imageio-ffmpeg is not installed")
@pytest.mark.parametrize("protocol", ["colour", "grey"])
def test_the_filter_gets_its_best_strength(protocol, photo, tmp_path, monkeypatch):
    """What is measured of the strength chosen first is what measuring every strength in full would have given."""
    for index in range(2):
        Image.fromarray(photo(112, 200, index)).save(tmp_path / f"{index}.png")
    strengths = {"weak": "spp=quality=3:qp=4", "middle": "spp=quality=3:qp=12", "strong": "spp=quality=3:qp=40"}
    for name, strength in strengths.items():
        monkeypatch.setitem(baselines.FILTERS, name, (strength,))
    every = Records(measure_stills(str(tmp_path), protocol, [10, 60], {"same": _unchanged}, list(strengths))[0])
    monkeypatch.setitem(baselines.FILTERS, "spp", tuple(strengths.values()))
    made = measure_stills(str(tmp_path), protocol, [10, 60], {"same": _unchanged}, ["spp"])[0]
    chosen_by = "psnr" if protocol == "colour" else "psnr_y"
    best = {name: _best(every.where(setting=name), strengths, chosen_by) for name in ("JPEG 10", "JPEG 60")}
    # Or the choice would not have been one.
    assert best["JPEG 10"] != best["JPEG 60"]
    expected = [
        replace(record, method="spp" if record.method == best[record.setting] else record.method)
        for record in every
        if record.method in (ORIGINAL, COMPRESSED, "same", best[record.setting])
    ]
    assert made == expected
    assert {"niqe", "brisque"} <= made[-1].values.keys() or protocol == "grey"


def test_deep_pictures_are_refused(tmp_path):
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="expected pictures of 8 bits. Received: .*deep.png of uint16"):
        measure_stills(str(tmp_path), "colour", [10], {})
