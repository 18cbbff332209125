"""What an engine makes of a model file: a function on a batch of images, and what that function takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from keras_deartifact import quantiser

__all__ = ["Network", "fixed_shape"]


class Network(NamedTuple):
    """A loaded model.

    Attributes:
        run: `(images, quantiser_map) -> restored`: images float32 `(n, height, width, channels)` in `[0, 1]`, the map
            float32 `(n, height / 16, width / 16, 1)`; the result is as the images are.
        channels: of the images, 3 or 1.
        batch: the only number of images that `run` takes; None for any.
        tile: the only height and width that it takes, in pixels; None for any.
        takes_uint8: whether it takes uint8 images, too, in `[0, 255]`. What it makes of them is uint8 or float32.
        provider: of ONNX Runtime, its short name in `onnx.PROVIDERS`; None for another engine.
        has_other_threads: whether the engine has another number of threads than it was asked for.
        notes: what the user should know, a line each.
        version: of a model on a server; None for a file.
    """

    run: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
    channels: int
    batch: int | None = None
    tile: tuple[int, int] | None = None
    takes_uint8: bool = False
    provider: str | None = None
    has_other_threads: bool = False
    notes: tuple[str, ...] = ()
    version: int | None = None


def fixed_shape(
    images: Sequence[int | str | None], quantiser_map: Sequence[int | str | None]
) -> tuple[int | None, tuple[int, int] | None]:
    """Returns the batch and the tile that a model is fixed to, by the shapes of its inputs.

    Args:
        images: shape; what is no number above 0 may have any size.
        quantiser_map: likewise.

    Raises:
        ValueError: only one side is fixed, a side does not divide by 16, or the map does not belong to the images.
    """
    batch, height, width = (side if isinstance(side, int) and side > 0 else None for side in images[:3])
    if height is None and width is None:
        return batch, None
    if height is None or width is None or height % quantiser.BLOCK or width % quantiser.BLOCK:
        raise ValueError(
            f"Expected images of any height and width, or of one that divides by {quantiser.BLOCK}. "
            f"Received: shape={tuple(images)}"
        )
    expected = (batch, height // quantiser.BLOCK, width // quantiser.BLOCK)
    sides = zip(quantiser_map[:3], expected, strict=True)
    if any(isinstance(side, int) and side > 0 and side != wanted for side, wanted in sides):
        raise ValueError(f"Expected a quantiser map of shape {(*expected, 1)}. Received: shape={tuple(quantiser_map)}")
    return batch, (height, width)
