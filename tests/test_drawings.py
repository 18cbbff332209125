import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from training import drawings


@pytest.mark.parametrize("kind", drawings.KINDS)
def test_drawings_have_flat_parts_and_hard_edges(kind):
    pixels = np.asarray(drawings.draw(np.random.default_rng(4), kind)).astype(int)
    assert pixels.shape == (480, 640, 3)
    steps = np.abs(np.diff(pixels, axis=1)).max(-1)
    # In photographs hardly any neighbours are (nearly) equal, and none differ by half of the range.
    assert (steps <= 1).mean() > 0.35
    assert (steps > 128).mean() > 0.001


def test_a_seed_makes_the_same_picture():
    first, again, other = (
        np.asarray(drawings.draw(np.random.default_rng(seed), "screen", 160, 120)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_unknown_kind():
    with pytest.raises(ValueError, match="Expected a kind of .* Received: kind='photograph'"):
        drawings.draw(np.random.default_rng(1), "photograph")


def test_the_program_draws_every_kind_in_turn(tmp_path):
    arguments = [f"--out={tmp_path / 'drawn'}", "--count=6", "--seed=3"]
    subprocess.run([sys.executable, "-m", "training.drawings", *arguments], check=True, capture_output=True)
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == sorted(f"{kind}-{number:04d}.png" for number, kind in enumerate([*drawings.KINDS, "text"]))
    with Image.open(tmp_path / "drawn" / names[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (640, 480))
