"""What is done of a video, on the disk: a run that is killed at any moment is continued by the next one like it.

Beside the target `NAME` lies a hidden folder `.deartifact-NAME` while it is being made:

    lock              held by the run at work; the system lets go of it when that ends, however it ends
    journal.jsonl     a line of JSON with the run's parameters, one for each finished segment, one when all are, and one
                      before the target gets its name
    000000.packets    the finished segments (`video.segments`)
    000001.part       the one at work
    target.EXTENSION  all of it, on its way to become the target

A segment counts once its file is on the disk under its last name and its line is on the disk behind it. A line that
was cut off, and files that no line names, are of a run that was killed then: they are removed.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from keras_deartifact import files

Parameters = Mapping[str, str | int | float | bool | None]

_JOURNAL = "journal.jsonl"

_WHOLE = {"whole": True}

_LONGEST_NAME = 200


@dataclass(frozen=True)
class Segment:
    """A finished segment.

    Attributes:
        frames: how many.
        last: time of the last one, in ticks of the source; None without frames, where none decodes.
        predictions: medians of what the predictor saw in them, log2 steps.
        stated: whether the bitstream gave quantiser maps.
        broken: what is wrong with the source in it or at its end, or None.
        before: digest of what was decoded before it and has to do with it.
        after: the same of the segment that follows it: the two are equal, unless they came from different frames.
        from_start: whether the source was decoded from its start for it.
        sha256: of its file.
    """

    frames: int
    last: int | None
    predictions: list[float]
    stated: bool = False
    broken: str | None = None
    before: str = ""
    after: str = ""
    from_start: bool = True
    sha256: str = ""


def broken(segments: Sequence[Segment]) -> str | None:
    """Why a source is incomplete, or None; the end counts more than what is before it."""
    return next((each.broken for each in reversed(segments) if each.broken is not None), None)


def work_folder(target: files.StrPath) -> Path:
    """Where the work on a target is kept."""
    final = Path(os.path.realpath(target))
    name = final.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return final.with_name(files.TEMPORARY_PREFIX + name)


def frames_kept(target: files.StrPath) -> int:
    """How many frames of a video are done, and kept until the same run is repeated."""
    with contextlib.suppress(OSError):
        return sum(each.frames for each in _read(work_folder(target))[1])
    return 0


def clean(target: files.StrPath) -> None:
    """Removes what is left beside a target whose run was killed when all was done but that.

    Raises:
        OSError: the file system does not let it.
    """
    folder = work_folder(target)
    if not folder.is_dir():
        return
    with contextlib.suppress(BusyError), _locked(folder, target):
        if _read(folder)[0] is None or _is_named(folder, target):
            _remove(folder)


def _is_named(folder: Path, target: files.StrPath) -> bool:
    """Whether the complete file has become the target."""
    lines = (folder / _JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        return bool(json.loads(lines[-1]).get("inode") == os.stat(target).st_ino)
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def _remove(folder: Path) -> None:
    """Removes a work folder; the journal, which says what the rest is, goes after it."""
    for path in folder.iterdir():
        if path.name not in ("lock", _JOURNAL):
            path.unlink()
    shutil.rmtree(folder)


class BusyError(ValueError):
    """Another run is at work on a target."""


class Journal:
    """The work on one target. Use as a context manager.

    Leaving the block keeps what is finished if there is any, unless `remove` was called; nothing stays of a run that
    finished no segment.

    Attributes:
        folder: where it is kept.
        segments: that are finished, in order.
        is_whole: whether these are all.
    """

    def __init__(self, target: files.StrPath, parameters: Parameters, restart: bool = False) -> None:
        """Begins the work, or goes on with what an earlier run with the same parameters has done.

        Args:
            target: the file that is to be made.
            parameters: all that the result depends on, under names for a reader.
            restart: begin anew, whatever there is of an earlier run.

        Raises:
            ValueError: an earlier run had other parameters, and `restart` is False.
            BusyError: another run is at work.
            OSError: the file system does not take it.
        """
        self.folder = work_folder(target)
        self.segments: list[Segment] = []
        self.is_whole = False
        self._target = Path(os.path.realpath(target))
        with contextlib.ExitStack() as stack:
            self._lock = stack.enter_context(_locked(self.folder, target))
            recorded, segments, is_whole = _read(self.folder)
            if recorded is not None and not restart:
                self._require_same(recorded, dict(parameters), target, segments)
                self.segments = self._intact(segments)
                self.is_whole = is_whole and len(self.segments) == len(segments)
            try:
                self._sweep()
                self._rewrite(parameters)
            except OSError:
                if not self.segments:
                    self.remove()
                raise
            stack.pop_all()

    def __enter__(self) -> Self:
        """Returns the journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Lets go of the folder."""
        with self._lock:
            if not self.segments:
                self.remove()
            elif self.folder.exists():
                self._sweep()

    @property
    def frames(self) -> int:
        """How many are done."""
        return sum(each.frames for each in self.segments)

    @property
    def last(self) -> int | None:
        """Time of the last frame that is done, in ticks of the source."""
        return next((each.last for each in reversed(self.segments) if each.last is not None), None)

    @property
    def paths(self) -> list[Path]:
        """Of the finished segments."""
        return [self._path(index) for index in range(len(self.segments))]

    @property
    def part(self) -> Path:
        """Where the next segment is to be written."""
        return self._path(len(self.segments)).with_suffix(".part")

    @property
    def complete(self) -> Path:
        """Where the whole video is to be written before it gets its name."""
        return self.folder / f"target{self._target.suffix}"

    def add(self, segment: Segment) -> None:
        """Takes what is in `part` for a finished segment."""
        part, path = self.part, self._path(len(self.segments))
        segment = dataclasses.replace(segment, sha256=digest(part))
        files.sync(part)
        os.replace(part, path)
        files.sync(self.folder)
        self._append(dataclasses.asdict(segment))
        self.segments.append(segment)

    def finish(self) -> None:
        """Notes that all frames are encoded."""
        self._append(_WHOLE)
        self.is_whole = True

    def name(self) -> None:
        """Gives the file in `complete` its name, and removes all else."""
        files.sync(self.complete)
        self._append({"inode": self.complete.stat().st_ino})
        os.replace(self.complete, self._target)
        files.sync(self._target.parent)
        self.remove()

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        with contextlib.suppress(FileNotFoundError):
            _remove(self.folder)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}.packets"

    def _intact(self, segments: list[Segment]) -> list[Segment]:
        """The segments up to the first whose file is not what its line says."""
        for index, segment in enumerate(segments):
            path = self._path(index)
            if not path.is_file() or digest(path) != segment.sha256:
                return segments[:index]
        return segments

    def _sweep(self) -> None:
        """Removes what belongs to no finished segment."""
        keep = {path.name for path in self.paths} | {"lock", _JOURNAL}
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()

    def _rewrite(self, parameters: Parameters) -> None:
        """Writes the journal as it stands: the last line of an earlier run may be cut off."""
        lines: list[dict[str, Any]] = [dict(parameters), *map(dataclasses.asdict, self.segments)]
        if self.is_whole:
            lines.append(_WHOLE)
        fresh = self.folder / "journal.part"
        with fresh.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line) + "\n")
        files.sync(fresh)
        os.replace(fresh, self.folder / _JOURNAL)
        files.sync(self.folder)

    def _append(self, line: dict[str, Any]) -> None:
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _require_same(
        self, recorded: Parameters, wanted: Parameters, target: files.StrPath, segments: list[Segment]
    ) -> None:
        changed = differences(recorded, wanted)
        if changed and segments:
            frames = sum(each.frames for each in segments)
            raise ValueError(
                f"an earlier run made {frames} frames of {os.fspath(target)} with another {changed}; "
                f"go on with what it had then, or begin anew with restart=True (--restart)"
            )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names the parameters that differ, with both values; empty where none does."""
    names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    return ", ".join(f"{name} ({then.get(name)} then, {now.get(name)} now)" for name in names)


def _read(folder: Path) -> tuple[Parameters | None, list[Segment], bool]:
    """What a journal says: parameters, None where it says nothing; the segments; whether these are all."""
    try:
        text = (folder / _JOURNAL).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None, [], False
    parameters: Parameters | None = None
    segments: list[Segment] = []
    for line in text.splitlines(keepends=True):
        try:
            values = json.loads(line) if line.endswith("\n") else None
            if not isinstance(values, dict):
                break
            if parameters is None:
                parameters = values
            elif "sha256" in values:
                segments.append(Segment(**values))
            else:
                return parameters, segments, values == _WHOLE
        except (ValueError, TypeError):
            break
    return parameters, segments, False


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locked(folder: Path, target: files.StrPath) -> IO[bytes]:
    """Makes a folder, and holds its lock until the file that is returned is closed."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = (folder / "lock").open("ab")
        except FileNotFoundError:
            # Another run has just removed it.
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # So has one that removed the folder between opening and locking.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / "lock")):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            file.close()
            raise BusyError(
                f"another run is at work on {os.fspath(target)}; wait for it, or choose another name"
            ) from error
        file.close()
