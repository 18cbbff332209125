"""What the metrics ask of the pictures that they are given."""

import numpy as np
import numpy.typing as npt

from keras_deartifact.image import luma

Frame = npt.NDArray[np.uint8]


def require_frame(name: str, frame: Frame) -> None:
    """Checks one picture.

    Args:
        name: what the caller calls it, for the message.
        frame: uint8 array `(height, width, 3)` or `(height, width)`.

    Raises:
        ValueError: another dtype or shape.
    """
    if frame.dtype != np.uint8:
        raise ValueError(f"expected {name} of dtype uint8. Received: {name}.dtype={frame.dtype}")
    if frame.size == 0 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[-1] == 3)):
        raise ValueError(
            f"expected {name} of shape (height, width, 3) or (height, width). Received: {name}.shape={frame.shape}"
        )


def require_pair(original: Frame, restored: Frame) -> None:
    """Checks that two pictures can be compared.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Raises:
        ValueError: a dtype, a shape, or a difference between the two.
    """
    require_frame("original", original)
    require_frame("restored", restored)
    if original.shape != restored.shape:
        raise ValueError(
            "expected pictures of one shape. "
            f"Received: original.shape={original.shape}, restored.shape={restored.shape}"
        )


def frame_luma(name: str, frame: Frame) -> Frame:
    """The luma of a picture, checked.

    Args:
        name: what the caller calls it, for the message.
        frame: uint8 array `(height, width, 3)` or `(height, width)`.

    Returns:
        uint8 array `(height, width)`; a grey picture is its own luma.

    Raises:
        ValueError: as `require_frame`.
    """
    require_frame(name, frame)
    return frame if frame.ndim == 2 else luma(frame)


def luma_pair(original: Frame, restored: Frame) -> tuple[Frame, Frame]:
    """The luma of both pictures, checked.

    Args:
        original: uint8 array `(height, width, 3)` or `(height, width)`.
        restored: the same shape.

    Returns:
        Two uint8 arrays `(height, width)`.

    Raises:
        ValueError: as `require_pair`.
    """
    require_pair(original, restored)
    return frame_luma("original", original), frame_luma("restored", restored)
