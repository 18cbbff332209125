"""The command as two processes: one that works, and one that waits and says what became of it.

Files are read by libraries in C that a broken or hostile file may bring down. The process that works is a fork of the
one that was started, from before anything is loaded, so that this costs milliseconds; it has the terminal, and all that
it says goes there directly. Only where it ends by a signal the other one says so, in one line, or, of a folder, begins
another process, which takes that file for one that failed and goes on behind it.

The one that waits passes signals on to the one that works; those of a terminal reach both anyway. If it is killed, the
system kills the one that works.
"""

import contextlib
import mmap
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from keras_deartifact import bounds, console, processes
from keras_deartifact.cli.common import FAILED

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGALRM, signal.SIGKILL)
_NAME_BYTES = 4096
# A signal to the whole group reaches the process that works without help.
_PASS_ON_AFTER_SECONDS = 0.05


class CrashedError(ValueError):
    """An earlier process crashed at this file."""


_shared: mmap.mmap | None = None
_outcomes: IO[bytes] | None = None
_crashed: dict[str, str] = {}


def work_apart(output: Path | None, goes_on: bool) -> int | None:
    """Splits the process in two, where the system is Linux and nothing else runs in the process.

    Args:
        output: the file or folder that is written, from which temporary files of a process that crashed are removed.
        goes_on: whether there are further files to work on where one of them brought the process down.

    Returns:
        None in the process that is to work; in the one that waits, the other one's exit code.
    """
    global _shared, _outcomes
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return None
    _shared = mmap.mmap(-1, _NAME_BYTES)
    if goes_on:
        _outcomes = tempfile.TemporaryFile()  # noqa: SIM115
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    waiting = os.getpid()
    while True:
        _shared[0:1] = b"\0"
        process = os.fork()
        if process == 0:
            processes.end_with(waiting)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            bounds.end_if_stuck()
            return None
        code = os.waitstatus_to_exitcode(_ended(process, watched))
        if code >= 0:
            return code
        if -code not in _CRASHES:
            # Somebody ended it; this is how shells number that.
            return 128 - code
        name = os.fsdecode(_shared[:].split(b"\0", 1)[0])
        if output is not None:
            clean(output, process)
        if not goes_on or not name or name in _crashed:
            console.say(f"error: {name + ': ' if name else ''}{what_happened(-code)}")
            return FAILED
        _crashed[name] = what_happened(-code)


def working_on(path: os.PathLike[str]) -> None:
    """Notes which file is being read, for the process that waits.

    Raises:
        CrashedError: an earlier process was brought down by it.
    """
    if os.fspath(path) in _crashed:
        raise CrashedError(_crashed[os.fspath(path)])
    if _shared is not None:
        name = os.fsencode(path)[: _NAME_BYTES - 1]
        _shared[: len(name) + 1] = name + b"\0"


def keep(outcome: Any) -> None:
    """Notes what became of a file of several, for the process that comes after this one if this one crashes."""
    if _outcomes is not None:
        pickle.dump(outcome, _outcomes)
        _outcomes.flush()


def kept() -> list[Any]:
    """What earlier processes noted, in their order; `keep` goes on behind it."""
    found: list[Any] = []
    if _outcomes is not None:
        _outcomes.seek(0)
        # The last one may be cut off.
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                found.append(pickle.load(_outcomes))
    return found


def clean(output: Path, process: int) -> None:
    """Removes the temporary files of a process, which have its number in their names."""
    target = Path(os.path.realpath(output))
    pattern = f".deartifact-{process}-*"
    for path in target.rglob(pattern) if target.is_dir() else target.parent.glob(pattern):
        if re.fullmatch(rf"\.deartifact-{process}-[0-9a-f]+(\.\w+)?", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def what_happened(number: int) -> str:
    """What a process did that ended by a signal of this number."""
    if number == signal.SIGALRM:
        return f"its decoder did not come back within {bounds.DECODER_SECONDS} s; the file is broken"
    if number == signal.SIGKILL:
        return "the system ended the work, most likely for want of memory; use a machine with more"
    return f"reading it crashed ({signal.Signals(number).name}); the file is broken, or a library that reads it is"


def _ended(process: int, watched: set[signal.Signals]) -> int:
    """Waits for a process, and passes on to it what is sent to this one; returns its status."""
    while True:
        told = signal.sigwaitinfo(watched)
        # Zero and below: sent by a process. A terminal sends to all processes in front of it.
        if told.si_signo != signal.SIGCHLD and told.si_code <= 0:
            signal.sigtimedwait({signal.SIGCHLD}, _PASS_ON_AFTER_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, told.si_signo)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
