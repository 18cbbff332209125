"""Generators and discriminators, one architecture a file. `GENERATORS` maps a name to the function that makes it.

A generator is a subclassed `keras.Model` called with `(images, quantiser_map)`: images `(batch, height, width,
channels)` in `[0, 1]`, map `(batch, height / 16, width / 16, 1)` log2 steps; height and width divide by its
`size_multiple`. It returns images of the same shape, not clipped. Its `channels` are 3 for RGB or 1 for luma (BT.601,
full range), the paper's Ch = 1; `engines.py` restores RGB frames with either. Multiply-accumulates are those of a
1280x720 frame (`complexity.multiply_accumulates`).

A discriminator, of `DISCRIMINATORS`, is a subclassed `keras.Model` called with `(compressed, candidate)`, both
`(batch, height, width, channels)`, RGB in `[0, 1]`. It returns logits `(batch, rows, columns, 1)`, float32, positive
where the candidate looks like an original.

There is one quality predictor, `QualityPredictor`, a `keras.Model` called with images alone; it returns their map.
"""

from collections.abc import Callable
from functools import partial

import keras

from keras_deartifact.models.arcnn import ARCNN
from keras_deartifact.models.mobile import MobileGenerator
from keras_deartifact.models.patch_discriminator import PatchDiscriminator
from keras_deartifact.models.predictor import QualityPredictor
from keras_deartifact.models.residual import ResidualGenerator
from keras_deartifact.models.shuffle import ShuffleGenerator
from keras_deartifact.models.unet_discriminator import UNetDiscriminator

__all__ = [
    "ARCNN",
    "DISCRIMINATORS",
    "GENERATORS",
    "MobileGenerator",
    "PatchDiscriminator",
    "QualityPredictor",
    "ResidualGenerator",
    "ShuffleGenerator",
    "UNetDiscriminator",
    "make_discriminator",
    "make_generator",
]

GENERATORS: dict[str, Callable[..., keras.Model]] = {
    "residual": ResidualGenerator,
    "fast": partial(MobileGenerator, filters=32, blocks=12, expansion=6),
    "very_fast": partial(MobileGenerator, filters=8, blocks=16, expansion=6),
    "arcnn": ARCNN,
    "shuffle_pico": partial(ShuffleGenerator, filters=16, depth=3, coarse_filters=32, coarse_depth=1),
    "shuffle_nano": partial(ShuffleGenerator, filters=32, depth=4, coarse_filters=64, coarse_depth=2),
    "shuffle_small": partial(ShuffleGenerator, filters=80, depth=8, coarse_filters=152, coarse_depth=3),
}

DISCRIMINATORS: dict[str, Callable[..., keras.Model]] = {
    "patch": PatchDiscriminator,
    "unet": UNetDiscriminator,
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
    generator.build([(None, None, None, generator.channels), (None, None, None, 1)])
    return generator


def make_discriminator(name: str, **arguments: object) -> keras.Model:
    """Makes and builds a discriminator by its name.

    Args:
        name: key of `DISCRIMINATORS`.
        **arguments: for its constructor.

    Raises:
        ValueError: an unknown name.
    """
    if name not in DISCRIMINATORS:
        raise ValueError(f"Expected a discriminator of {sorted(DISCRIMINATORS)}. Received: name={name!r}")
    discriminator = DISCRIMINATORS[name](name=name, **arguments)
    discriminator.build([(None, None, None, discriminator.channels)] * 2)
    return discriminator
