"""The command `deartifact`: restore, probe, demo, models.

Exit codes: 0 done; 2 an error, told in one line on stderr, and nothing was written for that file; 3 a video breaks off
or is damaged, and what decodes of it was restored; 130 interrupted. What only an error of this program can cause keeps
its traceback, with exit code 1; in a folder the other files are restored all the same. All but the parser is imported
when it is needed.
"""

import argparse
import json
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from keras_deartifact import __version__, console

if TYPE_CHECKING:
    from keras_deartifact.engines import Predictor, Restorer
    from keras_deartifact.restore import VideoReport

_DONE, _FAILED, _BROKEN, _INTERRUPTED = 0, 2, 3, 130

_EXIT_CODES = (
    "Exit code: 0 done; 2 an error, and nothing was written for that file; 3 a video breaks off or is damaged, and "
    "what decodes of it was restored; 130 interrupted; 1 an error of this program, please report it with its traceback."
)

_Value = TypeVar("_Value")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see the module.
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        with warnings.catch_warnings():
            # Pillow's, about pictures above 89 megapixels, which are what an archive holds.
            warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
            code: int = arguments.run(arguments)
        return code
    except KeyboardInterrupt:
        console.say("interrupted; what was not finished is not kept")
        return _INTERRUPTED
    except Exception as error:
        if arguments.debug or not console.is_expected(error):
            raise
        console.say(f"error: {console.sentence(error)}")
        return _FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says it in one line; argparse would print the usage first."""
        self.exit(_FAILED, f"deartifact: error: {message} (see '{self.prog} --help')\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="deartifact",
        description="Takes the compression artefacts out of images and video, at any quality.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"deartifact {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show Python's traceback of every error")
    model = _Parser(add_help=False)
    model.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="a model that ships (see 'deartifact models'), a .tflite, .onnx or .keras file, or a SavedModel's folder",
    )
    model.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "litert", "onnx", "keras", "saved_model"),
        help="what runs the model; auto goes by its file. LiteRT is the fastest here for the models that ship, and the "
        "only one that needs no more than the base install (default: auto)",
    )
    model.add_argument(
        "--threads", type=_at_least_one, metavar="N", help="threads of the engine (default: one a processor)"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_restore(commands.add_parser, [common, model])
    _add_probe(commands.add_parser, [common])
    _add_demo(commands.add_parser, [common, model])
    models = commands.add_parser("models", parents=[common], help="list the models that ship")
    models.set_defaults(run=_models)
    return parser


def _add_restore(add: Callable[..., _Parser], parents: list[_Parser]) -> None:
    parser = add(
        "restore",
        parents=parents,
        help="restore an image, a video, or all of a folder",
        description="Writes a restored copy of an image, of a video (with its timing, audio, subtitles and metadata), "
        "or of every image and video in a folder and the folders in it. How strongly a file was compressed comes from "
        "the file. A copy gets its name only when it is complete; the input is only read.",
        epilog=_EXIT_CODES + " In a folder, what exists already is left as it is (so that a run which was "
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
        default=1.0,
        metavar="S",
        help="0 changes nothing, 1 takes what the network makes, up to 2 exaggerates it (default: 1)",
    )
    parser.add_argument(
        "--codec",
        help="encoder of a video: libx264 (the default, because everything plays it; up to 10 bits), libx265 (the "
        "default for 12 bits; smaller and several times slower), libx264rgb (the default for RGB), libvpx-vp9 (the "
        "default for .webm), libsvtav1, ffv1 (lossless)",
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
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_restore)


def _add_probe(add: Callable[..., _Parser], parents: list[_Parser]) -> None:
    parser = add(
        "probe",
        parents=parents,
        help="print what is known of an image or a video, its quality included",
        description="Prints what is known of an image or a video: format, size, colour, streams, and how strongly it "
        "was compressed. log2_step is what the network is told: the base-2 logarithm of the luma quantiser step.",
    )
    parser.add_argument("input", type=Path, metavar="FILE", help="an image or a video")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_probe)


def _add_demo(add: Callable[..., _Parser], parents: list[_Parser]) -> None:
    parser = add(
        "demo",
        parents=parents,
        help="make a short clip look old, restore it, and print what that gained",
        description="Encodes a short lossless clip as an old video, restores that, and compares both files with the "
        "clip. Leaves before.mp4, after.mp4 and side-by-side.png. The clip is from Big Buck Bunny (c) 2008 Blender "
        "Foundation, www.bigbuckbunny.org, CC BY 3.0.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("deartifact-demo"),
        metavar="FOLDER",
        help="where to; what an earlier demonstration left there is replaced (default: deartifact-demo)",
    )
    parser.set_defaults(run=_demo)


def _at_least_one(text: str) -> int:
    return _within(text, int(text), 1, float("inf"))


def _strength(text: str) -> float:
    return _within(text, float(text), 0.0, 2.0)


def _within(text: str, value: _Value, low: float, high: float) -> _Value:
    if not low <= value <= high:  # type: ignore[operator]
        raise argparse.ArgumentTypeError(f"expected {low} to {high}, received {text}")
    return value


def _restore(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files

    source, output = arguments.input, Path(arguments.output)
    if source.is_dir():
        return _restore_folder(arguments)
    media = files.kind(source)
    if output.is_dir() or arguments.output.endswith(os.sep):
        output.mkdir(parents=True, exist_ok=True)
        output = output / files.target_name(source, media)
    files.check_target(source, output, arguments.overwrite)
    line, broken = _restore_file(arguments, _networks(arguments), source, output, media)
    if broken is not None:
        console.say(f"warning: {broken}")
    print(line)
    return _DONE if broken is None else _BROKEN


def _restore_folder(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files

    source, output = arguments.input, Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"a folder as input needs a folder as output. Received: {output}")
    names = files.files_below(source, output)
    networks = _networks(arguments)
    counts = {"restored": 0, "incomplete": 0, "skipped": 0, "failed": 0}
    troubles: list[str] = []
    with console.progress(len(names), str(source), " files") as step_to:
        for number, name in enumerate(names, 1):
            outcome, line, trouble = _restore_below(arguments, networks, name)
            counts[outcome] += 1
            console.show(f"[{number}/{len(names)}] {name}: {line}")
            if trouble is not None:
                troubles.append(f"{'error' if outcome == 'failed' else 'warning'}: {source / name}: {trouble}")
            step_to(number)
    for trouble in troubles:
        console.say(trouble)
    print(f"{output}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts["failed"]:
        return _FAILED
    return _BROKEN if counts["incomplete"] else _DONE


def _restore_below(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], name: Path
) -> tuple[str, str, str | None]:
    """Restores one file of a folder; returns what became of it in a word and in a line, and what is wrong."""
    from keras_deartifact import files

    source, output = arguments.input / name, Path(arguments.output)
    try:
        media = files.kind(source)
        target = output / name.parent / files.target_name(name, media)
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


def _networks(arguments: argparse.Namespace) -> tuple["Restorer", "Predictor"]:
    import numpy as np

    from keras_deartifact import engines

    restorer = engines.load(arguments.model or engines.DEFAULT_MODEL, arguments.engine, arguments.threads)
    predictor = engines.load_predictor(threads=arguments.threads)
    # LiteRT notes on stderr, from C++, what it runs on, when it first runs.
    frames = np.zeros((1, 32, 32, 3), np.float32)
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        restorer(frames, predictor(frames))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    return restorer, predictor


def _restore_file(
    arguments: argparse.Namespace, networks: tuple["Restorer", "Predictor"], source: Path, target: Path, media: str
) -> tuple[str, str | None]:
    """Restores one file; returns the line that says what was done, and why a video is incomplete."""
    from keras_deartifact import restore

    restorer, predictor = networks
    options: dict[str, Any] = {"strength": arguments.strength, "overwrite": arguments.overwrite, "predictor": predictor}
    if media == "image":
        image = restore.restore_image(restorer, source, target, quality=arguments.quality, **options)
        quality = _quality(image.log2_step, image.predicted_log2_step)
        return f"{target}: {image.width}x{image.height} from {quality} in {image.seconds:.1f} s", None
    options |= {"codec": arguments.codec, "crf": arguments.crf, "preset": arguments.preset}
    with console.progress(_frame_count(source), source.name) as step_to:
        report = restore.restore_video(restorer, source, target, progress=step_to, **options)
    return f"{target}: {_summary(report)}", report.broken


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
    from keras_deartifact import restore

    shown = "" if predicted is None else f"log2 step {predicted:.2f}, as its pixels show"
    if stated is None:
        return shown
    if predicted is not None and predicted > stated + restore.JPEG_MARGIN:
        return f"{shown} (the file states {stated:.2f})"
    return f"log2 step {stated:.2f}"


def _frame_count(source: Path) -> int | None:
    """How many frames a video has as far as its container says."""
    from keras_deartifact import video

    info = video.probe(source)
    if info.frame_count is not None or info.duration is None or info.frame_rate is None:
        return info.frame_count
    return round(info.duration * info.frame_rate)


def _probe(arguments: argparse.Namespace) -> int:
    from keras_deartifact import description

    values = description.describe(arguments.input)
    if arguments.json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return _DONE
    for name, value in values.items():
        for line_name, text in _lines(name, value):
            print(f"{line_name.replace('_', ' ') + ':' if line_name else '':<22}{text}")
    return _DONE


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Lines of text for a described value; nested ones become several."""
    if isinstance(value, dict):
        yield name, ", ".join(f"{key} {each}" for key, each in value.items()) or "-"
    elif name == "quantisation_tables":
        for index, table in enumerate(value):
            for row in range(8):
                label = f"table of component {index}" if row == 0 else ""
                yield label, " ".join(f"{step:3d}" for step in table[8 * row : 8 * row + 8])
    elif name == "other_streams":
        for stream in value or ["-"]:
            yield "other stream", stream if isinstance(stream, str) else " ".join(str(each) for each in stream.values())
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    elif isinstance(value, float):
        yield name, f"{value:.2f}"
    else:
        yield name, "not stated" if value is None else str(value)


def _demo(arguments: argparse.Namespace) -> int:
    from keras_deartifact import demo, restore

    restorer, predictor = _networks(arguments)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    before, after, sheet = (folder / name for name in ("before.mp4", "after.mp4", "side-by-side.png"))
    demo.compress(before)
    with console.progress(_frame_count(before), before.name) as step_to:
        report = restore.restore_video(restorer, before, after, predictor=predictor, overwrite=True, progress=step_to)
    rows = {"before.mp4": demo.measure(before), "after.mp4": demo.measure(after)}
    old, new = rows.values()
    labels = ["original", f"H.264, CRF {demo.CRF}: {old.psnr:.2f} dB", f"restored: {new.psnr:.2f} dB"]
    demo.side_by_side(sheet, [demo.CLIP, before, after], labels)
    print(f"Big Buck Bunny (c) 2008 Blender Foundation, CC BY 3.0; {report.frames} frames by x264 at CRF {demo.CRF}")
    print(f"{'':<12}{'PSNR RGB':>10}{'PSNR Y':>10}{'SSIM Y':>10}{'bits/pixel':>12}")
    for name, row in rows.items():
        print(f"{name:<12}{row.psnr:>7.2f} dB{row.psnr_y:>7.2f} dB{row.ssim:>10.4f}{row.bits_per_pixel:>12.3f}")
    gains = new.psnr - old.psnr, new.psnr_y - old.psnr_y, new.ssim - old.ssim
    print(f"{'gain':<12}{gains[0]:>+7.2f} dB{gains[1]:>+7.2f} dB{gains[2]:>+10.4f}")
    print("Means over the frames of the files themselves, decoded: after.mp4 includes the loss of its own encode.")
    print(f"{report.fps:.1f} fps at 640x360, inference busy {100 * report.inference_busy:.0f} %")
    print(f"See {sheet}, {before} and {after}")
    return _DONE


def _models(arguments: argparse.Namespace) -> int:
    del arguments
    from keras_deartifact import engines

    for name in engines.pretrained_models():
        card = engines.card(name)
        mark = " (default)" if name == engines.DEFAULT_MODEL else ""
        print(f"{name}{mark}: {card.get('description', 'no description')}")
    return _DONE
