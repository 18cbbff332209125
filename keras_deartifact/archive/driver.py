"""The one process that knows of everything: it hands out units, writes the ledger, and sets aside what fails.

What follows from a unit's result is said here and nowhere else:

    begin    a picture is finished; a video gets its segments; a unit that crashed is cut into one for each file
    segment  when it was the last one, the video is to be joined
    join     the video is finished, and its segments are to be cleared away
    failed   it waits again, until so many attempts have failed: then its file is set aside, with the reason
"""

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_deartifact import files, restore
from keras_deartifact.archive.executors import Executor, Outcome
from keras_deartifact.archive.keeping import Kept
from keras_deartifact.archive.ledger import File, Unit
from keras_deartifact.archive.progress import progress
from keras_deartifact.archive.storage import TEMPORARY, Entry, Place
from keras_deartifact.archive.units import SEGMENTS, Job, Result, Task, target_of

# So many pictures, or bytes of them, are begun at a time: a small one takes milliseconds.
_BATCH_FILES, _BATCH_BYTES = 32, 32 << 20

# A node that ends takes all that it works on with it. A unit that was there so often is the cause.
_LOST_ATTEMPTS = 10

_SEE_SECONDS, _COPY_SECONDS = 1.0, 60.0

# As long as that took, so many times over.
_PAUSES = 20


@dataclass(frozen=True)
class Settings:
    """Of a run, not of its results.

    Attributes:
        attempts: of a unit, before its file is set aside.
        overwrite: replace copies that were there before the job.
        retry_failed: try again what was set aside.
        cost_per_node_hour: in whatever currency.
        together: the most segments of a video that one worker gets at a time, where each machine has to copy a video
            first; fewer when there is too little left for all.
    """

    attempts: int = 3
    overwrite: bool = False
    retry_failed: bool = False
    cost_per_node_hour: float | None = None
    together: int = 1


@dataclass(frozen=True)
class Event:
    """Something that happened, for who looks on.

    Attributes:
        kind: `plan`, of a video; `segment`, when one is done; `file`, when one is finished; `failure`, of a unit;
            `progress`, every second or so.
        values: under names that tell what they are; of a file, what `ledger.File` has, and `notes`; of progress, see
            `progress`.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)


def identified(job: Job, executor: Executor) -> tuple[Job, list[str]]:
    """Loads the networks where the units will run.

    Returns:
        The job, with the engine that was chosen and the networks' identity; and what the user should know.

    Raises:
        ValueError: they cannot be loaded.
    """
    outcomes: list[Outcome] = []
    while not outcomes or outcomes[0].is_lost:
        executor.submit(0, job, Task("identify"))
        outcomes = []
        while not outcomes:
            outcomes = executor.wait(1.0)
    result = outcomes[0].result
    if result.error is not None:
        raise ValueError(result.error)
    found = result.value
    known = replace(
        job.networks, engine=found["engine"], provider=found["provider"], identity=tuple(found["identity"].items())
    )
    return replace(job, networks=known), found["notes"]


def require_same(job: Job, kept: Kept) -> None:
    """Notes what the results of a job depend on, or checks that it is what an earlier run has noted.

    Raises:
        ValueError: it is not.
    """
    parameters = {"source": job.source, **dict(job.options), **dict(job.networks.identity or ())}
    known = {name: value for name, value in kept.ledger.job().items() if name != "format"}
    if not known:
        kept.ledger.begin(parameters)
        return
    differing = restore.journal.differences(known, parameters)
    if differing:
        raise ValueError(
            f"an earlier run of this archive had another {differing}; go on with what it had then, or begin anew with "
            "--restart"
        )


class Driver:
    """One run over an archive.

    Attributes:
        frames: that this run has restored.
        seconds: of video, likewise.
    """

    def __init__(
        self,
        job: Job,
        executor: Executor,
        kept: Kept,
        destination: Place,
        settings: Settings,
        tell: Callable[[Event], None],
    ) -> None:
        """Prepares it; `tell` is called for each event."""
        self.frames = 0
        self.seconds = 0.0
        self._job = job
        self._executor = executor
        self._kept = kept
        self._destination = destination
        self._ledger = kept.ledger
        self._settings = settings
        self._tell = tell
        self._running: dict[int, tuple[Unit, ...]] = {}
        self._lost: collections.Counter[int] = collections.Counter()
        self._see_at = 0.0
        self._copy_at = time.monotonic() + _COPY_SECONDS

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes up those files of the source that the ledger does not have yet, and those to be tried again."""
        ledger = self._ledger
        known = {file.name: file for file in ledger.files()}
        taken: dict[str, str] = {}
        for name in known:
            taken.setdefault(self._expected_target(name), name)
        wanted = self._to_be_done([entry for entry in entries if entry.name not in known], taken)
        for entry in entries:
            file = known.get(entry.name)
            is_first = taken[self._expected_target(entry.name)] == entry.name
            if file is not None and is_first and self._is_wanted_again(file, entry):
                ledger.forget_all(entry.name)
                ledger.change(entry.name, state="waiting", message=None, size=entry.size, version=entry.version)
                wanted.append(entry)
        for names in _batches(wanted, self._executor.room()):
            ledger.add("begin", names)
        ledger.recover()
        ledger.begin_run(time.time(), self._settings.cost_per_node_hour)
        ledger.commit()
        self._kept.copy()
        # Of workers that were killed.
        self._destination.remove(TEMPORARY)

    def _to_be_done(self, fresh: Sequence[Entry], taken: dict[str, str]) -> list[Entry]:
        """Those of some new files whose copies are not there and get names of their own, which are `taken` then."""
        self._ledger.add_files(fresh)
        there = {entry.name for entry in self._destination.entries()} if fresh else set()
        wanted = []
        for entry in fresh:
            target = self._expected_target(entry.name)
            first = taken.setdefault(target, entry.name)
            if first != entry.name:
                message = f"its copy would get the name of that of {first}; rename one of them"
                self._finish(entry.name, {"state": "failed", "message": message})
            elif target in there and not self._settings.overwrite:
                message = f"{target} exists already (--overwrite replaces it)"
                self._finish(entry.name, {"state": "skipped", "target": target, "message": message})
            else:
                wanted.append(entry)
        return wanted

    def _expected_target(self, name: str) -> str:
        """The name of a copy, if the file is what its own name says."""
        media = "video" if files.has_video_name(name) else "image"
        return target_of(name, media, dict(self._job.options)["bits"])

    def _is_wanted_again(self, file: File, entry: Entry) -> bool:
        if file.state == "failed":
            return self._settings.retry_failed
        return file.state in ("waiting", "working") and file.version != entry.version

    def work(self) -> None:
        """Does all that is to be done."""
        try:
            while self._step():
                self._see()
        finally:
            self._ledger.commit()
        if not self._ledger.files("waiting", "working"):
            for name in (SEGMENTS, TEMPORARY):
                self._destination.remove(name)
        self._see(is_end=True)

    def _step(self) -> bool:
        """Hands out units, and takes what has come back; returns whether there was anything to do."""
        together = self._together()
        while self._executor.room() > 0 and (units := self._ledger.take(together)):
            self._running[units[0].number] = units
            self._executor.submit(units[0].number, self._job, self._task(units))
        if not self._running:
            return False
        for outcome in self._executor.wait(_SEE_SECONDS):
            self._take(outcome)
        return True

    def _together(self) -> int:
        """How many segments a worker gets: many, while other videos wait to be begun."""
        most = self._settings.together
        if most == 1 or self._ledger.waiting("begin"):
            return most
        return min(most, max(1, self._ledger.waiting("segment") // max(1, len(self._running))))

    def _task(self, units: tuple[Unit, ...]) -> Task:
        unit = units[0]
        found = tuple(map(self._ledger.file, unit.names))
        records = (record for _, record in self._ledger.records(unit.names[0])) if unit.kind == "join" else ()
        positions = tuple(each.position for each in units if each.position is not None)
        return Task(unit.kind, found, positions, unit.from_start, tuple(records))

    def _take(self, outcome: Outcome) -> None:
        """Draws the consequences of units that have come back."""
        units = self._running.pop(outcome.number)
        if not self._ledger.is_running(units[0]):
            # Their file has been set aside meanwhile.
            return
        result = outcome.result
        if result.is_fatal:
            raise ValueError(f"{result.node}: {result.error}")
        if result.error is None:
            getattr(self, f"_{units[0].kind}_done")(units, result)
        elif len(units) == 1:
            self._failed(units[0], result, outcome.is_lost)
        else:
            self._tell_failure(units[0], result, 0)
            for unit in units:
                # One of them may be the cause; alone it will show. What is done of them is found to be.
                self._ledger.wait_again(unit.number, attempts=0 if outcome.is_lost else 1)

    def _begin_done(self, units: tuple[Unit, ...], result: Result) -> None:
        (unit,) = units
        if len(unit.names) > 1:
            self._ledger.forget(unit)
        for name, value in zip(unit.names, result.value, strict=True):
            if value["state"] == "working":
                self._ledger.forget(unit)
                self._plan(name, value)
            elif value["state"] != "failed":
                self._count(value.get("frames") or 0, value.get("seconds") or 0.0)
                self._finish(name, value)
            elif value.pop("is_final"):
                self._finish(name, value)
            elif len(unit.names) > 1:
                self._ledger.add("begin", [name], attempts=1)
            else:
                self._failed(unit, result._replace(error=value["message"], value=None), is_lost=False)

    def _plan(self, name: str, value: dict[str, Any]) -> None:
        """Takes up the segments of a video."""
        self._tell(Event("plan", {"name": name, **value}))
        del value["notes"]
        self._ledger.change(name, **value)
        self._ledger.add("segment", [name], range(value["segments"]))

    def _segment_done(self, units: tuple[Unit, ...], result: Result) -> None:
        (name,) = units[0].names
        file = self._ledger.file(name)
        for unit, record in zip(units, result.value, strict=True):
            self._ledger.finish(unit, record)
            self._count(record["frames"], (file.seconds or 0.0) * record["frames"] / max(1, file.frames or 1))
            known = {"name": name, "position": unit.position, "frames": record["frames"]}
            # The seconds of several are those of all.
            self._tell(Event("segment", {**known, "together": len(units), **_of(result)}))
        if self._ledger.are_left(name):
            return
        made = self._ledger.records(name)
        wrong = restore.seams([restore.Segment(**record) for _, record in made])
        if not wrong:
            self._ledger.add("join", [name])
        for index in wrong:
            self._ledger.wait_again(made[index][0], from_start=True)

    def _join_done(self, units: tuple[Unit, ...], result: Result) -> None:
        self._finish(units[0].names[0], result.value)

    def _count(self, frames: int, seconds: float) -> None:
        self.frames += frames
        self.seconds += seconds

    def _clear_done(self, units: tuple[Unit, ...], result: Result) -> None:
        self._ledger.forget(units[0])

    def _finish(self, name: str, value: dict[str, Any]) -> None:
        """Notes what has become of a file for good."""
        notes = value.pop("notes", [])
        self._ledger.change(name, **value)
        self._ledger.forget_all(name)
        file = self._ledger.file(name)
        if file.key is not None:
            self._ledger.add("clear", [name])
        self._tell(Event("file", {**file._asdict(), "notes": notes}))

    def _failed(self, unit: Unit, result: Result, is_lost: bool) -> None:
        """Tries a unit again, or sets its files aside."""
        ledger = self._ledger
        self._lost[unit.number] += is_lost
        attempts = unit.attempts + (not is_lost)
        self._tell_failure(unit, result, attempts)
        is_over = result.is_final or attempts >= self._settings.attempts or self._lost[unit.number] >= _LOST_ATTEMPTS
        if unit.kind == "clear":
            # What is left takes room, no more.
            ledger.forget(unit)
        elif len(unit.names) > 1 and not is_lost:
            # One of them may be the cause; alone it will show.
            ledger.forget(unit)
            for name in unit.names:
                ledger.add("begin", [name])
        elif is_over:
            tried = "" if result.is_final else f", {attempts} times" if attempts > 1 else ""
            self._finish(unit.names[0], {"state": "failed", "message": f"{result.error}{tried}"})
        else:
            ledger.wait_again(unit.number, attempts, unit.from_start)

    def _tell_failure(self, unit: Unit, result: Result, attempts: int) -> None:
        values = {"unit": unit.kind, "files": list(unit.names), "position": unit.position, "attempts": attempts}
        self._tell(Event("failure", {**values, "error": result.error, "trace": result.trace, **_of(result)}))

    def _see(self, is_end: bool = False) -> None:
        """Puts everything on the disk every second, and tells how far the run is."""
        begun = time.monotonic()
        if begun < self._see_at and not is_end:
            return
        self._ledger.see(time.time(), self._executor.nodes(), self.frames, self.seconds)
        self._ledger.commit()
        if begun >= self._copy_at:
            self._kept.copy()
            self._copy_at = _again(begun, _COPY_SECONDS)
        self._tell(Event("progress", progress(self._ledger)))
        self._see_at = _again(begun, _SEE_SECONDS)


def _again(begun: float, seconds: float) -> float:
    """When something is to be done again that has just been done: of a large archive it takes long."""
    now = time.monotonic()
    return now + max(seconds, _PAUSES * (now - begun))


def _of(result: Result) -> dict[str, Any]:
    return {"seconds": round(result.seconds, 3), "node": result.node}


def _batches(entries: Sequence[Entry], room: int) -> Iterator[list[str]]:
    """Names of files that are begun together: videos alone, pictures several, but not so many that workers wait."""
    count = min(_BATCH_FILES, max(1, len(entries) // (4 * max(1, room))))
    batch: list[str] = []
    size = 0
    for entry in entries:
        if files.has_video_name(entry.name):
            yield [entry.name]
            continue
        batch.append(entry.name)
        size += entry.size
        if len(batch) >= count or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
