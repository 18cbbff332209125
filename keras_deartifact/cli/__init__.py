"""The command `deartifact`: one sub-command a file.

Exit codes: 0 done; 2 an error, told in one line on stderr, and nothing was written for that file; 3 a video breaks off
or is damaged, and what decodes of it was restored; 130 interrupted. What only an error of this program can cause keeps
its traceback, with exit code 1; in a folder the other files are restored all the same. All but the parser is imported
when it is needed.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_deartifact import __version__, bounds, console
from keras_deartifact.cli import (
    archive,
    bench,
    compare,
    demo,
    interruption,
    isolation,
    models,
    probe,
    restore,
    server,
    study,
)
from keras_deartifact.cli.common import EXIT_CODES, FAILED, INTERRUPTED, INTERRUPTION, Parser, at_least_one, share

__all__ = ["main"]


_WARNINGS = 10


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
    # Not where another program calls this function: it would be there twice.
    if argv is None and arguments.isolated and not arguments.debug:
        output = getattr(arguments, "output", None)
        several = output is not None and arguments.input.is_dir()
        code = isolation.work_apart(None if output is None else Path(output), several)
        if code is not None:
            return code
    try:
        with (
            interruption.terminable(),
            warnings.catch_warnings(),
            bounds.allowing(getattr(arguments, "max_pixels", None)),
        ):
            # Pillow's, about pictures above 89 megapixels, which are what an archive holds.
            warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
            # Of what else Pillow warns is wrong with the file.
            warnings.filterwarnings("always", category=UserWarning, module="PIL")
            warnings.showwarning = _Shown(warnings.showwarning)
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        console.say(INTERRUPTION)
        interruption.leave_if_at_work()
        return INTERRUPTED
    except Exception as error:
        if arguments.debug or not console.is_expected(error):
            raise
        console.say(f"error: {console.sentence(error)}")
        return FAILED


class _Shown:
    """Says a warning of Pillow's in one line, each once and not all of very many, and shows others as Python does."""

    def __init__(self, otherwise: Callable[..., None]) -> None:
        self._otherwise = otherwise
        self._said: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, *more: Any, **named: Any
    ) -> None:
        if category is not UserWarning or "PIL" not in filename:
            self._otherwise(message, category, filename, *more, **named)
            return
        text = " ".join(str(message).split())
        if text not in self._said and len(self._said) < _WARNINGS:
            self._said.add(text)
            console.say(f"warning: {text}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="deartifact",
        description="Takes the compression artefacts out of images and video, at any quality.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"deartifact {__version__}")
    parser.set_defaults(isolated=False)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show Python's traceback of every error")
    reading = Parser(add_help=False)
    reading.add_argument(
        "--max-pixels",
        type=at_least_one,
        metavar="N",
        help="refuse pictures and videos of more pixels, whose few bytes may unpack to more than the memory holds "
        f"(default: {bounds.PICTURE_PIXELS} for a picture, {bounds.FRAME_PIXELS} for a frame of a video)",
    )
    reading.set_defaults(isolated=True)
    model = Parser(add_help=False)
    model.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="a model that ships (see 'deartifact models'), a .tflite, .onnx or .keras file, or the folder of a "
        "SavedModel or of an export; with --server, its name there",
    )
    model.add_argument(
        "--perception",
        type=share,
        default=0.0,
        metavar="P",
        help="from 0, faithful, to 1, sharp: how much the model has of its perceptual variant, which invents texture "
        "that looks natural (default: 0; for models that ship with one, between 0 and 1 on LiteRT)",
    )
    model.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "litert", "onnx", "keras", "saved_model", "serving"),
        help="what runs the model. auto goes by its file; a model that ships, or an export, has several, and gets the "
        "fastest on this machine of LiteRT and, where it is installed, ONNX Runtime, measured once in a second and "
        "remembered with what 'deartifact bench' measures. LiteRT alone needs no more than the base install. serving "
        "asks a --server (default: auto)",
    )
    model.add_argument(
        "--provider",
        default="auto",
        choices=("auto", "tensorrt", "cuda", "migraphx", "coreml", "directml", "qnn", "openvino", "cpu"),
        help="what ONNX Runtime computes on, as far as its package has it; of that auto takes the first that loads, "
        "the processor last, and never tensorrt (default: auto)",
    )
    model.add_argument(
        "--threads", type=at_least_one, metavar="N", help="threads of the engine (default: one a processor)"
    )
    server.add_flags(model)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    restore.add(commands.add_parser, [common, reading, model])
    archive.add(commands.add_parser, [common, reading, model])
    probe.add(commands.add_parser, [common, reading])
    compare.add(commands.add_parser, [common, reading])
    demo.add(commands.add_parser, [common, model])
    models.add(commands.add_parser, [common])
    bench.add(commands.add_parser, [common])
    study.add(commands.add_parser, [common])
    return parser
