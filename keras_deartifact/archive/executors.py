"""Where units run: in this process, in processes of this machine, or on a cluster (`cluster.py`).

An executor takes so many units at a time as `room` says and gives their results in any order. It tells apart what a
unit did itself (`units.run` returns that), what happened to the process it ran in, which the unit may be the cause of,
and what happened to a whole node, which it hardly is.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import NamedTuple, Protocol

from keras_deartifact import bounds, processes
from keras_deartifact.archive.units import Job, Result, Task, run


class Outcome(NamedTuple):
    """What an executor gives back.

    Attributes:
        number: that the unit was submitted with.
        result: of the unit.
        is_lost: whether it failed because the node did.
    """

    number: int
    result: Result
    is_lost: bool = False


class Executor(Protocol):
    """See the module. Use as a context manager: what is at work when the block ends is given up."""

    def room(self) -> int:
        """How many more units it takes now."""

    def nodes(self) -> int:
        """How many machines work."""

    def submit(self, number: int, job: Job, task: Task) -> None:
        """Begins a unit."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Waits until some are done, or for so long; returns what they gave."""

    def __enter__(self) -> "Executor":
        """Returns the executor."""

    def __exit__(self, *error: object) -> None:
        """Ends what is at work."""


class Inline:
    """One unit after the other, in this process: what brings it down brings down all. See `Executor`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Job, Task]] = []

    def room(self) -> int:
        """See `Executor`."""
        return 1 - len(self._waiting)

    def nodes(self) -> int:
        """See `Executor`."""
        return 1

    def submit(self, number: int, job: Job, task: Task) -> None:
        """See `Executor`."""
        self._waiting.append((number, job, task))

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Executor`."""
        waiting, self._waiting = self._waiting, []
        return [Outcome(number, run(job, task)) for number, job, task in waiting]

    def __enter__(self) -> "Inline":
        """See `Executor`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `Executor`."""


class Processes:
    """Processes of this machine, each with a pool of its own, so that one which ends takes one unit with it.

    See `Executor`.
    """

    def __init__(self, count: int) -> None:
        self._idle = [_Process() for _ in range(count)]
        self._busy: dict[concurrent.futures.Future[Result], tuple[int, _Process]] = {}

    def room(self) -> int:
        """See `Executor`."""
        return len(self._idle)

    def nodes(self) -> int:
        """See `Executor`."""
        return 1

    def submit(self, number: int, job: Job, task: Task) -> None:
        """See `Executor`."""
        process = self._idle.pop()
        try:
            future = process.begin(job, task)
        except BrokenProcessPool:
            # It ended while it had nothing to do.
            process.end()
            process = _Process()
            future = process.begin(job, task)
        self._busy[future] = number, process

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Executor`."""
        done, _ = concurrent.futures.wait(self._busy, seconds, concurrent.futures.FIRST_COMPLETED)
        outcomes = []
        for future in done:
            number, process = self._busy.pop(future)
            try:
                outcomes.append(Outcome(number, future.result()))
                self._idle.append(process)
            except BrokenProcessPool:
                outcomes.append(Outcome(number, Result(error=f"the process that did it {process.end()}")))
                self._idle.append(_Process())
        return outcomes

    def __enter__(self) -> "Processes":
        """See `Executor`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `Executor`."""
        for process in (*self._idle, *(process for _, process in self._busy.values())):
            process.kill()


class _Process:
    """A process that begins with its first unit."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _prepare, (os.getpid(),))
        self._process: multiprocessing.process.BaseProcess | None = None

    def begin(self, job: Job, task: Task) -> concurrent.futures.Future[Result]:
        before = set(multiprocessing.active_children())
        future = self._pool.submit(run, job, task)
        if self._process is None:
            # The pool does not tell it.
            self._process = next(each for each in multiprocessing.active_children() if each not in before)
        return future

    def end(self) -> str:
        """How it ended."""
        self._pool.shutdown()
        code = self._process.exitcode if self._process is not None else None
        if code is None or code >= 0:
            return f"ended, exit code {code}"
        return f"was ended by {signal.Signals(-code).name}"

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            # It may have ended, and the pool has closed it.
            with contextlib.suppress(ValueError):
                self._process.kill()
        self._pool.shutdown(cancel_futures=True)


def _prepare(parent: int) -> None:
    """Of a process of this machine: it ends with its parent, which alone hears of a terminal's Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.end_with(parent)
    bounds.end_if_stuck()
