"""The pieces of work of an archive, each a function of its files, the networks and the options alone.

What a unit writes gets its name when it is complete, and is the same whoever writes it. So it does no harm that one is
done twice, or that a machine which was given up comes back to life.
"""

import hashlib
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keras_deartifact import bounds, console, files
from keras_deartifact.archive import networks
from keras_deartifact.archive.ledger import File
from keras_deartifact.archive.networks import Networks, OtherNetworksError
from keras_deartifact.archive.storage import WORK, Place, place


@dataclass(frozen=True)
class Job:
    """What every worker knows.

    Attributes:
        source: URL or folder of the files.
        destination: of their copies.
        networks: see there.
        options: of the copies, in pairs: `strength`, `quality`, `bits`, `within_quantisation`, `codec`, `crf`,
            `preset`, `drop`, `deinterlace`, see `restore_image` and `restore_video`.
        max_pixels: see `bounds.allowing`.
        scratch: a folder of each machine for copies of files from elsewhere.
    """

    source: str
    destination: str
    networks: Networks
    options: tuple[tuple[str, Any], ...]
    max_pixels: int | None
    scratch: str


class Task(NamedTuple):
    """A unit as a worker gets it.

    Attributes:
        kind: key of `UNITS`.
        files: as the ledger has them.
        position: of a segment in its video.
        results: of all segments, for joining.
    """

    kind: str
    files: tuple[File, ...] = ()
    position: int | None = None
    results: tuple[Any, ...] = ()


class Result(NamedTuple):
    """What became of a unit.

    Attributes:
        value: what it returned, as JSON can hold it; None where it failed.
        error: why it failed, in a line; None where it did not.
        is_final: whether it would fail again in the same way: the file is the cause.
        is_fatal: whether no file is, and every other unit would fail, too.
        seconds: that it took.
        node: where.
        trace: of an error that only this program can be the cause of.
    """

    value: Any = None
    error: str | None = None
    is_final: bool = False
    is_fatal: bool = False
    seconds: float = 0.0
    node: str = ""
    trace: str = ""


def run(job: Job, task: Task) -> Result:
    """Does a unit; an error becomes its result."""
    started = time.perf_counter()
    result: dict[str, Any] = {}
    try:
        with bounds.allowing(job.max_pixels), console.silent_progress(), warnings.catch_warnings():
            # Of Pillow, of large pictures, which are what an archive holds, and of broken ones.
            warnings.filterwarnings("ignore", category=Warning, module="PIL")
            work = _Work(job)
            result["value"] = UNITS[task.kind](work, task)
    except OtherNetworksError as error:
        result |= {"error": console.sentence(error), "is_fatal": True}
    except Exception as error:
        is_expected = console.is_expected(error)
        trace = "" if is_expected else "".join(traceback.format_exception(error))
        result |= {"error": console.sentence(error), "is_final": _is_final(error), "trace": trace}
    return Result(seconds=time.perf_counter() - started, node=socket.gethostname(), **result)


def _is_final(error: Exception) -> bool:
    """Whether a file is what is wrong; PyAV's errors of reading may pass."""
    import av

    return isinstance(error, ValueError) and not isinstance(error, av.FFmpegError)


class _Work:
    """What the functions below share."""

    def __init__(self, job: Job) -> None:
        scratch = Path(job.scratch)
        self.job = job
        self.options = dict(job.options)
        self.source = _opened(job.source, scratch)
        self.destination = _opened(job.destination, None)
        self.scratch = scratch

    def load(self) -> Any:
        """The networks."""
        return networks.load(self.job.networks, self.job.destination, self.scratch)


_places: dict[tuple[str, Path | None], Place] = {}


def _opened(url: str, scratch: Path | None) -> Place:
    """A place, opened once in a process."""
    if (url, scratch) not in _places:
        _places[url, scratch] = place(url, scratch)
    return _places[url, scratch]


def identify(work: _Work, task: Task) -> dict[str, Any]:
    """Loads the networks; returns what tells them from others, and the engine that was chosen."""
    restorer, predictor = work.load()
    return {
        "identity": networks.identity(restorer, predictor),
        "engine": getattr(restorer, "engine", "auto"),
        "provider": getattr(restorer, "provider", None),
        "notes": list(getattr(restorer, "notes", ())),
    }


def begin(work: _Work, task: Task) -> list[dict[str, Any]]:
    """Restores pictures, and plans videos; returns what became of each file, see `ledger.File`."""
    return [_begun(work, file) for file in task.files]


def _begun(work: _Work, file: File) -> dict[str, Any]:
    try:
        _require_same(work, file)
        with work.source.reading(file.name) as path:
            try:
                media = files.kind(path)
            except files.NotMediaError:
                if files.has_media_name(file.name):
                    raise
                return {"state": "skipped", "message": "neither an image nor a video"}
            target = target_of(file.name, media, work.options["bits"])
            known = {"media": media, "target": target, "sha256": _digest(path)}
            return known | (_still if media == "image" else _video)(work, path, target)
    except OtherNetworksError:
        raise
    except Exception as error:
        # The other files of the unit are not to blame.
        if not console.is_expected(error):
            raise
        return {"state": "failed", "message": console.sentence(error), "is_final": _is_final(error)}


def target_of(name: str, media: str, bits: int | None) -> str:
    """The name of a file's copy, see `files.target_name`."""
    return str(PurePosixPath(name).with_name(files.target_name(name, media, bits)))


def _require_same(work: _Work, file: File) -> None:
    entry = work.source.find(file.name)
    if entry is None or entry.version != file.version:
        raise ValueError(
            f"the input must not change while the archive is restored; begin it again with --retry-failed. "
            f"Received: {file.name}, {'gone' if entry is None else entry.version}, {file.version} before"
        )


def _still(work: _Work, path: Path, target: str) -> dict[str, Any]:
    from keras_deartifact import restore

    restorer, predictor = work.load()
    names = ("strength", "quality", "bits")
    given = {name: work.options[name] for name in names}
    within = work.options["within_quantisation"] and _is_jpeg(path)
    with work.destination.writing(target) as made:
        report = restore.restore_image(
            restorer, path, made, predictor=predictor, within_quantisation=within, overwrite=True, **given
        )
    notes = [*report.remarks, *(f"left out: {each}" for each in report.left_out)]
    return {"state": "restored", "frames": 1, "seconds": 0.0, "notes": notes}


def _video(work: _Work, path: Path, target: str) -> dict[str, Any]:
    from keras_deartifact import restore, video

    restorer, predictor = work.load()
    given = {name: work.options[name] for name in ("strength", "codec", "crf", "preset", "drop", "deinterlace")}
    info = video.probe(path)
    with work.destination.writing(target) as made:
        report = restore.restore_video(restorer, path, made, predictor=predictor, overwrite=True, **given)
    state = "restored" if report.broken is None else "incomplete"
    seconds = float(report.frames / info.frame_rate) if info.frame_rate else 0.0
    notes = [f"left out: {each}" for each in report.skipped]
    return {"state": state, "message": report.broken, "frames": report.frames, "seconds": seconds, "notes": notes}


def clear(work: _Work, task: Task) -> None:
    """Removes the segments of videos that are finished."""
    for file in task.files:
        work.destination.remove(f"{WORK}/{file.key}")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\xff\xd8"


UNITS: dict[str, Callable[[_Work, Task], Any]] = {"identify": identify, "begin": begin, "clear": clear}
"""By name, `(work, task) -> value`."""
