"""What became of every file of a run, for `--json`."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import __version__, console
from keras_deartifact.cli.common import as_json

if TYPE_CHECKING:
    from keras_deartifact.engines import Restorer
    from keras_deartifact.restore import ImageReport, VideoReport

_FORMAT = 1

# Of what `description.describe` knows.
_FOUND = (
    "kind format codec mode width height bit_depth pix_fmt frame_rate duration_seconds frame_count page_count "
    "interlaced estimated_quality compression_from log2_step"
).split()


@dataclass(frozen=True)
class Record:
    """What became of a file.

    Attributes:
        source: the file.
        target: its copy; None where it would get none.
        status: `restored`; `incomplete`, restored as far as a damaged video decodes; `skipped`; `failed`; `planned`, of
            a dry run; or `pending`, of a run that was interrupted before.
        seconds: of wall time.
        frames: that were written, or pages; 1 of a picture.
        found: names and values as `deartifact probe --json` has them, and `predicted_log2_step`, the median of what the
            pixels show; of a picture also `changed`, whether the copy differs. Empty unless it was asked for.
        left_out: what the copy does not hold.
        message: why it was skipped, failed or is incomplete.
    """

    source: Path
    target: Path | None
    status: str
    seconds: float | None = None
    frames: int | None = None
    found: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    message: str | None = None


def done(
    arguments: argparse.Namespace, source: Path, target: Path, report: "ImageReport | VideoReport", seconds: float
) -> Record:
    """The record of a file that was restored."""
    from keras_deartifact.restore import ImageReport

    known = found(arguments, source, report.predicted_log2_step)
    if isinstance(report, ImageReport):
        known |= {"changed": report.changed} if known else {}
        return Record(source, target, "restored", seconds, report.frames, known, report.left_out)
    status = "restored" if report.broken is None else "incomplete"
    return Record(source, target, status, seconds, report.frames, known, report.skipped, report.broken)


def found(arguments: argparse.Namespace, source: Path, predicted: float | None) -> dict[str, Any]:
    """What is known of a file, if it was asked for."""
    if arguments.json is None and arguments.report is None:
        return {}
    from keras_deartifact import description

    values = description.describe(source)
    known = {name: values[name] for name in _FOUND if name in values}
    return known | {"predicted_log2_step": None if predicted is None else round(predicted, 2)}


def model(restorer: "Restorer") -> dict[str, Any]:
    """Which model a run has, with the digest of its file."""
    from keras_deartifact import engines

    path: Path | None = getattr(restorer, "path", None)
    return {
        "name": None if path is None else path.name,
        "engine": getattr(restorer, "engine", None),
        "sha256": None if path is None or not path.is_file() else engines.digest(path),
        "perception": getattr(restorer, "perception", 0.0),
    }


def check(arguments: argparse.Namespace) -> None:
    """Checks before work starts that the JSON and the report can be written where they shall go.

    Raises:
        ValueError: one is a folder, in none, or the input, the output or the other one; or there is nothing to report.
    """
    if arguments.report is not None and arguments.dry_run:
        raise ValueError("--report shows what was restored, and --dry-run restores nothing; take --json instead.")
    if arguments.preview is not None:
        for flag in ("report", "json", "dry_run"):
            if getattr(arguments, flag):
                raise ValueError(f"--preview makes no copy, and goes without --{flag.replace('_', '-')}.")
        if arguments.input.is_dir():
            raise ValueError(f"--preview needs one file as input. Received: {arguments.input}")
    taken = {arguments.input.resolve(): "the input", Path(arguments.output).resolve(): "the output"}
    for flag, given in (("--json", arguments.json), ("--report", arguments.report)):
        if given is None or (flag, given) == ("--json", "-"):
            continue
        path = Path(given)
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{flag} must name a file in a folder that exists. Received: {path}")
        if path.resolve() in taken:
            raise ValueError(f"{flag} must name another file than {taken[path.resolve()]}. Received: {path}")
        taken[path.resolve()] = f"that of {flag}"


def tell(arguments: argparse.Namespace, line: str) -> None:
    """Shows a line on stdout, or on stderr where that is for the JSON."""
    if arguments.json == "-":
        console.say(line)
    else:
        console.show(line)


def write(
    arguments: argparse.Namespace, records: Sequence[Record], of_model: dict[str, Any] | None, exit_code: int
) -> None:
    """Writes the JSON where it was asked for.

    Args:
        arguments: of the command.
        records: of all files, in their order.
        of_model: see `model`; None where none was loaded.
        exit_code: that the command will return.

    Raises:
        OSError: the file system does not take it.
    """
    if arguments.json is None:
        return
    counts: dict[str, int] = {}
    for record in records:
        counts[record.status] = counts.get(record.status, 0) + 1
    values = {
        "format": _FORMAT,
        "version": __version__,
        "input": os.fspath(arguments.input),
        "output": os.fspath(arguments.output),
        "dry_run": arguments.dry_run,
        "model": of_model,
        "strength": arguments.strength,
        "exit_code": exit_code,
        "counts": counts,
        "files": [_plain(record) for record in records],
    }
    # Names that are not UTF-8 are escaped as Python has them.
    text = as_json(values).encode("utf-8", "backslashreplace").decode() + "\n"
    if arguments.json == "-":
        print(text, end="", flush=True)
        return
    replace(Path(arguments.json), text)


def replace(path: Path, text: str) -> None:
    """Writes a file that is there in whole or not at all."""
    temporary = path.with_name(f".deartifact-{os.getpid()}{path.suffix}")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(record: Record) -> dict[str, Any]:
    values = asdict(record) | {"source": os.fspath(record.source)}
    values["target"] = None if record.target is None else os.fspath(record.target)
    values["seconds"] = None if record.seconds is None else round(record.seconds, 3)
    return values
