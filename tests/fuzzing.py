"""Feeds broken files to the command, each in a process of its own, and says where it does what it must not.

    python tests/fuzzing.py --cases=2000 --seed=1 --keep=FOLDER

A case is a sample of `fuzz_samples`, changed by a generator that the seed and the case's number fix, and a command. The
network is replaced by one that changes nothing: what is fuzzed is what reads and writes files. Every case must end by
itself within the limits below, with a documented exit code, and one line on stderr for each thing that is wrong;
without traces outside its output folder, and without a temporary file in it. What fails is kept in FOLDER.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fuzz_mutations import mutated
from fuzz_samples import PICTURES, write_samples

ROOT = Path(__file__).resolve().parents[1]
MEMORY_MB = 400
"""The most that a case may have in memory. The process has 90 before it begins; 150 is the most that was seen."""

SECONDS = 60
"""A case that takes longer hangs. The slowest took a tenth of a second."""

MAX_PIXELS = 1_000_000
"""What the command is told with `--max-pixels`."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `trouble` is what it did that it must not, or None."""

    number: int
    name: str
    mutation: str
    command: str
    code: int
    seconds: float
    memory_mb: float
    trouble: str | None


def command_of(generator: np.random.Generator, picture: bool, broken: str) -> list[str]:
    """The arguments of a case, run in a folder that holds `in/` with the broken file, the whole one, and `out/`."""
    kind = generator.choice(["restore", "restore", "restore", "folder", "probe", "compare"])
    limit = f"--max-pixels={MAX_PIXELS}"
    if kind == "folder":
        return ["restore", "in", "-o", "out", "--preset=ultrafast", limit]
    if kind == "probe":
        return ["probe", broken, *(["--json"] if generator.integers(2) else []), limit]
    if kind == "compare":
        return ["compare", "whole", broken, "--metrics=psnr", limit]
    suffix = generator.choice([".png", ".jpg", ".tif", ".webp"] if picture else [".mkv", ".mp4", ".ts", ".webm"])
    extra = [["--drop"], ["--strength=1"], ["--bits=16", "--drop"], ["--within-quantisation", "--drop"], []]
    codec = ["--codec=ffv1"] if suffix == ".mkv" and generator.integers(2) else ["--preset=ultrafast"]
    given = extra[int(generator.integers(len(extra)))]
    return ["restore", broken, "-o", f"out/new{suffix}", *given, *(codec if suffix != ".webm" else []), limit]


def cases(
    seed: int, numbers: Sequence[int], samples: dict[str, Path]
) -> Iterator[tuple[int, str, bytes, bytes, str, list[str]]]:
    """Yields `(number, sample, whole file, broken file, changes, arguments)`; a case depends on no other."""
    names = sorted(samples)
    contents = {name: path.read_bytes() for name, path in samples.items()}
    for number in numbers:
        generator = np.random.default_rng((seed, number))
        name = names[number % len(names)]
        broken, changes = mutated(contents[name], generator, list(contents.values()))
        arguments = command_of(generator, name in PICTURES, f"in/broken{samples[name].suffix}")
        yield number, name, contents[name], broken, changes, arguments


def _child(arguments: list[str], folder: Path) -> None:
    """Runs the command in this process, which ends with it."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    from keras_deartifact import cli

    code = 70
    try:
        code = cli.main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_case(number: int, name: str, changes: str, arguments: list[str], folder: Path) -> Outcome:
    """Runs one case in a fork of this process.

    Args:
        number: of the case.
        name: of its sample.
        changes: what was done to it.
        arguments: of the command.
        folder: holds what `command_of` says.
    """
    before = _tree(folder)
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        _child(arguments, folder)
    status, usage = _wait(process, started + SECONDS)
    seconds = time.monotonic() - started
    memory = usage.ru_maxrss / 1024
    code = os.waitstatus_to_exitcode(status)
    trouble = _trouble(code, memory, seconds, folder, before)
    return Outcome(number, name, changes, " ".join(arguments), code, round(seconds, 3), round(memory, 1), trouble)


def _wait(process: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    pause = 0.002
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return status, usage
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            return os.wait4(process, 0)[1:]
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _tree(folder: Path) -> dict[str, str]:
    """Every file below a folder but for the streams and what is below `out/`, with its hash."""
    kept = {"stdout", "stderr"}
    return {
        os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if path.name not in kept and "out" not in path.relative_to(folder).parts[:1]
    }


def _trouble(code: int, memory: float, seconds: float, folder: Path, before: dict[str, str]) -> str | None:
    """What a case did that it must not, or None."""
    errors = (folder / "stderr").read_text(errors="replace")
    if code < 0:
        return f"killed after {SECONDS} s" if seconds >= SECONDS else f"ended by {signal.Signals(-code).name}"
    if code not in (0, 2, 3):
        return f"exit code {code}: {' '.join(errors.split())[-600:]}"
    lines = errors.splitlines()
    strange = [line for line in lines if not line.startswith("deartifact: ")]
    if strange:
        return f"stderr holds {strange[0][:300]!r}"
    if (code == 2) != any(line.startswith("deartifact: error: ") for line in lines):
        return f"exit code {code} with {lines}"
    if memory > MEMORY_MB:
        return f"{memory:.0f} MB of memory"
    if _tree(folder) != before:
        return "files outside the output folder changed"
    written = [path for path in (folder / "out").rglob("*") if path.is_file()]
    if any(path.name.startswith(".deartifact-") for path in written):
        return "a temporary file is left"
    if code == 2 and written:
        return "a file in spite of an error"
    return None


def prepare() -> None:
    """Imports what every case needs, and puts a network that changes nothing in the place of the real ones."""
    import PIL.Image

    from keras_deartifact import cli, compare, description, engines, quantiser, restore  # noqa: F401

    PIL.Image.init()
    engines.load = lambda *arguments: lambda frames, quantiser_map=None: frames
    engines.load_predictor = lambda *arguments, **options: (
        lambda images: np.full((len(images), *quantiser.map_shape(*images.shape[1:3])), 3.0, np.float32)
    )


def run(
    seed: int, numbers: Sequence[int], keep: Path | None = None, told: Callable[[Outcome], None] | None = None
) -> list[Outcome]:
    """Runs cases; returns their outcomes.

    Args:
        seed: of all cases.
        numbers: which ones.
        keep: a folder for the files of cases that fail.
        told: called with each outcome.
    """
    prepare()
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "samples").mkdir()
        written = write_samples(place / "samples")
        for number, sample, whole, broken, changes, arguments in cases(seed, numbers, written):
            folder = place / str(number)
            (folder / "in").mkdir(parents=True)
            (folder / "out").mkdir()
            (folder / "in" / f"broken{written[sample].suffix}").write_bytes(broken)
            (folder / "whole").write_bytes(whole)
            outcome = run_case(number, sample, changes, arguments, folder)
            outcomes.append(outcome)
            if told is not None:
                told(outcome)
            if outcome.trouble is not None and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copytree(folder, keep / f"{seed}-{number}-{sample}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    return outcomes


def main() -> int:
    """Runs cases; prints the outcomes as JSON, and those that fail on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DEARTIFACT_FUZZ_SEED", "1")))
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="a folder for the files of cases that fail")
    given = parser.parse_args()

    def told(outcome: Outcome) -> None:
        if outcome.trouble is not None:
            sys.stderr.write(f"{outcome}\n")

    numbers = range(given.first, given.first + given.cases)
    outcomes = run(given.seed, numbers, given.keep, told)
    sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes]))
    return int(any(outcome.trouble is not None for outcome in outcomes))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    sys.exit(main())
