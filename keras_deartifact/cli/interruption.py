"""Ctrl-C, and SIGTERM, which systems send when they shut down: the command ends within a second."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from keras_deartifact import pipeline
from keras_deartifact.cli.common import INTERRUPTED

_GRACE_SECONDS = 0.8


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C does, with KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def prompt(farewell: Callable[[], None]) -> Iterator[None]:
    """Ends the process soon after a signal even where Python does not get to see it.

    Python hears of a signal only when the main thread comes back from the network, which takes seconds for a large
    frame and a large network. The system's own handler writes to a pipe at once, and a thread waits there. Only for a
    block that can be killed at any moment.

    Args:
        farewell: says what there is to say.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    left = threading.Event()

    def watch() -> None:
        while number := os.read(receiver, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not left.wait(_GRACE_SECONDS):
                farewell()
                leave()
        os.close(receiver)

    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(sender)


def leave_if_at_work() -> None:
    """Ends the process if a stage of an interrupted run has not ended; the end of Python would wait for it."""
    if pipeline.is_at_work():
        leave()


def leave() -> None:
    """Ends the process at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
