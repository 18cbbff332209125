"""`deartifact restore`."""

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deartifact import console
from keras_deartifact.cli import interruption, isolation, options, pages, records, selection
from keras_deartifact.cli.common import (
    BROKEN,
    DONE,
    EXIT_CODES,
    INTERRUPTION,
    Parser,
    at_least_one,
    frame_count,
    load_networks,
    within,
)

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor, Restorer
    from keras_deartifact.restore import ImageReport, VideoReport


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "restore",
        parents=parents,
        help="restore an image, a video, or all of a folder",
        description="Writes a restored copy of an image, of an animation, of a video (with its timing, audio, "
        "subtitles and metadata), or of every image and video in a folder and the folders in it. How strongly a file "
        "was compressed comes from the file. A copy gets its name only when it is complete; the input is only read. A "
        "video whose run was interrupted or killed is continued by the same command: what is done of it lies in a "
        "hidden folder beside OUTPUT.",
        epilog=EXIT_CODES + " In a folder, what exists already is left as it is (so that a run which was "
        "interrupted goes on where it ended), and a failure does not stop the rest.",
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="an image, a video or a folder")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUTPUT",
        help="the file to write, whose extension gives the format, or a folder; a folder as input gives a folder with "
        "the same structure, where formats that cannot be written become .png or .mkv",
    )
    options.add_flags(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="begin videos anew that an earlier run left unfinished; without this they are continued, and refused if "
        "the input, the model or an option is not what it was",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, under which names, and what would be refused; write nothing but the --json file",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write what became of every file, what was found of it, and with which model, as JSON; '-' is stdout, "
        "which then holds nothing else",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write an HTML page with up to a dozen frames before and after, how strongly they were compressed and how "
        "much they changed over time, and what was found and done; needs no network",
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--target-fps",
        type=_frames_a_second,
        metavar="F",
        help="take the best model that ships which restores so many frames a second on this machine, by a trial of a "
        "few of the (largest) video's frames; if none does, the fastest, with a warning",
    )
    speed.add_argument(
        "--time-budget",
        type=selection.seconds,
        metavar="DURATION",
        help="the same by the time that the whole run may take, such as 90s, 15m or 1h30m",
    )
    parser.add_argument(
        "--preview",
        type=_seconds,
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="of one file: write a picture, or a video of a few seconds from its middle (default: 5), with the "
        "compressed one on the left and the restored one on the right, instead of a copy",
    )
    folder = parser.add_argument_group("a folder as input")
    options.add_choice(folder, "INPUT")
    folder.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="files at once, each with its share of the processors; helps where files are small (default: 1)",
    )
    parser.set_defaults(run=_restore)


def _seconds(text: str) -> float:
    return within(text, float(text), 0.1, 600.0)


def _frames_a_second(text: str) -> float:
    return within(text, float(text), 0.001, 100000.0)


def _restore(arguments: argparse.Namespace) -> int:
    from keras_deartifact.cli import folders

    records.check(arguments)
    if arguments.input.is_dir():
        return folders.restore_folder(arguments)
    folders.refuse_flags_of_folders(arguments)
    return _restore_single(arguments)


def _restore_single(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files, restore
    from keras_deartifact.cli import plan

    source, output = arguments.input, Path(arguments.output)
    isolation.working_on(source)
    media = files.kind(source)
    if output.is_dir() or arguments.output.endswith(os.sep):
        if not arguments.dry_run:
            output.mkdir(parents=True, exist_ok=True)
        output = output / files.target_name(source, media, arguments.bits)
    if arguments.dry_run:
        if output.parent.is_dir():
            files.check_target(source, output, arguments.overwrite)
        line = plan.would_do(arguments, source, output, media)
        records.tell(arguments, line)
        found = records.found(arguments, source, None)
        records.write(arguments, [records.Record(source, output, "planned", found=found)], None, DONE)
        return DONE
    restore.clean(output)
    files.check_target(source, output, arguments.overwrite)
    selection.choose_model(arguments, [(source, media)])
    networks = load_networks(arguments)
    if arguments.preview is not None:
        return _preview(arguments, networks, source, output, media)
    started = time.perf_counter()
    line, report = restore_file(arguments, networks, source, output, media)
    record = records.done(arguments, source, output, report, time.perf_counter() - started)
    if record.message is not None:
        console.say(f"warning: {record.message}")
    records.tell(arguments, line)
    code = DONE if record.message is None else BROKEN
    records.write(arguments, [record], records.model(networks[0]), code)
    pages.write(arguments, [record], records.model(networks[0]))
    return code


def _preview(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], source: Path, target: Path, media: str
) -> int:
    from keras_deartifact import restore

    restorer, predictor = networks
    given = options.of_file(arguments, source, media) | {"predictor": predictor}
    if media == "image":
        restore.preview_image(restorer, source, target, **given)
        print(f"{target}: compressed on the left, restored on the right")
        return DONE
    with console.progress(None, source.name, note=lambda: _told(restorer)) as step_to:
        seconds = arguments.preview
        count = restore.preview_video(restorer, source, target, seconds=seconds, progress=step_to, **given)
    print(f"{target}: {count} frames, compressed on the left, restored on the right")
    return DONE


def restore_file(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], source: Path, target: Path, media: str
) -> tuple[str, "ImageReport | VideoReport"]:
    """Restores one file; returns the line that says what was done, and the report."""
    from keras_deartifact import restore

    restorer, predictor = networks
    given = options.of_file(arguments, source, media) | {"predictor": predictor}
    if media == "image":
        with contextlib.ExitStack() as stack:
            shown: list[Callable[[int], None]] = []

            def step_to_picture(done: int, total: int) -> None:
                # A single picture needs no bar.
                if not shown:
                    shown.append(stack.enter_context(console.progress(total, source.name)))
                shown[0](done)

            image = restore.restore_image(restorer, source, target, progress=step_to_picture, **given)
        for remark in image.remarks:
            console.say(f"warning: {source}: {remark}")
        return f"{target}: {_image_summary(image, arguments.strength is None)}", image
    name = f"{source}: " if arguments.input.is_dir() else ""
    given["notice"] = lambda line: console.say(f"{name}left out: {line}")
    given["restart"] = arguments.restart

    def say_how_to_continue() -> None:
        if kept := restore.frames_kept(target):
            console.say(f"{name}{kept} frames are done and kept; the same command goes on after them")

    def part_with_the_user() -> None:
        say_how_to_continue()
        console.say(INTERRUPTION)

    start = 0 if arguments.restart else restore.frames_kept(target)
    try:
        with (
            console.progress(frame_count(source), source.name, note=lambda: _told(restorer), start=start) as step_to,
            interruption.prompt(part_with_the_user),
        ):
            report = restore.restore_video(restorer, source, target, progress=step_to, **given)
    except BaseException as error:
        # What is refused says itself what to do.
        if not isinstance(error, ValueError):
            say_how_to_continue()
        raise
    return f"{target}: {_summary(report)}", report


def _told(restorer: "Restorer") -> str:
    """How strongly the last frame was compressed."""
    log2_step = getattr(restorer, "log2_step", None)
    return "" if log2_step is None else f"log2 step {log2_step:.2f}"


def _image_summary(report: "ImageReport", is_judged: bool) -> str:
    quality = f"from {_quality(report.log2_step, report.predicted_log2_step)}"
    if not report.changed:
        quality = "left as they were" if report.frames > 1 else "left as it was"
        quality += ", for no compression shows (--strength 1 restores all the same)," if is_judged else ""
    count = f"{report.frames} pictures of " if report.frames > 1 else ""
    parts = [f"{count}{report.width}x{report.height} {quality} in {report.seconds:.1f} s"]
    if report.inside is not None:
        # Rounded down: 100 says that none is missing.
        parts.append(f"{math.floor(10000 * report.inside) / 100:g} % of its coefficients come back when recompressed")
    if report.left_out:
        parts.append(f"left out: {', '.join(report.left_out)}")
    return "; ".join(parts)


def _summary(report: "VideoReport") -> str:
    parts = [
        f"{report.frames} frames in {report.seconds:.1f} s, {report.fps:.1f} fps, "
        f"inference busy {100 * report.inference_busy:.0f} %, {report.codec}"
    ]
    if report.continued:
        parts.append(f"the first {report.continued} are of an earlier run")
    if not report.states_quantisers:
        parts.append(_quality(None, report.predicted_log2_step))
    if report.skipped:
        parts.append(f"left out: {', '.join(report.skipped)}")
    if report.broken is not None:
        parts.append("INCOMPLETE: the source is damaged or breaks off, and what decodes of it was restored")
    return "; ".join(parts)


def _quality(stated: float | None, predicted: float | None) -> str:
    """What a file states of its compression, or what its pixels show where that counts."""
    from keras_deartifact import quantiser, restore

    shown = "" if predicted is None else f"log2 step {predicted:.2f}, as its pixels show"
    if stated is None:
        return shown
    rule = restore.JPEG_MARGIN, restore.JPEG_EARLIER_LOG2_STEP
    if predicted is not None and quantiser.is_coarser(stated, predicted, *rule):
        return f"{shown} (the file states {stated:.2f})" if stated > restore.LOSSLESS_LOG2_STEP else shown
    return f"log2 step {stated:.2f}"
