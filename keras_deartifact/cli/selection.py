"""`--target-fps` and `--time-budget`: the best model that is fast enough on this machine."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from keras_deartifact import console
from keras_deartifact.cli import options
from keras_deartifact.cli.common import frame_count

if TYPE_CHECKING:
    from keras_deartifact.engines import LoadedRestorer, Selection


class Work(NamedTuple):
    """A file to restore: number of frames (None where that is not stated) of so many pixels."""

    path: Path
    media: str
    frames: int | None
    pixels: int


def seconds(text: str) -> float:
    """Reads a duration: 90, 90s, 15m, 2h, 1h30m.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip())
    try:
        hours, minutes, rest = (float(each or 0) for each in (parts.groups() if parts and text.strip() else ("-",) * 3))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 15m or 1h30m, received {text}") from None
    total = 3600 * hours + 60 * minutes + rest
    if not total > 0:
        raise argparse.ArgumentTypeError(f"expected a duration above 0, received {text}")
    return total


def choose_model(arguments: argparse.Namespace, files: Sequence[tuple[Path, str]]) -> None:
    """Sets `arguments.model`, where a speed was asked for, and says which it is and why.

    Args:
        arguments: of the command.
        files: that are to be restored, with what `files.kind` says of them.

    Raises:
        ValueError: a model was given, too; the files hold no video, or one of a length that is not stated; or an
            engine cannot be had.
    """
    if arguments.target_fps is None and arguments.time_budget is None:
        return
    flag = "--target-fps" if arguments.target_fps is not None else "--time-budget"
    if arguments.model is not None or arguments.server is not None:
        raise ValueError(f"{flag} chooses the model; leave out --model and --server.")
    work = [_work(path, media) for path, media in files]
    if not work:
        return
    if arguments.target_fps is not None:
        _by_fps(arguments, work)
    else:
        _by_budget(arguments, work)


def _work(path: Path, media: str) -> Work:
    from PIL import Image

    from keras_deartifact import stills, video

    if media == "image":
        found = stills.series(path)
        with Image.open(path) as picture:
            return Work(path, media, 1 if found is None else found.count, picture.width * picture.height)
    info = video.probe(path)
    return Work(path, media, frame_count(path), info.width * info.height)


def _by_fps(arguments: argparse.Namespace, work: Sequence[Work]) -> None:
    videos = [each for each in work if each.media == "video"]
    if not videos:
        raise ValueError("--target-fps needs a video; for pictures there is --time-budget.")
    largest = max(videos, key=lambda each: each.pixels)
    wanted = arguments.target_fps
    chosen = _select(arguments, largest, wanted * largest.pixels)
    fps = {name: rate / largest.pixels for name, rate in chosen.rates.items()}
    others = "".join(f", {name} {_number(value)}" for name, value in fps.items() if name != chosen.name)
    made = f"{chosen.name}, {_number(fps[chosen.name])} fps of {largest.path.name} on this machine"
    if chosen.is_enough:
        console.say(f"model: {made}; {wanted:g} were asked for{others}")
    else:
        console.say(f"warning: no model makes {wanted:g} fps; the fastest is taken: {made}{others}")


def _by_budget(arguments: argparse.Namespace, work: Sequence[Work]) -> None:
    total = 0
    for each in work:
        if each.frames is None:
            raise ValueError(f"--time-budget needs to know how long a video is. Received: {each.path}, not stated")
        total += each.frames * each.pixels
    budget = arguments.time_budget
    # The largest video, or without any the largest picture, tells the speed of all.
    sample = max(work, key=lambda each: (each.media == "video", each.pixels))
    chosen = _select(arguments, sample, total / budget)
    needed = {name: total / rate for name, rate in chosen.rates.items()}
    others = "".join(f", {name} {console.duration(value)}" for name, value in needed.items() if name != chosen.name)
    takes = f"{chosen.name}, about {console.duration(needed[chosen.name])} on this machine"
    if chosen.is_enough:
        console.say(f"model: {takes}; {console.duration(budget)} are allowed{others}")
    else:
        console.say(
            f"warning: no model needs less than {console.duration(budget)}; the fastest is taken: {takes}{others}"
        )


def _select(arguments: argparse.Namespace, sample: Work, wanted: float) -> "Selection":
    """Rates are pixels a second."""
    from keras_deartifact import engines

    loaded: dict[str, LoadedRestorer] = {}

    def alone(name: str) -> float:
        with console.silenced():
            choice = arguments.engine, arguments.threads, arguments.provider, None, arguments.perception
            loaded[name] = engines.load(name, *choice)
            height, width = engines.SPEED_SIZE
            return engines.speed(loaded[name], height, width) * height * width

    def whole(name: str) -> float:
        if sample.media == "image":
            return alone(name)
        fps = _trial(arguments, loaded[name], sample.path)
        return alone(name) if fps is None else fps * sample.pixels

    chosen = engines.select(engines.general_models(arguments.perception > 0.0), wanted, alone, whole)
    arguments.model = chosen.name
    return chosen


def _trial(arguments: argparse.Namespace, restorer: "LoadedRestorer", source: Path) -> float | None:
    """Frames a second of a whole run; None where a few frames do not tell it."""
    from keras_deartifact import engines, restore

    given = options.of_file(arguments, source, "video")
    suffix = source.suffix if arguments.input.is_dir() else Path(arguments.output).suffix
    try:
        with console.silenced():
            predictor = engines.load_predictor(threads=arguments.threads)
            return restore.trial(restorer, source, suffix or ".mkv", predictor=predictor, **given)
    except (ValueError, OSError):
        # The run itself will say so.
        return None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
