"""Clips made of still pictures: smooth pans, zooms and turns over photographs, and drawings as screens show them.

Real uncompressed video is scarce. A photograph larger than the frame, seen through a moving window, gives clean frames
whose encoding shows everything that an encoder does between frames.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from keras_deartifact.stills import Still
from keras_deartifact.stills.drawn import is_drawn

__all__ = ["is_drawing", "pan_over", "scroll_over", "soften_and_grain"]


def is_drawing(picture: Image.Image) -> bool:
    """Whether an RGB picture was drawn by a program; see `stills.drawn`."""
    return is_drawn(Still(np.asarray(picture), None, "RGB", "PNG", lossless=True))


def pan_over(rng: np.random.Generator, photograph: Image.Image, side: int, count: int) -> NDArray[np.uint8]:
    """Films a photograph with a moving window.

    The photograph is first reduced by a random factor, which makes it sharp and free of its own compression; then the
    window moves, zooms and turns along a straight line in the space of its parameters, slowing down and speeding up.
    A third of the clips get sensor noise, the same strength in every frame.

    Args:
        rng: source of every choice.
        photograph: RGB; its shorter side at least `side`.
        side: of the square frames, in pixels.
        count: number of frames.

    Returns:
        uint8 RGB `(count, side, side, 3)`.

    Raises:
        ValueError: the photograph is too small.
    """
    shortest = min(photograph.size)
    if shortest < side:
        raise ValueError(f"Expected a photograph of at least {side} pixels. Received: size={photograph.size}")
    # Some room is left for the motion where the photograph has it.
    largest_factor = max(1.0, min(3.0, shortest / (side * 1.15)))
    factor = float(rng.uniform(1.0, largest_factor))
    size = (round(photograph.width / factor), round(photograph.height / factor))
    reduced = photograph.resize(size, Image.Resampling.LANCZOS) if factor > 1.0 else photograph

    speed = float(np.exp(rng.uniform(np.log(0.1), np.log(6.0))))
    direction = rng.uniform(0, 2 * np.pi)
    progress = np.cumsum(1.0 + 0.5 * np.sin(np.linspace(0, rng.uniform(1, 6), count) + rng.uniform(0, 6)))
    progress -= progress[count // 2]
    zoom_rate = rng.normal(0, 0.002) if rng.random() < 0.5 else 0.0
    turn_rate = rng.normal(0, 0.002) if rng.random() < 0.4 else 0.0
    half = side / 2
    room = np.maximum(np.array(reduced.size) / 2 - half, 0.0)
    centre = np.array(reduced.size) / 2 + rng.uniform(-1, 1, 2) * room

    frames = np.empty((count, side, side, 3), np.uint8)
    for index, moved in enumerate(progress):
        angle = turn_rate * moved
        # The window stays inside, its corners too: a border of nothing would be all that the encoder has to look at.
        corner = half * (abs(np.cos(angle)) + abs(np.sin(angle)))
        scale = min(np.exp(zoom_rate * moved), min(reduced.size) / 2 / corner)
        reach = scale * corner
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        x, y = centre + speed * moved * np.array((np.cos(direction), np.sin(direction)))
        x = float(np.clip(x, reach, max(reach, reduced.width - reach)))
        y = float(np.clip(y, reach, max(reach, reduced.height - reach)))
        affine = (cosine, -sine, x - half * (cosine - sine), sine, cosine, y - half * (sine + cosine))
        frames[index] = reduced.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    if rng.random() < 0.33:
        noise = rng.normal(0, rng.uniform(0.5, 2.5), frames.shape)
        frames = np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)
    return frames


def scroll_over(rng: np.random.Generator, drawing: Image.Image, side: int, count: int) -> NDArray[np.uint8]:
    """Films a drawing as a screen shows it: by whole pixels, nothing is resampled, and long parts of it stand still.

    The window rests, scrolls along one axis, or both by turns. In half of the clips an area of it changes to another
    part of the drawing, as a window that opens or a figure that moves before a background.

    Args:
        rng: source of every choice.
        drawing: RGB; its shorter side at least `side`.
        side: of the square frames, in pixels.
        count: number of frames.

    Returns:
        uint8 RGB `(count, side, side, 3)`.

    Raises:
        ValueError: the drawing is too small.
    """
    if min(drawing.size) < side:
        raise ValueError(f"Expected a drawing of at least {side} pixels. Received: size={drawing.size}")
    pixels = np.asarray(drawing)
    room = np.array(pixels.shape[:2]) - side
    place = rng.integers(0, room + 1)
    speed = np.zeros(2, np.int64)
    if rng.random() < 0.6:
        speed[rng.integers(2)] = rng.integers(-12, 13)
    figure = rng.integers(16, side // 2 + 1, 2)
    source, at = (rng.integers(0, np.array(size) - figure + 1) for size in (pixels.shape[:2], (side, side)))
    moves = rng.integers(-4, 5, 2) if rng.random() < 0.5 else np.zeros(2, np.int64)
    appears = int(rng.integers(count)) if rng.random() < 0.5 else count

    frames = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        if rng.random() < 0.1:
            speed = speed[::-1].copy() if rng.random() < 0.5 else -speed
        place = np.clip(place + speed, 0, room)
        frames[index] = pixels[place[0] : place[0] + side, place[1] : place[1] + side]
        if index >= appears:
            at = np.clip(at + moves, 0, side - figure)
            part = pixels[source[0] : source[0] + figure[0], source[1] : source[1] + figure[1]]
            frames[index, at[0] : at[0] + figure[0], at[1] : at[1] + figure[1]] = part
    return frames


def soften_and_grain(
    rng: np.random.Generator, frames: NDArray[np.uint8], soft_share: float, grain_share: float
) -> NDArray[np.uint8]:
    """Makes some clips soft, as cheap optics do, and some grainy, as sensors and film are; the grain is new each frame.

    What a coarse quantiser takes away may never have been there, and what it leaves may be grain: the quality predictor
    has to tell these apart.

    Args:
        rng: source of every choice.
        frames: uint8 RGB `(n, height, width, 3)`.
        soft_share: chance that the clip is blurred, by a Gaussian of 0.3 to 1.3 pixels.
        grain_share: chance that it gets grain, of luma and chroma, 2 levels strong on average; some of it two pixels
            wide.

    Returns:
        uint8 frames of the same shape.
    """
    if rng.random() < soft_share:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.3)))
        frames = np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])
    if rng.random() < grain_share:
        strength = float(rng.exponential(2.0))
        grain = rng.normal(0, strength, (*frames.shape[:3], 1)) + rng.normal(0, 0.5 * strength, frames.shape)
        if rng.random() < 0.4:
            # Two pixels wide each way, and as strong as before.
            grain = sum(np.roll(grain, shift, (1, 2)) for shift in ((0, 0), (1, 0), (0, 1), (1, 1))) / 2
        frames = np.clip(np.rint(frames + grain), 0, 255).astype(np.uint8)
    return frames
