"""Three stages that overlap, each in its own thread, with short queues between them: produce, transform, consume.

A run takes as long as its slowest stage, and holds a few items at a time.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items between two stages. More would only hold memory: a 4K frame is 100 MB of floats, and each stage has one too."""


STOP_SECONDS = 0.5
"""How long an interrupted run waits for the other stages, which may be in the midst of an item of some seconds."""

THREAD_NAME = "deartifact"


def overlap(
    produce: Generator[Item, None, None],
    transform: Callable[[Item], Result],
    consume: Callable[[Result], None],
    ahead: int = AHEAD,
) -> None:
    """Runs all stages to their end; the first exception of any of them stops the others and is raised here.

    Of `KeyboardInterrupt` the caller hears after `STOP_SECONDS` at the latest; a stage that is in the midst of an item
    then ends after it. Of all else, when all stages have ended.

    Args:
        produce: yields items; runs, and is closed, in a thread of its own.
        transform: called with each item, in order, in the calling thread.
        consume: called with each result, in order, in a thread of its own.
        ahead: how many items a stage may have finished before the next one takes them.
    """
    waiting: _Queue[Item] = _Queue(ahead)
    finished: _Queue[Result] = _Queue(ahead)

    def stop() -> None:
        waiting.stop()
        finished.stop()

    def guarded(stage: Callable[[], None]) -> None:
        try:
            stage()
        except _Stopped:
            pass
        except BaseException:
            stop()
            raise

    def feed() -> None:
        with contextlib.closing(produce):
            for item in produce:
                waiting.put(item)
        waiting.close()

    def drain() -> None:
        for result in finished:
            consume(result)

    pool = ThreadPoolExecutor(2, THREAD_NAME)
    workers: list[Future[None]] = []
    is_patient = True
    try:
        # Within the block: an interruption between the two would leave the first one waiting for ever.
        workers += [pool.submit(guarded, feed), pool.submit(guarded, drain)]
        try:
            for item in waiting:
                finished.put(transform(item))
            finished.close()
        except _Stopped:
            pass
        for worker in workers:
            worker.result()
    except KeyboardInterrupt:
        stop()
        is_patient = not wait(workers, STOP_SECONDS).not_done
        raise
    finally:
        stop()
        pool.shutdown(wait=is_patient)


def is_at_work() -> bool:
    """Whether a stage of a run that was interrupted has not ended yet."""
    return any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


class _Stopped(Exception):
    """Another stage failed."""


class _Queue(Generic[Item]):
    """A bounded queue between two threads that ends with `close`, and that `stop` makes both of them leave at once."""

    def __init__(self, size: int) -> None:
        self._items: deque[Item] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._closed = False
        self._stopped = False

    def put(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._size)
            if self._stopped:
                raise _Stopped
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._closed or bool(self._items))
                if self._stopped:
                    raise _Stopped
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
