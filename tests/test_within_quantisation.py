import struct

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import cli, image, restore, stills
from keras_deartifact.stills import jpeg_coefficients, jpeg_entropy, within_quantisation

SIZES = [(64, 96), (45, 67), (9, 17)]


def _jpeg(path, pixels, **options):
    Image.fromarray(pixels).save(path, "JPEG", **options)
    return path


def _blurred(pixels):
    """What a bad network might make of a picture: each pixel the mean of itself and four neighbours."""
    padded = np.pad(pixels.astype(np.float32), [(1, 1), (1, 1), (0, 0)], mode="edge")
    total = padded[1:-1, 1:-1] + padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return total / np.float32(5 * 255)


def _recompressed(path, pixels, template):
    """The coefficients that Pillow makes of a picture with the tables and the subsampling of a JPEG."""
    tables = template.jpeg_tables[:2] if pixels.ndim == 3 else template.jpeg_tables[:1]
    options = {"subsampling": template.subsampling} if pixels.ndim == 3 else {}
    return jpeg_coefficients.read_coefficients(_jpeg(path, pixels, qtables=tables, **options))


def _same(first, second):
    """Share of coefficients that are equal."""
    pairs = zip(first.components, second.components, strict=True)
    equal = np.concatenate([(one.quantised == other.quantised).ravel() for one, other in pairs])
    return equal.mean()


# Coefficients.


def test_zigzag_is_the_standards():
    assert jpeg_entropy.ZIGZAG[:10] == (0, 1, 8, 16, 9, 2, 3, 10, 17, 24)
    assert jpeg_entropy.ZIGZAG[-3:] == (55, 62, 63)
    assert sorted(jpeg_entropy.ZIGZAG) == list(range(64))


def test_the_transform_is_orthonormal():
    np.testing.assert_allclose(jpeg_coefficients.DCT @ jpeg_coefficients.DCT.T, np.eye(8), atol=1e-12)
    plane = np.random.default_rng(0).normal(0, 50, (16, 24)).astype(np.float32)
    blocks = jpeg_coefficients.to_blocks(plane)
    assert blocks[1, 2, 0, 0] == pytest.approx(plane[8:, 16:].mean() * 8, rel=1e-4)
    np.testing.assert_allclose(jpeg_coefficients.from_blocks(blocks), plane, atol=1e-3)


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_coefficients_of_a_grey_jpeg_by_hand(quality, photo, tmp_path):
    grey = photo(48, 64)[..., 0]
    read = jpeg_coefficients.read_coefficients(_jpeg(tmp_path / "a.jpg", grey, quality=quality))
    (component,) = read.components
    exact = jpeg_coefficients.to_blocks(grey.astype(np.float32) - 128) / component.table
    # libjpeg's DCT is in whole numbers, so that a coefficient near a half may go the other way.
    near_half = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 0.25 / component.table
    assert (np.rint(exact) == component.quantised)[~near_half].all()
    assert near_half.mean() < 0.2
    assert component.table.ravel().tolist() == stills.read(tmp_path / "a.jpg").jpeg_tables[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_every_way_to_code_gives_the_same(size, subsampling, photo, tmp_path):
    pixels = photo(*size)
    read = [
        jpeg_coefficients.read_coefficients(
            _jpeg(tmp_path / "a.jpg", pixels, quality=80, subsampling=subsampling, **each)
        )
        for each in ({}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 3})
    ]
    for other in read[1:]:
        assert _same(read[0], other) == 1.0
    # And they are the picture: Pillow's decoder makes the same luma of them.
    luma = read[0].components[0]
    plane = jpeg_coefficients.from_blocks((luma.quantised * luma.table).astype(np.float32)) + 128
    with Image.open(tmp_path / "a.jpg") as picture:
        picture.draft("YCbCr", None)
        decoded = np.asarray(picture)[..., 0]
    expected = np.clip(plane[: size[0], : size[1]], 0, 255)
    assert np.abs(expected - decoded).max() <= 1.0


def test_long_codes_and_values(photo, tmp_path):
    noise = np.random.default_rng(1).integers(0, 2, (12, 12, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1) * 255
    tables = [[1] * 64, [1] * 64]
    read = [
        jpeg_coefficients.read_coefficients(
            _jpeg(tmp_path / "a.jpg", noise, qtables=tables, subsampling=0, progressive=each)
        )
        for each in (False, True)
    ]
    assert _same(*read) == 1.0
    assert np.abs(read[0].components[0].quantised).max() > 500


def test_cmyk_has_four_components(photo, tmp_path):
    Image.fromarray(photo(32, 32)).convert("CMYK").save(tmp_path / "a.jpg", quality=70)
    read = jpeg_coefficients.read_coefficients(tmp_path / "a.jpg")
    assert len(read.components) == 4 and read.adobe_transform == 0
    with pytest.raises(ValueError, match=r"expected a grey or YCbCr JPEG .*Received: 4 components$"):
        within_quantisation.require(read)


def test_broken_files_are_one_line(photo, tmp_path):
    whole = _jpeg(tmp_path / "whole.jpg", photo(48, 64), progressive=True, quality=90).read_bytes()
    plain = _jpeg(tmp_path / "plain.jpg", photo(48, 64), quality=90).read_bytes()
    broken = tmp_path / "broken.jpg"
    for data in (b"", b"\x89PNG", plain[:100], plain[: len(plain) // 2], plain[:-200] + b"\xff\xd9"):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=r"^expected a .*JPEG.* Received: path=.*broken\.jpg$"):
            jpeg_coefficients.read_coefficients(broken)
    generator = np.random.default_rng(0)
    for data in [whole, plain] * 30:
        scrambled = np.frombuffer(data, np.uint8).copy()
        scrambled[generator.integers(2, len(data), 6)] = generator.integers(0, 256, 6)
        broken.write_bytes(scrambled.tobytes())
        try:
            read = jpeg_coefficients.read_coefficients(broken)
        except ValueError as error:
            assert "\n" not in str(error) and "broken.jpg" in str(error)
        else:
            assert read.components


def test_other_kinds_of_jpeg_are_named(photo, tmp_path):
    data = _jpeg(tmp_path / "a.jpg", photo(16, 16)).read_bytes()
    place = data.index(b"\xff\xc0")
    for marker, bits, message in ((0xC9, 8, "jpegtran"), (0xC3, 8, "without loss"), (0xC0, 12, "8 bits, not 12")):
        changed = bytearray(data)
        changed[place + 1], changed[place + 4] = marker, bits
        (tmp_path / "b.jpg").write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            jpeg_coefficients.read_coefficients(tmp_path / "b.jpg")


# The projection.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [10, 40, 75])
def test_recompressing_gives_the_same_coefficients(size, subsampling, quality, photo, tmp_path):
    """The claim itself, with Pillow as the judge: every coefficient, of pictures that fill no whole blocks, too."""
    source = _jpeg(tmp_path / "a.jpg", photo(*size), quality=quality, subsampling=subsampling)
    template, stated = stills.read(source), jpeg_coefficients.read_coefficients(source)
    blurred = _blurred(template.pixels)
    projection = within_quantisation.project(blurred, stated)
    before = _same(stated, _recompressed(tmp_path / "b.jpg", image.to_uint8(blurred), template))
    after = _same(stated, _recompressed(tmp_path / "b.jpg", projection.pixels, template))
    # Of the finest steps a few in blocks that reach beyond the picture may be left.
    least = 1.0 if quality < 75 or size == SIZES[0] else 0.999
    assert projection.inside >= least and after >= least
    assert projection.inside_before == pytest.approx(before, abs=0.01)
    assert before < 0.995 or quality == 10


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("quality", [40, 75])
def test_bands_do_not_matter(subsampling, quality, photo, tmp_path, monkeypatch):
    pixels = photo(101, 77) if subsampling != "grey" else photo(101, 77)[..., 0]
    options = {} if subsampling == "grey" else {"subsampling": subsampling}
    source = _jpeg(tmp_path / "a.jpg", pixels, quality=quality, **options)
    stated, blurred = jpeg_coefficients.read_coefficients(source), _blurred(stills.read(source).pixels)
    whole = within_quantisation.project(blurred, stated, in_bands=False)
    monkeypatch.setattr(within_quantisation, "_BAND_PIXELS", 1)
    # A narrow band has few coefficients, of which one is many.
    monkeypatch.setattr(within_quantisation, "_HOPELESS", 1.0)
    narrow = within_quantisation.project(blurred, stated)
    assert narrow.inside_before == pytest.approx(whole.inside_before, abs=1e-12)
    assert narrow.inside >= whole.inside
    # Where all come inside, a band is done no differently from the picture; float32 adds up in another order.
    if whole.inside == narrow.inside == 1:
        difference = np.abs(narrow.pixels.astype(int) - whole.pixels)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.002


def test_what_a_jpeg_gives_back_of_rows_it_gives_of_them_in_the_picture(photo):
    """On which bands depend."""
    pixels = photo(48, 61)
    assert stills.loss("a.jpg") == "blocks"
    whole = stills.read_back("a.jpg", pixels)
    assert not np.array_equal(whole, pixels)
    np.testing.assert_array_equal(stills.read_back("a.jpg", pixels[16:32]), whole[16:32])
    assert [stills.loss(*each) for each in (("a.png",), ("a.tif",), ("a.webp",), ("a.webp", 80))] == [
        None, None, None, "whole",
    ]  # fmt: skip
    assert stills.read_back("a.webp", pixels) is pixels


def test_grey(photo, tmp_path):
    source = _jpeg(tmp_path / "a.jpg", photo(40, 56)[..., 0], quality=30)
    template, stated = stills.read(source), jpeg_coefficients.read_coefficients(source)
    projection = within_quantisation.project(_blurred(template.pixels), stated)
    assert projection.pixels.shape == (40, 56)
    assert projection.inside == 1.0
    assert _same(stated, _recompressed(tmp_path / "b.jpg", projection.pixels, template)) == 1.0


@pytest.mark.parametrize("quality", [40, 75, 90])
def test_it_comes_nearer_to_the_original(quality, photo, tmp_path):
    original = photo(64, 96)
    source = _jpeg(tmp_path / "a.jpg", original, quality=quality, subsampling="4:2:0")
    stated = jpeg_coefficients.read_coefficients(source)
    blurred = _blurred(stills.read(source).pixels)
    projection = within_quantisation.project(blurred, stated)

    def error(pixels):
        return np.square(pixels.astype(float) - original).mean()

    assert error(projection.pixels) < error(image.to_uint8(blurred))


def test_16_bits_hold_fine_steps(photo, tmp_path):
    source = _jpeg(tmp_path / "a.jpg", photo(64, 96) // 2 + 60, quality=95, subsampling="4:2:0")
    stated = jpeg_coefficients.read_coefficients(source)
    blurred = _blurred(stills.read(source).pixels)
    coarse = within_quantisation.project(blurred, stated)
    fine = within_quantisation.project(blurred, stated, dtype=np.uint16)
    assert fine.pixels.dtype == np.uint16
    assert fine.inside == 1.0
    assert 0.98 < coarse.inside < 1.0
    # In exact numbers, without this module's planes: luma of 16 bits, its DCT, rounded.
    luma = (fine.pixels / 257.0) @ np.array([0.299, 0.587, 0.114])
    ratio = jpeg_coefficients.to_blocks(luma - 128) / stated.components[0].table
    assert (np.rint(ratio) == stated.components[0].quantised).all()


def test_a_picture_inside_is_left_alone(photo, tmp_path):
    original = photo(64, 96)
    stated = jpeg_coefficients.read_coefficients(_jpeg(tmp_path / "a.jpg", original, quality=20, subsampling=0))
    projection = within_quantisation.project(image.to_float(original), stated)
    # The original itself is in all of its intervals, but for those within a guard of their border.
    assert projection.inside_before > 0.999
    assert (projection.pixels != original).mean() < 0.2
    assert np.abs(projection.pixels.astype(int) - original).max() <= 1


def test_measured_is_what_libjpeg_does(photo, tmp_path):
    pixels = photo(45, 67)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        source = _jpeg(tmp_path / "a.jpg", pixels, quality=90, subsampling=subsampling)
        stated = jpeg_coefficients.read_coefficients(source)
        for found, component in zip(within_quantisation.measured(pixels, stated), stated.components, strict=True):
            ratio = found / component.table
            assert np.abs(ratio - component.quantised).max() < 0.5 + 0.2 / component.table.min()
            # A tie, of which a mean in whole numbers has many, may go the other way.
            assert (np.rint(ratio) == component.quantised).mean() > 0.98


def test_borders_that_are_not_repeated_are_left_alone(photo, tmp_path):
    """A file whose encoder filled the last blocks with black: of them no picture gives the coefficients."""
    pixels = np.pad(photo(40, 43) // 2 + 100, [(0, 0), (0, 5), (0, 0)])
    data = bytearray(_jpeg(tmp_path / "a.jpg", pixels, quality=60, subsampling=0).read_bytes())
    place = data.index(b"\xff\xc0")
    struct.pack_into(">H", data, place + 7, 43)
    (tmp_path / "b.jpg").write_bytes(data)
    still = stills.read(tmp_path / "b.jpg")
    stated = jpeg_coefficients.read_coefficients(tmp_path / "b.jpg")
    projection = within_quantisation.project(image.to_float(still.pixels), stated)
    assert projection.inside == 1.0
    np.testing.assert_allclose(projection.pixels[:, 40:].astype(int), still.pixels[:, 40:].astype(int), atol=1)


def test_what_is_refused(photo, tmp_path):
    stated = jpeg_coefficients.read_coefficients(_jpeg(tmp_path / "a.jpg", photo(16, 16)))
    with pytest.raises(ValueError, match=r"images of shape \(16, 16, 3\)"):
        within_quantisation.project(np.zeros((16, 8, 3), np.float32), stated)
    Image.fromarray(photo(16, 16)).save(tmp_path / "rgb.jpg", keep_rgb=True)
    with pytest.raises(ValueError, match=r"expected a grey or YCbCr JPEG .*Received: RGB$"):
        within_quantisation.require(jpeg_coefficients.read_coefficients(tmp_path / "rgb.jpg"))
    # Three luma samples for two of chroma.
    uneven = [
        jpeg_coefficients.Component(each.identifier, across, 1, each.table, each.quantised)
        for each, across in zip(stated.components, (3, 2, 2), strict=True)
    ]
    with pytest.raises(ValueError, match=r"subsampled by a whole number .*Received: 2 of 3, 1 of 1$"):
        within_quantisation.require(jpeg_coefficients.Coefficients(16, 16, tuple(uneven), None))


# From a file to a file.


def _blurring(frames, quantiser_map):
    return np.stack([_blurred(255 * each) for each in frames])


@pytest.mark.parametrize("name", ["new.png", "new.jpg", "new.webp"])
def test_restored_files_stay_within(name, photo, tmp_path):
    source = _jpeg(tmp_path / "old.jpg", photo(64, 96), quality=30, subsampling="4:2:0", comment=b"kept")
    report = restore.restore_image(_blurring, source, tmp_path / name, within_quantisation=True)
    template, restored = stills.read(source), stills.read(tmp_path / name)
    same = _same(
        jpeg_coefficients.read_coefficients(source), _recompressed(tmp_path / "b.jpg", restored.pixels, template)
    )
    assert report.inside == 1.0
    assert same >= 0.9999
    plain = restore.restore_image(_blurring, source, tmp_path / f"plain{name}")
    assert plain.inside is None


def test_grey_files_of_both_depths(photo, tmp_path):
    source = _jpeg(tmp_path / "old.jpg", photo(40, 56)[..., 0], quality=30)
    for bits, mode in ((8, "L"), (16, "I;16")):
        report = restore.restore_image(_blurring, source, tmp_path / f"{bits}.png", within_quantisation=True, bits=bits)
        assert report.inside == 1.0
        assert stills.read(tmp_path / f"{bits}.png").mode == mode


def test_only_a_jpeg_states_its_quantisation(photo, tmp_path):
    calls = []

    def noting(frames, quantiser_map):
        calls.append(frames)
        return frames

    Image.fromarray(photo(16, 16)).save(tmp_path / "old.png")
    with pytest.raises(ValueError, match=r"^expected a JPEG, which states its quantisation.*old\.png, PNG$"):
        restore.restore_image(noting, tmp_path / "old.png", tmp_path / "new.png", within_quantisation=True)
    assert not calls and not (tmp_path / "new.png").exists()


def test_the_command(photo, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    _jpeg(tmp_path / "in" / "a.jpg", photo(48, 64), quality=30)
    Image.fromarray(photo(16, 16)).save(tmp_path / "in" / "b.png")
    arguments = ["--model", "shuffle_nano", "--engine", "litert", "--within-quantisation"]
    assert cli.main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *arguments]) == 0
    assert "2 restored" in capsys.readouterr().out
    done = cli.main(
        ["restore", str(tmp_path / "in" / "a.jpg"), "-o", str(tmp_path / "a.png"), "--bits", "16", *arguments]
    )
    assert done == 0
    assert "100 % of its coefficients come back when recompressed" in capsys.readouterr().out
    assert stills.read(tmp_path / "a.png").pixels.dtype == np.uint16
    assert cli.main(["restore", str(tmp_path / "in" / "b.png"), "-o", str(tmp_path / "b.png"), *arguments]) == 2
    assert "expected a JPEG, which states its quantisation" in capsys.readouterr().err
