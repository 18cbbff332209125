"""Animations and files of several pages: what is read of them, and what is written."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_deartifact import files, stills
from keras_deartifact.stills import animation, deep_tiff, pages, png_chunks, several, webp_chunks

TIMES = [30, 70, 20, 0, 1230]
ICC = Image.new("RGB", (1, 1)).info.get("icc_profile") or b"a profile".ljust(200, b"\0")


def exif_of(**tags):
    exif = Image.Exif()
    exif[271] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2001:02:03 04:05:06"
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x8769], exif[0x8825] = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    return exif


def pictures(photo, alpha=False):
    """Five frames: the third is the second again, and the fourth differs in a corner alone."""
    frames = [photo(37, 51, seed) for seed in (0, 1)]
    frames += [frames[1].copy(), frames[1].copy(), photo(37, 51, 2)]
    frames[3][30:, 40:] = 9
    if alpha:
        rng = np.random.default_rng(0)
        frames = [np.dstack([frame, rng.integers(0, 256, (37, 51), np.uint8)]) for frame in frames]
    return frames


def template_of(frame, **metadata):
    alpha = frame[..., 3] if frame.shape[-1] == 4 else None
    return stills.Still(pixels=frame[..., :3], alpha=alpha, mode="RGBA" if alpha is not None else "RGB", format="PNG",
                        **metadata)  # fmt: skip


def found_of(frames, times=TIMES, plays=3, **more):
    durations = tuple(Fraction(time) for time in times)
    has_alpha = frames[0].shape[-1] == 4
    more = {"lossless": True, "colours": 1000} | more
    return stills.Series(stills.FRAMES, len(frames), durations, plays, has_alpha=has_alpha, **more)


def write(path, frames, found, **options):
    stills.write_each(path, ((frame[..., :3], template_of(frame)) for frame in frames), found, **options)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_frames_come_back_with_their_times(name, alpha, photo, tmp_path):
    frames, path = pictures(photo, alpha), tmp_path / name
    found = found_of(frames)
    write(path, frames, found)
    assert stills.series(path) == found
    for frame, still in zip(frames, stills.read_each(path, found), strict=True):
        np.testing.assert_array_equal(still.pixels, frame[..., :3])
        assert (still.alpha is not None) == alpha
        if alpha:
            np.testing.assert_array_equal(still.alpha, frame[..., 3])


def test_another_decoder_reads_the_png(photo, tmp_path):
    frames = pictures(photo)
    write(tmp_path / "a.png", frames, found_of(frames, times=[40, 80, 40, 120, 40]))
    with av.open(str(tmp_path / "a.png"), format="apng") as container:
        read = list(container.decode(video=0))
    assert [frame.time for frame in read] == pytest.approx([0, 0.04, 0.12, 0.16, 0.28])
    for frame, expected in zip(read, frames, strict=True):
        np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), expected)


def test_of_what_stands_still_nothing_is_written(photo, tmp_path):
    frames = pictures(photo)
    for name in ("a.png", "a.webp"):
        write(tmp_path / name, frames, found_of(frames))
    boxes = [struct.unpack_from(">4x4I", content) for kind, content in
             png_chunks.chunks((tmp_path / "a.png").read_bytes()) if kind == b"fcTL"]  # fmt: skip
    assert boxes == [(51, 37, 0, 0), (51, 37, 0, 0), (1, 1, 0, 0), (11, 7, 40, 30), (51, 37, 0, 0)]
    sizes = [len(content) for kind, content in webp_chunks.chunks((tmp_path / "a.webp").read_bytes())
             if kind == b"ANMF"]  # fmt: skip
    assert max(sizes[2:4]) < 100 < min(sizes[0], sizes[1], sizes[4])


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_frames_are_written_one_by_one(name, tmp_path):
    rng = np.random.default_rng(0)
    sizes = []

    def copies():
        for _ in range(6):
            sizes.append((tmp_path / name).stat().st_size)
            pixels = rng.integers(0, 256, (100, 100, 3), np.uint8)
            yield pixels, template_of(pixels)

    found = stills.Series(stills.FRAMES, 6, (Fraction(40),) * 6)
    stills.write_each(tmp_path / name, copies(), found)
    assert all(after - before > 20_000 for before, after in itertools.pairwise(sizes[1:]))


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_metadata_of_an_animation(name, photo, tmp_path):
    frames = pictures(photo)
    exif = exif_of().tobytes()
    first = template_of(frames[0], exif=exif, xmp=b"<x:xmpmeta/>", icc_profile=ICC, dpi=(300.0, 300.0))
    copies = [(frames[0], first), *((frame, template_of(frame)) for frame in frames[1:])]
    stills.write_each(tmp_path / name, copies, found_of(frames))
    read = list(stills.read_each(tmp_path / name, stills.series(tmp_path / name)))
    assert all((each.exif, each.xmp, each.icc_profile) == (exif, b"<x:xmpmeta/>", ICC) for each in read)
    with Image.open(tmp_path / name) as image:
        image.seek(3)
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"


def test_a_lossy_webp_has_boxes_that_fit(photo, tmp_path):
    frames = pictures(photo, alpha=True)
    write(tmp_path / "a.webp", frames, found_of(frames), quality=90)
    found = stills.series(tmp_path / "a.webp")
    assert not found.lossless and found.colours is None
    for frame, still in zip(frames, stills.read_each(tmp_path / "a.webp", found_of(frames)), strict=True):
        np.testing.assert_array_equal(still.alpha, frame[..., 3])
        assert np.abs(still.pixels.astype(int) - frame[..., :3]).mean() < 12


def gif(path, **options):
    """Three frames by hand: red but for a column, a green square on it, then a blue one."""

    def frame(colour, box):
        image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        ImageDraw.Draw(image).rectangle(box, fill=colour)
        return image

    frames = [frame("red", (0, 0, 38, 29)), frame("lime", (10, 10, 19, 19)), frame("blue", (30, 20, 35, 25))]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("disposal", [1, 2, 3])
def test_what_a_frame_leaves_of_the_one_before(disposal, tmp_path):
    """As ffmpeg has it."""
    gif(tmp_path / "a.gif", duration=[40, 80, 120], loop=0, disposal=[1, disposal, 1])
    with av.open(str(tmp_path / "a.gif")) as container:
        seen = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    assert (
        tuple(seen[2][15, 15])[3 if disposal == 2 else 0 :]
        == {1: (0, 255, 0, 255), 2: (0,), 3: (255, 0, 0, 255)}[disposal]
    )
    found = stills.series(tmp_path / "a.gif")
    assert found == stills.Series(stills.FRAMES, 3, (40, 80, 120), 0, has_alpha=True, lossless=True, colours=4)
    for name in ("a.png", "a.webp"):
        each = stills.read_each(tmp_path / "a.gif", found)
        stills.write_each(tmp_path / name, ((still.pixels, still) for still in each), found)
        for still, frame in zip(stills.read_each(tmp_path / name, found), seen, strict=True):
            np.testing.assert_array_equal(still.alpha, frame[..., 3])
            np.testing.assert_array_equal(still.pixels[still.alpha > 0], frame[frame[..., 3] > 0][:, :3])


@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (1, 2), (65535, 65536)])
def test_how_often_a_gif_is_shown(loop, plays, tmp_path):
    gif(tmp_path / "a.gif", duration=50, **({} if loop is None else {"loop": loop}))
    assert stills.series(tmp_path / "a.gif").plays == plays


def test_a_comment_of_a_gif(tmp_path):
    gif(tmp_path / "a.gif", comment=b"made by hand")
    found = stills.series(tmp_path / "a.gif")
    each = stills.read_each(tmp_path / "a.gif", found)
    stills.write_each(tmp_path / "a.png", ((still.pixels, still) for still in each), found)
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Comment"] == "made by hand"


def test_a_picture_that_stands_apart(photo, tmp_path):
    """A PNG may have a picture for programs that show no animations."""
    frames = pictures(photo)
    found = found_of(frames, [0, 40, 40, 40, 80], stands_apart=True)
    write(tmp_path / "a.png", frames, found)
    assert stills.series(tmp_path / "a.png") == found
    with Image.open(tmp_path / "a.png") as image:
        assert image.default_image and image.n_frames == 5
        np.testing.assert_array_equal(np.asarray(image), frames[0])
        image.seek(4)
        np.testing.assert_array_equal(np.asarray(image), frames[4])
        assert image.info["duration"] == 80
    assert stills.left_out("a.webp", template_of(frames[0]), found) == (
        "the picture for where an animation cannot be shown (PNG holds it)",
    )


@pytest.mark.parametrize(
    ("duration", "delay"),
    [(0, (0, 1)), (30, (3, 100)), (Fraction(1000, 30), (1, 30)), (65535000, (65535, 1)), (Fraction(1001000, 30000),
     (1001, 30000))],
)  # fmt: skip
def test_times_as_png_has_them(duration, delay):
    assert animation.delay(Fraction(duration)) == delay


def test_times_that_no_format_has_are_near():
    numerator, denominator = animation.delay(Fraction(70001))
    assert max(numerator, denominator) < 1 << 16
    assert numerator / denominator == pytest.approx(70.001, abs=1e-3)
    assert animation.milliseconds([Fraction(1000, 30)] * 6) == [33, 34, 33, 33, 34, 33]
    thirds = stills.Series(stills.FRAMES, 2, (Fraction(1000, 30), Fraction(1)))
    still = template_of(np.zeros((1, 1, 3), np.uint8))
    assert stills.left_out("a.webp", still, thirds) == ("fractions of milliseconds (PNG holds them)",)
    assert stills.left_out("a.png", still, thirds) == ()


def page_of(kind, photo):
    pixels = photo(40, 56, 3)
    return {
        "grey": Image.fromarray(pixels[..., 0]),
        "colour": Image.fromarray(pixels),
        "alpha": Image.fromarray(np.dstack([pixels, pixels[..., 0]])),
        "small": Image.fromarray(pixels[:11, :7]),
        "deep grey": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "cmyk": Image.fromarray(pixels).convert("CMYK"),
    }[kind]


KINDS = ["grey", "colour", "alpha", "small", "deep grey", "cmyk"]


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_pages_keep_their_size_kind_and_tags(compression, photo, tmp_path):
    def files():
        for number, kind in enumerate(KINDS):
            path = tmp_path / f"{number}.tif"
            page_of(kind, photo).save(path, dpi=(100 + number, 100 + number), description=kind, compression=compression)
            yield path.read_bytes()
        deep = photo(9, 13).astype(np.uint16) * 251
        yield deep_tiff.encode(deep)

    with (tmp_path / "a.tif").open("wb") as file:
        pages.write_tiff(file, files())
    found = stills.series(tmp_path / "a.tif")
    assert found == stills.Series(stills.PAGES, len(KINDS) + 1)
    each = stills.read_each(tmp_path / "a.tif", found, inks=True)
    stills.write_each(tmp_path / "b.tif", ((still.pixels, still) for still in each), found)
    for name in ("a.tif", "b.tif"):
        read = list(stills.read_each(tmp_path / name, found, inks=True))
        for number, still in enumerate(read[:-1]):
            alone = stills.read(tmp_path / f"{number}.tif", inks=True)
            np.testing.assert_array_equal(still.pixels, alone.pixels)
            for one, other in ((still.alpha, alone.alpha), (still.black, alone.black)):
                assert (one is None) == (other is None)
                assert one is None or (one == other).all()
            assert (still.mode, still.dpi, still.exif) == (alone.mode, alone.dpi, alone.exif)
            assert not still.remarks
        np.testing.assert_array_equal(read[-1].pixels, photo(9, 13).astype(np.uint16) * 251)


def test_exif_of_every_page(photo, tmp_path):
    """Pillow loses the EXIF directories of all pages but the first."""
    exif = exif_of()
    template = template_of(photo(33, 41), exif=exif.tobytes())
    copies = [(photo(33, 41, seed), template) for seed in range(3)]
    stills.write_each(tmp_path / "a.tif", copies, stills.Series(stills.PAGES, 3))
    with Image.open(tmp_path / "a.tif") as image:
        for index in range(3):
            image.seek(index)
            np.testing.assert_array_equal(np.asarray(image), photo(33, 41, index))
            tags = image.getexif()
            assert tags[271] == "maker"
            assert tags.get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"
            assert tags.get_ifd(0x8825)[1] == "N"


def test_places_of_16_bits_become_32(tmp_path):
    """A TIFF may say in 16 bits where its strips are; behind other pages these do not do."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 3, 2, 0)]
    entries += [(278, 3, 1, 4), (279, 3, 2, 32 << 16 | 32)]
    directory = b"".join(struct.pack("<HHII", *each) for each in entries)
    page = bytearray(b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4))
    page += bytes(224 - len(page)) + pixels.tobytes()
    # Two places of 16 bits stand in the entry itself: 224 and 256.
    struct.pack_into("<HH", page, 10 + 12 * 5 + 8, 224, 256)
    with (tmp_path / "a.tif").open("wb") as file:
        pages.write_tiff(file, [bytes(page)] * 400)
    found = stills.series(tmp_path / "a.tif")
    assert found.count == 400
    assert all((still.pixels == pixels[..., None]).all() for still in stills.read_each(tmp_path / "a.tif", found))


def test_what_several_pictures_need(photo, tmp_path):
    frames = pictures(photo)
    for name in ("a.jpg", "a.gif", "a.tif", "a"):
        with pytest.raises(ValueError, match=r"^expected a name that ends in \.png or \.webp for an animation, here 5"):
            write(tmp_path / name, frames, found_of(frames))
    with pytest.raises(ValueError, match=r"^expected a name that ends in \.tif or \.tiff for several pages, here 2 p"):
        stills.require_each("a.png", template_of(frames[0]), stills.Series(stills.PAGES, 2))
    assert not list(tmp_path.iterdir())


def test_an_animation_of_16_bits(photo, tmp_path, png_16_bit):
    found = stills.Series(stills.FRAMES, 2, (Fraction(40),) * 2)
    deep = [photo(20, 24, seed).astype(np.uint16) * 251 for seed in (0, 1)]
    stills.write_each(tmp_path / "a.png", ((pixels, template_of(pixels)) for pixels in deep), found)
    with av.open(str(tmp_path / "a.png"), format="apng") as container:
        for frame, pixels in zip(container.decode(video=0), deep, strict=True):
            np.testing.assert_array_equal(frame.to_ndarray(format="rgb48le"), pixels)
    with pytest.raises(ValueError, match=r"^expected an animation of 8 bits\. Received: path="):
        stills.series(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_a_series_that_breaks_off(name, photo, tmp_path):
    frames = [Image.fromarray(photo(40, 56, seed)) for seed in range(4)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40, compression="tiff_lzw")
    data = (tmp_path / name).read_bytes()
    for share in (0.4, 0.7, 0.9):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=r"^expected .* Received: path=.*") as caught:
            found = stills.series(tmp_path / name)
            # A TIFF may end in the middle of its pages, whose list is then broken off.
            assert found is None or list(stills.read_each(tmp_path / name, found))
            raise ValueError("expected all of it. Received: path=")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", "a.tif", "b.png"])
def test_one_of_several(name, photo, tmp_path):
    frames = [Image.fromarray(photo(20, 24, seed)) for seed in range(3 if name[0] == "a" else 1)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    index = len(frames) - 1
    with Image.open(tmp_path / name) as image:
        image.seek(index)
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(stills.read_at(tmp_path / name, index).pixels, expected)
    np.testing.assert_array_equal(stills.view(tmp_path / name, index), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_view_of_a_tiff_is_upright(orientation, tmp_path, photo):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo(20, 24)).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(photo(20, 24)).save(tmp_path / "a.tif", exif=exif)
    np.testing.assert_array_equal(stills.view(tmp_path / "a.tif"), stills.view(tmp_path / "a.png"))


def test_a_frame_count_that_is_not_true(photo, tmp_path):
    frames = pictures(photo)
    write(tmp_path / "a.png", frames, found_of(frames))
    data = (tmp_path / "a.png").read_bytes()
    place = data.index(b"acTL")
    play = png_chunks.chunk(b"acTL", struct.pack(">II", 9, 3))
    (tmp_path / "a.png").write_bytes(data[: place - 4] + play + data[place + 16 :])
    with pytest.raises(ValueError, match="^expected 9 frames, as the file states, not 5"):
        stills.series(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_a_broken_header_makes_no_video(name, photo, tmp_path):
    """ffmpeg would take it, and crash at some."""
    frames = [Image.fromarray(photo(20, 24, seed)) for seed in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    data = bytearray((tmp_path / name).read_bytes())
    start = 4 if name == "a.gif" else 12
    data[start:30] = bytes(30 - start)
    (tmp_path / name).write_bytes(data)
    for function in (stills.is_still, stills.series, files.kind):
        with pytest.raises(ValueError, match=r"^expected a whole image file \(.*\)\. Received: path="):
            function(tmp_path / name)


def test_pages_are_bounded(monkeypatch, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (8, 8))] * 3)
    assert stills.series(tmp_path / "a.tif").count == 4
    monkeypatch.setattr(several, "MOST", 3)
    with pytest.raises(ValueError, match="^expected at most 3 pages"):
        stills.series(tmp_path / "a.tif")


FRAMES_IN_A_BROWSER = """async ([bytes, type]) => {
  const decoder = new ImageDecoder({ data: Uint8Array.from(bytes), type });
  await decoder.tracks.ready;
  await decoder.completed;
  const track = decoder.tracks.selectedTrack, frames = [];
  for (let index = 0; index < track.frameCount; index++) {
    const { image } = await decoder.decode({ frameIndex: index });
    const canvas = new OffscreenCanvas(image.displayWidth, image.displayHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    frames.push([image.duration, [...context.getImageData(0, 0, canvas.width, canvas.height).data]]);
  }
  return [track.repetitionCount, frames];
}"""


@pytest.mark.parametrize(("name", "kind"), [("a.png", "image/png"), ("a.webp", "image/webp")])
def test_what_a_browser_shows(name, kind, photo, tmp_path, browser):
    frames = pictures(photo)
    frames = [np.dstack([frame, np.where(np.arange(51) < 40, 255, 0).repeat(37).reshape(51, 37).T]) for frame in frames]
    frames = [frame.astype(np.uint8) for frame in frames]
    write(tmp_path / name, frames, found_of(frames, times=[30, 70, 20, 50, 1230]))
    (tmp_path / "empty.html").touch()
    page = browser.new_page()
    page.goto((tmp_path / "empty.html").as_uri())
    repeats, shown = page.evaluate(FRAMES_IN_A_BROWSER, [list((tmp_path / name).read_bytes()), kind])
    assert repeats == 2
    assert [duration / 1000 for duration, _ in shown] == [30, 70, 20, 50, 1230]
    for (_, values), frame in zip(shown, frames, strict=True):
        seen = np.reshape(values, (37, 51, 4))
        np.testing.assert_array_equal(seen[..., 3], frame[..., 3])
        np.testing.assert_array_equal(seen[:, :40], frame[:, :40])
