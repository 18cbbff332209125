"""Tells drawings from what was compressed."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_deartifact.stills import Still
from keras_deartifact.stills.drawn import LEAST_EVEN, MOST_GREYS, evenness, is_drawn
from training import drawings


def still(pixels, **values):
    return Still(
        **{"pixels": np.asarray(pixels), "alpha": None, "mode": "RGB", "format": "PNG", "lossless": True} | values
    )


def shaded(drawing):
    """The same with a slow gradient under it, for more colours than a palette has."""
    return np.clip(drawing.astype(int) // 2 + np.arange(len(drawing))[:, None, None] // 8, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=["cartoon", "chart", "text", "screen"])
def drawing(request):
    return np.asarray(drawings.draw(np.random.default_rng(4), request.param))


def test_drawings_are_drawn_until_they_were_compressed(drawing):
    for picture in (drawing, shaded(drawing), drawing.astype(np.uint16) * 257):
        assert is_drawn(still(picture))
        assert not is_drawn(still(picture, lossless=False))
    for quality in (10, 50, 80):
        stream = io.BytesIO()
        Image.fromarray(drawing).save(stream, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(stream).convert("RGB"))
        assert not is_drawn(still(decoded))
        assert not is_drawn(still(decoded[3:, 5:]))


def test_so_they_are_in_grey(drawing):
    """Which has more shades than `MOST_GREYS`, and never more than a palette holds."""
    grey = Image.fromarray(drawing).convert("L")
    assert len(np.unique(np.asarray(grey))) > MOST_GREYS
    assert is_drawn(still(grey.convert("RGB")))
    for quality in (10, 50, 80):
        stream = io.BytesIO()
        grey.save(stream, "JPEG", quality=quality)
        assert not is_drawn(still(Image.open(stream).convert("RGB")))


def test_what_was_enlarged_eightfold_has_its_edges_between_blocks():
    small = np.random.default_rng(6).choice([40, 120, 200], (12, 12, 3)).astype(np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    assert evenness(large) > LEAST_EVEN
    assert evenness(large[3:, 5:]) > LEAST_EVEN


def test_photographs_are_not(photo):
    assert not is_drawn(still(photo(200, 300)))
    assert not is_drawn(still(np.repeat(photo(200, 300)[..., :1], 3, axis=-1)))


def test_few_colours_are_drawn_but_for_shades_of_grey(photo):
    levels = photo(64, 64)
    assert is_drawn(still(levels // 64 * 64))
    grey = np.repeat(levels[..., :1], 3, axis=-1)
    assert not is_drawn(still(grey))
    assert is_drawn(still(grey // 16 * 16))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_an_edge_is_one_in_any_channel(channel):
    picture = np.tile(np.arange(320)[:, None, None] // 4, (1, 320, 3)).astype(np.uint8)
    picture[:, 4::16, channel] += 160
    assert evenness(picture) > LEAST_EVEN


@pytest.mark.parametrize("shape", [(2, 2), (7, 300), (513, 9)])
def test_too_few_edges_tell_nothing(photo, shape):
    assert evenness(photo(*shape) // 8) == 0.0
