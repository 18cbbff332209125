"""The flags of the engine "serving"."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_deartifact.engines import Server

# By the names of `Server`.
_FLAGS = {
    "version": "server_version",
    "ca": "server_ca",
    "cert": "server_cert",
    "key": "server_key",
    "tile": "server_tile",
    "in_flight": "server_in_flight",
    "deadline_seconds": "server_deadline",
    "patience_seconds": "server_patience",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    group = parser.add_argument_group("a model server (TensorFlow Serving)")
    group.add_argument(
        "--server",
        metavar="ADDRESS",
        help="HOST:PORT of gRPC, which needs pip install 'keras_deartifact[serve]'; grpcs://HOST:PORT over TLS; or "
        "http://HOST:PORT or https://HOST:PORT of REST, which is many times slower",
    )
    group.add_argument(
        "--server-version",
        metavar="N|LABEL",
        help="version of the model, or its label, which is looked up once (default: the newest that the server has)",
    )
    group.add_argument(
        "--server-ca", type=Path, metavar="PEM", help="who signs the server's certificate (default: the usual ones)"
    )
    group.add_argument("--server-cert", type=Path, metavar="PEM", help="certificate to show to the server")
    group.add_argument("--server-key", type=Path, metavar="PEM", help="its key")
    group.add_argument(
        "--server-tile",
        type=int,
        metavar="PIXELS",
        help="side of what is sent at a time, margins of 64 included, a multiple of 16 (default: 384)",
    )
    group.add_argument(
        "--server-in-flight", type=int, metavar="N", help="the most tiles that are under way at a time (default: 16)"
    )
    group.add_argument(
        "--server-deadline",
        type=float,
        metavar="SECONDS",
        help="for one request, before it is sent again (default: 30)",
    )
    group.add_argument(
        "--server-patience",
        type=float,
        metavar="SECONDS",
        help="how long a tile is tried before the run is given up, such as while the server restarts (default: 120)",
    )


def server_of(arguments: argparse.Namespace) -> "Server | None":
    """Returns the server that the flags describe; None without `--server`.

    Raises:
        ValueError: they describe none.
    """
    given = {name: getattr(arguments, flag) for name, flag in _FLAGS.items() if getattr(arguments, flag) is not None}
    if arguments.server is None:
        if given:
            flags = ", ".join("--" + _FLAGS[name].replace("_", "-") for name in given)
            raise ValueError(f"{flags} describes a server; give its address with --server, too.")
        if arguments.engine == "serving":
            raise ValueError("--engine serving needs --server HOST:PORT.")
        return None
    from keras_deartifact.engines import Server

    return Server(arguments.server, **given)
