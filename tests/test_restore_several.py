"""Animations and files of several pages, restored."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines, report, restore, stills

TIMES = [30, 70, 1230]


def brighter(frames, quantiser_map=None):
    return frames + np.float32(8 / 255)


def predictor_of(log2_step):
    def predictor(frames):
        return np.full((len(frames), -(-frames.shape[1] // 16), -(-frames.shape[2] // 16)), log2_step, np.float32)

    return predictor


def moving(path, photo, count=3, **options):
    """An animation of photographs, brighter from frame to frame."""
    first = photo(37, 51) // 4
    frames = [Image.fromarray(first + np.uint8(40 * index)) for index in range(count)]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=TIMES[:count], **lossless, **options)
    return path


def frames_of(path):
    return list(stills.read_each(path, stills.series(path)))


@pytest.mark.parametrize("target", ["b.png", "b.webp"])
@pytest.mark.parametrize("source", ["a.gif", "a.png", "a.webp"])
def test_every_frame_is_restored(source, target, photo, tmp_path):
    source, target = moving(tmp_path / source, photo, loop=2), tmp_path / target
    done = []
    found = restore.restore_image(
        brighter, source, target, strength=1.0, progress=lambda *numbers: done.append(numbers)
    )
    assert (found.frames, found.width, found.height) == (3, 51, 37)
    assert done == [(1, 3), (2, 3), (3, 3)]
    before, after = stills.series(source), stills.series(target)
    assert (after.durations, after.plays) == (before.durations, before.plays) and after.durations == tuple(TIMES)
    for old, new in zip(frames_of(source), frames_of(target), strict=True):
        np.testing.assert_array_equal(new.pixels, old.pixels + 8)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_pages_are_restored_each_as_what_it_is(photo, tmp_path):
    pixels = photo(30, 40) // 2
    pages = [Image.fromarray(pixels), Image.fromarray(pixels[:20, :20, 0]), Image.fromarray(pixels).convert("CMYK")]
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    pages[0].save(source, save_all=True, append_images=pages[1:], dpi=(300, 300))
    found = restore.restore_image(brighter, source, target, strength=1.0)
    assert found.frames == 3
    old, new = ([*stills.read_each(path, stills.series(path), inks=True)] for path in (source, target))
    assert [each.mode for each in new] == ["RGB", "L", "CMYK"]
    assert all(each.dpi == (300, 300) for each in new)
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(after.pixels, np.minimum(before.pixels.astype(int) + 8, 255))
    assert (new[2].black == np.minimum(old[2].black.astype(int) + 8, 255)).all()


def test_16_bits_of_pages_and_frames(photo, tmp_path):
    for name in ("a.tif", "a.png"):
        source = tmp_path / name
        frames = [Image.fromarray(photo(20, 24, seed)) for seed in (0, 1)]
        frames[0].save(source, save_all=True, append_images=frames[1:])
        restore.restore_image(lambda images, maps: images + np.float32(1e-4), source, tmp_path / f"b{source.suffix}",
                              strength=1.0, bits=16)  # fmt: skip
    read = frames_of(tmp_path / "b.tif")
    assert [each.pixels.dtype for each in read] == [np.uint16] * 2
    expected = photo(20, 24, 1).astype(np.uint16) * 257 + 7
    assert np.abs(read[1].pixels.astype(int) - np.minimum(expected, 65535)).max() <= 1
    with Image.open(tmp_path / "b.png") as image:
        assert image.n_frames == 2 and image.tile[0].args == "RGB;16B"


def test_what_stands_still_is_restored_once(photo, tmp_path):
    pixels = photo(37, 51) // 2
    alphas = [np.full((37, 51), value, np.uint8) for value in (255, 255, 9, 255)]
    copies = [(pixels, stills.Still(pixels, alpha, "RGBA", "PNG")) for alpha in alphas]
    found = stills.Series(stills.FRAMES, 4, (Fraction(40),) * 4, has_alpha=True)
    stills.write_each(tmp_path / "a.webp", copies, found)
    calls = []

    def counting(frames, quantiser_map):
        calls.append(frames)
        return brighter(frames)

    restore.restore_image(counting, tmp_path / "a.webp", tmp_path / "b.webp", strength=1.0)
    assert len(calls) == 1
    read = frames_of(tmp_path / "b.webp")
    assert len(read) == found.count
    for each, alpha in zip(read, alphas, strict=True):
        np.testing.assert_array_equal(each.pixels, pixels + 8)
        np.testing.assert_array_equal(each.alpha, alpha)


def test_all_frames_are_taken_for_what_some_show(photo, tmp_path):
    source, seen, shown = tmp_path / "a.webp", [], []

    def keeping(frames, quantiser_map):
        seen.append((float(quantiser_map.min()), float(quantiser_map.max())))
        return frames

    def predictor(frames):
        shown.append(5.0 if len(shown) < 3 else 2.0)
        return predictor_of(shown[-1])(frames)

    frames = [Image.fromarray(photo(37, 51, seed)) for seed in range(20)]
    frames[0].save(source, save_all=True, append_images=frames[1:], quality=80)
    found = restore.restore_image(keeping, source, tmp_path / "b.webp", predictor=predictor)
    assert len(shown) == restore.PREDICTED_FRAMES and found.predicted_log2_step == 2.0
    assert seen == [(2.0, 2.0)] * 20


@pytest.mark.parametrize(("name", "count"), [("a.gif", 1), ("a.gif", 3), ("a.png", 3), ("a.webp", 3)])
def test_what_was_drawn_comes_back_as_it_was(name, count, photo, tmp_path):
    """However coarse it looks: fewer colours than a palette holds were enough."""
    frames = [Image.fromarray(photo(40, 40, seed) // 64 * 64) for seed in range(count)]
    source, target = tmp_path / name, tmp_path / "b.png"
    frames[0].save(source, save_all=True, append_images=frames[1:], **({"lossless": True} if "w" in name else {}))
    found = restore.restore_image(brighter, source, target, predictor=predictor_of(6.0))
    assert found.predicted_log2_step is None and found.log2_step == restore.LOSSLESS_LOG2_STEP
    for index in range(count):
        old, new = (stills.read_at(path, index) for path in (source, target))
        np.testing.assert_array_equal(new.pixels, old.pixels)
    restore.restore_image(brighter, source, target, strength=1.0, overwrite=True)
    assert not np.array_equal(stills.read_at(source, 0).pixels, stills.read_at(target, 0).pixels)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
@pytest.mark.parametrize(("log2_step", "changes"), [(3.4, False), (5.0, True)])
def test_what_is_without_loss_counts_as_compressed_if_it_looks_so(name, log2_step, changes, photo, tmp_path):
    source = tmp_path / name
    frames = [Image.fromarray(photo(96, 96, seed) // 2) for seed in (0, 1)]
    frames[0].save(source, save_all=True, append_images=frames[1:], **({"lossless": True} if "w" in name else {}))
    found = restore.restore_image(brighter, source, tmp_path / "b.png", predictor=predictor_of(log2_step))
    assert found.predicted_log2_step == pytest.approx(log2_step)
    old, new = (np.stack([each.pixels for each in frames_of(path)]) for path in (source, tmp_path / "b.png"))
    assert np.array_equal(old, new) is not changes


def test_a_picture_that_stands_apart_is_left_out_where_nothing_holds_it(photo, tmp_path):
    found = stills.Series(stills.FRAMES, 3, tuple(map(Fraction, (0, 40, 80))), 1, stands_apart=True)
    frames = [photo(20, 24, seed) // 2 for seed in range(3)]
    stills.write_each(tmp_path / "a.png", ((each, stills.Still(each, None, "RGB", "PNG")) for each in frames), found)
    whole = restore.restore_image(brighter, tmp_path / "a.png", tmp_path / "b.png", strength=1.0)
    assert whole.frames == 3 and stills.series(tmp_path / "b.png") == stills.series(tmp_path / "a.png")
    part = restore.restore_image(brighter, tmp_path / "a.png", tmp_path / "b.webp", strength=1.0)
    assert part.frames == 2 and "the picture for where an animation cannot be shown" in part.left_out[0]
    for old, new in zip(frames[1:], frames_of(tmp_path / "b.webp"), strict=True):
        np.testing.assert_array_equal(new.pixels, old + 8)
    looked = report.samples(tmp_path / "a.png", tmp_path / "b.webp", "image", count=12, frames=2)
    assert [each.name for each in looked.shown] == ["1 of 2", "2 of 2"]
    np.testing.assert_array_equal(looked.shown[0].versions["compressed"], frames[1])


# The command.


@pytest.fixture
def restorer(monkeypatch):
    monkeypatch.setattr(engines, "load", lambda *arguments: brighter)


@pytest.mark.parametrize(
    ("source", "target", "wants"),
    [
        ("a.gif", "b.jpg", ".png or .webp for an animation, here 3 frames"),
        ("a.webp", "b.gif", ".png or .webp for an animation, here 3 frames"),
        ("a.png", "b.tif", ".png or .webp for an animation, here 3 frames"),
        ("a.tif", "b.png", ".tif or .tiff for several pages, here 3 pages"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_target_that_holds_one_picture_is_refused(source, target, wants, flags, photo, tmp_path, run, restorer):
    if source == "a.tif":
        frames = [Image.fromarray(photo(20, 24, seed)) for seed in range(3)]
        frames[0].save(tmp_path / source, save_all=True, append_images=frames[1:])
    else:
        moving(tmp_path / source, photo)
    code, out, err = run("restore", tmp_path / source, "-o", tmp_path / target, *flags)
    assert (code, out) == (2, "")
    assert err == f"deartifact: error: expected a name that ends in {wants}. Received: path={tmp_path / target}\n"
    assert [path.name for path in tmp_path.iterdir()] == [source]


def test_the_command(photo, tmp_path, run, restorer):
    source, target = moving(tmp_path / "a.webp", photo), tmp_path / "b.png"
    code, out, _ = run("restore", source, "-o", target, "--dry-run")
    assert (code, out) == (0, f"{source} -> {target}\n")
    code, out, err = run(
        "restore", source, "-o", target, "--json", tmp_path / "c.json", "--report", tmp_path / "d.html"
    )
    assert code == 0 and err == f"deartifact: report: {tmp_path / 'd.html'}\n"
    assert out.startswith(f"{target}: 3 pictures of 51x37 left as they were, for no compression shows ")
    (record,) = json.loads((tmp_path / "c.json").read_text())["files"]
    assert record["frames"] == record["found"]["frame_count"] == 3
    assert record["found"]["duration_seconds"] == 1.33
    page = (tmp_path / "d.html").read_text("utf-8")
    assert page.count("data:image/webp;base64,") == 4 and "3 frames in" in page and "2 of 3" in page
    code, out, err = run("restore", source, "-o", tmp_path / "e.jpg", "--preview")
    assert code == 0
    with Image.open(tmp_path / "e.jpg") as image:
        assert image.size == (102, 37)
        middle = frames_of(source)[1].pixels.astype(int)
        assert np.abs(np.asarray(image)[:, :51] - middle).mean() < 4
    code, _, err = run("restore", source, "-o", tmp_path / "f.png", "--within-quantisation")
    assert code == 2 and "expected a JPEG, which states its quantisation, to stay within it" in err


def test_what_probe_says(photo, tmp_path, run):
    code, out, _ = run("probe", moving(tmp_path / "a.gif", photo, loop=0))
    assert code == 0
    lines = {line[:22].strip(" :"): line[22:] for line in out.splitlines()}
    assert (lines["frame count"], lines["duration seconds"], lines["plays"]) == ("3", "1.33", "without end")
    assert lines["frame milliseconds"] == "[30.0, 1230.0]"
    Image.new("L", (8, 8)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (9, 9))])
    code, out, _ = run("probe", tmp_path / "a.tif")
    assert "page count:           2" in out


@pytest.mark.parametrize("jobs", [[], ["--jobs", "2"]])
def test_in_a_folder(jobs, photo, tmp_path, run, restorer):
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "b.webp", "c.png"):
        moving(tmp_path / "in" / name, photo)
    (tmp_path / "in" / "broken.gif").write_bytes((tmp_path / "in" / "a.gif").read_bytes()[:3000])
    code, out, err = run("restore", tmp_path / "in", "-o", tmp_path / "out", *jobs)
    assert code == 2 and "3 restored, 0 incomplete, 0 skipped, 1 failed" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.gif.png", "b.webp", "c.png"]
    assert all(len(frames_of(path)) == 3 for path in (tmp_path / "out").iterdir())


def test_an_interruption_leaves_nothing(photo, tmp_path):
    def interrupted(frames, quantiser_map):
        if frames.mean() > 0.3:
            raise KeyboardInterrupt
        return frames

    source = moving(tmp_path / "a.webp", photo)
    with pytest.raises(KeyboardInterrupt):
        restore.restore_image(interrupted, source, Path(tmp_path / "b.webp"), strength=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.webp"]
