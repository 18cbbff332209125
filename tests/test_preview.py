from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import colour, engines, image, restore, stills, video
from keras_deartifact.restore import preview


def darker(frames, quantiser_map=None):
    return frames - np.float32(20 / 255)


@pytest.fixture
def restorer(monkeypatch):
    """Puts a restorer that makes everything darker in the place of whatever model is asked for."""
    monkeypatch.setattr(engines, "load", lambda *arguments: darker)


def frames_of(path):
    return [(frame.image, colour.to_rgb(frame.image)) for frame in video.read_frames(path, quantisers=False)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "10", "bf": "2"}),
        ("a.mkv", "libx265", {"x265-params": "keyint=10:log-level=none"}),
        ("a.avi", "mpeg4", {"g": "10"}),
        ("a.ts", "mpeg2video", {"g": "10", "bf": "2"}),
        ("a.webm", "libvpx-vp9", {"g": "10"}),
    ],
)
def test_a_part_of_a_video(name, codec, options, tmp_path, make_video):
    source = make_video(
        tmp_path / name,
        codec,
        None if name.endswith("webm") else "aac",
        times=[40 * index for index in range(50)],
        options=options,
    )
    count = restore.preview_video(darker, source, tmp_path / "b.mp4", seconds=0.6, strength=1.0)
    old, new = frames_of(source), frames_of(tmp_path / "b.mp4")
    assert count == len(new) and count == 15
    times = [frame.pts * frame.time_base for frame, _ in new]
    assert times[0] == 0 and times[-1] == pytest.approx(0.56, abs=0.002)
    pixels = new[0][1].astype(int)
    assert pixels.shape == (64, 2 * 96, 3)
    left, right = pixels[:, :96], pixels[:, 96:]
    assert 18 < (left - right).mean() < 22
    # The key frame before the middle second; the blocks move, so that no other frame is like it.
    errors = [np.abs(each.astype(int) - left).mean() for _, each in old]
    assert 10 <= int(np.argmin(errors)) <= 25 and min(errors) < 6


def test_a_short_video_is_shown_whole(tmp_path, make_video):
    source = make_video(tmp_path / "a.mp4", times=[0, 40, 80], size=(95, 63), rotation=90, pix_fmt="yuv444p")
    assert restore.preview_video(darker, source, tmp_path / "b.mkv", strength=1.0) == 3
    upright = np.rot90(frames_of(source)[0][1])[:94, :62]
    pixels = frames_of(tmp_path / "b.mkv")[0][1]
    assert pixels.shape == (94, 2 * 62, 3)
    # Colours are coarser, the blocks are where they were.
    assert np.abs(image.luma(pixels[:, :62]).astype(int) - image.luma(upright)).mean() < 3
    assert video.probe(tmp_path / "b.mkv").rotation_degrees == 0


def test_the_part_tells_how_strongly_it_was_compressed(tmp_path, make_video):
    source = make_video(tmp_path / "a.mp4", times=[40 * index for index in range(50)], options={"g": "10"})
    preview.cut(source, tmp_path / "part.mkv", 0.4)
    frames = list(video.read_frames(tmp_path / "part.mkv"))
    assert frames and all(frame.qp is not None for frame in frames)
    with av.open(str(tmp_path / "part.mkv")) as container:
        assert len(container.streams) == 1


def test_the_shape_of_pixels_is_kept(tmp_path, make_video):
    setup = {"sample_aspect_ratio": Fraction(16, 15)}
    source = make_video(tmp_path / "a.mkv", times=[0, 40], setup=setup)
    restore.preview_video(darker, source, tmp_path / "b.mkv")
    assert video.probe(tmp_path / "b.mkv").sample_aspect_ratio == Fraction(16, 15)


def test_the_command(tmp_path, run, restorer, photo, make_video):
    Image.fromarray(photo(40, 48)).save(tmp_path / "a.jpg", quality=30)
    code, out, err = run("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.png", "--strength", "1", "--preview")
    assert (code, err) == (0, "") and "compressed on the left" in out
    both = stills.read(tmp_path / "b.png").pixels.astype(int)
    assert both.shape == (40, 96, 3)
    np.testing.assert_array_equal(both[:, :48], stills.read(tmp_path / "a.jpg").pixels)
    assert (both[:, :48] - both[:, 48:]).mean() == pytest.approx(20, abs=1)
    source = make_video(tmp_path / "a.mp4", times=[40 * index for index in range(25)])
    code, out, err = run("restore", source, "-o", tmp_path / "b.mp4", "--preview", "0.2")
    assert (code, err) == (0, "") and "b.mp4: 5 frames" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.mp4", "b.mp4", "b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preview", "0"], "expected 0.1 to 600"),
        (["--preview", "--report", "x.html"], "goes without --report"),
        (["--preview", "--dry-run"], "goes without --dry-run"),
    ],
)
def test_what_does_not_go_with_a_preview(options, message, tmp_path, run, restorer, photo):
    Image.fromarray(photo(40, 48)).save(tmp_path / "a.jpg")
    code, out, err = run("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.png", *options)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    code, _, err = run("restore", tmp_path, "-o", tmp_path / "out", "--preview")
    assert code == 2 and "--preview needs one file" in err
    code, _, err = run("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.mp4", "--preview")
    assert code == 2 and "expected a target of .jpg" in err and not (tmp_path / "b.mp4").exists()
