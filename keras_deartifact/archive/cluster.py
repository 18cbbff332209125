"""Units on a Ray cluster: Ray places them, starts the processes, and tells what ended."""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from keras_deartifact import bounds
from keras_deartifact.archive.executors import Outcome
from keras_deartifact.archive.resources import Resources
from keras_deartifact.archive.units import Job, Result, Task, run

_KNOCK_SECONDS, _LOOK_SECONDS = 10.0, 1.0

# Of a node that ends, first its processes are missed.
_DOUBT_SECONDS = 3.0

_GONE = Result(error="the node that did it is gone")


class Ray:
    """A Ray cluster; see `executors.Executor`."""

    def __init__(self, address: str, resources: Resources) -> None:
        """Connects.

        Args:
            address: what `ray.init` takes: `HOST:PORT`, `ray://HOST:PORT`, or `auto` on a node of the cluster.
            resources: of a unit.

        Raises:
            ValueError: Ray is not installed, the cluster cannot be reached, or has no node of such resources.
        """
        # Ray would keep what is said of nodes that end, and print it at the very end; it reads this at its import.
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
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
        """As many as run at a time, and as many again that wait, so that no node does. See `executors.Executor`."""
        return max(2, 2 * self._slots()) - len(self._running) - len(self._crashed)

    def nodes(self) -> int:
        """See `executors.Executor`."""
        self._look(_LOOK_SECONDS)
        return sum(fitting > 0 for fitting in self._nodes.values())

    def submit(self, number: int, job: Job, task: Task) -> None:
        """See `executors.Executor`."""
        if job not in self._jobs:
            self._jobs[job] = self._ray.put(job)
        self._running[self._run.remote(self._jobs[job], task)] = number, time.monotonic()

    def wait(self, seconds: float) -> list[Outcome]:
        """See `executors.Executor`."""
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
            # What a unit raises is in its result. This is of a node that has another package, or none.
            reason = str(error).strip().splitlines()[-1]
            return Outcome(number, Result(error=f"a node cannot do it: {reason}", is_fatal=True, node="the cluster"))

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
        """See `executors.Executor`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `executors.Executor`."""
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
