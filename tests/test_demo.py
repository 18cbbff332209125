import numpy as np
import pytest
from PIL import Image

from keras_deartifact import demo, video


def test_the_clip_ships_with_its_credit():
    info = video.probe(demo.CLIP)
    assert (info.width, info.height, info.pix_fmt) == (640, 360, "yuv420p")
    assert demo.CLIP.stat().st_size < 1_500_000
    credits = demo.CLIP.with_name("CREDITS.txt").read_text("utf-8")
    assert demo.CLIP.name in credits and "Blender Foundation" in credits and "Attribution 3.0" in credits
    assert sum(1 for _ in video.read_frames(demo.CLIP)) == 39


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A clip of three frames in the place of the real one."""
    path = tmp_path / "short.mkv"
    with video.VideoWriter(path, demo.CLIP, codec="ffv1") as writer:
        for _, frame in zip(range(3), video.read_frames(demo.CLIP), strict=False):
            writer.write(frame.image)
    monkeypatch.setattr(demo, "CLIP", path)
    return path


def test_the_clip_is_its_own_equal(short):
    quality = demo.measure(short)
    assert (quality.psnr, quality.psnr_y, quality.ssim) == (np.inf, np.inf, 1)
    assert 3 < quality.bits_per_pixel < 12


def test_a_higher_crf_looks_older(tmp_path, short):
    qualities = []
    for crf in (20, 40):
        demo.compress(tmp_path / "old.mp4", crf)
        qualities.append(demo.measure(tmp_path / "old.mp4"))
    fine, coarse = qualities
    assert fine.psnr > coarse.psnr + 3 and fine.psnr_y > coarse.psnr_y + 3 and fine.ssim > coarse.ssim
    assert fine.bits_per_pixel > 4 * coarse.bits_per_pixel


def test_side_by_side(tmp_path, short):
    demo.side_by_side(tmp_path / "sheet.png", [short, short], ["one", "two"])
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (510, 960, 3)
    np.testing.assert_array_equal(sheet[30:, :480], sheet[30:, 480:])
    assert sheet[:30].max() == 255
    with pytest.raises(ValueError, match="zip"):
        demo.side_by_side(tmp_path / "sheet.png", [short, short], ["one"])


def test_another_clip_is_refused(tmp_path, short):
    with video.VideoWriter(tmp_path / "two.mkv", short, codec="ffv1") as writer:
        for _, frame in zip(range(2), video.read_frames(short), strict=False):
            writer.write(frame.image)
    with pytest.raises(ValueError, match="zip"):
        demo.measure(tmp_path / "two.mkv")
