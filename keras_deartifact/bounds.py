"""How much a file may ask for: a few bytes can state a size that no machine has the memory for.

The bounds hold for the whole process, as Pillow's own do, because every reader of a file has to keep them.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

PICTURE_PIXELS = 178_956_970
"""Of a picture, at most: twice Pillow's `Image.MAX_IMAGE_PIXELS`, above which Pillow refuses it."""

SERIES_PICTURES = 16
"""Of so many of the largest pictures, the pixels of all pages or frames of a file may be: they are held one by one, and
take time alone."""

FRAME_PIXELS = 8192 * 4352
"""Of a video's frame, at most: 8K. Several are in memory at a time, as float32; 170 bytes a pixel were measured."""

TEXT_BYTES = 1 << 26
"""The most that a compressed text of a PNG may unpack to."""

READ_SECONDS = 120.0
"""How long a video's file may give nothing."""

DECODER_SECONDS = 300
"""How long a decoder may take for one packet or picture, in the command's own process; then it is stuck."""

_frame_pixels = FRAME_PIXELS
_ends_if_stuck = False
_lock = threading.Lock()
_deadlines: dict[int, float] = {}


def end_if_stuck() -> None:
    """Lets SIGALRM end this process when a decoder is stuck, which nothing else can do: it never comes back to Python.

    Only for a process that another one waits for.
    """
    global _ends_if_stuck
    _ends_if_stuck = True


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Ends the process if the block takes longer than `DECODER_SECONDS`, where `end_if_stuck` was called."""
    if not _ends_if_stuck:
        yield
        return
    me = threading.get_ident()
    outer = _deadlines.get(me)
    _expect(me, outer or time.monotonic() + DECODER_SECONDS)
    try:
        yield
    finally:
        _expect(me, outer)


def _expect(thread: int, deadline: float | None) -> None:
    """Sets or takes away a thread's deadline; the process has one timer for all."""
    with _lock:
        if deadline is None:
            _deadlines.pop(thread, None)
        else:
            _deadlines[thread] = deadline
        left = min(_deadlines.values()) - time.monotonic() if _deadlines else 0
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.001) if _deadlines else 0)


def frame_pixels() -> int:
    """The most pixels that a frame of a video may have."""
    return _frame_pixels


def series_pixels() -> int:
    """The most pixels that all pages of a picture file, or frames of an animation, may have."""
    from PIL import Image

    return SERIES_PICTURES * 2 * (Image.MAX_IMAGE_PIXELS or PICTURE_PIXELS)


@contextlib.contextmanager
def allowing(pixels: int | None) -> Iterator[None]:
    """Sets the bound on pixels for the block, of pictures and of frames.

    Args:
        pixels: the most that either may have; None leaves the bounds as they are.
    """
    if pixels is None:
        yield
        return
    from PIL import Image

    global _frame_pixels
    before = _frame_pixels, Image.MAX_IMAGE_PIXELS
    _frame_pixels, Image.MAX_IMAGE_PIXELS = pixels, -(-pixels // 2)
    try:
        yield
    finally:
        _frame_pixels, Image.MAX_IMAGE_PIXELS = before
