"""Pictures that nobody filmed: pages of text, line art, screens, charts and flat cartoons.

Photographs do not teach what these look like, and a network that knows photographs only takes their hard edges for
traces of compression. They are drawn here at random, free of any compression.

    python -m training.drawings --out=DIR --count=120
"""

import math
import string
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags, logging
from PIL import Image, ImageDraw, ImageFont

__all__ = ["KINDS", "draw"]

FLAGS = flags.FLAGS

Rng = np.random.Generator
Colour = tuple[int, int, int]


def draw(rng: Rng, kind: str, width: int = 640, height: int = 480) -> Image.Image:
    """Draws one picture.

    Args:
        rng: source of every choice.
        kind: key of `KINDS`.
        width: pixels.
        height: pixels.

    Returns:
        RGB.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected a kind of {sorted(KINDS)}. Received: kind={kind!r}")
    return KINDS[kind](rng, width, height)


def _fonts() -> list[Path]:
    """The typefaces that come with matplotlib, without those that hold symbols only."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [file for file in sorted(folder.glob("*.ttf")) if file.stem.startswith(("DejaVu", "STIXGeneral"))]


def _font(rng: Rng, smallest: int, largest: int) -> ImageFont.FreeTypeFont:
    files = _fonts()
    size = round(math.exp(rng.uniform(math.log(smallest), math.log(largest))))
    return ImageFont.truetype(str(files[int(rng.integers(len(files)))]), size)


def _colour(rng: Rng) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _paper_and_ink(rng: Rng) -> tuple[Colour, Colour]:
    """Black on white in half of the cases; otherwise two colours that can be told apart."""
    if rng.random() < 0.5:
        return (255, 255, 255), (0, 0, 0)
    while True:
        paper, ink = _colour(rng), _colour(rng)
        if abs(sum(paper) - sum(ink)) > 200:
            return paper, ink


def _words(rng: Rng, letters: int) -> str:
    alphabet = list(string.ascii_lowercase * 3 + string.ascii_uppercase + string.digits)
    words = ("".join(rng.choice(alphabet, rng.integers(1, 11))) for _ in range(letters // 5 + 1))
    return " ".join(words)[:letters]


def _text(rng: Rng, width: int, height: int) -> Image.Image:
    paper, ink = _paper_and_ink(rng)
    picture = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(picture)
    top = int(rng.integers(0, 20))
    while top < height:
        font = _font(rng, 8, 48)
        for _ in range(int(rng.integers(1, 8))):
            pen.text((int(rng.integers(4, 40)), top), _words(rng, 2 * width // font.size), fill=ink, font=font)
            top += round(1.3 * font.size)
    return picture


def _point(rng: Rng, width: int, height: int) -> tuple[int, int]:
    return int(rng.integers(width)), int(rng.integers(height))


def _line_art(rng: Rng, width: int, height: int) -> Image.Image:
    """Drawn at twice the size, so that its edges are smooth in a random half of the cases."""
    scale = int(rng.integers(1, 3))
    size = (scale * width, scale * height)
    paper, ink = _paper_and_ink(rng)
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(10, 80))):
        colour, thick = (ink if rng.random() < 0.7 else _colour(rng)), scale * int(rng.integers(1, 6))
        if rng.random() < 0.6:
            pen.line([_point(rng, *size) for _ in range(int(rng.integers(2, 6)))], fill=colour, width=thick)
        else:
            (x, y), radius = _point(rng, *size), int(rng.integers(4, size[1] // 3))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=thick)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _gradient(rng: Rng, width: int, height: int) -> Image.Image:
    """A smooth change between two colours, in one direction."""
    ramp = np.linspace(0.0, 1.0, height if rng.random() < 0.5 else width)
    share = ramp[:, None, None] if len(ramp) == height else ramp[None, :, None]
    first, last = np.array(_colour(rng)), np.array(_colour(rng))
    return Image.fromarray(np.rint(np.broadcast_to(first + share * (last - first), (height, width, 3))).astype("uint8"))


def _screen(rng: Rng, width: int, height: int) -> Image.Image:
    """Windows over each other: frames of one pixel, bars with a gradient, labels, icons, patterns of single pixels."""
    picture = _gradient(rng, width, height) if rng.random() < 0.5 else Image.new("RGB", (width, height), _colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 9))):
        (left, top), wide, high = _point(rng, width, height), *(int(n) for n in rng.integers(60, 360, 2))
        paper, ink = _paper_and_ink(rng)
        pen.rectangle((left, top, left + wide, top + high), fill=paper, outline=ink)
        picture.paste(_gradient(rng, wide - 1, 18), (left + 1, top + 1))
        font = _font(rng, 9, 16)
        pen.text((left + 5, top + 2), _words(rng, 12), fill=(255, 255, 255), font=font)
        for row in range(top + 24, top + high - font.size, round(font.size * 1.4)):
            label = _words(rng, int(rng.integers(3, max(4, wide // font.size))))
            pen.text((left + 30, row), label, fill=ink, font=font)
            if rng.random() < 0.5:
                side = font.size // 2
                icon = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
                picture.paste(icon.resize((2 * side, 2 * side), Image.Resampling.NEAREST), (left + 6, row))
        if rng.random() < 0.3:
            chequers = np.indices((24, wide // 2)).sum(0) % 2 * 255
            picture.paste(Image.fromarray(chequers.astype(np.uint8)), (left + 4, top + high - 26))
    return picture


def _chart(rng: Rng, width: int, height: int) -> Image.Image:
    paper, ink = _paper_and_ink(rng)
    picture = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(picture)
    font = _font(rng, 9, 18)
    for row in range(40, height - 40, int(rng.integers(20, 60))):
        pen.line((50, row, width - 20, row), fill=tuple((3 * p + i) // 4 for p, i in zip(paper, ink, strict=True)))
        pen.text((4, row - font.size // 2), str(rng.integers(1000)), fill=ink, font=font)
    step = int(rng.integers(8, 40))
    columns = range(55, width - 20 - step, step)
    if rng.random() < 0.5:
        colour = _colour(rng)
        for column in columns:
            box = (column, int(rng.integers(50, height - 50)), column + step - 3, height - 40)
            pen.rectangle(box, fill=colour, outline=ink)
    for _ in range(int(rng.integers(1, 5))):
        heights = np.clip(height / 2 + np.cumsum(rng.normal(0, 25, len(columns))), 40, height - 40)
        pen.line(list(zip(columns, heights.tolist(), strict=True)), fill=_colour(rng), width=int(rng.integers(1, 4)))
    pen.line((50, 30, 50, height - 40, width - 20, height - 40), fill=ink, width=2)
    pen.text((width // 3, 6), _words(rng, 24), fill=ink, font=font)
    return picture


def _cartoon(rng: Rng, width: int, height: int) -> Image.Image:
    """Flat shapes with outlines over a gradient, smooth at their edges."""
    size = (2 * width, 2 * height)
    picture = _gradient(rng, *size)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(8, 30))):
        (x, y), radius = _point(rng, *size), int(rng.integers(20, size[1] // 3))
        corners = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        outline, thick = ((0, 0, 0) if rng.random() < 0.6 else None), int(rng.integers(2, 8))
        if rng.random() < 0.5:
            box = (x - radius, y - radius // 2, x + radius, y + radius // 2)
            pen.ellipse(box, fill=_colour(rng), outline=outline, width=thick)
        else:
            shape = [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]
            pen.polygon(shape, fill=_colour(rng), outline=outline, width=thick)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


KINDS: dict[str, Callable[[Rng, int, int], Image.Image]] = {
    "text": _text,
    "line_art": _line_art,
    "screen": _screen,
    "chart": _chart,
    "cartoon": _cartoon,
}


def main(argv: list[str]) -> None:
    """Writes the pictures that the flags ask for, every kind in turn."""
    del argv
    folder = Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(FLAGS.seed)
    for number in range(FLAGS.count):
        kind = list(KINDS)[number % len(KINDS)]
        draw(rng, kind).save(folder / f"{kind}-{number:04d}.png")
    logging.info("%d pictures in %s", FLAGS.count, folder)


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("out", None, "Folder for the pictures.", required=True)
    flags.DEFINE_integer("count", 120, "Pictures to draw.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of every choice.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
