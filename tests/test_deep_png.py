import io

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact.stills import deep_png


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_all_bits_are_read(colour_type, channels, interlace, deep, png_16_bit):
    samples = deep[..., :channels]
    stream = io.BytesIO(png_16_bit(samples, colour_type, interlace=interlace))
    with Image.open(stream) as image:
        assert deep_png.is_deep(image) and not deep_png.has_grey_alpha(image)
        np.testing.assert_array_equal(deep_png.read(image, stream), samples)


@pytest.mark.parametrize("channels", [3, 4])
def test_what_is_written_is_read(channels, deep):
    samples = deep[..., :channels]
    stream = io.BytesIO(deep_png.encode(samples, dpi=(72, 72)))
    with Image.open(stream) as image:
        assert image.info["dpi"] == pytest.approx((72, 72), abs=0.02)
        np.testing.assert_array_equal(deep_png.read(image, stream), samples)


def test_another_decoder_reads_it(deep, tmp_path):
    (tmp_path / "picture.png").write_bytes(deep_png.encode(deep[..., :3]))
    with av.open(str(tmp_path / "picture.png")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "rgb48be"
    np.testing.assert_array_equal(frame.to_ndarray(), deep[..., :3])


def test_what_is_deep(deep, photo, png_16_bit):
    with Image.open(io.BytesIO(png_16_bit(deep[..., :2], 4))) as image:
        assert deep_png.is_deep(image) and deep_png.has_grey_alpha(image)
    buffer = io.BytesIO()
    Image.fromarray(photo(8, 8)).save(buffer, "PNG")
    with Image.open(buffer) as image:
        assert not deep_png.is_deep(image)
    assert not deep_png.is_deep(Image.new("RGB", (1, 1)))
