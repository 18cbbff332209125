"""The engine "serving": a model on TensorFlow Serving, from elsewhere, as any other `Restorer`.

    restorer = engines.load("shuffle_nano", "serving", server=serving.Server("127.0.0.1:8500"))

Frames are cut into tiles (`Server.tile`, `Server.margin`), as `restore.restore_frames` does; `Server.in_flight` of them
are under way at a time. Each is tried again where that can help (`retries.py`), so that a server that restarts in the
middle only delays the result. A restorer keeps the version of the model that it found first; once the server has it no
longer, it fails. The result is to the bit what the same SavedModel gives here for the same tiles, if the same build of
TensorFlow runs it on the same kind of processor: nothing is lost, doubled or out of order.

Over gRPC float32 frames keep their depth, and uint8 frames take a quarter of the bytes (`grpc_transport.py`). REST
gives the same numbers at many times the cost (`rest_transport.py`). A picture's values are never logged.
"""

from keras_deartifact.engines.network import Network
from keras_deartifact.engines.serving.errors import ServingError
from keras_deartifact.engines.serving.server import Server

__all__ = ["Server", "ServingError", "connect"]


def connect(model: str, server: Server) -> Network:
    """Connects to a model on a server.

    Raises:
        ServingError: the server is not there, has no such model, or one that is no export of this package, or does not
            tell its version.
    """
    # HTTP and TLS take longer to import than the engines that most runs need.
    from keras_deartifact.engines.serving.client import Client

    client = Client(server, model)
    note = f"{server.name} runs {model} version {client.version}"
    return Network(client.restore, client.channels, takes_uint8=True, notes=(note,), version=client.version)
