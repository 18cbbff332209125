"""The page of a run, for `--report`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import __version__, console
from keras_deartifact.cli import records
from keras_deartifact.cli.records import Record

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor
    from keras_deartifact.report import Entry

_PICTURES = 12

_HEAD = ("file", "status", "was", "log2 step stated", "log2 step shown", "frames", "seconds", "notes")


def write(arguments: argparse.Namespace, done: Sequence[Record], of_model: dict[str, Any] | None) -> None:
    """Writes the page where it was asked for.

    Args:
        arguments: of the command.
        done: what became of all files, in their order.
        of_model: see `records.model`.

    Raises:
        OSError: the file system does not take it.
    """
    if arguments.report is None:
        return
    import numpy as np

    from keras_deartifact import engines, report

    restored = [record for record in done if record.status in ("restored", "incomplete")]
    # Of many files, some that are evenly spread.
    count = min(len(restored), _PICTURES)
    looked_at = [restored[(2 * place + 1) * len(restored) // (2 * count)] for place in range(count)]
    entries = []
    with console.silenced():
        predictor = engines.load_predictor(threads=arguments.threads)
        predictor(np.zeros((1, 32, 32, 3), np.float32))
    with console.progress(count, Path(arguments.report).name, " files") as step_to:
        for number, record in enumerate(looked_at, 1):
            entries.append(_entry(arguments, record, _PICTURES // count, predictor))
            step_to(number)
    rows = [_row(arguments, record) for record in done] if arguments.input.is_dir() else []
    title = f"{_plain(arguments.input.name or arguments.input)}, restored"
    page = report.page(title, _facts(arguments, of_model), _HEAD, rows, entries)
    records.replace(Path(arguments.report), page)
    console.say(f"report: {arguments.report}")


def _entry(arguments: argparse.Namespace, record: Record, count: int, predictor: "Predictor | None") -> "Entry":
    from keras_deartifact import report

    target = record.target or record.source
    looked = report.samples(
        record.source,
        target,
        record.found["kind"],
        count=count,
        frames=record.frames or 1,
        predictor=predictor,
    )
    return report.Entry(_name(arguments, record), looked, _facts_of(record))


def _facts(arguments: argparse.Namespace, of_model: dict[str, Any] | None) -> dict[str, str]:
    known = of_model or {}
    strength = "held back to what the compression can account for"
    facts = {
        "input": _plain(arguments.input),
        "output": _plain(arguments.output),
        "model": f"{known.get('name') or 'unknown'}, engine {known.get('engine') or 'unknown'}",
        "its SHA-256": str(known.get("sha256") or "unknown"),
        "strength": strength if arguments.strength is None else f"{arguments.strength:g}",
        "program": f"deartifact {__version__}",
    }
    return facts


def _facts_of(record: Record) -> dict[str, str]:
    found = record.found
    facts = {"was": _was(found), "copy": _plain(record.target or "")}
    facts["compression"] = str(found.get("compression_from", "unknown"))
    if found.get("estimated_quality") is not None:
        facts["JPEG quality"] = str(found["estimated_quality"])
    stated, shown = _steps(found)
    facts["log2 step stated"] = stated or "not stated"
    facts["log2 step shown by the pixels"] = shown or "not looked at"
    if record.frames is not None and record.seconds is not None:
        word = "pages" if found.get("page_count") else "frames"
        frames = f"{record.frames} {word} in " if found.get("kind") == "video" or record.frames > 1 else ""
        facts["restored"] = f"{frames}{record.seconds:.1f} s"
    if found.get("changed") is False:
        facts["pixels"] = "left as they were"
    if record.left_out:
        facts["left out"] = ", ".join(record.left_out)
    if record.message is not None:
        facts["incomplete"] = record.message
    return facts


def _row(arguments: argparse.Namespace, record: Record) -> list[str]:
    seconds = "" if record.seconds is None else f"{record.seconds:.1f}"
    frames = "" if record.frames is None else str(record.frames)
    unchanged = ["left as it was"] if record.found.get("changed") is False else []
    notes = [
        *([record.message] if record.message else []),
        *unchanged,
        *(f"left out: {each}" for each in record.left_out),
    ]
    was, steps = _was(record.found), _steps(record.found)
    return [_name(arguments, record), record.status, was, *steps, frames, seconds, "; ".join(map(_plain, notes))]


def _was(found: dict[str, Any]) -> str:
    """Format, size and length."""
    if not found:
        return ""
    parts = [f"{found.get('format') or found.get('codec')}", f"{found['width']}x{found['height']}"]
    if found.get("bit_depth"):
        parts.append(f"{found['bit_depth']} bits")
    if found.get("page_count"):
        parts.append(f"{found['page_count']} pages")
    if found.get("duration_seconds") is not None:
        parts.append(f"{found['duration_seconds']:.1f} s")
    return ", ".join(parts)


def _steps(found: dict[str, Any]) -> tuple[str, str]:
    """What is stated, of a video its first frames' mean, and what the pixels show."""
    stated, shown = found.get("log2_step"), found.get("predicted_log2_step")
    number = stated["mean"] if isinstance(stated, dict) else stated
    return "" if number is None else f"{number:.2f}", "" if shown is None else f"{shown:.2f}"


def _name(arguments: argparse.Namespace, record: Record) -> str:
    return _plain(record.source.relative_to(arguments.input) if arguments.input.is_dir() else record.source.name)


def _plain(name: str | os.PathLike[str]) -> str:
    """A name as text that any browser takes: bytes that are no UTF-8 are escaped."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()
