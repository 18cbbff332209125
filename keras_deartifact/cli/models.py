"""`deartifact models`."""

import argparse
from collections.abc import Callable

from keras_deartifact.cli.common import DONE, Parser


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser("models", parents=parents, help="list the models that ship")
    parser.set_defaults(run=_models)


def _models(arguments: argparse.Namespace) -> int:
    del arguments
    from keras_deartifact import engines

    for name in engines.pretrained_models():
        card = engines.card(name)
        mark = " (default)" if name == engines.DEFAULT_MODEL else ""
        print(f"{name}{mark}: {card.get('description', 'no description')}")
    return DONE
