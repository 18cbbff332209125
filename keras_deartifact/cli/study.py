"""`deartifact study`: create, serve and analyse."""

import argparse
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deartifact import console
from keras_deartifact.cli.common import DONE, Parser, as_json, within

if TYPE_CHECKING:
    from keras_deartifact.study import Analysis, Opinion


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command, with sub-commands of its own."""
    parser = add_parser(
        "study",
        help="let people rate pictures and videos, and analyse their ratings",
        description="A rating test with people, as ITU-T P.910 has it: absolute category rating on five points with a "
        "hidden reference. 'create' makes its folder, 'serve' shows it to raters, 'analyse' says what they rated.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_create(commands.add_parser, parents)
    _add_serve(commands.add_parser, parents)
    _add_analyse(commands.add_parser, parents)


def _add_create(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    parser = add_parser(
        "create",
        parents=parents,
        help="make the folder of a study",
        description="Makes the folder of a study from folders of pictures or short videos (.mp4 or .webm) that have "
        "the same names but for the extension. Raters see one at a time, in an order of their own; what was done to it "
        "cannot be told from the page. PNG, JPEG and WebP are shown as they are, other pictures as PNG.",
    )
    parser.add_argument(
        "--condition",
        action="append",
        required=True,
        type=_condition,
        metavar="NAME=FOLDER",
        help="what was done to the originals, and where the results are; may be given several times",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, metavar="FOLDER", help="the originals, rated like the others, unnamed"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="STUDY", help="the folder to make")
    parser.add_argument(
        "--training",
        type=_whole,
        metavar="N",
        help="how many are shown first, for practice, from all over the range of quality; they are rated and not "
        "analysed (default: 3)",
    )
    parser.add_argument(
        "--training-item",
        action="append",
        default=[],
        metavar="NAME",
        help="a file, named without its extension, that is for practice only, and all practice is on such files, as "
        "P.910 advises; may be given several times (default: practice is on files of the test)",
    )
    parser.add_argument(
        "--repeats",
        type=_whole,
        metavar="N",
        help="how many are shown twice, to see how consistent a rater is (default: 3)",
    )
    parser.add_argument(
        "--seed", type=_whole, metavar="N", help="of all random choices and orders (default: a random one)"
    )
    parser.add_argument("--title", default="Picture quality", help="shown to raters (default: Picture quality)")
    parser.add_argument("--question", help="shown below every picture (default: How good is the quality?)")
    parser.set_defaults(run=_create)


def _add_serve(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    parser = add_parser(
        "serve",
        parents=parents,
        help="show a study to raters and store their ratings",
        description="Serves a study until Ctrl-C. Every rating is on the disk before its page goes on, in "
        "STUDY/ratings.sqlite; a rater who comes back goes on where they stopped. Nothing is stored of a rater but "
        "scores and times, sizes of screen and window, and the names of browser and system.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="a folder made by 'create'")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen: 127.0.0.1 is this computer only; 0.0.0.0 is all its networks, so that phones in the "
        "same Wi-Fi can rate, and so can everyone else there (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="0 takes any that is free (default: 8000)"
    )
    parser.set_defaults(run=_serve)


def _add_analyse(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    parser = add_parser(
        "analyse",
        parents=parents,
        help="print the mean opinion scores of a study",
        description="Prints the mean opinion score (MOS) of each condition with its 95 % confidence interval, the "
        "difference to the hidden reference (DMOS: 5 is as good as the original), and which raters ITU-R BT.500 "
        "leaves out. A study may be analysed while it is served.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="a folder made by 'create'")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write everything as JSON, each item and each rater included; '-' prints that and no table",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw a box plot of the scores, .png, .svg or .pdf; needs pip install 'keras_deartifact[measure]'",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_analyse)


def _condition(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, received {text}")
    return name, Path(folder)


def _whole(text: str) -> int:
    return within(text, int(text), 0, 2**63 - 1)


def _port(text: str) -> int:
    return within(text, int(text), 0, 65535)


def _create(arguments: argparse.Namespace) -> int:
    from keras_deartifact import study
    from keras_deartifact.study import creation

    conditions = dict(arguments.condition)
    if len(conditions) < len(arguments.condition):
        raise ValueError(
            f"expected a name of its own for each condition. Received: {[*map(_first, arguments.condition)]}"
        )
    with console.progress(None, str(arguments.output), " files") as step_to:
        made = study.create_study(
            arguments.output,
            conditions,
            arguments.reference,
            title=arguments.title,
            question=arguments.question or creation.QUESTION,
            training=arguments.training,
            repeats=arguments.repeats,
            training_items=arguments.training_item,
            seed=arguments.seed,
            progress=step_to,
        )
    print(
        f"{arguments.output}: {len(made.items)} files under {len(made.conditions)} conditions "
        f"({', '.join(made.conditions)}); a rater sees {len(made.training)} for practice, then {len(made.rated)} and "
        f"{len(made.repeats)} of them twice"
    )
    print(f"Now: deartifact study serve {arguments.output}")
    return DONE


def _first(pair: tuple[str, Path]) -> str:
    return pair[0]


def _serve(arguments: argparse.Namespace) -> int:
    from keras_deartifact import study

    with study.StudyServer(arguments.study, arguments.host, arguments.port) as server:
        # A service manager's way to say what Ctrl-C says.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            print(f"{server.study.title}: {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            rows = server.ratings.rows()
            print(f"{server.ratings.path}: {len(rows)} ratings by {len({row.rater for row in rows})} raters")
        finally:
            signal.signal(signal.SIGTERM, before)
    return DONE


def _analyse(arguments: argparse.Namespace) -> int:
    from keras_deartifact import files, study
    from keras_deartifact.study import plan

    source = arguments.study / plan.PLAN
    targets = [Path(each) for each in (arguments.json, arguments.plot) if each is not None and each != "-"]
    for target in targets:
        files.check_target(source, target, arguments.overwrite)
    found = study.analyse(arguments.study)
    text = as_json(dataclasses.asdict(found))
    if arguments.plot is not None:
        with files.replacing(source, arguments.plot, arguments.overwrite) as temporary:
            study.box_plot(found, temporary)
    if arguments.json == "-":
        print(text)
        return DONE
    if arguments.json is not None:
        with files.replacing(source, arguments.json, arguments.overwrite) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    for line in _lines(found):
        print(line)
    return DONE


def _lines(found: "Analysis") -> Iterator[str]:
    from keras_deartifact.study.analysis import SCREENED_FROM

    incomplete = sum(not each.complete for each in found.raters)
    yield f"{found.title}: {len(found.raters)} raters" + (f", {incomplete} of them stopped early" if incomplete else "")
    yield ""
    width = max(9, *map(len, found.conditions))
    yield f"{'':<{width}}{'MOS':>7}{'95 %':>8}{'S':>7}{'N':>7}{'DMOS':>8}{'95 %':>8}"
    for name, each in found.conditions.items():
        difference = found.differences.get(name)
        cells = "" if difference is None else f"{_number(difference.mean):>8}{_interval(difference):>8}"
        yield f"{name:<{width}}{_row(each)}{cells}"
    if found.rejected:
        yield ""
        yield "before screening"
        yield from (f"{name:<{width}}{_row(each)}" for name, each in found.before_screening.items())
    yield ""
    yield from _screening_lines(found, SCREENED_FROM)
    if found.repeat_difference is not None:
        yield f"what was shown twice got scores {found.repeat_difference:.2f} apart, the mean of the raters"


def _screening_lines(found: "Analysis", enough: int) -> Iterator[str]:
    for each in found.raters:
        if each.screening.rejected:
            far = f"{each.screening.above} far above and {each.screening.below} far below the mean"
            yield f"rater {each.number} is left out by BT.500: {far} of {each.screening.count}"
    if not found.rejected:
        few = len(found.raters) < enough
        yield f"BT.500 leaves nobody out, as it cannot of fewer than {enough}" if few else "BT.500 leaves nobody out"


def _row(each: "Opinion") -> str:
    return f"{_number(each.mean):>7}{_interval(each):>8}{_number(each.deviation):>7}{each.count:>7}"


def _interval(each: "Opinion") -> str:
    return "-" if each.interval is None else f"±{each.interval:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
