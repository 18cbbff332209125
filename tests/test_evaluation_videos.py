from dataclasses import replace

import numpy as np
import pytest

from keras_deartifact import metrics
from training import baselines
from training.evaluation import videos
from training.evaluation.records import COMPRESSED, ORIGINAL, Records

needs_ffmpeg = pytest.mark.skipif(baselines.ffmpeg() is None, reason="imageio-ffmpeg is not installed")


@pytest.fixture
def folder(make_video, tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    make_video(folder / "clip.mkv", acodec=None, options={"crf": "0"})
    # x264 does not give the same file twice.
    monkeypatch.setattr(videos, "VIDEO_SETTINGS", {"MPEG-4 q 20": ("mpeg4", {"qmin": "20", "qmax": "20"})})
    return folder


def _darker(frames, quantiser_map=None):
    return frames * np.float32(0.9)


def test_videos_are_measured_on_the_decoded_luma(folder, tmp_path):
    made = videos.measure_videos(str(folder), 8, {"same": lambda frames, quantiser_map=None: frames, "dark": _darker})
    records = Records(made)
    assert records.names("method") == [ORIGINAL, COMPRESSED, "same", "dark"]
    values = {record.method: record.values for record in made}
    compressed = tmp_path / "compressed.mkv"
    videos.encode(folder / "clip.mkv", compressed, *videos.VIDEO_SETTINGS["MPEG-4 q 20"], 8)
    original, decoded = (list(videos.luma_planes(file))[:8] for file in (folder / "clip.mkv", compressed))
    assert len(decoded) == 8
    expected = np.mean([metrics.psnr_y(*pair) for pair in zip(original, decoded, strict=True)])
    assert values[COMPRESSED]["psnr_y"] == pytest.approx(expected)
    assert values[COMPRESSED]["flicker"] == metrics.flicker(original, decoded)
    for name in ("psnr_y", "ssim", "flicker"):
        assert values["same"][name] == values[COMPRESSED][name]
    assert values["dark"]["psnr_y"] < values["same"]["psnr_y"] - 1
    assert 0.0 < values[COMPRESSED]["bits_per_pixel"] < 24
    # Fewer than VIIDEO's 22 frames.
    assert not any("viideo" in each for each in values.values())
    if baselines.ffmpeg():
        assert values["same"]["vmaf"] == values[COMPRESSED]["vmaf"] > values["dark"]["vmaf"]


@needs_ffmpeg
def test_vmaf_of_the_same_is_high(folder):
    clip = folder / "clip.mkv"
    shape = next(videos.luma_planes(clip)).shape
    assert baselines.vmaf(clip, clip, shape) > 95
    # It is measured behind the filter.
    assert baselines.vmaf(clip, clip, shape, "boxblur=4") < 60


@needs_ffmpeg
@pytest.mark.parametrize("name", [name for name in baselines.FILTERS if name not in baselines.STILLS_ONLY])
def test_every_filter_runs_on_video(name, folder, tmp_path):
    compressed = tmp_path / "compressed.mkv"
    videos.encode(folder / "clip.mkv", compressed, "mpeg4", {"qmin": "20", "qmax": "20"}, 3)
    plain = list(videos.luma_planes(compressed))
    for strength in baselines.FILTERS[name][-2:]:
        filtered = list(baselines.filtered_luma(compressed, strength, plain[0].shape))
        assert len(filtered) == 3
        # It changes something, and leaves the picture what it is.
        assert 20 < metrics.psnr_y(plain[0], filtered[0]) < 100


def _best(records, methods):
    return max(methods, key=lambda name: records.where(method=name).mean("psnr_y").mean)


@needs_ffmpeg
def test_the_filter_gets_its_best_strength(make_video, tmp_path, monkeypatch):
    """What is measured of the strength chosen first is what measuring every strength in full would have given."""
    make_video(tmp_path / "clip.mkv", acodec=None, options={"crf": "0"}, size=(208, 112))
    settings = {f"MPEG-4 q {q}": ("mpeg4", {"qmin": q, "qmax": q}) for q in ("2", "20")}
    monkeypatch.setattr(videos, "VIDEO_SETTINGS", settings)
    strengths = {"weak": "spp=quality=3:qp=1", "strong": "spp=quality=3:qp=30"}
    for name, strength in strengths.items():
        monkeypatch.setitem(baselines.FILTERS, name, (strength,))
    every = Records(videos.measure_videos(str(tmp_path), 22, {}, list(strengths)))
    monkeypatch.setitem(baselines.FILTERS, "spp", tuple(strengths.values()))
    made = videos.measure_videos(str(tmp_path), 22, {}, ["spp"])
    best = {setting: _best(every.where(setting=setting), strengths) for setting in settings}
    assert made == [
        replace(record, method="spp" if record.method == best[record.setting] else record.method)
        for record in every
        if record.method in (ORIGINAL, COMPRESSED, best[record.setting])
    ]
    assert made[-1].values.keys() == {"psnr_y", "ssim", "flicker", "niqe", "brisque", "viideo", "vmaf"}


def test_no_clip_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="lossless clips"):
        videos.measure_videos(str(tmp_path), 2, {})


def test_speed_is_that_of_whole_runs(folder):
    speeds = videos.speeds_720p(str(folder), 3, {"same": lambda frames, quantiser_map=None: frames})
    assert list(speeds) == ["same"]
    assert speeds["same"] > 0.0
