"""Tells decoded JPEGs from what was never compressed."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_deartifact import engines, restore, stills
from keras_deartifact.stills import animation
from keras_deartifact.stills.jpeg_history import margin, was_jpeg


@pytest.fixture(scope="module")
def scene():
    """Something like a photograph: detail of all sizes, 320x400, without clipped pixels."""
    rng = np.random.default_rng(5)
    layers = []
    for size in (5, 20, 80, 320):
        noise = rng.uniform(0, 255, (size, size * 5 // 4, 3)).astype(np.uint8)
        layers.append(np.asarray(Image.fromarray(noise).resize((400, 320), Image.Resampling.BICUBIC), np.float32))
    mixed = np.average(layers, axis=0, weights=[8, 4, 2, 1])
    return np.clip(30 + mixed * 0.75, 5, 250).astype(np.uint8)


def jpeg(pixels, quality, subsampling=2, mode="RGB"):
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return np.array(Image.open(stream).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [60, 75, 85, 90, 95])
def test_a_jpeg_is_recognised_wherever_it_is_cropped(scene, quality, subsampling, mode):
    decoded = jpeg(scene, quality, subsampling, mode)
    assert was_jpeg(decoded)
    assert was_jpeg(decoded[3:, 5:])
    assert was_jpeg(np.ascontiguousarray(np.rot90(decoded)))
    assert was_jpeg(decoded.astype(np.uint16) * 257)


def test_what_was_never_compressed_is_not(scene, drawing):
    for clean in (scene, scene[3:, 5:], np.full_like(scene, 90), *(drawing(kind) for kind in ("text", "chart"))):
        assert not was_jpeg(clean)
        assert margin(clean) < 0.07


def test_scaling_undoes_it(scene):
    small = Image.fromarray(jpeg(scene, 60)).resize((310, 250), Image.Resampling.BICUBIC)
    assert not was_jpeg(np.asarray(small))


@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (16, 16), (400, 17)])
def test_a_picture_with_too_little_in_it_shows_nothing(scene, shape):
    assert margin(scene[: shape[0], : shape[1]]) < 0.1


@pytest.mark.parametrize(
    ("extension", "options"),
    [("png", {}), ("bmp", {}), ("tiff", {}), ("tiff", {"compression": "tiff_lzw"}), ("webp", {"lossless": True})],
)
@pytest.mark.parametrize("history", ["clean", "jpeg"])
def test_of_what_is_without_loss_only_jpegs_are_restored(scene, tmp_path, history, extension, options):
    """Where the predictor takes both for the same, finer than what counts by itself."""
    source, target = tmp_path / f"a.{extension}", tmp_path / "b.png"
    pixels = scene if history == "clean" else jpeg(scene, 75)
    Image.fromarray(pixels).save(source, **options)
    report = restore.restore_image(brighter, source, target, predictor=taking_it_for(3.0))
    assert report.predicted_log2_step == 3.0
    assert report.log2_step == (restore.LOSSLESS_LOG2_STEP if history == "clean" else None)
    assert np.array_equal(np.asarray(Image.open(target)), pixels) is (history == "clean")


@pytest.mark.parametrize("lossless", [True, False])
def test_an_animation_of_one_frame_is_a_picture(scene, tmp_path, lossless):
    """Of which Pillow makes none, but others do."""
    source = tmp_path / "a.webp"
    Image.fromarray(scene).save(source, lossless=lossless)
    frame = [animation.Part(0, 0, 400, 320, source.read_bytes())]
    with source.open("w+b") as file:
        animation.write_webp(file, frame, stills.Series(stills.FRAMES, 1, (Fraction(40),)))
    assert stills.series(source) is None
    assert stills.read(source).lossless is lossless


def test_a_file_with_loss_counts_as_it_looks(scene, tmp_path):
    for name, options in (("a.webp", {"quality": 80}), ("a.tiff", {"compression": "jpeg"})):
        Image.fromarray(scene).save(tmp_path / name, **options)
        report = restore.restore_image(
            brighter, tmp_path / name, tmp_path / "b.png", predictor=taking_it_for(3.0), overwrite=True
        )
        assert report.log2_step is None


def test_a_strength_overrides_the_judgement(scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "a.png")
    restore.restore_image(brighter, tmp_path / "a.png", tmp_path / "b.png", predictor=taking_it_for(3.0), strength=1.0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.minimum(scene + 8, 255))


@pytest.mark.parametrize(("shades", "changes"), [(20, False), (120, True)])
def test_grey_has_fewer_colours_without_being_drawn(scene, tmp_path, shades, changes):
    grey = np.asarray(Image.fromarray(scene).convert("L"), np.float32)
    grey = ((grey - grey.min()) / (np.ptp(grey) + 1) * shades).astype(np.uint8) + 40
    Image.fromarray(grey).save(tmp_path / "a.png")
    restore.restore_image(brighter, tmp_path / "a.png", tmp_path / "b.png", predictor=taking_it_for(5.0))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png").convert("L")), grey) is not changes


@pytest.fixture
def drawing():
    def draw(kind):
        canvas = Image.new("RGB", (320, 240), (250, 250, 244))
        pen = ImageDraw.Draw(canvas)
        for index in range(60):
            x, y = index * 37 % 300, index * 53 % 220
            if kind == "text":
                pen.text((x, y), f"text {index}", fill=(20, 20, 40))
            else:
                pen.rectangle((x, y, x + index % 31 + 2, y + index % 17 + 3), fill=(3 * index + 20, 90, 200 - index))
        return np.asarray(canvas)

    return draw


def brighter(frames, quantiser_map):
    return np.minimum(frames + np.float32(8 / 255), 1.0)


def taking_it_for(log2_step):
    def predictor(frames):
        return np.full((len(frames), -(-frames.shape[1] // 16), -(-frames.shape[2] // 16)), log2_step, np.float32)

    return predictor


@pytest.mark.parametrize("bits", [None, 16])
@pytest.mark.parametrize("history", ["clean", "jpeg"])
def test_the_command_tells_what_was_left_as_it_was(scene, tmp_path, monkeypatch, run, history, bits):
    monkeypatch.setattr(engines, "load", lambda *arguments: brighter)
    monkeypatch.setattr(engines, "load_predictor", lambda threads=None: taking_it_for(3.0))
    (tmp_path / "a").mkdir()
    Image.fromarray(scene if history == "clean" else jpeg(scene, 75)).save(tmp_path / "a" / "a.png")
    given = [] if bits is None else ["--bits", bits]
    code, out, _ = run("restore", tmp_path / "a", "-o", tmp_path / "b", "--json", tmp_path / "c", *given)
    (file,) = json.loads((tmp_path / "c").read_text())["files"]
    assert (code, file["found"]["changed"]) == (0, history == "jpeg")
    assert ("400x320 left as it was, for no compression shows (--strength 1 restores all the same), in " in out) is (
        history == "clean"
    )


def test_the_command_does_not_say_that_a_picture_without_loss_states_a_step(scene, tmp_path, monkeypatch, run):
    monkeypatch.setattr(engines, "load", lambda *arguments: brighter)
    monkeypatch.setattr(engines, "load_predictor", lambda threads=None: taking_it_for(5.0))
    Image.fromarray(scene).save(tmp_path / "a.png")
    code, out, _ = run("restore", tmp_path / "a.png", "-o", tmp_path / "b.png")
    assert code == 0 and "400x320 from log2 step 5.00, as its pixels show in " in out
