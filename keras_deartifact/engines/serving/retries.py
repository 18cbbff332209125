"""Trying again, and giving up.

Only UNAVAILABLE and DEADLINE_EXCEEDED are tried again. The first is what a server says that is not there, restarts, or
whose batching queue is full (TensorFlow's batch scheduler says UNAVAILABLE then, not RESOURCE_EXHAUSTED); a request
that failed so can be sent again, because a prediction changes nothing on the server. RESOURCE_EXHAUSTED is a message
larger than somebody takes, or memory that is full: the same request would fail again.
"""

import contextlib
import itertools
import logging
import random
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from keras_deartifact.engines.serving.errors import Cancelled, Failure, ServingError

__all__ = ["RETRIED", "Cancellation", "delays", "persist", "sentence"]

RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED")

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0

# From here on the user is told that there is something to wait for; a full queue is not worth a line.
_TOLD_AT_TRY = 3

_ADVICE = {
    "UNAVAILABLE": "check that it runs, and that this is the port of this protocol",
    "DEADLINE_EXCEEDED": "give it a longer deadline, fewer tiles in flight, or smaller tiles",
    "RESOURCE_EXHAUSTED": "a message is larger than the server or a proxy takes, or the server's memory is full; use "
    "smaller tiles or fewer in flight",
    "NOT_FOUND": "check the model's name and version",
    "INVALID_ARGUMENT": "check that the model is an export of this package",
    "UNIMPLEMENTED": "check that this is TensorFlow Serving",
    "UNAUTHENTICATED": "check the certificates",
    "PERMISSION_DENIED": "check the certificates",
    "GARBAGE": "check that the model is an export of this package, and what lies between",
}

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Cancellation:
    """What the requests of one call have in common: they end together when nobody waits for them any more.

    Attributes:
        cause: what the first one failed with that failed; None where none did.
    """

    def __init__(self) -> None:
        self.cause: BaseException | None = None
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._actions: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> None:
        """Waits, but not beyond the cancellation."""
        self._cancelled.wait(seconds)

    @contextlib.contextmanager
    def on_cancel(self, action: Callable[[], object]) -> Iterator[None]:
        """Has an action called from another thread if the cancellation comes within the block, and never after it.

        Raises:
            Cancelled: it came before.
        """
        with self._lock:
            if self.is_cancelled:
                raise Cancelled
            number = next(self._numbers)
            self._actions[number] = action
        try:
            yield
        finally:
            with self._lock:
                self._actions.pop(number, None)

    def cancel(self, cause: BaseException | None = None) -> None:
        """Ends what is under way."""
        with self._lock:
            if not self.is_cancelled:
                self.cause = cause
            self._cancelled.set()
            # Under the lock, so that none comes after its block, where it would hit the connection's next request.
            for action in self._actions.values():
                action()


def delays(generator: random.Random) -> Iterator[float]:
    """Yields the seconds between tries: twice as many each time, and up to half of them off by chance.

    Clients that failed together do not come back together.
    """
    for number in itertools.count():
        # Beyond some number the power would be too large for a float.
        longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(number, 30))
        yield longest * generator.uniform(0.5, 1.0)


def persist(
    request: Callable[[float], _Result],
    name: str,
    deadline_seconds: float,
    patience_seconds: float,
    cancellation: Cancellation,
    outage: threading.Event,
) -> _Result:
    """Makes a request until it succeeds, fails for good, or has taken too long.

    Args:
        request: makes it once, within the seconds that it is given; raises `Failure`.
        name: what is asked whom for, for messages.
        deadline_seconds: for one try.
        patience_seconds: for all tries and what lies between them.
        cancellation: ends it at once.
        outage: is set while the user knows that there is one: of many requests that fail, one tells it.

    Raises:
        ServingError: it failed.
        Cancelled: of the cancellation.
    """
    started = time.monotonic()
    pauses = delays(random.Random())
    tries = 0
    while True:
        tries += 1
        left = patience_seconds - (time.monotonic() - started)
        try:
            result = request(min(deadline_seconds, max(left, 0.001)))
            outage.clear()
            return result
        except Failure as failure:
            if cancellation.is_cancelled:
                raise Cancelled from failure
            pause = next(pauses)
            taken = time.monotonic() - started
            if failure.code not in RETRIED or taken + pause >= patience_seconds:
                raise ServingError(sentence(name, failure, tries, taken)) from failure
            # The code only: details may hold values of a picture, and they belong to nobody's log.
            _log.debug("%s says %s at try %d, the next one in %.2f s", name, failure.code, tries, pause)
            if tries >= _TOLD_AT_TRY and not outage.is_set():
                outage.set()
                _log.warning(
                    "%s says %s, and is asked again for up to %.0f s", name, failure.code, patience_seconds - taken
                )
            cancellation.wait(pause)
            if cancellation.is_cancelled:
                raise Cancelled from failure


def sentence(name: str, failure: Failure, tries: int, seconds: float) -> str:
    """One line that says who failed, how, after what, and what to do."""
    tried = f" after {tries} tries in {seconds:.1f} s" if tries > 1 else ""
    details = textwrap.shorten(failure.details, 200) or "no details"
    advice = failure.advice or _ADVICE.get(failure.code, "see the server's log")
    if any(word in failure.details.lower() for word in ("handshake", "ssl", "certificate")):
        advice = _ADVICE["UNAUTHENTICATED"]
    return f"{name} failed{tried} with {failure.code} ({details}); {advice}"
