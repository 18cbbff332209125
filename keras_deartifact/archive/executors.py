"""Where units run: in this process, in processes of this machine, or on a Ray cluster.

An executor takes so many units at a time as `room` says and gives their results in any order. It tells apart what a
unit did itself (`units.run` returns that), what happened to the process it ran in, which the unit may be the cause of,
and what happened to a whole node, which it hardly is.
"""

import concurrent.futures
import contextlib
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any, NamedTuple, Protocol, TextIO

from keras_deartifact import bounds, processes
from keras_deartifact.archive.resources import Resources
from keras_deartifact.archive.units import Job, Result, Task, run

_KNOCK_SECONDS, _LOOK_SECONDS = 10.0, 1.0

# Of a node that ends, first its processes are missed.
_DOUBT_SECONDS = 3.0

_GONE = Result(error="the node that did it is gone")


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


class Ray:
    """A Ray cluster; see `Executor`."""

    def __init__(self, address: str, resources: Resources) -> None:
        """Connects.

        Args:
            address: what `ray.init` takes: `HOST:PORT`, `ray://HOST:PORT`, or `auto` on a node of the cluster.
            resources: of a unit.

        Raises:
            ValueError: Ray is not installed, the cluster cannot be reached, or has no node of such resources.
        """
        try:
            import ray
        except ImportError as error:
            raise ValueError("--ray needs Ray: pip install 'keras_deartifact[cluster]'") from error
        self._ray: Any = ray
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(contextlib.redirect_stdout(_WithoutRay(sys.stdout)))
        with _own_signals():
            try:
                _knock(address)
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, RuntimeError, ValueError) as error:
                raise ValueError(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from error
        self._resources = resources
        # What failed is tried again by the driver, which counts the attempts and knows the reasons.
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0, "max_calls": 0}
        self._run = self._ray.remote(**options)(_run_on_node)
        self._running: dict[Any, tuple[int, float]] = {}
        self._crashed: list[tuple[float, int, float]] = []
        self._nodes: dict[str, int] = {}
        self._looked = self._last_loss = -math.inf
        self._jobs: dict[Job, Any] = {}
        if not self._slots():
            self.__exit__()
            raise ValueError(f"no node of the cluster has {resources}; start one, or ask for less with --threads")

    def room(self) -> int:
        """As many as run at a time, and as many again that wait, so that no node does. See `Executor`."""
        return max(2, 2 * self._slots()) - len(self._running) - len(self._crashed)

    def nodes(self) -> int:
        """See `Executor`."""
        self._look(_LOOK_SECONDS)
        return sum(fitting > 0 for fitting in self._nodes.values())

    def submit(self, number: int, job: Job, task: Task) -> None:
        """See `Executor`."""
        if job not in self._jobs:
            self._jobs[job] = self._ray.put(job)
        self._running[self._run.remote(self._jobs[job], task)] = number, time.monotonic()

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Executor`."""
        waiting = list(self._running)
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds) if waiting else ([], [])
        if done:
            done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        elif not waiting:
            time.sleep(seconds)
        outcomes = [self._outcome(reference) for reference in done]
        return [outcome for outcome in outcomes if outcome is not None] + self._judged()

    def _outcome(self, reference: Any) -> Outcome | None:
        """What came of a unit; None where that is to be seen."""
        number, begun = self._running.pop(reference)
        exceptions = self._ray.exceptions
        try:
            return Outcome(number, self._ray.get(reference))
        except (exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.LocalRayletDiedError):
            return Outcome(number, _GONE, is_lost=True)
        except exceptions.OutOfMemoryError:
            return Outcome(number, Result(error="its node ended it for want of memory; use nodes with more"))
        except exceptions.WorkerCrashedError:
            self._crashed.append((time.monotonic() + _DOUBT_SECONDS, number, begun))
            return None
        except exceptions.RayError as error:
            return Outcome(number, Result(error=" ".join(str(error).split())))

    def _judged(self) -> list[Outcome]:
        """Of processes that ended, those of which it is known by now whether their nodes did, too."""
        now, outcomes = time.monotonic(), list[Outcome]()
        while self._crashed and self._crashed[0][0] <= now:
            self._look()
            _, number, begun = self._crashed.pop(0)
            is_lost = self._last_loss >= begun
            crash = Result(error="the process that did it crashed or was killed")
            outcomes.append(Outcome(number, _GONE if is_lost else crash, is_lost))
        return outcomes

    def _look(self, seconds: float = 0.0) -> None:
        """Finds out which nodes there are, unless that is known since so many seconds ago or less."""
        now = time.monotonic()
        if now - self._looked < seconds:
            return
        alive = {node["NodeID"]: self._fitting(node) for node in self._ray.nodes() if node["Alive"]}
        if self._nodes.keys() - alive.keys():
            self._last_loss = now
        self._nodes, self._looked = alive, now

    def _fitting(self, node: dict[str, Any]) -> int:
        """How many units a node does at a time."""
        there = node["Resources"]
        wanted = {"CPU": self._resources.cpus, "GPU": self._resources.gpus}
        return int(min(there.get(name, 0) / amount for name, amount in wanted.items() if amount))

    def _slots(self) -> int:
        self._look(_LOOK_SECONDS)
        return sum(self._nodes.values())

    def __enter__(self) -> "Ray":
        """See `Executor`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `Executor`."""
        with self._stack, _own_signals():
            self._ray.shutdown()


class _WithoutRay:
    """Standard output without what Ray's own threads write there of nodes that end, log lines and all."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, or does not."""
        is_ray = threading.current_thread().name.startswith("ray_")
        return len(text) if is_ray else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at `[ray://]HOST:PORT`; Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()


def _run_on_node(job: Job, task: Task) -> Result:
    bounds.end_if_stuck()
    return run(job, task)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps the handler of SIGTERM that Ray would put its own in the place of."""
    handler: Callable[..., Any] | int | None = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
