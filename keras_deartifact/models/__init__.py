"""Generators, one architecture a file. `GENERATORS` maps a name to the function that makes it.

A generator is a subclassed `keras.Model` called with `(images, quantiser_map)`: images `(batch, height, width, 3)`, RGB
in `[0, 1]`, map `(batch, height / 16, width / 16, 1)` log2 steps; height and width divide by its `size_multiple`.
It returns images of the same shape, not clipped. Multiply-accumulates are those of a 1280x720 frame
(`complexity.multiply_accumulates`).
"""

from collections.abc import Callable
from functools import partial

import keras

from keras_deartifact.models.shuffle import ShuffleGenerator

__all__ = ["GENERATORS", "ShuffleGenerator", "make_generator"]

GENERATORS: dict[str, Callable[..., keras.Model]] = {
    "shuffle_pico": partial(ShuffleGenerator, filters=16, depth=3, coarse_filters=32, coarse_depth=1),
    "shuffle_nano": partial(ShuffleGenerator, filters=32, depth=4, coarse_filters=64, coarse_depth=2),
    "shuffle_small": partial(ShuffleGenerator, filters=80, depth=8, coarse_filters=152, coarse_depth=3),
}


def make_generator(name: str, **arguments: object) -> keras.Model:
    """Makes and builds a generator by its name.

    Args:
        name: key of `GENERATORS`.
        **arguments: for its constructor, over those that the name stands for.

    Raises:
        ValueError: an unknown name.
    """
    if name not in GENERATORS:
        raise ValueError(f"Expected a generator of {sorted(GENERATORS)}. Received: name={name!r}")
    generator = GENERATORS[name](name=name, **arguments)
    generator.build([(None, None, None, 3), (None, None, None, 1)])
    return generator
