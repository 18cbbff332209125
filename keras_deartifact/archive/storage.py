"""Where the files of an archive lie: a folder, or whatever fsspec reaches (s3://, gs://, memory://, ...).

A `Place` gives files by their names below it, as local files that libraries in C can read and write, and takes a
written one in whole or not at all. A folder's files are read where they are. Files from elsewhere are copied to the
machine's own disk by fsspec, once for all processes that work on them there (`copies.py`).
"""

import contextlib
import datetime
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from keras_deartifact import files
from keras_deartifact.archive import copies

WORK = ".deartifact-archive"
"""The folder below a destination that holds what is known and done of a job until its files are complete."""

TEMPORARY = f"{WORK}/temporary"
"""Of these, the folder for files that are being written."""

# A file that is written there appears in whole or not at all, and renaming it would copy it.
_OBJECT_STORES = frozenset("s3 s3a gs gcs abfs abfss az adl oss oci memory".split())


class Entry(NamedTuple):
    """A file in a place.

    Attributes:
        name: below the place, with `/` between folders.
        size: in bytes.
        version: what tells it from what it was before, without reading it.
    """

    name: str
    size: int
    version: str


class Place(Protocol):
    """Where files are; names are below it.

    Attributes:
        url: of the place, for the reader.
        folder: the same, where it is a folder of this machine; None elsewhere.
    """

    url: str
    folder: Path | None

    def entries(self, results: "Place | None" = None) -> list[Entry]:
        """All files, sorted by name, but those in `results`, and those of this package's own work.

        Raises:
            ValueError: the results would go to this place itself.
            OSError: it cannot be read.
        """

    def find(self, name: str) -> Entry | None:
        """A file as it is now; None where there is none."""

    def reading(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Gives a local file to read, that stays until the block ends.

        Raises:
            OSError: there is no such file, or it cannot be had.
        """

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Gives an empty local file to write; it becomes the named file if the block succeeds, else it vanishes."""

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it, if it is there."""


def place(url: str, scratch: Path | None = None) -> Place:
    """Opens a place.

    Args:
        url: a folder's path, or a URL that fsspec knows.
        scratch: a folder of this machine for copies of files from elsewhere; None for files that are read only once.

    Raises:
        ValueError: nothing can be reached by that URL, or fsspec is not installed.
    """
    if "://" not in url and "::" not in url:
        return Folder(Path(url))
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(f"{url} needs fsspec, which opens URLs: pip install 'keras_deartifact[cluster]'") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise ValueError(f"expected a folder or a URL that fsspec knows: {error}. Received: {url}") from error
    if "file" in _protocols(system):
        return Folder(Path(path))
    return Remote(url, system, path, scratch)


class Folder:
    """A folder; see `Place`. On a cluster every node must have it under the same path."""

    def __init__(self, path: Path) -> None:
        self.url = os.fspath(path)
        self.folder: Path | None = path
        self._path = path

    def entries(self, results: Place | None = None) -> list[Entry]:
        """See `Place`."""
        excluded = None if results is None else results.folder
        names = files.files_below(self._path, excluded or self._path / WORK)
        found = (self.find(name.as_posix()) for name in names)
        return [entry for entry in found if entry is not None]

    def find(self, name: str) -> Entry | None:
        """See `Place`."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(self._path / name)
            if stat.S_ISDIR(status.st_mode):
                return None
            return Entry(name, status.st_size, f"{status.st_size} bytes of {status.st_mtime_ns}")
        return None

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        yield self._path / name

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        target, temporary = self._path / name, self._path / TEMPORARY
        temporary.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(target, temporary) as path:
            yield path

    def remove(self, name: str) -> None:
        """See `Place`."""
        path = self._path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Remote:
    """What fsspec reaches; see `Place`."""

    def __init__(self, url: str, system: Any, path: str, scratch: Path | None) -> None:
        self.url = url
        self.folder: Path | None = None
        self._system = system
        self._path = path.rstrip("/")
        self._scratch = scratch
        self._is_whole = bool(_protocols(system) & _OBJECT_STORES)

    def entries(self, results: Place | None = None) -> list[Entry]:
        """See `Place`."""
        self._system.invalidate_cache()
        here, there = f"{self.url.rstrip('/')}/", "" if results is None else f"{results.url.rstrip('/')}/"
        if here == there:
            raise ValueError(f"the results must go to another folder than the sources. Received: {self.url}")
        left_out = there.removeprefix(here) if there.startswith(here) else None
        found = []
        for path, status in self._system.find(self._path, detail=True).items():
            name = self._system._strip_protocol(path)[len(self._path) :].lstrip("/")
            is_own = any(part.startswith(files.TEMPORARY_PREFIX) for part in name.split("/"))
            if not is_own and not (left_out is not None and name.startswith(left_out)):
                found.append(_entry(name, status))
        return sorted(found)

    def find(self, name: str) -> Entry | None:
        """See `Place`."""
        path = f"{self._path}/{name}"
        # Others write there, too.
        self._system.invalidate_cache(self._system._parent(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = self._system.info(path)
            return _entry(name, status) if status["type"] == "file" else None
        return None

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        entry = self.find(name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", f"{self.url}/{name}")
        suffix = Path(name).suffix
        with contextlib.ExitStack() as stack:
            if self._scratch is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                local = Path(folder) / f"copy{suffix}"
                self._fetch(name, local)
            else:
                key = f"{self._system.unstrip_protocol(self._path)}/{name} {entry.version}"
                copy = copies.copy(self._scratch, key, suffix, entry.size, lambda path: self._fetch(name, path))
                local = stack.enter_context(copy)
            with files.naming(f"{self.url}/{name}", local):
                yield local

    def _fetch(self, name: str, local: Path) -> None:
        self._system.get_file(f"{self._path}/{name}", os.fspath(local))
        # It is the same file in every copy.
        os.utime(local, ns=(0, 0))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        path = f"{self._path}/{name}"
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / f"made{Path(name).suffix}"
            local.touch()
            with files.naming(f"{self.url}/{name}", local):
                yield local
            if self._is_whole:
                self._system.put_file(os.fspath(local), path)
                return
            self._system.makedirs(self._system._parent(path), exist_ok=True)
            beside = f"{self._path}/{TEMPORARY}/{Path(folder).name}"
            self._system.makedirs(self._system._parent(beside), exist_ok=True)
            self._system.put_file(os.fspath(local), beside)
            self._system.mv(beside, path)

    def remove(self, name: str) -> None:
        """See `Place`."""
        self._system.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(f"{self._path}/{name}", recursive=True)


def _protocols(system: Any) -> set[str]:
    names = system.protocol
    return {names} if isinstance(names, str) else set(names)


def _entry(name: str, status: dict[str, Any]) -> Entry:
    """From what a file system tells; each has its own words for what changes with the content."""
    words = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    known = next((status[word] for word in words if status.get(word)), "")
    # One and the same file system tells times in two ways.
    known = known.timestamp() if isinstance(known, datetime.datetime) else known
    return Entry(name, status["size"], f"{status['size']} bytes of {known}")
