import dataclasses
import io
import shutil
import struct
import subprocess
import zlib

import av
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from keras_deartifact import stills

ICC = b"a colour profile that nobody reads" * 4
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r>\xc3\xa9</r></x:xmpmeta>'


def _exif(orientation=6):
    tags = Image.Exif()
    tags[274] = orientation
    tags[271] = "Maker"
    tags.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:59"
    tags.get_ifd(0x8825)[1] = "N"
    return tags.tobytes()


def _facts(block):
    tags = Image.Exif()
    tags.load(block)
    return tags.get(274), tags.get(271), tags.get_ifd(0x8769).get(0x9003), tags.get_ifd(0x8825).get(1)


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["png", "tif", "tiff", "webp", "PNG"])
def test_lossless_formats_give_the_pixels_back(extension, photo, tmp_path):
    pixels = photo(37, 50)
    path = tmp_path / f"picture.{extension}"
    stills.write(path, pixels)
    still = stills.read(path)
    np.testing.assert_array_equal(still.pixels, pixels)
    assert still.pixels.dtype == np.uint8
    assert (still.mode, still.alpha, still.jpeg_tables, still.subsampling) == ("RGB", None, None, None)
    assert still.format == stills.WRITE_FORMATS[f".{extension.lower()}"]


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_metadata_round_trip(extension, photo, tmp_path):
    pixels = photo(24, 40)
    source = tmp_path / "source.jpg"
    Image.fromarray(pixels).save(source, exif=_exif(), icc_profile=ICC, dpi=(300, 150), xmp=XMP)
    template = stills.read(source)
    assert _facts(template.exif) == (6, "Maker", "1999:12:31 23:59:59", "N")
    assert (template.icc_profile, template.dpi, template.xmp) == (ICC, (300, 150), XMP)
    # As stored: the orientation is in EXIF, and not in the pixels.
    assert template.pixels.shape == pixels.shape

    path = tmp_path / f"copy.{extension}"
    stills.write(path, template.pixels, template)
    copy = stills.read(path)
    assert (copy.icc_profile, copy.xmp) == (ICC, XMP)
    if extension == "tif":
        # Pillow turns a TIFF upright as it loads it.
        assert _facts(copy.exif) == (None, "Maker", "1999:12:31 23:59:59", "N")
        np.testing.assert_array_equal(copy.pixels, np.rot90(pixels_of(source), -1))
    else:
        assert _facts(copy.exif) == (6, "Maker", "1999:12:31 23:59:59", "N")
    # PNG holds whole pixels to the metre; WebP holds no resolution outside EXIF.
    assert copy.dpi is None if extension == "webp" else copy.dpi == pytest.approx((300, 150), abs=0.02)


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_tiff_metadata_survives_tiff_to_jpeg(photo, tmp_path):
    source = tmp_path / "source.tif"
    tags = Image.Exif()
    tags.load(_exif(1))
    # XMP is a tag like any other in a TIFF.
    tags[700] = XMP
    Image.fromarray(photo(24, 40)).save(source, exif=tags, icc_profile=ICC, dpi=(600, 600))
    template = stills.read(source)
    stills.write(tmp_path / "copy.jpg", template.pixels, template)
    copy = stills.read(tmp_path / "copy.jpg")
    assert _facts(copy.exif) == (1, "Maker", "1999:12:31 23:59:59", "N")
    assert (copy.icc_profile, copy.dpi, copy.xmp) == (ICC, (600, 600), XMP)
    # Nothing that says where a TIFF's pixels were.
    tags = Image.Exif()
    tags.load(copy.exif)
    assert not {256, 257, 259, 273, 279} & set(tags)
    # Without EXIF a TIFF is compressed, which takes another way through Pillow.
    stills.write(tmp_path / "copy.tif", template.pixels, dataclasses.replace(template, exif=None))
    packed = stills.read(tmp_path / "copy.tif")
    assert (packed.icc_profile, packed.dpi, packed.xmp) == (ICC, (600, 600), XMP)
    assert (tmp_path / "copy.tif").stat().st_size < source.stat().st_size


def test_a_picture_without_metadata_stays_so(photo, tmp_path):
    template = stills.read(_save(tmp_path / "source.png", photo(8, 8)))
    assert (template.exif, template.xmp, template.icc_profile, template.dpi) == (None, None, None, None)


def test_jpeg_tables_are_row_by_row(photo, tmp_path):
    luma, chroma = list(range(1, 65)), list(range(101, 165))
    path = _save(tmp_path / "picture.jpg", photo(32, 32), qtables=[luma, chroma], subsampling=2)
    still = stills.read(path)
    assert still.jpeg_tables == [luma, chroma, chroma]
    assert still.subsampling == "4:2:0"
    # The file itself has them in zigzag order: the third value is the first of row 1.
    data = path.read_bytes()
    table = data[data.index(b"\xff\xdb") + 5 :][:64]
    assert list(table[:4]) == [luma[0], luma[1], luma[8], luma[16]]
    annex_k = stills.read(_save(tmp_path / "half.jpg", photo(32, 32), quality=50)).jpeg_tables[0]
    assert annex_k[:8] == [16, 11, 10, 16, 24, 40, 51, 61]


@pytest.mark.parametrize(("code", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_subsampling(code, name, photo, tmp_path):
    assert stills.read(_save(tmp_path / "picture.jpg", photo(32, 32), subsampling=code)).subsampling == name


def test_jpeg_is_written_fine(photo, tmp_path):
    pixels = photo(48, 64)
    stills.write(tmp_path / "default.jpg", pixels)
    default = stills.read(tmp_path / "default.jpg")
    assert default.subsampling == "4:4:4"
    assert max(default.jpeg_tables[0]) <= 5
    stills.write(tmp_path / "small.jpg", pixels, quality=40)
    assert (tmp_path / "small.jpg").stat().st_size < 0.5 * (tmp_path / "default.jpg").stat().st_size
    assert np.abs(default.pixels.astype(int) - pixels).mean() < 1.5


def test_webp_quality(photo, tmp_path):
    pixels = photo(48, 64)
    stills.write(tmp_path / "exact.webp", pixels)
    stills.write(tmp_path / "lossy.webp", pixels, quality=50)
    assert (stills.read(tmp_path / "lossy.webp").pixels != pixels).any()
    assert (tmp_path / "lossy.webp").stat().st_size < (tmp_path / "exact.webp").stat().st_size


@pytest.mark.parametrize("extension", ["jpg", "png", "tif"])
def test_grey_stays_grey(extension, photo, tmp_path):
    grey = photo(24, 40)[..., 0]
    template = stills.read(_save(tmp_path / "source.png", grey))
    assert template.mode == "L"
    np.testing.assert_array_equal(template.pixels, np.dstack([grey] * 3))
    stills.write(tmp_path / f"copy.{extension}", template.pixels, template)
    copy = stills.read(tmp_path / f"copy.{extension}")
    assert copy.mode == "L"
    if extension != "jpg":
        np.testing.assert_array_equal(copy.pixels, template.pixels)
    stills.write(tmp_path / f"plain.{extension}", grey)
    assert stills.read(tmp_path / f"plain.{extension}").mode == "L"


def test_grey_takes_the_luma_of_colour(tmp_path):
    template = stills.read(_save(tmp_path / "source.png", np.zeros((1, 2), np.uint8)))
    stills.write(tmp_path / "copy.png", np.array([[[10, 20, 30], [255, 0, 0]]], np.uint8), template)
    assert pixels_of(tmp_path / "copy.png").tolist() == [[18, 76]]


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_alpha(extension, photo, tmp_path):
    pixels = np.dstack([photo(24, 40), photo(24, 40, seed=1)[..., 0]])
    # Transparent pixels keep their colour too.
    pixels[:4, :, 3] = 0
    template = stills.read(_save(tmp_path / "source.png", pixels))
    np.testing.assert_array_equal(template.pixels, pixels[..., :3])
    np.testing.assert_array_equal(template.alpha, pixels[..., 3])
    stills.write(tmp_path / f"copy.{extension}", 255 - template.pixels, template)
    copy = stills.read(tmp_path / f"copy.{extension}")
    np.testing.assert_array_equal(copy.pixels, 255 - pixels[..., :3])
    np.testing.assert_array_equal(copy.alpha, pixels[..., 3])


def test_grey_with_alpha(photo, tmp_path):
    samples = photo(9, 8)[..., :2]
    template = stills.read(_save(tmp_path / "source.png", samples))
    stills.write(tmp_path / "copy.png", template.pixels, template)
    assert template.mode == "LA"
    np.testing.assert_array_equal(pixels_of(tmp_path / "copy.png"), samples)


def test_jpeg_has_no_alpha(photo, tmp_path):
    pixels = np.dstack([photo(8, 8), np.full((8, 8), 255, np.uint8)])
    template = stills.read(_save(tmp_path / "opaque.png", pixels))
    stills.write(tmp_path / "copy.jpg", template.pixels, template)
    assert stills.read(tmp_path / "copy.jpg").alpha is None
    pixels[0, 0, 3] = 254
    template = stills.read(_save(tmp_path / "clear.png", pixels))
    with pytest.raises(ValueError, match=r"for a picture with alpha\. Received: format=JPEG"):
        stills.write(tmp_path / "refused.jpg", template.pixels, template)
    assert not (tmp_path / "refused.jpg").exists()


def test_palettes_and_bilevel_become_plain(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    palette = Image.fromarray(colours).quantize(4)
    for name in ("picture.gif", "picture.png", "picture.bmp"):
        palette.save(tmp_path / name)
        still = stills.read(tmp_path / name)
        np.testing.assert_array_equal(still.pixels, colours)
        assert still.mode == "P"
    palette.save(tmp_path / "clear.png", transparency=palette.getpixel((1, 0)))
    np.testing.assert_array_equal(stills.read(tmp_path / "clear.png").alpha, [[255, 0], [255, 255]])
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "fax.tif", compression="group4")
    fax = stills.read(tmp_path / "fax.tif")
    assert (fax.mode, fax.pixels.tolist()) == ("1", [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_16_bit_colour_png(colour_type, channels, interlace, deep, tmp_path, png_16_bit):
    samples = deep[..., :channels]
    (tmp_path / "source.png").write_bytes(png_16_bit(samples, colour_type, interlace=interlace))
    template = stills.read(tmp_path / "source.png")
    assert template.pixels.dtype == np.uint16
    np.testing.assert_array_equal(template.pixels, samples[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(template.alpha, samples[..., 3])
    stills.write(tmp_path / "copy.png", template.pixels, template)
    copy = stills.read(tmp_path / "copy.png")
    np.testing.assert_array_equal(copy.pixels, template.pixels)
    np.testing.assert_array_equal(copy.alpha, template.alpha)


def test_16_bit_png_keeps_metadata(deep, photo, tmp_path):
    Image.fromarray(photo(21, 34)).save(tmp_path / "source.jpg", exif=_exif(), icc_profile=ICC, dpi=(96, 96), xmp=XMP)
    stills.write(tmp_path / "copy.png", deep[..., :3], stills.read(tmp_path / "source.jpg"))
    copy = stills.read(tmp_path / "copy.png")
    assert _facts(copy.exif)[0] == 6
    assert (copy.icc_profile, copy.xmp) == (ICC, XMP)
    assert copy.dpi == pytest.approx((96, 96), abs=0.02)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_grey(extension, deep, tmp_path):
    template = stills.read(_save(tmp_path / f"source.{extension}", deep[..., 0]))
    assert (template.mode, template.pixels.dtype) == ("I;16", np.uint16)
    np.testing.assert_array_equal(template.pixels, np.dstack([deep[..., 0]] * 3))
    stills.write(tmp_path / f"copy.{extension}", template.pixels, template)
    copy = stills.read(tmp_path / f"copy.{extension}")
    assert copy.mode == "I;16"
    np.testing.assert_array_equal(copy.pixels, template.pixels)


def test_big_endian_tiff(deep, tmp_path):
    Image.fromarray(deep[..., 0].astype(">u2")).save(tmp_path / "source.tif")
    np.testing.assert_array_equal(stills.read(tmp_path / "source.tif").pixels[..., 0], deep[..., 0])


def _tiff(samples, bits, photometric):
    """A little-endian TIFF of one strip."""
    height, width = samples.shape[:2]
    channels = samples.size // (height * width)
    data = samples.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, channels)]
    tags += [(278, height), (279, len(data))]
    body, extra = b"", b""
    end = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, value in tags:
        if tag == 258 and channels == 3:
            extra = struct.pack("<3H", bits, bits, bits)
            body += struct.pack("<HHII", tag, 3, 3, end)
        else:
            body += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + body + b"\0" * 4 + extra


def test_what_is_refused_at_reading(deep, photo, tmp_path, png_16_bit):
    def refused(name, message, data=None):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{message}.*Received: path=.*{name}$") as caught:
            stills.read(tmp_path / name)
        assert "\n" not in str(caught.value)

    pixels = photo(16, 16)
    refused("la.png", "expected 16-bit grey PNG without alpha", png_16_bit(deep[..., :2], 4))
    transparent = struct.pack(">I4s3H", 6, b"tRNS", 1, 2, 3)
    transparent += struct.pack(">I", zlib.crc32(transparent[4:]))
    refused("key.png", "expected 16-bit PNG without a transparent colour", png_16_bit(deep[..., :3], 2, transparent))
    refused("white.tif", "expected 16-bit grey TIFF in which 0 is black", _tiff(deep[..., 0], 16, 0))
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    refused("cmyk.jpg", "expected grey or RGB of 8 or 16 bits, not mode CMYK")
    _save(tmp_path / "float.tif", pixels[..., 0].astype(np.float32))
    refused("float.tif", "expected grey or RGB of 8 or 16 bits, not mode F")
    _save(tmp_path / "long.tif", pixels[..., 0].astype(np.int32))
    refused("long.tif", "expected grey or RGB of 8 or 16 bits, not mode I")


def test_tiff_helper_is_valid(deep, tmp_path):
    (tmp_path / "grey.tif").write_bytes(_tiff(deep[..., 0], 16, 1))
    np.testing.assert_array_equal(stills.read(tmp_path / "grey.tif").pixels[..., 0], deep[..., 0])


def test_what_is_refused_at_writing(deep, photo, tmp_path):
    pixels = photo(21, 34)
    template = stills.read(_save(tmp_path / "source.png", np.dstack([pixels, pixels[..., 0]])))

    def refused(name, message, array, template=None, **options):
        with pytest.raises(ValueError, match=message):
            stills.write(tmp_path / name, array, template, **options)
        assert not (tmp_path / name).exists()

    refused("a.jpg", r"PNG or TIFF for 16 bits\. Received: format=JPEG", deep[..., :3])
    refused("a.webp", r"PNG or TIFF for 16 bits\. Received: format=WEBP", deep[..., 0])
    refused("a.png", r"alpha's dtype uint8\. Received: pixels\.dtype=uint16", deep[..., :3], template)
    refused("a.png", r"as large as the template.*Received: pixels\.shape=\(20, 34, 3\)", pixels[:20], template)
    refused("a.png", r"dtype uint8 or uint16\. Received: pixels\.dtype=float32", pixels.astype(np.float32))
    refused("a.png", r"or \(height, width\)\. Received: pixels\.shape=\(21, 34, 4\)", deep)
    refused("a.png", r"Received: pixels\.shape=\(0, 34, 3\)", pixels[:0])
    refused("a.jpg", r"quality 1 to 100\. Received: quality=0", pixels, quality=0)
    refused("a.gif", r"name ending in one of .*Received: path=.*a\.gif", pixels)
    refused("a", r"name ending in one of", pixels)
    refused("a.png", r"one of the formats .*Received: format='GIF'", pixels, format="GIF")
    long = stills.Still(pixels, None, "RGB", "JPEG", exif=b"Exif\0\0" + b"\0" * 70000)
    refused("a.jpg", r"that JPEG can hold \(EXIF data is too long\)\. Received: path=.*a\.jpg", pixels, long)


def test_explicit_format(photo, tmp_path):
    pixels = photo(8, 8)
    stills.write(tmp_path / "picture.jpg.part", pixels, format="PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["picture.jpg.part"]
    np.testing.assert_array_equal(stills.read(tmp_path / "picture.jpg.part").pixels, pixels)


def test_is_still_goes_by_content(photo, tmp_path):
    stills.write(tmp_path / "picture.mp4", photo(8, 8), format="WEBP")
    assert stills.is_still(tmp_path / "picture.mp4")
    for name, data in {
        "empty.jpg": b"",
        "text.png": b"no picture at all",
        # Pillow would take this for an image of format MPEG.
        "video.jpg": b"\x00\x00\x01\xb3\x16\x00\xf0\x15\xff\xff\xe0\xa0" + bytes(100),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not stills.is_still(tmp_path / name)
        with pytest.raises(ValueError, match=rf"^expected an image file\. Received: path=.*{name}$"):
            stills.read(tmp_path / name)


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp", "moving.avif", "pages.tif"])
def test_animations(name, photo, tmp_path):
    frames = [Image.fromarray(photo(16, 16, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    count = "several pages" if name == "pages.tif" else "3 frames"
    assert stills.is_still(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^expected one still picture, not {count}\. Received: path=.*{name}$"):
        stills.read(tmp_path / name)


def test_a_multi_picture_jpeg_is_its_first(photo, tmp_path):
    frames = [Image.fromarray(photo(16, 16, seed=seed)) for seed in range(2)]
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:], quality=50)
    assert stills.is_still(tmp_path / "phone.jpg")
    still = stills.read(tmp_path / "phone.jpg")
    assert still.format == "JPEG"
    assert still.jpeg_tables[0][:3] == [16, 11, 10]
    buffer = io.BytesIO()
    frames[0].save(buffer, "JPEG", quality=50)
    np.testing.assert_array_equal(still.pixels, pixels_of(buffer))
    assert stills.left_out("new.jpg", still) == ("the further pictures of a multi-picture JPEG",)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_broken_files(extension, photo, tmp_path):
    whole = tmp_path / f"whole.{extension}"
    _save(whole, photo(48, 64))
    data = whole.read_bytes()
    broken = tmp_path / f"broken.{extension}"
    for share in (0.02, 0.3, 0.6, 0.9):
        broken.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=r"^expected an? (whole )?image file.* Received: path=.*broken") as caught:
            stills.read(broken)
        assert "\n" not in str(caught.value)


def test_scrambled_files_raise_nothing_but_value_errors(photo, tmp_path):
    generator = np.random.default_rng(0)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        buffer = io.BytesIO()
        options = {"exif": _exif()} if image_format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        Image.fromarray(photo(16, 24)).save(buffer, image_format, **options)
        for _ in range(40):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[generator.integers(0, min(len(data), 600), 4)] = generator.integers(0, 256, 4)
            (tmp_path / "scrambled").write_bytes(data.tobytes())
            try:
                still = stills.read(tmp_path / "scrambled")
            except ValueError as error:
                assert "\n" not in str(error)
            else:
                assert still.pixels.ndim == 3


def test_decompression_bombs(photo, tmp_path, monkeypatch):
    path = _save(tmp_path / "bomb.png", photo(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    for function in (stills.is_still, stills.read):
        expected = r"^expected an image of at most 800 pixels \(--max-pixels allows more\)\. Received: path=.*png$"
        with pytest.raises(ValueError, match=expected):
            function(path)


def test_missing_files_are_the_file_systems_matter(photo, tmp_path):
    for function in (stills.is_still, stills.read):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "missing.jpg")
        with pytest.raises(IsADirectoryError):
            function(tmp_path)
    with pytest.raises(FileNotFoundError):
        stills.write(tmp_path / "missing" / "picture.png", photo(8, 8))


# What lies around the pixels.

IPTC = b"8BIM\x04\x04\0\0\0\0\0\x0c\x1c\x02\x05\0\x07A title" + b"8BIM\x03\xed\0\0\0\0\0\x02\0\x01"
GUID = b"0123456789ABCDEF0123456789ABCDEF"
EXTENDED = [
    b"http://ns.adobe.com/xmp/extension/\0" + GUID + struct.pack(">II", 100000, start) + b"x" * 50000
    for start in (0, 50000)
]


def _segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def _full_jpeg(path, pixels, **options):
    """A JPEG with IPTC, a comment, extended XMP, a camera's own segment, and a thumbnail and a maker's note in EXIF."""
    tags = Image.Exif()
    tags.load(_exif())
    tags.get_ifd(0x8769)[0x927C] = b"Maker's own \xff\xd8\0\1" * 20
    block = tags.tobytes() + b"a thumbnail \xff\xd8\xff"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=block, icc_profile=ICC, dpi=(300, 300), xmp=XMP, **options)
    data = buffer.getvalue()
    added = _segment(0xED, b"Photoshop 3.0\0" + IPTC) + _segment(0xFE, b"a comm\xc3\xa9nt") + _segment(0xFE, b"another")
    added += b"".join(_segment(0xE1, each) for each in EXTENDED) + _segment(0xEB, b"JP\0\0own")
    start = data.index(b"\xff\xdb")
    path.write_bytes(data[:start] + added + data[start:])
    return path, block


def test_jpeg_to_jpeg_keeps_every_segment(photo, tmp_path):
    source, block = _full_jpeg(tmp_path / "old.jpg", photo(24, 40))
    template = stills.read(source)
    assert template.exif == block
    assert template.photoshop == IPTC
    assert [marker for marker, _ in template.segments] == [0xFE, 0xFE, 0xE1, 0xE1, 0xEB]
    stills.write(tmp_path / "new.jpg", template.pixels, template)
    copy = stills.read(tmp_path / "new.jpg")
    for name in ("exif", "xmp", "icc_profile", "photoshop", "segments", "dpi"):
        assert getattr(copy, name) == getattr(template, name), name
    assert stills.left_out("new.jpg", template) == ()
    # Pillow and every other reader find the picture behind them.
    assert pixels_of(tmp_path / "new.jpg").shape == (24, 40, 3)


def test_what_other_formats_hold_of_a_jpeg(photo, tmp_path):
    template = stills.read(_full_jpeg(tmp_path / "old.jpg", photo(24, 40))[0])
    stills.write(tmp_path / "new.png", template.pixels, template)
    stills.write(tmp_path / "new.tif", template.pixels, template)
    png, tiff = stills.read(tmp_path / "new.png"), stills.read(tmp_path / "new.tif")
    assert (png.photoshop, tiff.photoshop) == (IPTC, IPTC)
    assert (png.exif, png.xmp, png.icc_profile) == (template.exif, XMP, ICC)
    with Image.open(tmp_path / "new.png") as image:
        assert image.text["Comment"] in ("a comm\u00e9nt", "another")
    assert [content.split(b"\0")[0] for _, content in png.chunks] == [b"Comment", b"Comment"]
    assert stills.left_out("a.png", template) == (
        "extended XMP (JPEG holds it)",
        "application segments (JPEG holds them)",
    )
    assert "IPTC and other Photoshop resources (JPEG, PNG and TIFF hold them)" in stills.left_out("a.webp", template)
    assert "the comment (JPEG and PNG hold it)" in stills.left_out("a.tif", template)
    # And back: IPTC is whole again in a JPEG.
    for still in (png, tiff):
        stills.write(tmp_path / "back.jpg", still.pixels, still)
        assert stills.read(tmp_path / "back.jpg").photoshop == IPTC
    assert stills.left_out("a.jpg", png) == ("texts and colour chunks (PNG holds them)",)


def test_a_webp_holds_the_resolution_in_exif_alone(photo, tmp_path):
    picture = Image.fromarray(photo(8, 8))
    picture.save(tmp_path / "a.png", dpi=(300, 300))
    missing = ("the resolution (JPEG, PNG and TIFF hold it)",)
    assert stills.left_out("a.webp", stills.read(tmp_path / "a.png")) == missing
    tags = Image.Exif()
    tags[282] = tags[283] = 300.0
    picture.save(tmp_path / "b.png", dpi=(300, 300), exif=tags)
    assert stills.left_out("a.webp", stills.read(tmp_path / "b.png")) == ()
    broken = dataclasses.replace(stills.read(tmp_path / "b.png"), exif=b"Exif\0\0nonsense")
    assert stills.left_out("a.webp", broken) == missing


def test_large_photoshop_resources_span_segments(photo, tmp_path):
    template = dataclasses.replace(stills.read(_full_jpeg(tmp_path / "old.jpg", photo(8, 8))[0]), photoshop=IPTC * 9000)
    stills.write(tmp_path / "new.jpg", template.pixels, template)
    assert stills.read(tmp_path / "new.jpg").photoshop == IPTC * 9000


def test_png_texts_and_colour_survive(photo, tmp_path):
    def chunk(kind, content):
        return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))

    buffer = io.BytesIO()
    Image.fromarray(photo(8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    kept = [(b"gAMA", struct.pack(">I", 100000)), (b"cICP", b"\x09\x10\0\1"), (b"tEXt", b"Author\0Somebody")]
    added = b"".join(chunk(*each) for each in [*kept, (b"tIME", b"\x07\xd0\1\1\0\0\0"), (b"bKGD", bytes(6))])
    (tmp_path / "old.png").write_bytes(data[:33] + added + data[33:])
    template = stills.read(tmp_path / "old.png")
    assert template.chunks == tuple(kept)
    stills.write(tmp_path / "new.png", template.pixels, template)
    copy = stills.read(tmp_path / "new.png")
    assert copy.chunks == tuple(kept)
    np.testing.assert_array_equal(copy.pixels, template.pixels)


def test_exiftool_reads_what_is_carried(photo, tmp_path):
    exiftool = shutil.which("exiftool")
    if exiftool is None:
        pytest.skip("exiftool is not installed")
    source, target = tmp_path / "old.jpg", tmp_path / "new.jpg"
    Image.fromarray(photo(24, 40)).save(source, quality=60)
    values = {"IPTC:Keywords": "archive", "XMP-dc:Title": "A title", "EXIF:Artist": "Somebody", "Comment": "a comment"}
    arguments = [f"-{name}={value}" for name, value in values.items()]
    subprocess.run([exiftool, "-q", *arguments, "-GPSLatitude=10", str(source)], check=True)
    template = stills.read(source)
    for name in ("new.jpg", "new.png", "new.tif"):
        target = tmp_path / name
        stills.write(target, template.pixels, template)
        told = subprocess.run([exiftool, "-a", "-s", str(target)], capture_output=True, text=True, check=True).stdout
        for value in ("archive", "A title", "Somebody", "GPSLatitude"):
            assert value in told, (name, value, told)
        assert ("a comment" in told) == (name != "new.tif")
        assert "Warning" not in told, told


# Inks, depth and further formats.


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_cmyk_stays_cmyk(extension, photo, tmp_path):
    inks = np.dstack([photo(24, 40), photo(24, 40, seed=1)[..., 0]])
    image = Image.frombytes("CMYK", (40, 24), inks.tobytes())
    source = tmp_path / f"old.{extension}"
    image.save(source, icc_profile=ICC, **({"quality": 98, "subsampling": 0} if extension == "jpg" else {}))
    with pytest.raises(ValueError, match="not mode CMYK"):
        stills.read(source)
    template = stills.read(source, inks=True)
    tolerance = 6 if extension == "jpg" else 0
    assert np.abs(255 - template.pixels.astype(int) - inks[..., :3]).mean() <= tolerance
    assert np.abs(255 - template.black.astype(int) - inks[..., 3]).mean() <= tolerance
    stills.write(tmp_path / f"new.{extension}", template.pixels, template)
    with Image.open(tmp_path / f"new.{extension}") as copy, Image.open(source) as old:
        assert copy.mode == "CMYK"
        assert copy.info["icc_profile"] == ICC
        # Colours as a viewer without a profile sees them.
        difference = np.asarray(copy.convert("RGB")).astype(int) - np.asarray(old.convert("RGB"))
        assert np.abs(difference).mean() <= tolerance
    for name in ("new.png", "new.webp"):
        with pytest.raises(ValueError, match=r"expected JPEG or TIFF for a picture in CMYK"):
            stills.require(tmp_path / name, template)


def test_ycck_is_read_with_its_colours(photo, tmp_path):
    """Three components in YCbCr beside black, which Adobe's marker tells; made by changing that marker."""
    buffer = io.BytesIO()
    flat = np.full((16, 16, 4), (10, 20, 30, 40), np.uint8)
    Image.frombytes("CMYK", (16, 16), flat.tobytes()).save(buffer, "JPEG", quality=100, subsampling=0)
    data = bytearray(buffer.getvalue())
    data[data.index(b"Adobe") + 11] = 2
    (tmp_path / "ycck.jpg").write_bytes(data)
    still = stills.read(tmp_path / "ycck.jpg", inks=True)
    # The file's samples are 255 - ink: here they are Y, Cb and Cr, of which libjpeg makes R, G, B and then the inks.
    y, cb, cr = 245.0, 235.0 - 128, 225.0 - 128
    expected = np.clip([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 0, 255)
    assert np.abs(255 - expected - still.pixels[4, 4]).max() <= 2
    assert still.black[4, 4] == pytest.approx(215, abs=1)
    stills.write(tmp_path / "new.jpg", still.pixels, still)
    again = stills.read(tmp_path / "new.jpg", inks=True)
    assert np.abs(again.pixels.astype(int) - still.pixels).max() <= 2


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate"])
def test_16_bit_colour_tiff(channels, compression, deep, tmp_path):
    path = tmp_path / "old.tif"
    if compression:
        tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(
            path, deep[..., :channels], photometric="rgb", compression="zlib", predictor=True, extrasamples=extra
        )
    else:
        stills.write(
            path, deep[..., :3], stills.Still(deep[..., :3], deep[..., 3], "RGBA", "PNG") if channels == 4 else None
        )
    template = stills.read(path)
    np.testing.assert_array_equal(template.pixels, deep[..., :3])
    assert (template.alpha is not None) == (channels == 4)
    for name in ("new.tif", "new.png"):
        stills.write(tmp_path / name, template.pixels, template)
        copy = stills.read(tmp_path / name)
        np.testing.assert_array_equal(copy.pixels, deep[..., :3])
        if channels == 4:
            np.testing.assert_array_equal(copy.alpha, deep[..., 3])


def test_16_bit_colour_tiff_keeps_metadata_and_other_programs_read_it(deep, photo, tmp_path):
    source, _ = _full_jpeg(tmp_path / "old.jpg", photo(21, 34))
    stills.write(tmp_path / "new.tif", deep[..., :3], dataclasses.replace(stills.read(source)))
    with av.open(str(tmp_path / "new.tif")) as container:
        frame = next(container.decode(video=0))
    np.testing.assert_array_equal(frame.to_ndarray(), deep[..., :3])
    copy = stills.read(tmp_path / "new.tif")
    assert (copy.icc_profile, copy.xmp, copy.photoshop) == (ICC, XMP, IPTC)
    assert _facts(copy.exif)[1] == "Maker"


def test_another_byte_order_of_deep_tiff(deep, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    tifffile.imwrite(tmp_path / "big.tif", deep[..., :3], photometric="rgb", byteorder=">")
    np.testing.assert_array_equal(stills.read(tmp_path / "big.tif").pixels, deep[..., :3])
    tifffile.imwrite(
        tmp_path / "planes.tif", np.moveaxis(deep[..., :3], -1, 0), photometric="rgb", planarconfig="separate"
    )
    try:
        planes = stills.read(tmp_path / "planes.tif")
    except ValueError as error:
        assert "16 bits of RGB or RGBA" in str(error) or "mode" in str(error)
    else:
        np.testing.assert_array_equal(planes.pixels, deep[..., :3])


def test_avif_of_8_bits_is_read(photo, tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / "old.avif"
    Image.fromarray(photo(32, 48)).save(path, quality=95, subsampling="4:4:4", exif=_exif(1), icc_profile=ICC, xmp=XMP)
    template = stills.read(path)
    assert np.abs(template.pixels.astype(int) - photo(32, 48)).mean() < 4
    stills.write(tmp_path / "new.png", template.pixels, template)
    copy = stills.read(tmp_path / "new.png")
    assert (copy.icc_profile, copy.xmp) == (ICC, XMP)


def test_avif_of_10_bits_is_named(tmp_path, monkeypatch):
    # It writes a banner otherwise.
    monkeypatch.setenv("SVT_LOG", "1")
    path = tmp_path / "deep.avif"
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1, options={"preset": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"^expected AVIF of 8 bits; convert it to a 16-bit PNG first"):
        stills.read(path)


def test_heic_is_named_and_no_video(tmp_path):
    path = tmp_path / "phone.heic"
    path.write_bytes(struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(100))
    for function in (stills.is_still, stills.read):
        with pytest.raises(ValueError, match=r"not HEIC; convert it to PNG or TIFF first.*phone\.heic$"):
            function(path)
    # A video in the same container is none of ours.
    path.write_bytes(struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"mp41", b"avc1") + bytes(100))
    assert not stills.is_still(path)


def test_arithmetic_code_is_read(tmp_path):
    jpegtran = shutil.which("jpegtran")
    if jpegtran is None:
        pytest.skip("jpegtran is not installed")
    # More than Pillow gives its decoder at once.
    _save(tmp_path / "old.jpg", np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8), quality=95)
    coded = subprocess.run([jpegtran, "-arithmetic", str(tmp_path / "old.jpg")], capture_output=True, check=True).stdout
    (tmp_path / "arithmetic.jpg").write_bytes(coded)
    assert len(coded) > 2 * 65536
    old, read = stills.read(tmp_path / "old.jpg"), stills.read(tmp_path / "arithmetic.jpg")
    np.testing.assert_array_equal(read.pixels, old.pixels)
    assert read.jpeg_tables == old.jpeg_tables


def test_targets_are_checked_before_work(deep, photo, tmp_path):
    template = stills.read(_save(tmp_path / "clear.png", np.dstack([photo(8, 8), photo(8, 8)[..., 0]])))
    with pytest.raises(ValueError, match=r"expected PNG, WEBP or TIFF for a picture with alpha"):
        stills.require("new.jpg", template)
    with pytest.raises(ValueError, match=r"expected PNG or TIFF for 16 bits"):
        stills.require("new.webp", template, bits=16)
    with pytest.raises(ValueError, match=r"expected quality 1 to 100"):
        stills.require("new.png", template, quality=101)
    stills.require("new.png", template, bits=16)
    wide = stills.in_depth(template, np.dtype(np.uint16))
    np.testing.assert_array_equal(wide.alpha, template.alpha * np.uint16(257))
    assert stills.in_depth(template, np.dtype(np.uint8)) is template


def test_what_a_file_gives_back(photo, tmp_path):
    pixels = photo(24, 40)
    for name, quality in (("a.png", None), ("a.tif", 50), ("a.webp", None)):
        assert stills.read_back(name, pixels, quality=quality) is pixels
    for name in ("a.jpg", "a.webp"):
        stills.write(tmp_path / name, pixels, quality=50)
        np.testing.assert_array_equal(stills.read_back(name, pixels, quality=50), stills.read(tmp_path / name).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_view_is_upright(orientation, tmp_path, photo):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo(20, 30)).save(path, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(stills.view(path), expected)


def test_a_view_has_8_bits_and_black(tmp_path, photo):
    deep = photo(20, 30)[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(stills.view(tmp_path / "a.png")[..., 1], deep // 257)
    inks = np.dstack([photo(20, 30), photo(20, 30, 1)[..., :1]])
    Image.merge("CMYK", [Image.fromarray(inks[..., each]) for each in range(4)]).save(tmp_path / "b.tiff")
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255
    assert np.abs(stills.view(tmp_path / "b.tiff") - expected).max() <= 0.5001
