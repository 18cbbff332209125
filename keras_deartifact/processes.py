"""Processes of this package that work for another one."""

import contextlib
import os
import signal
import sys

# What `prctl` calls it, in Linux's <sys/prctl.h>.
_SET_PARENT_DEATH_SIGNAL = 1


def end_with(parent: int) -> None:
    """Lets the system kill this process when its parent, which has this number, ends, however that ends."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
