"""Copies of files from elsewhere on a machine's own disk, shared by all processes that work there.

Each copy lies beside a lock. Who reads holds it together with others, who makes or removes the copy holds it alone; the
system lets go of it when a process ends, however it ends. Where the disk gets full, copies go that nobody reads, the
longest unused first.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_FREE_SHARE = 0.1


@contextlib.contextmanager
def copy(folder: Path, key: str, suffix: str, size: int, fetch: Callable[[Path], None]) -> Iterator[Path]:
    """Gives the local copy of a file, and makes it first where there is none.

    Args:
        folder: that holds all copies; it is made if it is not there.
        key: what tells the file, in this version, from all others.
        suffix: of the copy's name.
        size: of the file, in bytes.
        fetch: writes the file to a path.

    Yields:
        Its path; the copy stays at least until the block ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = folder / f"{name}{suffix}"
    with (folder / f"{name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _make_room(folder, size)
            part = folder / f"{name}.part"
            try:
                fetch(part)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        # Tells when it was used last.
        os.utime(lock.fileno())
        # The system may let another process in between the two locks.
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "The copy was removed, because the disk is full", os.fspath(path))
        yield path


def _make_room(folder: Path, size: int) -> None:
    """Removes copies that nobody reads until `size` bytes fit and a share of the disk stays free."""
    for lock in sorted(folder.glob("*.lock"), key=lambda each: each.stat().st_mtime):
        usage = shutil.disk_usage(folder)
        if usage.free - size >= _FREE_SHARE * usage.total:
            return
        with lock.open("ab") as file, contextlib.suppress(BlockingIOError):
            _remove_unused(lock, file)


def _remove_unused(lock: Path, file: IO[bytes]) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for path in lock.parent.glob(f"{lock.stem}*"):
        # A lock that is removed while another process waits for it would lock nothing.
        if path != lock:
            path.unlink()
