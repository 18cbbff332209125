"""The ratings of a study: a SQLite file with one row a rating, on the disk before a rater is told so.

The file is written in WAL mode with `synchronous=FULL`: a rating that `add` has returned for survives a killed process
and a power cut, and readers do not wait for writers. `(rater, position)` is the key, and a rater's ratings are taken in
the order of their positions, so that none is there twice and none is missing in between.
"""

import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from keras_deartifact.study import plan

SITUATION = (
    "seconds",
    "plays",
    "screen_width",
    "screen_height",
    "viewport_width",
    "viewport_height",
    "pixel_ratio",
    "scale",
)
"""Columns of numbers that say how a rating came about.

Seconds from the first sight to the rating; how often a video was started; screen and window in CSS pixels; device
pixels a CSS pixel; device pixels a pixel of the picture, across."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS raters (
    number INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    presentations TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ratings (
    rater INTEGER NOT NULL REFERENCES raters (number),
    position INTEGER NOT NULL CHECK (position >= 0),
    part TEXT NOT NULL CHECK (part IN ('training', 'test', 'repeat')),
    stimulus TEXT NOT NULL,
    score INTEGER NOT NULL CHECK (score BETWEEN 1 AND 5),
    {" ".join(f"{name} REAL," for name in SITUATION)}
    browser TEXT,
    rated_at TEXT NOT NULL,
    PRIMARY KEY (rater, position)
);
"""


class OutOfTurnError(ValueError):
    """A rating for another position than the rater's next.

    Attributes:
        next_position: the one that is expected.
    """

    def __init__(self, next_position: int) -> None:
        super().__init__(f"expected a rating for position {next_position}")
        self.next_position = next_position


@dataclass(frozen=True)
class Rater:
    """A rater: a number from 1, a secret token that lets them go on, and the tokens they are shown, in order."""

    number: int
    token: str
    presentations: tuple[str, ...]


@dataclass(frozen=True)
class Rating:
    """A rating.

    Attributes:
        rater: number of the rater.
        position: of the presentation in the rater's order.
        part: `"training"`, `"test"` or `"repeat"`.
        stimulus: its token.
        score: 1 to 5.
        seconds: from the first sight to the rating.
    """

    rater: int
    position: int
    part: str
    stimulus: str
    score: int
    seconds: float


class Ratings:
    """The file of ratings of a study; made where there is none. For use by many threads, and by several processes.

    Args:
        folder: of the study.
        study: its plan.

    Raises:
        ValueError: the file cannot be used.
    """

    def __init__(self, folder: plan.StrPath, study: plan.Study) -> None:
        self.path = Path(folder) / plan.RATINGS
        self._study = study
        self._lock = threading.Lock()
        with self._explained():
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.execute("PRAGMA foreign_keys=ON")
                self._database.executescript(_SCHEMA)
            except sqlite3.Error:
                self._database.close()
                raise

    def __enter__(self) -> "Ratings":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, after a rating that is being stored."""
        with self._lock:
            self._database.close()

    def add_rater(self) -> Rater:
        """Makes a rater, with an order of their own.

        Raises:
            sqlite3.Error: it cannot be stored now.
        """
        token = secrets.token_urlsafe(16)
        with self._transaction() as execute:
            number = execute("SELECT coalesce(max(number), 0) + 1 FROM raters").fetchone()[0]
            shown = tuple(plan.presentations(self._study, number))
            execute("INSERT INTO raters VALUES (?, ?, ?, ?)", (number, token, json.dumps(shown), _now()))
        return Rater(number, token, shown)

    def rater(self, token: str) -> tuple[Rater, int] | None:
        """The rater with a token, and the position of their next rating; None if there is no such rater."""
        with self._transaction() as execute:
            return self._rater(execute, token)

    def add(
        self, token: str, position: int, score: int, situation: Mapping[str, float] | None = None, browser: str = ""
    ) -> int:
        """Stores a rating; it is on the disk when this returns. The same one a second time changes nothing.

        Args:
            token: of the rater.
            position: of the presentation, the rater's next.
            score: 1 to 5.
            situation: values of `SITUATION`.
            browser: family of the browser.

        Returns:
            The position of the rater's next rating.

        Raises:
            KeyError: there is no such rater.
            OutOfTurnError: it is not the rater's next, and not the one that was stored for that position either.
            sqlite3.Error: it cannot be stored now.
        """
        situation = situation or {}
        with self._transaction() as execute:
            known = self._rater(execute, token)
            if known is None:
                raise KeyError(token)
            rater, next_position = known
            if 0 <= position < next_position:
                place = (rater.number, position)
                stored = execute("SELECT score FROM ratings WHERE rater = ? AND position = ?", place).fetchone()
                if stored == (score,):
                    return next_position
            if position != next_position or position >= len(rater.presentations):
                raise OutOfTurnError(next_position)
            row = (
                rater.number,
                position,
                plan.part(self._study, rater.presentations, position),
                rater.presentations[position],
                score,
                *(situation.get(name) for name in SITUATION),
                browser,
                _now(),
            )
            execute(f"INSERT INTO ratings VALUES ({', '.join('?' * len(row))})", row)
        return position + 1

    def rows(self) -> list[Rating]:
        """All ratings, by rater and position.

        Raises:
            ValueError: the file cannot be read.
        """
        with self._explained(), self._transaction() as execute:
            names = "rater, position, part, stimulus, score, coalesce(seconds, 0)"
            found = execute(f"SELECT {names} FROM ratings ORDER BY rater, position").fetchall()
        return [Rating(*row) for row in found]

    @staticmethod
    def _rater(execute: Callable[..., sqlite3.Cursor], token: str) -> tuple[Rater, int] | None:
        found = execute("SELECT number, presentations FROM raters WHERE token = ?", (token,)).fetchone()
        if found is None:
            return None
        number, shown = found
        count = execute("SELECT count(*) FROM ratings WHERE rater = ?", (number,)).fetchone()[0]
        return Rater(number, token, tuple(_texts(json.loads(shown)))), count

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Gives `execute`; what it did is kept if the block succeeds and undone if it fails."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database.execute
                self._database.execute("COMMIT")
            except BaseException:
                # SQLite has already done it after some errors, such as a full disk.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ValueError(
                f"expected a file of ratings that can be written ({error}); check its permissions and the disk. "
                f"Received: {self.path}"
            ) from error


def _texts(values: Sequence[object]) -> Iterator[str]:
    return (str(each) for each in values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
