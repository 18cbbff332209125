"""The pieces of work of an archive, each a function of its files, the networks and the options alone.

What a unit writes gets its name when it is complete, and is the same whoever writes it. So it does no harm that one is
done twice, or that a machine which was given up comes back to life.
"""

import contextlib
import dataclasses
import hashlib
import json
import socket
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keras_deartifact import bounds, console, files, restore, video
from keras_deartifact.archive import networks, resources
from keras_deartifact.archive.ledger import File
from keras_deartifact.archive.networks import Networks, OtherNetworksError
from keras_deartifact.archive.storage import WORK, Place, place
from keras_deartifact.restore import Segment, VideoPlan, journal
from keras_deartifact.restore.plan import identity

SEGMENTS = f"{WORK}/segments"
"""Where the segments of unfinished videos lie, below the destination: a folder each, with the plan and the records."""


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
        positions: of segments in their video.
        from_start: of a segment: decode all that comes before it, see `restore.seams`.
        records: of all segments, for joining.
    """

    kind: str
    files: tuple[File, ...] = ()
    positions: tuple[int, ...] = ()
    from_start: bool = False
    records: tuple[Any, ...] = ()


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
        "identity": identity(restorer, predictor),
        "engine": getattr(restorer, "engine", "auto"),
        "provider": getattr(restorer, "provider", None),
        "notes": list(getattr(restorer, "notes", ())),
    }


def begin(work: _Work, task: Task) -> list[dict[str, Any]]:
    """Restores pictures, and plans videos; returns what became of each file, see `ledger.File`."""
    restorer, _ = work.load()
    taken = resources.of(work.job.networks.engine, work.job.networks.provider)
    most_pixels = restore.WHOLE_PIXELS if taken.gpus else 0
    return restore.together(restorer, (_begun(work, file) for file in task.files), most_pixels)


def _begun(work: _Work, file: File) -> restore.Steps[dict[str, Any]]:
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
            if media == "image":
                known |= yield from _still(work, path, target)
            else:
                known |= _video(work, path, target)
            if "plan" in known:
                known |= _kept(work, file, known)
            return known
    except OtherNetworksError:
        raise
    except Exception as error:
        # The other files of the unit are not to blame.
        if not console.is_expected(error):
            raise
        return {"state": "failed", "message": console.sentence(error), "is_final": _is_final(error)}


def _kept(work: _Work, file: File, known: dict[str, Any]) -> dict[str, Any]:
    """Puts a plan where all workers find it, under a name made of all that the segments depend on."""
    plan = known.pop("plan")
    told = json.dumps([file.name, known["sha256"], plan, work.job.networks.identity])
    key = hashlib.sha256(told.encode()).hexdigest()[:32]
    with work.destination.writing(f"{SEGMENTS}/{key}/plan.json") as path:
        path.write_text(plan, "utf-8")
    return {"key": key, "segments": len(VideoPlan.from_json(plan).segments)}


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


def _still(work: _Work, path: Path, target: str) -> restore.Steps[dict[str, Any]]:
    restorer, predictor = work.load()
    names = ("strength", "quality", "bits")
    given = {name: work.options[name] for name in names}
    within = work.options["within_quantisation"] and files.is_jpeg(path)
    with work.destination.writing(target) as made:
        report = yield from restore.image_steps(
            restorer, path, made, predictor=predictor, within_quantisation=within, overwrite=True, **given
        )
    notes = [*report.remarks, *(f"left out: {each}" for each in report.left_out)]
    return {"state": "restored", "frames": report.frames, "seconds": 0.0, "notes": notes}


def _video(work: _Work, path: Path, target: str) -> dict[str, Any]:
    """Plans a video; one of a single segment, or one that cannot be cut, is restored at once."""
    names = ("strength", "codec", "crf", "preset", "drop", "deinterlace")
    given = {name: work.options[name] for name in names}
    plan = restore.plan_video(path, target, restore.VideoOptions(**given))
    info = video.probe(path)
    rate, duration = info.frame_rate, info.duration
    if len(plan.segments) > 1:
        frames = sum(each.frames for each in plan.segments)
        seconds = frames / rate if duration is None and rate else duration or 0
        notes = _left_out(plan, path, target)
        return {"state": "working", "plan": plan.to_json(), "frames": frames, "seconds": float(seconds), "notes": notes}
    restorer, predictor = work.load()
    with work.destination.writing(target) as made:
        report = restore.restore_video(restorer, path, made, predictor=predictor, overwrite=True, **given)
    state = "restored" if report.broken is None else "incomplete"
    seconds = report.frames / rate if rate else duration or 0
    notes = [f"left out: {each}" for each in report.skipped]
    known = {"state": state, "message": report.broken, "frames": report.frames, "seconds": float(seconds)}
    return known | {"notes": notes}


def _left_out(plan: VideoPlan, path: Path, target: str) -> list[str]:
    """What the copy will not hold; a copy that would be refused at the end is refused now."""
    with tempfile.TemporaryDirectory() as folder:
        trial = plan.writer(Path(folder) / PurePosixPath(target).name, path)
        trial.close()
    return [f"left out: {each}" for each in trial.skipped]


def segment(work: _Work, task: Task) -> list[dict[str, Any]]:
    """Restores segments of a video, unless that is done; returns their records."""
    return [_record(work, task, task.files[0], position) for position in task.positions]


def _record(work: _Work, task: Task, file: File, position: int) -> dict[str, Any]:
    packets = _segment(file, position)
    record = packets.replace(".packets", ".json")
    if work.destination.find(record) and work.destination.find(packets):
        with work.destination.reading(record) as path:
            known: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if known["from_start"] or not task.from_start:
            return known
    made = dataclasses.asdict(_made(work, task, file, position, packets))
    with work.destination.writing(record) as path:
        path.write_text(json.dumps(made), "utf-8")
    return made


def _made(work: _Work, task: Task, file: File, position: int, packets: str) -> Segment:
    restorer, predictor = work.load()
    _require_same(work, file)
    with work.source.reading(file.name) as path, work.destination.writing(packets) as target:
        return restore.restore_segment(
            restorer, predictor, path, _plan(work, file), position, target, from_start=task.from_start
        )


def join(work: _Work, task: Task) -> dict[str, Any]:
    """Makes a video of its segments."""
    file = task.files[0]
    _require_same(work, file)
    records = [Segment(**each) for each in task.records]
    with contextlib.ExitStack() as stack:
        names = [_segment(file, position) for position in range(len(records))]
        paths = [stack.enter_context(work.destination.reading(name)) for name in names]
        path = stack.enter_context(work.source.reading(file.name))
        target = stack.enter_context(work.destination.writing(file.target or ""))
        damaged = restore.join_segments(path, target, _plan(work, file), records, paths, overwrite=True)
    broken = journal.broken(records) or damaged
    frames = sum(each.frames for each in records)
    return {"state": "restored" if broken is None else "incomplete", "message": broken, "frames": frames}


def _segment(file: File, position: int) -> str:
    return f"{SEGMENTS}/{file.key}/{position:06}.packets"


def _plan(work: _Work, file: File) -> VideoPlan:
    """The plan of a video, which lies with its segments: it is too long to go with each of them."""
    name = f"{SEGMENTS}/{file.key}/plan.json"
    if name not in _plans:
        with work.destination.reading(name) as path:
            _plans.clear()
            _plans[name] = VideoPlan.from_json(path.read_text("utf-8"))
    return _plans[name]


_plans: dict[str, VideoPlan] = {}


def clear(work: _Work, task: Task) -> None:
    """Removes the segments of videos that are finished."""
    for file in task.files:
        work.destination.remove(f"{SEGMENTS}/{file.key}")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


UNITS: dict[str, Callable[[_Work, Task], Any]] = {
    "identify": identify,
    "begin": begin,
    "segment": segment,
    "join": join,
    "clear": clear,
}
"""By name, `(work, task) -> value`."""
