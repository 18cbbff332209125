"""What the command shows on a terminal: lines, progress, and one sentence for what went wrong."""

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator

# Without a terminal, a line of progress every so often.
_LINE_SECONDS = 30.0

_silent = False

_ADVICE = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EDQUOT: "free some space or write to another disk",
    errno.EFBIG: "write to a file system without that limit",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EROFS: "write to another place with -o",
    errno.EACCES: "check its permissions, or write to another place with -o",
    errno.EPERM: "check its permissions, or write to another place with -o",
}


# Control characters, what turns the direction of writing, and bytes of names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text that a terminal shows in one line and takes no orders from: names and tags may hold anything."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def say(line: str) -> None:
    """Prints a line to stderr, above a progress bar where there is one."""
    line = printable(line)
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None and sys.stderr.isatty():
        tqdm.tqdm.write(f"deartifact: {line}", file=sys.stderr)
    else:
        print(f"deartifact: {line}", file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Prints a line to stdout, above a progress bar where there is one; work goes on where nobody reads it any more."""
    line = printable(line)
    try:
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(line)
        else:
            print(line, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def progress(
    total: int | None,
    name: str,
    unit: str = " frames",
    note: Callable[[], str] | None = None,
    start: int = 0,
) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many are done; it shows that, how many a second, and the time left.

    Args:
        total: how many there are; None where that is not known.
        name: of what is done.
        unit: of the numbers.
        note: returns what else there is to show.
        start: how many were done before.
    """
    if _silent:
        yield lambda done: None
        return
    if not sys.stderr.isatty():
        yield _plain_progress(total, name, unit, note, start)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=start, desc=printable(name), unit=unit, leave=False, dynamic_ncols=True) as bar:

        def show(done: int) -> None:
            if bar.total is not None and done > bar.total:
                # The container stated too few.
                bar.total = None
            if note is not None:
                bar.set_postfix_str(note(), refresh=False)
            bar.update(done - bar.n)

        yield show


def _plain_progress(
    total: int | None, name: str, unit: str, note: Callable[[], str] | None = None, start: int = 0
) -> Callable[[int], None]:
    started = last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_SECONDS or done == start:
            return
        last = now
        rate = (done - start) / (now - started)
        left = unit if total is None or done > total else f"/{total}{unit}, {duration((total - done) / rate)} left"
        more = note() if note is not None else ""
        say(f"{name}: {done}{left}, {rate:.1f}{unit} a second" + (f", {more}" if more else ""))

    return show


def duration(seconds: float) -> str:
    """Seconds as a reader has them: 50 s, 12 min, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextlib.contextmanager
def silent_progress() -> Iterator[None]:
    """Lets no progress be shown within the block: of work in a process that shows nothing of itself."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps what the engines note on stderr, from C++, when they first run, off the terminal."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def is_expected(error: Exception) -> bool:
    """Whether the file, the arguments or the machine can be the cause of an error, and not only this program."""
    # Only where PyAV is in use; importing it here would cost every start of the command.
    av = sys.modules.get("av")
    expected = (ValueError, OSError, MemoryError) if av is None else (ValueError, OSError, MemoryError, av.FFmpegError)
    return isinstance(error, expected)


def sentence(error: Exception) -> str:
    """One line that says what is wrong and what to do."""
    if isinstance(error, FileExistsError):
        text = f"{_named(error)} exists already; pass --overwrite to replace it, or choose another name"
    elif isinstance(error, FileNotFoundError):
        text = f"there is no file or folder {_named(error)}; check the path"
    elif isinstance(error, OSError):
        advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
        text = f"{error.strerror or error}: {_named(error)}; {advice}"
    elif isinstance(error, MemoryError):
        text = "not enough memory; use a smaller picture or a machine with more"
    else:
        text = str(error) if is_expected(error) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _named(error: OSError) -> str:
    return str(error.filename) if error.filename is not None else str(error)
