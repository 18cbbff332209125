"""`deartifact restore` of a folder: which files, in which order, how many at once, and what became of them."""

import argparse
import contextlib
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import console
from keras_deartifact.cli import isolation, jobs, pages, plan, records, selection
from keras_deartifact.cli.common import BROKEN, DONE, FAILED, INTERRUPTED, load_networks
from keras_deartifact.cli.plan import Planned
from keras_deartifact.cli.records import Record

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor, Restorer

Outcome = tuple[Record, str]
"""What became of a file, and the line that says it."""


def refuse_flags_of_folders(arguments: argparse.Namespace) -> None:
    """Raises ValueError where a flag is given that is about folders, and the input is none."""
    for flag in ("include", "exclude", "jobs"):
        if getattr(arguments, flag) is not None:
            raise ValueError(f"--{flag} needs a folder as input. Received: {arguments.input}")


def restore_folder(arguments: argparse.Namespace) -> int:
    """Restores the files of a folder; returns the exit code.

    Raises:
        ValueError: the output is no folder, or the input itself; or no file matches.
    """
    from keras_deartifact import files

    source, output = arguments.input, Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"a folder as input needs a folder as output. Received: {output}")
    every = files.files_below(source, output)
    names = plan.chosen(every, arguments.include, arguments.exclude)
    if every and not names:
        raise ValueError(f"none of the {len(every)} files matches --include and --exclude. Received: {source}")
    planned = []
    with console.progress(len(names), str(source), " files looked at") as step_to:
        for item in plan.of_folder(arguments, names):
            planned.append(item)
            step_to(len(planned))
    if arguments.dry_run:
        return _Run(arguments, planned).finish(_would_do(arguments, each) for each in planned)
    todo = [(item.source, item.media) for item in planned if item.decided is None and item.media is not None]
    selection.choose_model(arguments, todo)
    run = _Run(arguments, planned)
    if (arguments.jobs or 1) > 1:
        return run.finish(jobs.restore_all(arguments, planned, run.know_model))
    return run.finish(_restore_all(arguments, planned, run))


def _would_do(arguments: argparse.Namespace, item: Planned) -> Outcome:
    if item.decided is not None or item.target is None or item.media is None:
        return _decided(item)
    try:
        line = plan.would_do(arguments, item.source, item.target, item.media)
        known = records.found(arguments, item.source, None)
    except Exception as error:
        return _failed(arguments, item, error)
    return Record(item.source, item.target, "planned", found=known), line.removeprefix(f"{item.source} ")


def _restore_all(
    arguments: argparse.Namespace, planned: Sequence[Planned], run: "_Run"
) -> Generator[Outcome, None, None]:
    """One file after the other, in this process. The networks are loaded even where all is done: errors come first."""
    networks = load_networks(arguments)
    run.know_model(records.model(networks[0]))
    # Of a process before this one, which a file brought down.
    earlier: dict[Path, Outcome] = dict(isolation.kept())
    run.told = len(earlier)
    for item in planned:
        if item.name in earlier:
            yield earlier[item.name]
            continue
        outcome = restore_one(arguments, networks, item)
        isolation.keep((item.name, outcome))
        yield outcome


def restore_one(arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], item: Planned) -> Outcome:
    """Restores a file; an error becomes its outcome."""
    from keras_deartifact.cli.restore import restore_file

    if item.decided is not None or item.target is None or item.media is None:
        return _decided(item)
    started = time.perf_counter()
    try:
        isolation.working_on(item.source)
        item.target.parent.mkdir(parents=True, exist_ok=True)
        line, report = restore_file(arguments, networks, item.source, item.target, item.media)
        seconds = time.perf_counter() - started
        return records.done(arguments, item.source, item.target, report, seconds), line
    except Exception as error:
        return _failed(arguments, item, error)


def _decided(item: Planned) -> Outcome:
    return item.decided or Record(item.source, item.target, "failed"), item.line


def _failed(arguments: argparse.Namespace, item: Planned, error: Exception) -> Outcome:
    if arguments.debug or not console.is_expected(error):
        traceback.print_exception(error)
    return Record(item.source, item.target, "failed", message=console.sentence(error)), "failed"


class _Run:
    """What is told of a folder's files, as they are done and at the end.

    Attributes:
        told: of how many of them an earlier process has told.
    """

    def __init__(self, arguments: argparse.Namespace, planned: Sequence[Planned]) -> None:
        self.told = 0
        self._arguments = arguments
        self._planned = planned
        self._model: dict[str, Any] | None = None
        self._records: list[Record] = []

    def know_model(self, values: dict[str, Any]) -> None:
        """Takes note of the model, see `records.model`."""
        self._model = values

    def finish(self, outcomes: Generator[Outcome, None, None]) -> int:
        """Tells of all files; returns the exit code."""
        try:
            # However it ends, so do the processes that are at work.
            with contextlib.closing(outcomes):
                self._tell_each(outcomes)
        except KeyboardInterrupt:
            left = [Record(each.source, each.target, "pending") for each in self._planned[len(self._records) :]]
            records.write(self._arguments, [*self._records, *left], self._model, INTERRUPTED)
            raise
        code = self._tell_all()
        records.write(self._arguments, self._records, self._model, code)
        pages.write(self._arguments, self._records, self._model)
        return code

    def _tell_each(self, outcomes: Iterator[Outcome]) -> None:
        total = len(self._planned)
        with console.progress(total, str(self._arguments.input), " files") as step_to:
            for number, (item, (record, line)) in enumerate(zip(self._planned, outcomes, strict=True), 1):
                self._records.append(record)
                if number > self.told:
                    records.tell(self._arguments, f"[{number}/{total}] {item.name}: {line}")
                step_to(number)

    def _tell_all(self) -> int:
        """Lists what is wrong, last of all, where it is seen."""
        names = ["planned"] if self._arguments.dry_run else ["restored", "incomplete"]
        counts = dict.fromkeys([*names, "skipped", "failed"], 0)
        for record in self._records:
            counts[record.status] += 1
            if record.status in ("failed", "incomplete"):
                word = "error" if record.status == "failed" else "warning"
                console.say(f"{word}: {record.source}: {record.message}")
        summary = ", ".join(f"{count} {name}" for name, count in counts.items())
        records.tell(self._arguments, f"{self._arguments.output}: {summary}")
        if counts["failed"]:
            return FAILED
        return BROKEN if counts.get("incomplete") else DONE
