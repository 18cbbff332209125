"""A `Restorer` that asks a model server, for scripts.

    from serving import client

    restorer = client.connect("shuffle_nano", "127.0.0.1:8500")
    restored = restorer(frames)

The server runs the SavedModel of an export (`python -m export --formats=saved_model`). `restored` is what
`engines.load` of that SavedModel gives, and everything that takes a `Restorer` takes this one: `restore.restore_frames`
for frames whose sides are no multiples of 16, `restore_image`, `restore_video`. On a command line it is
`deartifact restore --engine serving --server 127.0.0.1:8500`.

The client itself is `keras_deartifact.engines.serving`, so that an installed `deartifact` has it, too.
"""

from typing import Any

from keras_deartifact import engines
from keras_deartifact.engines import LoadedRestorer, Server, ServingError

__all__ = ["Server", "ServingError", "connect"]


def connect(model: str, address: str, **options: Any) -> LoadedRestorer:
    """Connects to a model on a server.

    Args:
        model: the name that the server knows it by.
        address: "HOST:PORT" of gRPC, "grpcs://HOST:PORT" of gRPC over TLS, "http[s]://HOST:PORT" of REST.
        **options: of `Server`: version, certificates, tiles, how many at a time, and how long to try.

    Returns:
        A `Restorer`; several threads may use it at a time.

    Raises:
        ServingError: the server is not there, has no such model, or one that is no export.
        ValueError: an option out of range.
        OSError: a certificate cannot be read.
    """
    return engines.load(model, engines.SERVING, server=Server(address, **options))
