"""Prints what every generator costs: `python -m training.architectures`.

Parameters are those of the exported network, its branches folded where it has any; GMAC are 1e9 multiply-accumulates of
a 1280x720 frame. Channels are 3 for RGB, 1 for luma. The reference columns hold what the published descriptions amount
to, counted independently of this code, for the number of channels that each was published for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from absl import app

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import GENERATORS, make_generator

# Parameters and multiply-accumulates by generator and channels.
REFERENCES = {
    ("residual", 3): (1.19e6, 300e9),
    ("fast", 3): (193e3, 51e9),
    ("very_fast", 3): (22.5e3, 5.5e9),
    ("arcnn", 1): (0.107e6, 98e9),
}
_HEAD = ("generator", "channels", "parameters", "GMAC", "reference parameters", "reference GMAC")


@dataclass(frozen=True)
class Cost:
    """What a generator costs.

    Attributes:
        name: key of `GENERATORS`.
        channels: of its images.
        parameters: of the folded network.
        multiply_accumulates: of a 1280x720 frame.
    """

    name: str
    channels: int
    parameters: int
    multiply_accumulates: int


def cost(name: str, channels: int) -> Cost:
    """Returns what a generator costs."""
    generator = make_generator(name, channels=channels)
    folded = generator.fold() if hasattr(generator, "fold") else generator
    return Cost(name, channels, parameters(folded), multiply_accumulates(folded))


def _table(costs: list[Cost]) -> Iterator[str]:
    yield "| " + " | ".join(_HEAD) + " |"
    yield "|---" + "|---:" * (len(_HEAD) - 1) + "|"
    for each in costs:
        cells = [each.name, str(each.channels), f"{each.parameters:,}", f"{each.multiply_accumulates / 1e9:.1f}"]
        reference = REFERENCES.get((each.name, each.channels))
        cells += [f"{reference[0]:,.0f}", f"{reference[1] / 1e9:g}"] if reference else ["", ""]
        yield "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    print(*_table([cost(name, channels) for name in GENERATORS for channels in (3, 1)]), sep="\n")


if __name__ == "__main__":
    app.run(main)
