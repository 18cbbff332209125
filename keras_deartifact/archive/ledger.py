"""What is to be done, what is done and what failed, of a whole archive: one SQLite file with one writer, the driver.

    job     the parameters that all results depend on
    files   a row for each file of the source; it stays
    units   a row for each piece of work on files that are not finished; they go when the file is
    runs    a row for each run of the driver, with what it has seen so far

A unit is `waiting`, `running` (which after a restart means waiting: nobody is left who would tell of it) or `done`.
Changes count once `commit` has put them on the disk. Names are kept as bytes: on Linux they need not be text.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from keras_deartifact.archive.storage import Entry

FORMAT = 1

STATES = ("restored", "incomplete", "skipped", "failed", "working", "waiting")
"""Of a file; `incomplete` is restored as far as a damaged video decodes."""

FINISHED = STATES[:4]

# What is nearly finished comes first: so little is begun at a time, and what is begun gets done.
KINDS = {"join": 0, "segment": 1, "begin": 2, "clear": 3}
"""Of a unit, see `units.py`, with its place in the queue."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, size INTEGER, version TEXT, state TEXT DEFAULT 'waiting', target BLOB, media TEXT,
    sha256 TEXT, key TEXT, segments INTEGER, frames INTEGER, seconds REAL, message TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_state ON files (state);
CREATE TABLE IF NOT EXISTS units (
    number INTEGER PRIMARY KEY, place INTEGER, kind TEXT, names TEXT, file BLOB, position INTEGER,
    from_start INTEGER DEFAULT 0, state TEXT DEFAULT 'waiting', attempts INTEGER DEFAULT 0, result TEXT
);
CREATE INDEX IF NOT EXISTS units_by_state ON units (state, place, number);
CREATE INDEX IF NOT EXISTS units_by_file ON units (file, kind, position);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY, started REAL, seen REAL, nodes INTEGER, node_seconds REAL DEFAULT 0,
    frames INTEGER DEFAULT 0, video_seconds REAL DEFAULT 0, cost_per_node_hour REAL
);
"""


class File(NamedTuple):
    """A file of the archive.

    Attributes:
        name: below the source.
        size: in bytes.
        version: see `storage.Entry`.
        state: see `STATES`.
        target: name of its copy below the destination, once that is known.
        media: `image` or `video`, once that is known.
        sha256: of its content, once that was read.
        key: of a video's segments, a folder's name; see `units.py`.
        segments: how many there are; None where a video is restored in one piece.
        frames: how many were restored; of a video at work, how many there are.
        seconds: of video; 0 of a picture.
        message: why it was skipped, failed or is incomplete.
    """

    name: str
    size: int
    version: str
    state: str
    target: str | None
    media: str | None
    sha256: str | None
    key: str | None
    segments: int | None
    frames: int | None
    seconds: float | None
    message: str | None


class Unit(NamedTuple):
    """A piece of work.

    Attributes:
        number: of the unit.
        kind: key of `KINDS`.
        names: of its files.
        position: of a segment in its video.
        attempts: that failed.
        from_start: see `units.Task`.
    """

    number: int
    kind: str
    names: tuple[str, ...]
    position: int | None
    attempts: int
    from_start: bool


class Ledger:
    """The ledger of one job. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Opens it, and makes it where there is none.

        Raises:
            ValueError: the file is no ledger, or one of another version.
        """
        try:
            self._database = sqlite3.connect(path, timeout=30.0, isolation_level="IMMEDIATE")
            self._database.executescript(_SCHEMA)
            known = self.job().get("format", FORMAT)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no ledger of an archive: {error}") from error
        if known != FORMAT:
            raise ValueError(f"{path} is a ledger of another version of this program, format {known}, not {FORMAT}")

    def __enter__(self) -> Self:
        """Returns the ledger."""
        return self

    def __exit__(self, *error: object) -> None:
        """Keeps what was committed."""
        self._database.close()

    def commit(self) -> None:
        """Puts what has changed on the disk."""
        self._database.commit()

    def copy(self, path: Path) -> None:
        """Writes all that was committed to another file; the rest is forgotten."""
        # SQLite would wait for its own writer.
        self._database.rollback()
        target = sqlite3.connect(path)
        try:
            self._database.backup(target)
        finally:
            target.close()

    def job(self) -> dict[str, Any]:
        """The job's parameters; empty before `begin`."""
        return {name: json.loads(value) for name, value in self._database.execute("SELECT name, value FROM job")}

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Notes the parameters of a new job."""
        rows = [(name, json.dumps(value)) for name, value in {"format": FORMAT, **parameters}.items()]
        self._database.executemany("INSERT INTO job VALUES (?, ?)", rows)

    # Files.

    def add_files(self, entries: Iterable[Entry]) -> None:
        """Adds files that wait to be begun; what is known of one already stays."""
        rows = [(os.fsencode(entry.name), entry.size, entry.version) for entry in entries]
        self._database.executemany("INSERT OR IGNORE INTO files (name, size, version) VALUES (?, ?, ?)", rows)

    def files(self, *states: str) -> list[File]:
        """The files in any of some states, or all, sorted by name."""
        query = f"SELECT * FROM files {_where(states)} ORDER BY name"
        return [_file(row) for row in self._database.execute(query, states)]

    def file(self, name: str) -> File:
        """A file that is there."""
        return _file(self._database.execute("SELECT * FROM files WHERE name = ?", (os.fsencode(name),)).fetchone())

    def change(self, name: str, **values: Any) -> None:
        """Changes what is known of a file, see `File`."""
        if values.get("target") is not None:
            values["target"] = os.fsencode(values["target"])
        columns = ", ".join(f"{column} = ?" for column in values)
        self._database.execute(f"UPDATE files SET {columns} WHERE name = ?", (*values.values(), os.fsencode(name)))

    def counts(self) -> dict[str, int]:
        """How many files there are in each state."""
        found = dict(self._database.execute("SELECT state, COUNT(*) FROM files GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def size(self, *states: str) -> int:
        """Bytes of all files in any of some states, or of all."""
        query = f"SELECT COALESCE(SUM(size), 0) FROM files {_where(states)}"
        return int(self._database.execute(query, states).fetchone()[0])

    # Units.

    def add(
        self, kind: str, names: Sequence[str], positions: Sequence[int | None] = (None,), attempts: int = 0
    ) -> None:
        """Adds units that wait, one for each position."""
        text = json.dumps(list(names))
        file = os.fsencode(names[0]) if len(names) == 1 else None
        rows = [(KINDS[kind], kind, text, file, position, attempts) for position in positions]
        self._database.executemany(
            "INSERT INTO units (place, kind, names, file, position, attempts) VALUES (?, ?, ?, ?, ?, ?)", rows
        )

    def take(self, together: int = 1) -> tuple[Unit, ...]:
        """The next unit, or so many segments of a video that none has failed of; they are running from now on."""
        taken = self._waiting("TRUE ORDER BY place, number LIMIT 1")
        if together > 1 and taken and _is_fresh_segment(taken[0]):
            more = "file = ? AND kind = 'segment' AND attempts = 0 AND NOT from_start ORDER BY position LIMIT ?"
            taken = self._waiting(more, os.fsencode(taken[0].names[0]), together)
        numbers = [(unit.number,) for unit in taken]
        self._database.executemany("UPDATE units SET state = 'running' WHERE number = ?", numbers)
        return taken

    def _waiting(self, condition: str, *values: Any) -> tuple[Unit, ...]:
        names = "number, kind, names, position, attempts, from_start"
        rows = self._database.execute(f"SELECT {names} FROM units WHERE state = 'waiting' AND {condition}", values)
        return tuple(Unit(row[0], row[1], tuple(json.loads(row[2])), row[3], row[4], bool(row[5])) for row in rows)

    def waiting(self, kind: str) -> int:
        """How many units of a kind wait."""
        query = "SELECT COUNT(*) FROM units WHERE state = 'waiting' AND place = ?"
        return int(self._database.execute(query, (KINDS[kind],)).fetchone()[0])

    def is_running(self, unit: Unit) -> bool:
        """Whether a unit's result is still waited for."""
        query = "SELECT 1 FROM units WHERE number = ? AND state = 'running'"
        return self._database.execute(query, (unit.number,)).fetchone() is not None

    def finish(self, unit: Unit, result: Any = None) -> None:
        """Notes that a unit is done."""
        values = (json.dumps(result), unit.number)
        self._database.execute("UPDATE units SET state = 'done', result = ? WHERE number = ?", values)

    def wait_again(self, number: int, attempts: int = 0, from_start: bool = False) -> None:
        """Lets a unit wait again, after so many attempts that failed."""
        self._database.execute(
            "UPDATE units SET state = 'waiting', result = NULL, attempts = ?, from_start = ? WHERE number = ?",
            (attempts, from_start, number),
        )

    def forget(self, unit: Unit) -> None:
        """Removes a unit."""
        self._database.execute("DELETE FROM units WHERE number = ?", (unit.number,))

    def forget_all(self, name: str) -> None:
        """Removes the units of a file."""
        self._database.execute("DELETE FROM units WHERE file = ?", (os.fsencode(name),))

    def recover(self) -> None:
        """Lets what an earlier driver has left running wait again."""
        self._database.execute("UPDATE units SET state = 'waiting' WHERE state = 'running'")

    def records(self, name: str) -> list[tuple[int, Any]]:
        """The segments of a video in order: number of the unit, and its result."""
        query = "SELECT number, result FROM units WHERE file = ? AND kind = 'segment' ORDER BY position"
        rows = self._database.execute(query, (os.fsencode(name),))
        return [(number, json.loads(result)) for number, result in rows]

    def segments_done(self) -> dict[str, int]:
        """How many segments are done of each video that is at work."""
        query = "SELECT file, COUNT(*) FROM units WHERE kind = 'segment' AND state = 'done' GROUP BY file"
        return {os.fsdecode(name): count for name, count in self._database.execute(query)}

    def are_left(self, name: str) -> bool:
        """Whether segments of a video are not done."""
        query = "SELECT 1 FROM units WHERE file = ? AND kind = 'segment' AND state != 'done' LIMIT 1"
        return self._database.execute(query, (os.fsencode(name),)).fetchone() is not None

    # Runs.

    def begin_run(self, now: float, cost_per_node_hour: float | None) -> None:
        """Notes that a run begins, at a time in seconds."""
        self._database.execute(
            "INSERT INTO runs (started, seen, cost_per_node_hour) VALUES (?, ?, ?)", (now, now, cost_per_node_hour)
        )

    def see(self, now: float, nodes: int, frames: int, video_seconds: float) -> None:
        """Notes what the run at work has come to; `nodes` of now have been there since it was noted last."""
        self._database.execute(
            "UPDATE runs SET node_seconds = node_seconds + (? - seen) * ?, seen = ?, nodes = ?, frames = ?, "
            "video_seconds = ? WHERE number = (SELECT MAX(number) FROM runs)",
            (now, nodes, now, nodes, frames, video_seconds),
        )

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the last one at the end."""
        names = "started seen nodes node_seconds frames video_seconds cost_per_node_hour".split()
        rows = self._database.execute(f"SELECT {', '.join(names)} FROM runs ORDER BY number")
        return [dict(zip(names, row, strict=True)) for row in rows]


def _where(states: Sequence[str]) -> str:
    return f"WHERE state IN ({','.join('?' * len(states))})" if states else ""


def _is_fresh_segment(unit: Unit) -> bool:
    return unit.kind == "segment" and not unit.attempts and not unit.from_start


def _file(row: Sequence[Any]) -> File:
    values = list(row)
    values[0] = os.fsdecode(values[0])
    values[4] = None if values[4] is None else os.fsdecode(values[4])
    return File(*values)
