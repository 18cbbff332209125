"""The command as two processes: one that works, and one that waits and says what became of it.

Files are read by libraries in C that a broken or hostile file may bring down. The process that works is a fork of the
one that was started, from before anything is loaded, so that this costs milliseconds; it has the terminal, and all that
it says goes there directly. Only where it ends by a signal the other one says so, in one line.

The one that waits passes signals on to the one that works; those of a terminal reach both anyway. If it is killed, the
system kills the one that works.
"""

import contextlib
import mmap
import os
import signal
import sys
import threading
from pathlib import Path

from keras_deartifact import bounds, console
from keras_deartifact.cli.common import FAILED

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What `prctl` calls it, in Linux's <sys/prctl.h>.
_SET_PARENT_DEATH_SIGNAL = 1
_NAME_BYTES = 4096
# A signal to the whole group reaches the process that works without help.
_PASS_ON_AFTER_SECONDS = 0.05

_shared: mmap.mmap | None = None


def work_apart() -> int | None:
    """Splits the process in two, where the system is Linux and nothing else runs in the process.

    Returns:
        None in the process that is to work; in the one that waits, the other one's exit code.
    """
    global _shared
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return None
    _shared = mmap.mmap(-1, _NAME_BYTES)
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    waiting = os.getpid()
    process = os.fork()
    if process == 0:
        _die_with(waiting)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        bounds.end_if_stuck()
        return None
    status = _ended(process, watched)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    console.say(f"error: {_what_happened(-code)}")
    return FAILED


def working_on(path: os.PathLike[str]) -> None:
    """Notes which file is being read, for the process that waits."""
    if _shared is not None:
        name = os.fsencode(path)[: _NAME_BYTES - 1]
        _shared[: len(name) + 1] = name + b"\0"


def _die_with(waiting: int) -> None:
    """Lets the system kill this process when the one that waits is killed."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != waiting:
        os.kill(os.getpid(), signal.SIGKILL)


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


def _what_happened(number: int) -> str:
    """What a process did that ended by a signal, on which file, and what to do."""
    assert _shared is not None  # noqa: S101
    name = os.fsdecode(_shared[:].split(b"\0", 1)[0])
    begin = f"{Path(name)}: " if name else ""
    if number == signal.SIGALRM:
        return f"{begin}its decoder did not come back within {bounds.DECODER_SECONDS} s; the file is broken"
    if number == signal.SIGKILL:
        return f"{begin}the system ended the work, most likely for want of memory; use a machine with more"
    word = signal.Signals(number).name
    return f"{begin}reading it crashed ({word}); the file is broken, or a library that reads it is. Leave this file out"
