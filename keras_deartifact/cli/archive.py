"""`deartifact archive`."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from keras_deartifact import console
from keras_deartifact.cli import options, plan
from keras_deartifact.cli.common import BROKEN, DONE, EXIT_CODES, FAILED, INTERRUPTED, Parser, at_least_one
from keras_deartifact.cli.server import server_of

if TYPE_CHECKING:
    from keras_deartifact.archive.driver import Event
    from keras_deartifact.archive.executors import Executor
    from keras_deartifact.archive.ledger import Ledger
    from keras_deartifact.archive.units import Job

_LOG_SECONDS = 30.0

_TOGETHER = 16


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "archive",
        parents=parents,
        help="restore a whole archive, by several processes or on a Ray cluster",
        description="Restores a tree of files as 'restore' does a folder, by processes of this machine or on a Ray "
        "cluster, where the segments of one video are restored at the same time. Whatever is killed, the same command "
        "goes on with what is not done. A file that fails again and again is set aside with the reason.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a folder, or a URL that fsspec knows (s3://, ...)")
    parser.add_argument(
        "destination",
        nargs="?",
        metavar="DEST",
        help="where the copies go, with the same structure; likewise. On a cluster every node must reach both under "
        "these names. URLs need the extra [cluster]. What is done of unfinished videos, and the ledger, lie in "
        "DEST/.deartifact-archive",
    )
    parser.add_argument(
        "--status", metavar="DEST", help="say how far an archive is and what failed, instead; while it runs or later"
    )
    options.add_flags(parser)
    work = parser.add_argument_group("the work")
    options.add_choice(work, "SOURCE")
    where = work.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="processes of this machine, each with its share of the processors (default: one for two processors)",
    )
    where.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on a Ray cluster instead: HOST:PORT or 'auto' on one of its machines, or ray://HOST:PORT from "
        "elsewhere; needs the extra [cluster], here and there",
    )
    work.add_argument(
        "--attempts",
        type=at_least_one,
        default=3,
        metavar="N",
        help="before a file is set aside (default: 3); one at which nothing can change is not tried again",
    )
    work.add_argument("--retry-failed", action="store_true", help="try again what an earlier run has set aside")
    work.add_argument(
        "--restart",
        action="store_true",
        help="forget what an earlier run has done; without this another model or option than it had is refused",
    )
    work.add_argument("--overwrite", action="store_true", help="replace copies that were there before the archive")
    work.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"deartifact-{os.getuid()}",
        metavar="FOLDER",
        help="of each machine, for copies of what is read by URL (default: in the system's folder for such)",
    )
    seeing = parser.add_argument_group("seeing it")
    seeing.add_argument("--json", type=Path, metavar="LOG", help="append what happens to a file, a line of JSON each")
    seeing.add_argument(
        "--cost-per-node-hour", type=float, metavar="X", help="tell what an hour of video costs, at this price"
    )
    # Files are read by other processes in any case.
    parser.set_defaults(run=_archive, isolated=False)


def _archive(arguments: argparse.Namespace) -> int:
    try:
        return _restore(arguments) if arguments.status is None else _status(arguments)
    except KeyboardInterrupt:
        console.say("interrupted; what is done is kept, and the same command goes on with the rest")
        return INTERRUPTED


def _restore(arguments: argparse.Namespace) -> int:
    if arguments.destination is None:
        raise ValueError("archive needs a SOURCE and a DEST, or --status DEST.")
    from keras_deartifact.archive import driver, keeping, storage

    job = _job(arguments)
    source, destination = storage.place(job.source, arguments.scratch), storage.place(job.destination)
    if source.folder is not None and not source.folder.is_dir():
        raise ValueError(f"expected a folder or a URL to restore. Received: {arguments.source}")
    entries = source.entries(destination)
    if not entries:
        raise ValueError(f"there are no files in {source.url}; check its name")
    names = set(plan.chosen([Path(each.name) for each in entries], arguments.include, arguments.exclude))
    if not names:
        raise ValueError(f"none of the {len(entries)} files matches --include and --exclude. Received: {source.url}")
    entries = [each for each in entries if Path(each.name) in names]
    settings = driver.Settings(
        arguments.attempts,
        arguments.overwrite,
        arguments.retry_failed,
        arguments.cost_per_node_hour,
        # Each machine has to copy a video that is named by URL, before it works on any segment of it.
        together=_TOGETHER if arguments.ray is not None and source.folder is None else 1,
    )
    with (
        keeping.opened(destination, arguments.scratch, arguments.restart) as kept,
        _executor(arguments) as executor,
        _log(arguments.json) as log,
    ):
        job, notes = driver.identified(job, executor)
        driver.require_same(job, kept)
        for note in notes:
            console.say(note)
        with _shown(arguments, log) as tell:
            run = driver.Driver(job, executor, kept, destination, settings, tell)
            run.add(entries)
            run.work()
        return _tell_all(arguments, kept.ledger, log)


def _job(arguments: argparse.Namespace) -> "Job":
    from keras_deartifact import engines
    from keras_deartifact.archive import networks, resources, storage, units

    server = server_of(arguments)
    model = arguments.model or engines.DEFAULT_MODEL
    taken = resources.of(arguments.engine, arguments.provider)
    if arguments.ray is not None:
        threads = arguments.threads or int(taken.cpus)
    else:
        threads = arguments.threads or max(1, (os.cpu_count() or 1) // _jobs(arguments))
    packed = None
    if arguments.ray is not None and server is None:
        packed = networks.pack(model, storage.place(_absolute(arguments.destination)))
    names = "strength quality bits within_quantisation codec crf preset drop deinterlace".split()
    return units.Job(
        source=_absolute(arguments.source),
        destination=_absolute(arguments.destination),
        networks=networks.Networks(
            model, arguments.engine, arguments.provider, threads, server, arguments.perception, packed
        ),
        options=tuple((name, getattr(arguments, name)) for name in names),
        max_pixels=arguments.max_pixels,
        scratch=os.fspath(arguments.scratch.absolute()),
    )


def _absolute(url: str) -> str:
    return url if "://" in url else os.path.abspath(url)


def _jobs(arguments: argparse.Namespace) -> int:
    return int(arguments.jobs or max(1, (os.cpu_count() or 1) // 2))


def _executor(arguments: argparse.Namespace) -> "Executor":
    from keras_deartifact.archive import cluster, executors, resources

    if arguments.ray is not None:
        return cluster.Ray(arguments.ray, resources.of(arguments.engine, arguments.provider, arguments.threads))
    if arguments.debug:
        return executors.Inline()
    return executors.Processes(_jobs(arguments))


@contextlib.contextmanager
def _log(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that appends a line to the log, if there is one."""
    with contextlib.ExitStack() as stack:
        file: IO[str] | None = None if path is None else stack.enter_context(path.open("a", encoding="utf-8"))

        def write(values: dict[str, Any]) -> None:
            if file is not None:
                file.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
                file.flush()

        yield write


@contextlib.contextmanager
def _shown(arguments: argparse.Namespace, log: Callable[[dict[str, Any]], None]) -> Iterator[Callable[["Event"], None]]:
    """Gives a function that shows what happens, and writes it to the log."""
    from keras_deartifact.archive import progress

    latest: dict[str, Any] = {}
    logged = 0.0
    name = f"{arguments.source}"
    with console.progress(100, name, " %", note=lambda: progress.line(latest)) as step_to:

        def tell(event: "Event") -> None:
            nonlocal logged
            values = event.values
            if event.kind == "progress":
                latest.update(values)
                step_to(int(100 * values["share"]))
                if time.monotonic() - logged < _LOG_SECONDS and values["share"] < 1:
                    return
                logged = time.monotonic()
            elif event.kind == "failure":
                sys.stderr.write(values["trace"])
                console.say(f"{', '.join(values['files'])}: attempt {values['attempts']} failed: {values['error']}")
            elif event.kind == "file":
                # What failed is listed at the end, with the reason.
                reason = f", {values['message']}" if values["state"] == "skipped" else ""
                console.show(f"{values['name']}: {values['state']}{reason}")
            for note in values.get("notes", ()):
                console.say(f"{values['name']}: {note}")
            log({"event": event.kind, **values})

        yield tell


def _tell_all(arguments: argparse.Namespace, ledger: "Ledger", log: Callable[[dict[str, Any]], None]) -> int:
    counts = ledger.counts()
    for state, word in (("failed", "error"), ("incomplete", "warning")):
        for file in ledger.files(state):
            console.say(f"{word}: {file.name}: {file.message}")
    code = FAILED if counts["failed"] else BROKEN if counts["incomplete"] else DONE
    names = ("restored", "incomplete", "skipped", "failed")
    console.show(f"{arguments.destination}: {', '.join(f'{counts[name]} {name}' for name in names)}")
    log({"event": "end", "counts": {name: counts[name] for name in names}, "exit_code": code})
    return code


def _status(arguments: argparse.Namespace) -> int:
    from keras_deartifact.archive import keeping, progress, storage

    if arguments.source is not None:
        raise ValueError("--status goes without SOURCE and DEST of its own.")
    destination = storage.place(_absolute(arguments.status))
    with keeping.looked_at(destination, arguments.scratch) as (ledger, is_at_work):
        for line in progress.status(ledger, is_at_work):
            console.show(line)
    return DONE
