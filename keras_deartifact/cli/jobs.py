"""Several files at once, each in a process of its own.

Processes, not threads: Python's own share of the work would wait for one lock, and a decoder that a damaged file brings
down takes one file with it, not the run. What the processes say is told in the order of the files.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from keras_deartifact import bounds, console
from keras_deartifact.cli import records
from keras_deartifact.cli.plan import Planned
from keras_deartifact.cli.records import Record

_Outcome = tuple[Record, str]

# To remove what it has begun to write.
_GRACE_SECONDS = 5.0


def restore_all(
    arguments: argparse.Namespace, planned: Sequence[Planned], know_model: Callable[[dict[str, Any]], None]
) -> Generator[_Outcome, None, None]:
    """Restores files, `arguments.jobs` at once; yields what became of each, in their order.

    Args:
        arguments: of the command.
        planned: the files.
        know_model: told of the model before the first outcome, see `records.model`.

    Raises:
        ValueError: the networks cannot be loaded.
    """
    shared = argparse.Namespace(**vars(arguments))
    shared.threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.jobs)
    waiting = [index for index, item in enumerate(planned) if item.decided is None]
    outcomes: dict[int, tuple[_Outcome, str]] = {
        index: ((item.decided, item.line), "") for index, item in enumerate(planned) if item.decided is not None
    }
    workers: list[_Worker] = []
    told = 0
    try:
        # The first measures engines, if that is to be done, while nothing else runs.
        first = _Worker(shared)
        workers.append(first)
        notes, of_model = first.ready()
        know_model(of_model)
        for note in notes:
            console.say(note)
        workers += [_Worker(shared) for _ in range(min(arguments.jobs, len(waiting)) - 1)]
        idle = list(workers)
        while told < len(planned):
            while told in outcomes:
                outcome, said = outcomes.pop(told)
                sys.stderr.write(said)
                yield outcome
                told += 1
            while idle and waiting:
                index = waiting.pop(0)
                idle.pop().begin(index, planned[index])
            busy = {worker.connection: worker for worker in workers if worker.index is not None}
            for connection in wait(list(busy)) if busy else []:
                worker = busy[connection]  # type: ignore[index]
                index = worker.index or 0
                outcomes[index] = worker.result(planned[index])
                if worker.is_alive:
                    idle.append(worker)
                elif waiting:
                    workers.append(_Worker(shared))
                    idle.append(workers[-1])
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()


class _Worker:
    """A process that restores files, one after the other."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        self.is_alive = True
        self._is_ready = False
        self._process: BaseProcess = context.Process(target=_work, args=(theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> tuple[list[str], dict[str, Any]]:
        """Waits until the networks are loaded; returns what is said of them, and which they are."""
        self._is_ready = True
        try:
            answer = self.connection.recv()
        except EOFError:
            self._process.join()
            raise ValueError(f"a process that loads the networks ended, exit code {self._process.exitcode}") from None
        if isinstance(answer, Exception):
            raise answer
        notes, of_model = answer
        return notes, of_model

    def begin(self, index: int, item: Planned) -> None:
        """Gives it a file."""
        self.index = index
        # It may have ended; `result` finds out.
        with contextlib.suppress(OSError):
            self.connection.send(item)

    def result(self, item: Planned) -> tuple[_Outcome, str]:
        """Returns what became of the file, and what was said meanwhile."""
        try:
            if not self._is_ready:
                self.ready()
            result: tuple[_Outcome, str] = self.connection.recv()
        except (EOFError, OSError):
            self.is_alive, self.index = False, None
            self._process.join()
            message = f"the process that restored it ended, exit code {self._process.exitcode}"
            return (Record(item.source, item.target, "failed", message=message), "failed"), ""
        self.index = None
        return result

    def stop(self) -> None:
        """Lets it end: at once, where it is at work."""
        self.connection.close()
        if self.index is not None:
            self._process.terminate()

    def join(self) -> None:
        """Waits for its end."""
        self._process.join(_GRACE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _work(connection: Connection, arguments: argparse.Namespace) -> None:
    """Of the process: restores what comes, until nothing can come any more."""
    from keras_deartifact.cli import folders
    from keras_deartifact.cli.common import load_networks

    # A terminal's Ctrl-C reaches every process; the first one decides, and says so with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError), bounds.allowing(arguments.max_pixels):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                networks = load_networks(arguments)
        except (ValueError, OSError) as error:
            connection.send(error)
            return
        notes = [line.removeprefix("deartifact: ") for line in said.getvalue().splitlines()]
        connection.send((notes, records.model(networks[0])))
        while True:
            item: Planned = connection.recv()
            said = io.StringIO()
            with contextlib.redirect_stderr(said), console.silent_progress():
                outcome = folders.restore_one(arguments, networks, item)
            connection.send((outcome, said.getvalue()))


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Once: what is cleaned up now must not be interrupted.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
