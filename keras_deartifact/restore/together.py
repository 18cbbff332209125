"""Pictures of several files through the network in one call: small ones, one by one, leave a GPU idle.

What is done with a picture is a generator, which asks for what it wants restored and is sent that. So a file is read,
judged, written and blamed for its errors in one function, whoever else is in its batch.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from keras_deartifact.engines import Restorer
from keras_deartifact.restore.frames import WHOLE_PIXELS, restore_frames

Pixels = npt.NDArray[Any]
T = TypeVar("T")


class Wanted(NamedTuple):
    """A picture that is to go through the network; see `restore_frames`.

    Attributes:
        frames: `(1, height, width, 3)`.
        maps: `(1, rows, columns)`, log2 steps.
        options: in pairs.
    """

    frames: Pixels
    maps: npt.NDArray[np.float32]
    options: tuple[tuple[str, Any], ...]


Steps = Generator[Wanted, Pixels, T]
"""What is done with a picture: yields what it wants restored, is sent that, `(1, height, width, 3)`, and returns."""


def alone(restorer: Restorer, steps: Steps[T]) -> T:
    """Does all steps of a picture by itself."""
    (result,) = together(restorer, [steps], 0)
    return result


def together(restorer: Restorer, several: Iterable[Steps[T]], most_pixels: int = WHOLE_PIXELS) -> list[T]:
    """Does the steps of several pictures; those of one size, with the same options, go through the network in one call.

    Args:
        restorer: see `restore_frames`.
        several: the steps of each. The next one begins when there is room.
        most_pixels: of all pictures that wait for others; 0 to do one after the other.

    Returns:
        What each returned.

    Raises:
        Exception: what the steps raise, also of the network's errors, which are raised in them.
    """
    return _Together(restorer, most_pixels).all_of(several)


class _Waiting(NamedTuple):
    number: int
    steps: Generator[Wanted, Pixels, Any]
    wanted: Wanted


class _Together:
    """See `together`."""

    def __init__(self, restorer: Restorer, most_pixels: int) -> None:
        self._restorer = restorer
        self._most_pixels = most_pixels
        self._results: dict[int, Any] = {}
        self._waiting: dict[Any, list[_Waiting]] = {}

    def all_of(self, several: Iterable[Generator[Wanted, Pixels, Any]]) -> list[Any]:
        with contextlib.ExitStack() as begun:
            for number, steps in enumerate(several):
                begun.enter_context(contextlib.closing(steps))
                self._go_on(number, steps, partial(next, steps))
                while self._pixels() > self._most_pixels:
                    self._restore_most()
            while self._waiting:
                self._restore_most()
        return [self._results[number] for number in sorted(self._results)]

    def _pixels(self) -> int:
        return sum(each.wanted.frames.size // 3 for group in self._waiting.values() for each in group)

    def _go_on(self, number: int, steps: Generator[Wanted, Pixels, Any], step: Callable[[], Wanted]) -> None:
        """Takes a picture to where it wants something."""
        try:
            wanted = step()
        except StopIteration as done:
            self._results[number] = done.value
            return
        finally:
            # It may hold an error that holds this call: a circle, with pictures in it.
            del step
        key = wanted.frames.shape, wanted.frames.dtype, wanted.options
        self._waiting.setdefault(key, []).append(_Waiting(number, steps, wanted))

    def _restore_most(self) -> None:
        """Restores those of which there are the most pixels of one kind."""
        key = max(self._waiting, key=lambda key: sum(each.wanted.frames.size for each in self._waiting[key]))
        group = self._waiting.pop(key)
        try:
            restored = self._restored(group)
        except Exception as error:
            if len(group) == 1:
                (one,) = group
                self._go_on(one.number, one.steps, partial(one.steps.throw, error))
                return
            # It may be one of them, or that they are too many.
            for each in group:
                self._waiting[object()] = [each]
            return
        for each, pixels in zip(group, restored, strict=True):
            self._go_on(each.number, each.steps, partial(each.steps.send, pixels[np.newaxis]))

    def _restored(self, group: list[_Waiting]) -> Pixels:
        frames, maps = (
            arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            for arrays in ([each.wanted.frames for each in group], [each.wanted.maps for each in group])
        )
        return restore_frames(self._restorer, frames, maps, **dict(group[0].wanted.options))
