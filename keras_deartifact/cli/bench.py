"""`deartifact bench`."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import console
from keras_deartifact.cli.common import DONE, Parser, aligned, as_json, at_least_one

if TYPE_CHECKING:
    from keras_deartifact.bench import SizeReport, Skipped

# What the libraries that numpy may be built on read when they are loaded.
_BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "bench",
        parents=parents,
        help="measure how fast this machine restores",
        description="Measures frames a second at 720p and 1080p: each model by itself, with every engine that is "
        "installed, beside the machine's peak (a product of large float32 matrices in the same process, in turns with "
        "the rest); the quality predictor; decoding, conversion and encoding; and whole runs of 'restore', each in a "
        "process of its own, whose peak memory is told, with LiteRT and with the fastest engine where that is another. "
        "Ratios are to the first row. Takes some minutes; nothing else should run meanwhile. How fast the engines are "
        "is remembered, and '--engine auto' of the other commands goes by it, for the same number of threads.",
        epilog="Each number is the median over the rounds, with the lowest and the highest in brackets; '-': not known "
        "here. Exit code: 0 done; 2 an error; 130 interrupted.",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help="a model that ships (see 'deartifact models'), a .tflite, .onnx or .keras file, or the folder of a "
        "SavedModel or of an export; may be given several times (default: a model of every architecture that ships: "
        "others of the same are as fast)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        choices=("litert", "onnx", "keras", "saved_model", "ensemble"),
        help="measure this engine alone; may be given several times (default: all that are installed and have a form "
        "of the model, ONNX Runtime with each of its providers but tensorrt)",
    )
    parser.add_argument(
        "--size",
        action="append",
        type=_size,
        metavar="WxH",
        help="of the frames, in pixels; may be given several times (default: 1280x720 and 1920x1080)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="about how long each thing is measured at each size, whole runs apart; at least 7 times (default: 3)",
    )
    parser.add_argument(
        "--threads", type=at_least_one, metavar="N", help="threads of the engines (default: one a processor)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of tiny frames, to see that it works; its numbers mean nothing, and are not remembered",
    )
    parser.add_argument("--json", metavar="FILE", help="write all values as JSON; '-' prints that and no table")
    parser.add_argument("--overwrite", action="store_true", help="replace the JSON file if it exists")
    parser.set_defaults(run=_bench)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = map(int, found.groups()) if found else (0, 0)
    if min(width, height) < 16 or width % 2 or height % 2:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT, both even and at least 16, such as 1280x720. Received: {text}"
        )
    return width, height


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds. Received: {text}")
    return seconds


def _bench(arguments: argparse.Namespace) -> int:
    matrix_limited = _limit_matrix_product(arguments.threads or os.cpu_count() or 1)
    from keras_deartifact import bench, demo, files, restore

    target = None if arguments.json in (None, "-") else Path(arguments.json)
    if target is not None:
        # Before the work, not after it.
        files.check_target(demo.CLIP, target, arguments.overwrite)
    settings = bench.QUICK if arguments.quick else bench.STANDARD
    settings = replace(
        settings,
        sizes=tuple(dict.fromkeys(arguments.size or settings.sizes)),
        seconds=arguments.seconds or settings.seconds,
    )
    with console.silenced():
        subjects, skipped = bench.load(arguments.model, arguments.threads, arguments.engine)
    with console.progress(bench.turns(subjects, settings), "bench", " turns") as step_to:
        turns = iter(range(1, bench.turns(subjects, settings) + 1))
        reports = bench.measure(
            subjects,
            demo.CLIP,
            restore_frames=restore.restore_frames,
            restore_video=restore.restore_video,
            settings=settings,
            threads=arguments.threads,
            step=lambda: step_to(next(turns)),
        )
    machine = bench.machine(arguments.threads)
    notes = bench.notes(subjects, matrix_limited)
    if not arguments.quick:
        with console.silenced():
            notes += bench.remember(subjects, reports, arguments.threads)
    values = {
        "machine": machine,
        "settings": asdict(settings),
        "sha256": bench.digests(subjects),
        "skipped": [asdict(each) for each in skipped],
        "notes": notes,
        "sizes": [asdict(report) for report in reports],
    }
    text = as_json(values)
    if arguments.json == "-":
        print(text)
        return DONE
    if target is not None:
        with files.replacing(demo.CLIP, target, arguments.overwrite) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    for line in _lines(machine, reports, skipped, notes, settings.matrix_side):
        print(line)
    return DONE


def _limit_matrix_product(threads: int) -> bool:
    """Tells numpy's BLAS how many threads to use, as long as it is not loaded; returns whether that was in time."""
    if "numpy" in sys.modules:
        return False
    os.environ.update(dict.fromkeys(_BLAS_THREADS, str(threads)))
    return True


# The table.


def _lines(
    machine: dict[str, Any],
    reports: Sequence["SizeReport"],
    skipped: Sequence["Skipped"],
    notes: Sequence[str],
    matrix_side: int,
) -> Iterator[str]:
    from keras_deartifact import bench

    yield from bench.machine_lines(machine)
    for report in reports:
        yield ""
        yield (
            f"{report.width}x{report.height}; peak, by a product of {matrix_side}x{matrix_side} float32 matrices: "
            f"{bench.cell(report.peak_gmac_per_second)} GMAC/s"
        )
        yield from ("", *aligned(bench.network_table(report.networks), 2))
        yield from ("", *aligned(bench.stage_table(report.stages), 1))
        yield from ("", *aligned(bench.run_table(report.runs), 2))
    yield ""
    for each in skipped:
        yield f"skipped: {each.engine if each.model is None else f'{each.model} ({each.engine})'}: {each.reason}"
    yield from (f"note: {note}" for note in notes)
