"""`deartifact probe`."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deartifact import console
from keras_deartifact.cli import isolation
from keras_deartifact.cli.common import DONE, Parser, as_json


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "probe",
        parents=parents,
        help="print what is known of an image or a video, its quality included",
        description="Prints what is known of an image or a video: format, size, colour, streams, and how strongly it "
        "was compressed. log2_step is what the network is told: the base-2 logarithm of the luma quantiser step.",
    )
    parser.add_argument("input", type=Path, metavar="FILE", help="an image or a video")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    from keras_deartifact import description

    isolation.working_on(arguments.input)
    values = description.describe(arguments.input)
    if arguments.json:
        print(as_json(values))
        return DONE
    for name, value in values.items():
        for line_name, text in _lines(name, value):
            console.show(f"{line_name.replace('_', ' ') + ':' if line_name else '':<22}{text}")
    return DONE


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
