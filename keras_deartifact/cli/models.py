"""`deartifact models`."""

import argparse
from collections.abc import Callable

from keras_deartifact.cli.common import DONE, Parser


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser("models", parents=parents, help="list the models that ship")
    parser.add_argument(
        "--engines",
        action="store_true",
        help="list also what can run each of them, and the speeds that --engine auto goes by",
    )
    parser.set_defaults(run=_models)


def _models(arguments: argparse.Namespace) -> int:
    from keras_deartifact import engines

    for name in engines.pretrained_models():
        card = engines.card(name)
        mark = " (default)" if name == engines.DEFAULT_MODEL else ""
        print(f"{name}{mark}: {card.get('description', 'no description')}")
        if arguments.engines:
            for engine, speeds in engines.remembered(name).items():
                print(f"  {engine}: {_speeds(speeds)}")
    return DONE


def _speeds(speeds: dict[str, float]) -> str:
    if not speeds:
        return "not measured"
    if not any(speeds.values()):
        return "does not load"
    return ", ".join(f"{fps:.1f} fps at {size}" for size, fps in speeds.items() if fps)
