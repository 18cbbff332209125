"""What the sub-commands share: exit codes, types of arguments, the networks, tables and JSON."""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from keras_deartifact import console
from keras_deartifact.cli.server import server_of

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor, Restorer

DONE, FAILED, BROKEN, INTERRUPTED = 0, 2, 3, 130

INTERRUPTION = "interrupted; what was not finished is not kept"

EXIT_CODES = (
    "Exit code: 0 done; 2 an error, and nothing was written for that file; 3 a video breaks off or is damaged, and "
    "what decodes of it was restored; 130 interrupted; 1 an error of this program, please report it with its traceback."
)

_Value = TypeVar("_Value")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Says it in one line; argparse would print the usage first."""
        self.exit(FAILED, f"deartifact: error: {message} (see '{self.prog} --help')\n")


def at_least_one(text: str) -> int:
    """Reads a positive whole number."""
    return within(text, int(text), 1, float("inf"))


def within(text: str, value: _Value, low: float, high: float) -> _Value:
    """Returns the value that a text stands for, or says which are allowed."""
    if not low <= value <= high:  # type: ignore[operator]
        raise argparse.ArgumentTypeError(f"expected {low} to {high}, received {text}")
    return value


def share(text: str) -> float:
    """Reads a number of 0 to 1."""
    return within(text, float(text), 0.0, 1.0)


def load_networks(arguments: argparse.Namespace) -> tuple["Restorer", "Predictor"]:
    """Loads what `--model`, `--perception`, `--engine` and the like ask for, and the quality predictor.

    Says on stderr why an engine was chosen, where there was a choice, and what was asked for in vain.
    """
    from keras_deartifact import engines

    restorer, predictor = engines.load_both(
        arguments.model or engines.DEFAULT_MODEL,
        arguments.engine,
        arguments.threads,
        arguments.provider,
        server_of(arguments),
        arguments.perception,
    )
    for note in getattr(restorer, "notes", ()):
        console.say(note)
    return restorer, predictor


def frame_count(source: Path) -> int | None:
    """How many frames a video has as far as its container says."""
    from keras_deartifact import video

    info = video.probe(source)
    if info.frame_count is not None or info.duration is None or info.frame_rate is None:
        return info.frame_count
    return round(info.duration * info.frame_rate)


def as_json(values: Any) -> str:
    """Returns values as text that any reader of JSON takes: without NaN and infinity."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    # Names that are not UTF-8, as JSON escapes them.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def aligned(table: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Yields lines with all columns as wide as their widest cell, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
