"""A folder of models that changes under a running server: whole steps, on the disk, one program at a time."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["appearing", "locked", "remove", "write"]

# TensorFlow Serving passes over names that are no numbers.
_TEMPORARY = ".deploy-"


@contextlib.contextmanager
def locked(models: Path) -> Iterator[None]:
    """Lets one run at a time change `models`, and removes what killed ones left.

    Raises:
        ValueError: there is no such folder, or another run is at work.
    """
    if not models.is_dir():
        raise ValueError(f"There is no folder {models}: make it, and give it to the server, read-only.")
    with open(models / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another deployment is at work in {models}: wait until it has ended.") from error
        for left in [*models.glob(f"{_TEMPORARY}*"), *models.glob(f"*/{_TEMPORARY}*")]:
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Gives a hidden folder beside `target` that takes its name if the block succeeds, and vanishes if it fails."""
    parent = target.parent
    if not parent.is_dir():
        parent.mkdir()
        parent.chmod(0o755)
        _sync(parent.parent)
    # Beside it is on the same file system, where a rename is one step.
    temporary = parent / f"{_TEMPORARY}{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            # The server runs as another user.
            path.chmod(0o755 if path.is_dir() else 0o644)
            _sync(path)
        temporary.rename(target)
        _sync(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder so that nobody sees half of it."""
    hidden = folder.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def write(path: Path, text: str) -> None:
    """Writes or replaces a file, in one step."""
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}")
    try:
        temporary.write_text(text)
        temporary.chmod(0o644)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
