"""Where the ledger of an archive is kept: beside the destination, where a driver on any machine finds it.

In a folder it is used where it lies. Elsewhere SQLite cannot work, so it lies on the driver's own disk, and a copy goes
to the destination every so often. What was done since the last copy is not lost with the driver: finished segments and
files are at the destination themselves.
"""

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from keras_deartifact.archive.ledger import Ledger
from keras_deartifact.archive.storage import WORK, Place

LEDGER = f"{WORK}/ledger.sqlite"


class Kept(NamedTuple):
    """A ledger that is open for its driver.

    Attributes:
        ledger: see there.
        copy: brings what was committed to the destination, if it does not lie there.
    """

    ledger: Ledger
    copy: Callable[[], None]


@contextlib.contextmanager
def opened(destination: Place, scratch: Path, restart: bool = False) -> Iterator[Kept]:
    """Opens the ledger of a destination for the one driver that may write it, and makes it where there is none.

    Args:
        destination: of the archive.
        scratch: a folder of this machine.
        restart: forget all that an earlier run has done.

    Raises:
        ValueError: another driver is at work, or what lies there is no ledger.
        OSError: the file system does not take it.
    """
    path = _path(destination, scratch)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run is at work on {destination.url}; see how far it is with --status, or wait for it"
            ) from error
        if restart:
            _forget(destination, path)
        elif destination.folder is None:
            _fetch(destination, path)
        with Ledger(path) as ledger:

            def copy() -> None:
                if destination.folder is None:
                    with destination.writing(LEDGER) as target:
                        ledger.copy(target)

            try:
                yield Kept(ledger, copy)
            finally:
                copy()


@contextlib.contextmanager
def looked_at(destination: Place, scratch: Path) -> Iterator[tuple[Ledger, bool]]:
    """Opens the ledger of a destination to read it.

    Yields:
        The ledger, and whether a driver of this machine is at work.

    Raises:
        ValueError: there is none.
    """
    if destination.find(LEDGER) is None:
        raise ValueError(f"there is no archive at {destination.url}, or it was finished and cleared")
    lock = _path(destination, scratch).with_suffix(".lock")
    is_at_work = False
    if lock.exists():
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_at_work = True
    with destination.reading(LEDGER) as path, Ledger(path) as ledger:
        yield ledger, is_at_work


def _path(destination: Place, scratch: Path) -> Path:
    if destination.folder is not None:
        return destination.folder / LEDGER
    return scratch / f"ledger-{hashlib.sha256(destination.url.encode()).hexdigest()[:32]}.sqlite"


def _fetch(destination: Place, path: Path) -> None:
    if destination.find(LEDGER) is None:
        path.unlink(missing_ok=True)
        return
    with destination.reading(LEDGER) as copy:
        shutil.copyfile(copy, path)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


def _forget(destination: Place, path: Path) -> None:
    if destination.folder is None:
        path.unlink(missing_ok=True)
        destination.remove(WORK)
        return
    for each in path.parent.iterdir():
        if each != path.with_suffix(".lock"):
            destination.remove(f"{WORK}/{each.name}")
