"""`deartifact restore`."""

import argparse
import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import console
from keras_deartifact.cli import isolation
from keras_deartifact.cli.common import BROKEN, DONE, EXIT_CODES, FAILED, Parser, frame_count, load_networks, within

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor, Restorer
    from keras_deartifact.restore import ImageReport, VideoReport


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "restore",
        parents=parents,
        help="restore an image, a video, or all of a folder",
        description="Writes a restored copy of an image, of a video (with its timing, audio, subtitles and metadata), "
        "or of every image and video in a folder and the folders in it. How strongly a file was compressed comes from "
        "the file. A copy gets its name only when it is complete; the input is only read.",
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
    parser.add_argument(
        "--strength",
        type=_strength,
        metavar="S",
        help="0 changes nothing, 1 takes what the network makes, up to 2 exaggerates it (default: 1, held back where "
        "it would change more than the compression can account for)",
    )
    parser.add_argument(
        "--codec",
        help="encoder of a video: libx264 (the default, because everything plays it; up to 10 bits), libx265 (the "
        "default for 12 bits; smaller and several times slower), libx264rgb (the default for RGB), libvpx-vp9 (the "
        "default for .webm), libsvtav1, ffv1 (lossless; the default for alpha in .mkv)",
    )
    parser.add_argument(
        "--crf",
        type=float,
        metavar="N",
        help="quality of a video in the encoder's own scale, down is better (default: 14 for H.264 and H.265, 10 for "
        "VP9 and AV1, at which the second encode takes back 0.02 dB of a source of CRF 40 and about 0.1 dB of one of "
        "CRF 28)",
    )
    parser.add_argument(
        "--preset",
        metavar="P",
        help="speed of the encoder against size, in its own words (default: faster for H.264 and H.265, because slower "
        "ones make files a few percent smaller and take the processor from the network)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="of a JPEG, 1 to 100 (default: 98, at which a restored picture keeps what it gained), or of a lossy WebP "
        "(default: lossless)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(8, 16),
        help="of a picture's samples (default: as many as the input has); 16, for PNG and TIFF, keep what the network "
        "makes finer than 8 can hold; in a folder as output, other pictures then become .png",
    )
    parser.add_argument(
        "--within-quantisation",
        action="store_true",
        help="of a JPEG: bring the result into the intervals that the file's own quantisation leaves open, so that it "
        "is a picture which this file can have been made from: recompressed in the same way it gives the same "
        "coefficients, of fine steps nearly all. With a folder as input, files of other formats are restored without "
        "it",
    )
    parser.add_argument(
        "--drop",
        action="store_true",
        help="leave out, and name before work starts, what the output's container or codec cannot hold of a video: "
        "streams, alpha, HDR metadata of single frames; without this such a video is refused, with what can hold it",
    )
    parser.add_argument(
        "--deinterlace",
        action="store_true",
        help="make one progressive frame of each interlaced frame of a video, after it was restored (by default its "
        "fields are restored one by one, and stay fields)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_restore)


def _strength(text: str) -> float:
    return within(text, float(text), 0.0, 2.0)


def _restore(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files

    source, output = arguments.input, Path(arguments.output)
    if source.is_dir():
        return _restore_folder(arguments)
    isolation.working_on(source)
    media = files.kind(source)
    if output.is_dir() or arguments.output.endswith(os.sep):
        output.mkdir(parents=True, exist_ok=True)
        output = output / files.target_name(source, media, arguments.bits)
    files.check_target(source, output, arguments.overwrite)
    line, broken = _restore_file(arguments, load_networks(arguments), source, output, media)
    if broken is not None:
        console.say(f"warning: {broken}")
    console.show(line)
    return DONE if broken is None else BROKEN


def _restore_folder(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files

    source, output = arguments.input, Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"a folder as input needs a folder as output. Received: {output}")
    names = files.files_below(source, output)
    networks = load_networks(arguments)
    counts = {"restored": 0, "incomplete": 0, "skipped": 0, "failed": 0}
    troubles: list[str] = []
    # Of a process before this one, which a file brought down.
    earlier: dict[Path, tuple[str, str, str | None]] = dict(isolation.kept())
    with console.progress(len(names), str(source), " files") as step_to:
        for number, name in enumerate(names, 1):
            if name not in earlier:
                outcomes = _restore_below(arguments, networks, name)
                isolation.keep((name, outcomes))
                console.show(f"[{number}/{len(names)}] {name}: {outcomes[1]}")
            outcome, _, trouble = earlier.get(name) or outcomes
            counts[outcome] += 1
            if trouble is not None:
                troubles.append(f"{'error' if outcome == 'failed' else 'warning'}: {source / name}: {trouble}")
            step_to(number)
    for trouble in troubles:
        console.say(trouble)
    console.show(f"{output}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts["failed"]:
        return FAILED
    return BROKEN if counts["incomplete"] else DONE


def _restore_below(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], name: Path
) -> tuple[str, str, str | None]:
    """Restores one file of a folder; returns what became of it in a word and in a line, and what is wrong."""
    from keras_deartifact import files

    source, output = arguments.input / name, Path(arguments.output)
    try:
        isolation.working_on(source)
        media = files.kind(source)
        target = output / name.parent / files.target_name(name, media, arguments.bits)
        if target.exists() and not arguments.overwrite:
            return "skipped", f"skipped, {target} exists already (--overwrite replaces it)", None
        target.parent.mkdir(parents=True, exist_ok=True)
        line, broken = _restore_file(arguments, networks, source, target, media)
    except files.NotMediaError as error:
        if not files.has_media_name(name):
            return "skipped", "skipped, neither an image nor a video", None
        return "failed", "failed", console.sentence(error)
    except Exception as error:
        if arguments.debug or not console.is_expected(error):
            traceback.print_exc()
        return "failed", "failed", console.sentence(error)
    return "restored" if broken is None else "incomplete", line, broken


def _restore_file(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], source: Path, target: Path, media: str
) -> tuple[str, str | None]:
    """Restores one file; returns the line that says what was done, and why a video is incomplete."""
    from keras_deartifact import restore

    restorer, predictor = networks
    options: dict[str, Any] = {"strength": arguments.strength, "overwrite": arguments.overwrite, "predictor": predictor}
    if media == "image":
        within = arguments.within_quantisation and (not arguments.input.is_dir() or _is_jpeg(source))
        options |= {"quality": arguments.quality, "bits": arguments.bits}
        image = restore.restore_image(restorer, source, target, within_quantisation=within, **options)
        for remark in image.remarks:
            console.say(f"warning: {source}: {remark}")
        return f"{target}: {_image_summary(image)}", None
    options |= {"codec": arguments.codec, "crf": arguments.crf, "preset": arguments.preset, "drop": arguments.drop}
    options |= {"deinterlace": arguments.deinterlace}
    name = f"{source}: " if arguments.input.is_dir() else ""
    options["notice"] = lambda line: console.say(f"{name}left out: {line}")
    with console.progress(frame_count(source), source.name) as step_to:
        report = restore.restore_video(restorer, source, target, progress=step_to, **options)
    return f"{target}: {_summary(report)}", report.broken


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\xff\xd8"


def _image_summary(report: "ImageReport") -> str:
    quality = _quality(report.log2_step, report.predicted_log2_step)
    parts = [f"{report.width}x{report.height} from {quality} in {report.seconds:.1f} s"]
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
        return f"{shown} (the file states {stated:.2f})"
    return f"log2 step {stated:.2f}"
